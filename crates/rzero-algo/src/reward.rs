//! What a completion earns: the Challenger for a question at the edge of the Solver's ability, the Solver for the majority answer.
//!
//! With p the vote share, |C_k| / B the share of the batch in the question's cluster, and lambda the weight of repetition; lambda |C_k| / B is
//! joined by mu |M_k| / |M|, the share of all earlier questions that the question is like, where the profile remembers them:
//!
//! ```text
//! paper      r = max(0, (1 - 2 |p - 1/2|) - lambda |C_k| / B)     malformed: 0
//! released   r = min(p, 1 - p) - lambda |C_k| / B                 malformed: -1 - lambda |C_k| / B
//! verdicts   as the paper's, with p the mean verdict on the answers: most for questions on which verdicts spread
//! ```
//!
//! Sources: the paper, arXiv 2508.05004, sections 3.2 and 3.3; the released code, R-Zero at 5699329. Departures:
//!
//! 1. Both forms are here under their names. They differ by more than a scale: the released uncertainty reaches 1/2 at most, so the
//!    same penalty weighs twice as much, and its reward may be negative.
//! 2. p divides by every answer that was asked for, and unreadable answers do not vote (`vote.rs`). The released code divides by
//!    the answers it has, and lets unreadable ones vote.
//! 3. A malformed question belongs to no cluster here, so its penalty is 0 in both forms. The released code clusters malformed
//!    questions too, as empty texts, whose distance to anything is 1: a penalty of 1 / B.
//! 4. The Solver earns for the answer alone. The released code adds a tenth for tags that its own prompt never asks for.

use crate::equivalence::equivalent;
use rzero_schema::vocab::RewardVariant;

/// A Challenger's reward and the parts it is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChallengerReward {
    /// What the update sees.
    pub reward: f64,
    /// Uncertainty part, in the scale of the variant; 0 for a malformed question.
    pub uncertainty: f64,
    /// `lambda |C_k| / B`, to be subtracted.
    pub repetition: f64,
    /// 1 for a well-formed question, else 0.
    pub format: f64,
}

/// Reward of one question. `vote_share` is `None` for a malformed one; `repetition` is
/// `lambda |C_k| / B`, with what the memory adds.
#[must_use]
pub fn challenger_reward(variant: RewardVariant, vote_share: Option<f64>, repetition: f64) -> ChallengerReward {
    let format = if vote_share.is_some() { 1.0 } else { 0.0 };
    let uncertainty = vote_share.map_or(0.0, |share| match variant {
        RewardVariant::Paper | RewardVariant::Verdicts => 1.0 - 2.0 * (share - 0.5).abs(),
        RewardVariant::Released => share.min(1.0 - share),
    });
    let reward = match (variant, vote_share) {
        (RewardVariant::Paper | RewardVariant::Verdicts, Some(_)) => (uncertainty - repetition).max(0.0),
        (RewardVariant::Paper | RewardVariant::Verdicts, None) => 0.0,
        (RewardVariant::Released, Some(_)) => uncertainty - repetition,
        (RewardVariant::Released, None) => -1.0 - repetition,
    };
    ChallengerReward { reward, uncertainty, repetition, format }
}

/// Reward of one Solver rollout: 1 where its canonical answer is the pseudo-label, else 0. Without an answer, 0.
#[must_use]
pub fn solver_reward(answer: Option<&str>, pseudo_label: &str) -> f64 {
    if answer.is_some_and(|answer| equivalent(answer, pseudo_label)) { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vote::{Ballot, vote};
    use proptest::prelude::*;
    use rzero_schema::vocab::AnswerStatus;

    #[test]
    fn the_paper_rewards_a_coin_toss_most() {
        for (share, expected) in [(0.5, 1.0), (0.25, 0.5), (0.75, 0.5), (1.0, 0.0), (0.0, 0.0)] {
            assert_eq!(challenger_reward(RewardVariant::Paper, Some(share), 0.0).reward, expected);
        }
        let penalised = challenger_reward(RewardVariant::Paper, Some(0.5), 0.25);
        let expected = ChallengerReward { reward: 0.75, uncertainty: 1.0, repetition: 0.25, format: 1.0 };
        assert_eq!(penalised, expected);
        assert_eq!(challenger_reward(RewardVariant::Paper, Some(1.0), 0.25).reward, 0.0);
        let malformed = challenger_reward(RewardVariant::Paper, None, 0.0);
        assert_eq!((malformed.reward, malformed.format), (0.0, 0.0));
    }

    #[test]
    fn the_released_form_is_half_as_uncertain_and_goes_below_zero() {
        assert_eq!(challenger_reward(RewardVariant::Released, Some(0.5), 0.0).reward, 0.5);
        assert_eq!(challenger_reward(RewardVariant::Released, Some(0.75), 0.0).reward, 0.25);
        assert_eq!(challenger_reward(RewardVariant::Released, Some(1.0), 0.25).reward, -0.25);
        assert_eq!(challenger_reward(RewardVariant::Released, None, 0.25).reward, -1.25);
        assert_eq!(challenger_reward(RewardVariant::Released, None, 0.0).reward, -1.0);
    }

    #[test]
    fn the_solver_earns_for_the_majority_answer_only() {
        assert_eq!(solver_reward(Some("7"), "7"), 1.0);
        assert_eq!(solver_reward(Some("8"), "7"), 0.0);
        assert_eq!(solver_reward(None, "7"), 0.0);
        assert_eq!(solver_reward(None, "text:none"), 0.0);
    }

    #[test]
    fn reward_and_label_rest_on_the_same_share() {
        let parsed = |answer| Ballot { status: AnswerStatus::Parsed, answer: Some(answer) };
        let unread = Ballot { status: AnswerStatus::NotReadable, answer: None };
        let outcome = vote(&[parsed("1"), parsed("1"), parsed("2"), unread]);
        assert_eq!(outcome.vote_share, 0.5);
        assert_eq!(challenger_reward(RewardVariant::Paper, Some(outcome.vote_share), 0.0).reward, 1.0);
    }

    proptest! {
        #[test]
        fn the_paper_form_stays_between_zero_and_one(share in 0.0..=1.0_f64, cluster in 0.0..=1.0_f64, weight in 0.0..4.0_f64) {
            let found = challenger_reward(RewardVariant::Paper, Some(share), weight * cluster);
            prop_assert!((0.0..=1.0).contains(&found.reward));
            let mirrored = challenger_reward(RewardVariant::Paper, Some(1.0 - share), weight * cluster);
            prop_assert!((found.reward - mirrored.reward).abs() < 1e-12);
        }
    }
}
