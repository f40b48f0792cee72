//! `eval_items` and `eval_results`: what a checkpoint is asked, and every answer it gave.

use crate::table;

table! {
    /// One held-out problem with its exact answer.
    EvalItem = "eval_items", version 1, key ["item_id"] {
        /// Id within the set.
        item_id: String,
        /// Row within the set, from 0.
        row: u64,
        /// The problem.
        question: String,
        /// Canonical form of its answer.
        answer: String,
        /// Subject.
        subject: String,
        /// Level of difficulty; for arithmetic the number of operators.
        level: u32,
        /// Where the item comes from: the generator and its seed, or a benchmark and its revision.
        source: String,
    }
}

table! {
    /// One completion of one held-out problem, graded.
    EvalResult = "eval_results", version 2, key ["item_id", "eval_style", "eval_mode", "sample"] {
        /// Problem.
        item_id: String,
        /// Row of the problem within its set.
        row: u64,
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
        /// Canonical form of its answer.
        answer: Option<String>,
        /// The exact answer.
        gold: String,
        /// Whether the two are equal.
        is_correct: bool,
        /// Whether the completion works in steps (writes the profile's `worked_prefix` before its box).
        is_worked: bool,
    }
}
