//! Choices of the profile: what labels and rewards come from, and what a domain is.

use super::UnknownWord;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

vocabulary! {
    /// How much the answers to a candidate weigh in the vote on it.
    Labeller {
        /// All the same: the paper's.
        Majority = "majority",
        /// By the rank of the Solver's self-certainty: how far from uniform it was.
        SelfCertainty = "self_certainty",
        /// By the rank of its entropy, the lowest first.
        Entropy = "entropy",
        /// None of them: the domain's evaluator says what is right, and the vote share is the share of answers that agree (Absolute Zero).
        Executor = "executor",
        /// By the Verifier's mean verdict; in iteration 1, when it has learned nothing yet, all the same.
        VerifierWeighted = "verifier_weighted",
    }
}

vocabulary! {
    /// What an answer of the Solver in training earns.
    SolverReward {
        /// 1 where it is the pseudo-label.
        Label = "label",
        /// The Verifier's mean verdict on it, less penalties for length and for copying the question.
        Verdict = "verdict",
    }
}

vocabulary! {
    /// What the Verifier is shown.
    AnswerKind {
        /// An answer as it was given.
        Answer = "answer",
        /// Its first half.
        Truncated = "truncated",
        /// Its characters in another order.
        Shuffled = "shuffled",
        /// An answer to another question.
        Exchanged = "exchanged",
    }
}

vocabulary! {
    /// Which Solvers answer the candidates that are voted on.
    LabelSolver {
        /// The one that this iteration's training begins with.
        Newest = "newest",
        /// The one before it.
        Earlier = "earlier",
        /// Both, half of the answers each; where their votes disagree there is no label to train on.
        Both = "both",
    }
}

vocabulary! {
    /// What the Solver is trained towards.
    Objective {
        /// Answers of its own, rewarded where they are the label.
        Grpo = "grpo",
        /// The answers that anchors bring, token by token: supervised fine-tuning.
        Sft = "sft",
    }
}

vocabulary! {
    /// What counts as a question of a domain.
    QuestionKind {
        /// Integer expressions with `+`, `-`, `*` and parentheses.
        Expression = "expression",
        /// Programs in Rhai that end within their bounds and return a number, a truth value or a short text.
        Program = "program",
        /// Any text; nothing is checked beyond the tags and the length.
        Text = "text",
    }
}

vocabulary! {
    /// What counts as an answer in a domain, and when two are the same.
    AnswerForm {
        /// A number in a box; nothing else votes.
        Number = "number",
        /// Mathematics in a box, compared by what it means.
        Maths = "maths",
        /// The letter of a choice in a box.
        Choice = "choice",
        /// The text in a box, compared letter by letter.
        Exact = "exact",
        /// The whole response: no two are the same, and a Verifier judges them by the rubric of its prompt.
        Rubric = "rubric",
    }
}

vocabulary! {
    /// What knows the true answer to a question of a domain.
    Evaluator {
        /// Nothing.
        None = "none",
        /// Exact arithmetic, of expressions and of sums in words.
        Expression = "expression",
        /// The interpreter that runs the question.
        Program = "program",
    }
}
