//! `labels`, `curriculum`, `dropped` and `label_probe`: from answers to votes, from votes to what is trained on, and how much of it is true.

use crate::table;

table! {
    /// The vote on one question: its pseudo-label and everything the label follows from.
    Label = "labels", version 3, key ["challenge_id"] {
        /// Question that was voted on.
        challenge_id: String,
        /// Row of the question within its set.
        row: u64,
        /// Question text.
        question: String,
        /// Canonical form of the majority answer; null where no answer could be parsed.
        pseudo_label: Option<String>,
        /// The majority's weight divided by `num_samples`; unparsed answers stay in the denominator.
        vote_share: f64,
        /// The majority's weight less the runner-up's, divided by `num_samples`.
        margin: f64,
        /// Entropy of the parsed answer classes by weight, in nats.
        vote_entropy: f64,
        /// Answers sampled.
        num_samples: u32,
        /// Answers that could be parsed.
        num_parsed: u32,
        /// Answers that hit the length limit.
        num_truncated: u32,
        /// Canonical form of every answer class, the heaviest first.
        class_answers: Vec<String>,
        /// Votes of every class, in the same order.
        class_counts: Vec<u32>,
        /// Weight of every class: its votes, or what `curriculum.labeller` weighs them; in sum the answers that could be parsed.
        class_weights: Vec<f64>,
        /// What became of each sample's answer, in sample order.
        sample_statuses: Vec<String>,
        /// Class of each sample as an index into `class_answers`; -1 where the answer did not vote.
        sample_classes: Vec<i32>,
        /// Where two Solvers answered: whether no other class has more votes than the pseudo-label's, in the answers of each. Where a Verifier may
        /// drop labels: whether its mean verdict on this one's answers is high enough (`verifier.min_score`).
        is_agreed: Option<bool>,
        /// The Verifier's mean verdict on the answers that could be parsed; null where it judged none.
        score: Option<f64>,
    }
}

table! {
    /// A question that passed every gate: what the Solver trains on.
    CurriculumRow = "curriculum", version 1, key ["challenge_id"] {
        /// Question.
        challenge_id: String,
        /// Row of the question within its set.
        row: u64,
        /// Question text.
        question: String,
        /// Canonical form of the majority answer.
        pseudo_label: String,
        /// Share of the samples that agree with it.
        vote_share: f64,
        /// Lead over the runner-up as a share of the samples.
        margin: f64,
        /// Version of the gates that let it pass.
        gate_version: u32,
    }
}

table! {
    /// A candidate that a gate refused. Candidates = curriculum + dropped, always.
    DroppedRow = "dropped", version 1, key ["challenge_id"] {
        /// Question.
        challenge_id: String,
        /// Row of the question within its set.
        row: u64,
        /// Question text; null where the completion was malformed.
        question: Option<String>,
        /// The first gate that refused it.
        drop_reason: String,
        /// `ok`, or why the completion is no question.
        challenge_status: String,
        /// Pseudo-label, where there is one.
        pseudo_label: Option<String>,
        /// Vote share, where there was a vote.
        vote_share: Option<f64>,
        /// Margin, where there was a vote.
        margin: Option<f64>,
        /// Version of the gates.
        gate_version: u32,
    }
}

table! {
    /// One kept question whose pseudo-label was held against the truth.
    LabelCheck = "label_probe", version 1, key ["challenge_id"] {
        /// Question.
        challenge_id: String,
        /// Row of the question among the candidates.
        row: u64,
        /// Question text.
        question: String,
        /// Canonical form of the majority answer.
        pseudo_label: String,
        /// The share of the Solver's answers that agree with it.
        vote_share: f64,
        /// Who says what is true: `exact`, `judge` or `human`.
        truth_source: String,
        /// The true answer; null where it is not known.
        truth: Option<String>,
        /// Whether the label is true: `equal`, `different`, or `unknown` where that could not be told.
        verdict: String,
        /// What the judge wrote, or why it gave no answer; null where no judge was asked.
        judge_reply: Option<String>,
    }
}
