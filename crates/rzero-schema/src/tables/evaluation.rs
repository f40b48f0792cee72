//! `eval_items`, `eval_results` and `judgements`: what a checkpoint is asked, every answer it gave, and second opinions on the grades.

use crate::table;

table! {
    /// One held-out problem with its exact answer.
    EvalItem = "eval_items", version 2, key ["item_id"] {
        /// Id within the set.
        item_id: String,
        /// Row within the set, from 0.
        row: u64,
        /// Benchmark that it belongs to.
        benchmark: String,
        /// The problem, without its choices.
        question: String,
        /// Its choices in order, of which the first is A; empty where the answer is free.
        options: Vec<String>,
        /// Its answer as the source gives it; the letter where there are choices.
        answer: String,
        /// Subject.
        subject: String,
        /// Level of difficulty; for arithmetic the number of operators.
        level: u32,
        /// Where the item comes from: the generator and its seed, or the file of a benchmark.
        source: String,
        /// Licence of the source.
        license: String,
        /// Commit or version of the source.
        revision: String,
        /// BLAKE3 digest of the file it was read from; empty where it was generated.
        digest: String,
    }
}

table! {
    /// One completion of one held-out problem, graded.
    EvalResult = "eval_results", version 3, key ["item_id", "eval_style", "eval_mode", "sample"] {
        /// Problem.
        item_id: String,
        /// Row of the problem within its set.
        row: u64,
        /// Benchmark of the problem.
        benchmark: String,
        /// Subject of the problem.
        subject: String,
        /// Level of the problem.
        level: u32,
        /// `free`, or `worked` where the model was made to work in steps.
        eval_style: String,
        /// `greedy` or `sampled`.
        eval_mode: String,
        /// Number of the completion, from 0.
        sample: u32,
        /// What the model wrote after the prompt.
        completion: String,
        /// Tokens it wrote.
        num_tokens: u32,
        /// `stop` or `length`.
        finish_reason: String,
        /// What became of its answer.
        answer_status: String,
        /// Canonical form of its answer; the letter where there are choices.
        answer: Option<String>,
        /// The problem's answer, as the problem set states it.
        gold: String,
        /// What the grader says of the two: `equal`, `different` or `unknown`.
        verdict: String,
        /// Why it says so.
        grade_reason: String,
        /// Whether the verdict is `equal`.
        is_correct: bool,
        /// Whether the completion works in steps (writes the profile's `worked_prefix` before its box).
        is_worked: bool,
    }
}

table! {
    /// A judge model's opinion on one grade. It stands beside the grader's verdict and never replaces it.
    Judgement = "judgements", version 1, key ["item_id", "eval_style", "eval_mode", "sample"] {
        /// Problem.
        item_id: String,
        /// Row of the problem within its set.
        row: u64,
        /// Benchmark of the problem.
        benchmark: String,
        /// As in the results.
        eval_style: String,
        /// As in the results.
        eval_mode: String,
        /// As in the results.
        sample: u32,
        /// The problem's answer.
        gold: String,
        /// The answer that was graded.
        answer: Option<String>,
        /// What the grader says.
        verdict: String,
        /// What the judge says; null where it could not be asked or its reply could not be read.
        judge_verdict: Option<String>,
        /// What the judge wrote, or why it could not be asked.
        judge_reply: String,
        /// Model that judged, as the profile names it.
        judge_model: String,
    }
}
