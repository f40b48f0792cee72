//! The section `[stability]` of a profile: what is to keep the loop from collapsing. Every key at its first value is the paper's loop.

use crate::profile::{ProfileError, range};
use crate::vocab::LabelSolver;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is to keep the loop from collapsing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StabilitySettings {
    /// Whether the Solver's advantages are multiplied by the vote share of their question, so that a label counts for as much as it was agreed
    /// on (Agent0). False: every label counts the same.
    pub weigh_by_votes: bool,
    /// Share of a Solver step's questions that is drawn from the curricula of earlier iterations, with the labels they were kept with; rounded
    /// to whole questions. 0 draws from this iteration's alone.
    pub replay_share: f64,
    /// Which Solvers answer the candidates of the curriculum: another than the one in training makes mistakes of its own, so the vote is less of
    /// an echo (Co-rewarding).
    pub label_solver: LabelSolver,
}

impl StabilitySettings {
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        range("stability.replay_share", self.replay_share, |v| (0.0..1.0).contains(&v), "at least 0 and less than 1")
    }

    /// How many of a question's `num_samples` answers the newest Solver gives, the first ones; the earlier one gives the others.
    #[must_use]
    pub fn num_of_newest(&self, num_samples: u32) -> u32 {
        match self.label_solver {
            LabelSolver::Newest => num_samples,
            LabelSolver::Earlier => 0,
            LabelSolver::Both => num_samples.div_ceil(2),
        }
    }

    /// Questions of a Solver step of `num_questions` that come from earlier curricula, where there are any.
    #[must_use]
    pub fn num_replayed(&self, num_questions: u64) -> u64 {
        // Shares under 1 of what a step holds: exact.
        ((self.replay_share * num_questions as f64).round() as u64).min(num_questions.saturating_sub(1))
    }
}
