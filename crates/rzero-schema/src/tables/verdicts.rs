//! `verdicts`: what the Verifier says of answers.

use crate::table;

table! {
    /// The verdicts on one answer. Each verdict is a completion in `rollouts`, with this row's `row` and `verdict_id`; where verdicts are
    /// answers of the Verifier's own (`verifier.verdict`), with those of the first answer to the question.
    JudgedAnswer = "verdicts", version 2, key ["verdict_id"] {
        /// `QUESTION/SAMPLE/ROW`: in training a question can come twice.
        verdict_id: String,
        /// Row of its verdicts in `rollouts`.
        row: u64,
        /// Question that was answered.
        challenge_id: String,
        /// The first of the answers that are this one.
        sample: u32,
        /// All answers to the question that are the same text, `sample` the first: its verdicts stand for all.
        equal_samples: Vec<u32>,
        /// `answer`, as it is, or how it was spoilt: `truncated`, `shuffled`, or `exchanged` for an answer to another question.
        kind: String,
        /// The text that was judged.
        response: String,
        /// The text that it was compared with, shown first in one half of the verdicts and second in the other; null where none was.
        other: Option<String>,
        /// What the Verifier was trained towards, or, of a probe, the truth: 1 for a right answer, 0 for a wrong one. Null where neither is.
        target: Option<f64>,
        /// Verdicts that were asked for; 0 where the answer cannot be put to the model.
        num_verdicts: u32,
        /// Those that could be read, each a share of the highest score and for this answer, in sample order.
        scores: Vec<f64>,
        /// Their mean; null where none could be read.
        score: Option<f64>,
        /// Share of them on the side of one half that most are on.
        agreement: Option<f64>,
        /// blake3 of the prompt template, hexadecimal: the rubric.
        rubric: String,
    }
}
