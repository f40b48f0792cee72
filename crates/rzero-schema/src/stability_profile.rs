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
    /// Weight of the share of all earlier candidates that a question is like, in the Challenger's repetition; 0: nothing is remembered (R-Diverse).
    pub memory_weight: f64,
    /// Which Solvers answer the candidates of the curriculum: another than the one in training makes mistakes of its own, so the vote is less of
    /// an echo (Co-rewarding).
    pub label_solver: LabelSolver,
    /// Anchors that the Challenger's prompt shows, drawn anew in every step: its variable `anchors`, of which each has `question` and `answer`
    /// (R-Few).
    pub anchors_shown: u32,
    /// Share of a Solver step's questions that are anchors, with their true answers as labels; rounded to whole questions. With 1 the
    /// Solver trains on nothing else, and needs no Challenger and no curriculum: GRPO on gold labels.
    pub anchor_share: f64,
}

impl StabilitySettings {
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        range("stability.replay_share", self.replay_share, |v| (0.0..1.0).contains(&v), "at least 0 and less than 1")?;
        range("stability.memory_weight", self.memory_weight, |v| v >= 0.0 && v.is_finite(), "0 or more")?;
        range("stability.anchor_share", self.anchor_share, |v| (0.0..=1.0).contains(&v), "from 0 to 1")?;
        let sum = self.replay_share + self.anchor_share;
        let is_whole = self.anchor_share == 1.0 && self.replay_share == 0.0;
        range("stability.replay_share + anchor_share", sum, |v| v < 1.0 || is_whole, "less than 1, or anchor_share alone 1")
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
        // At least one question is new.
        let others = self.num_anchors(num_questions) + 1;
        share_of(self.replay_share, num_questions).min(num_questions.saturating_sub(others))
    }

    /// Questions of a Solver step of `num_questions` that are anchors.
    #[must_use]
    pub fn num_anchors(&self, num_questions: u64) -> u64 {
        if self.is_labelled() {
            num_questions
        } else {
            share_of(self.anchor_share, num_questions).min(num_questions.saturating_sub(1))
        }
    }

    /// Whether the Solver trains on anchors alone.
    #[must_use]
    pub fn is_labelled(&self) -> bool {
        self.anchor_share == 1.0
    }
}

/// A share of what a step holds, in whole questions.
fn share_of(share: f64, num_questions: u64) -> u64 {
    (share * num_questions as f64).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(replay_share: f64, anchor_share: f64) -> StabilitySettings {
        let label_solver = LabelSolver::Newest;
        StabilitySettings {
            weigh_by_votes: false,
            replay_share,
            memory_weight: 0.0,
            label_solver,
            anchors_shown: 0,
            anchor_share,
        }
    }

    #[test]
    fn a_step_has_at_least_one_new_question_unless_it_has_anchors_alone() {
        let parts = |replay, anchors| {
            let settings = settings(replay, anchors);
            (settings.num_replayed(4), settings.num_anchors(4), settings.check().is_ok())
        };
        assert_eq!(parts(0.5, 0.25), (2, 1, true));
        assert_eq!(parts(0.0, 1.0), (0, 4, true));
        assert_eq!(parts(0.6, 0.39), (1, 2, true));
        assert_eq!(parts(0.99, 0.0), (3, 0, true));
        assert!(!parts(0.5, 0.5).2);
        assert!(!parts(0.1, 1.0).2);
        assert!(settings(0.0, 1.5).check().is_err());
    }
}
