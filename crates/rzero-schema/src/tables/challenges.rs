//! `challenges` and `memory`: the Challenger's completions read as questions. Malformed ones stay, with the reason.

use crate::table;

table! {
    /// One Challenger completion read as a question. Every completion has a row, whether or not it is well-formed.
    Challenge = "challenges", version 1, key ["challenge_id"] {
        /// Iteration, phase, step and row in which the question was written.
        challenge_id: String,
        /// Row within its set, from 0.
        row: u64,
        /// `ok`, or why the completion is no question.
        challenge_status: String,
        /// The question, trimmed; null unless the status is `ok`.
        question: Option<String>,
        /// What the Challenger put into its box; never used as a label.
        proposed_answer: Option<String>,
    }
}

table! {
    /// A question that was ever asked, in the cluster of questions that it is like.
    MemoryRow = "memory", version 1, key ["challenge_id"] {
        /// Question.
        challenge_id: String,
        /// Question text.
        question: String,
        /// Number of its cluster, by first occurrence through all iterations.
        cluster: u32,
        /// Whether it is the cluster's leader, the first of it: others are held against it alone.
        is_leader: bool,
        /// BLEU to the leader; 1 of the leader.
        similarity: f64,
    }
}
