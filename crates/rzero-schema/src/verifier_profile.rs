//! The profile's `[verifier]` section: the third role, which judges answers. It is trained and asked where `roles = 3`.

use crate::profile::{DomainSettings, GrpoSettings, Profile, ProfileError, SamplingSettings, range};
use crate::vocab::{AnswerForm, Labeller, Phase, RewardVariant, ScoringRule, SolverReward, StartFrom, VerdictForm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the Verifier is asked and trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifierSettings {
    /// What it writes of an answer: a score, or an answer of its own to hold against it.
    pub verdict: VerdictForm,
    /// The highest score. A verdict is a whole number from 0 to it, in a box, or alone where the prompt opens the box.
    pub max_score: u32,
    /// GRPO steps an iteration.
    pub steps: u32,
    /// Answers a step: of as many questions as that makes, one that agrees with the consensus and one that does not.
    pub num_answers: u64,
    /// Least share of the votes that makes a consensus to learn from.
    pub consensus: f64,
    /// Verdicts on each of them: the group.
    pub group_size: u32,
    /// Share of a step's answers that stand in pairs of an answer and its spoilt form, cut off, shuffled or exchanged for the answer to another
    /// question: 1 and 0. Without a consensus they are all that keeps verdicts from becoming the same for everything.
    pub planted_share: f64,
    /// What a verdict earns by its distance from the target.
    pub scoring: ScoringRule,
    /// Where each iteration's training starts.
    pub start_from: StartFrom,
    /// Verdicts on an answer where they weigh votes or reward the Solver.
    pub num_verdicts: u32,
    /// Least mean verdict on the answers that gave a label, for its question to be kept. 0: verdicts drop none.
    pub min_score: f64,
    /// Answers of the base model to held-out problems that every iteration's Verifier is shown: always the same, so that a drift of its
    /// scores is seen. 0: none.
    pub num_probes: u64,
    /// Where verdicts reward the Solver: taken off times the answer's length, as a share of the longest there can be.
    pub length_penalty: f64,
    /// Where verdicts reward the Solver: taken off times the share of the answer that is copied from the question.
    pub copy_penalty: f64,
    /// How verdicts are sampled.
    pub sampling: SamplingSettings,
    /// Its update.
    pub grpo: GrpoSettings,
}

impl VerifierSettings {
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        let at_least_one = "at least 1";
        range("verifier.max_score", self.max_score, |v| (1..=1000).contains(&v), "from 1 to 1000")?;
        range("verifier.num_answers", self.num_answers, |v| v >= 2 && v % 2 == 0, "an even number, at least 2")?;
        range("verifier.group_size", self.group_size, |v| v >= 2, "at least 2")?;
        range("verifier.consensus", self.consensus, |v| (0.0..=1.0).contains(&v), "from 0 to 1")?;
        range("verifier.min_score", self.min_score, |v| (0.0..=1.0).contains(&v), "from 0 to 1")?;
        range("verifier.planted_share", self.planted_share, |v| (0.0..=1.0).contains(&v), "from 0 to 1")?;
        // Either order as often.
        let is_either = |v: u32| self.verdict != VerdictForm::Comparison || v.is_multiple_of(2);
        range("verifier.group_size", self.group_size, is_either, "an even number, where verdicts compare")?;
        range("verifier.num_verdicts", self.num_verdicts, is_either, "an even number, where verdicts compare")?;
        range("verifier.num_verdicts", self.num_verdicts, |v| v >= 1, at_least_one)?;
        range("verifier.length_penalty", self.length_penalty, |v| (0.0..=10.0).contains(&v), "from 0 to 10")?;
        range("verifier.copy_penalty", self.copy_penalty, |v| (0.0..=10.0).contains(&v), "from 0 to 10")?;
        self.sampling.check()?;
        self.grpo.check()
    }

    /// The prompt that it is asked with, of the domain's.
    #[must_use]
    pub fn prompt<'a>(&self, domain: &'a DomainSettings) -> &'a str {
        match self.verdict {
            VerdictForm::Score | VerdictForm::Comparison => &domain.verifier_prompt,
            VerdictForm::Derivation => &domain.solver_prompt,
        }
    }

    /// Groups of completions a step: one an answer, or one a question, of which two answers are judged.
    #[must_use]
    pub fn num_groups(&self) -> u64 {
        match self.verdict {
            VerdictForm::Score | VerdictForm::Comparison => self.num_answers,
            VerdictForm::Derivation => self.num_answers / 2,
        }
    }

    /// Answers of a step in such pairs: an even number.
    #[must_use]
    pub fn num_planted(&self) -> u64 {
        2 * (self.planted_share * self.num_answers as f64 / 2.0).round() as u64
    }
}

impl Profile {
    /// Whether a Verifier is trained beside Challenger and Solver.
    #[must_use]
    pub fn has_verifier(&self) -> bool {
        self.roles == 3
    }

    /// Whether the Verifier's verdicts decide something in a phase of an iteration: votes or rewards. In iteration 1 the Verifier has learned
    /// nothing when votes are counted.
    #[must_use]
    pub fn is_judged(&self, iteration: u32, phase: Phase) -> bool {
        let has_learned = iteration > 1;
        self.has_verifier()
            && match phase {
                // Without a consensus there is nothing else to count.
                Phase::Challenger | Phase::Curriculum if self.domain.answers == AnswerForm::Rubric => true,
                Phase::Challenger => has_learned && self.challenger.reward == RewardVariant::Verdicts,
                Phase::Curriculum => {
                    let drops = self.verifier.as_ref().is_some_and(|verifier| verifier.min_score > 0.0);
                    has_learned && (drops || self.curriculum.labeller == Labeller::VerifierWeighted)
                }
                Phase::Verifier => true,
                Phase::Solver => self.solver.reward == SolverReward::Verdict,
                Phase::Eval => self.verifier.as_ref().is_some_and(|verifier| verifier.num_probes > 0),
            }
    }

    pub(crate) fn check_verifier(&self) -> Result<(), ProfileError> {
        let is_known = |roles| roles == 2 || (roles == 3 && self.verifier.is_some());
        range("roles", self.roles, is_known, "2, or 3 with a section [verifier]")?;
        let needs_verifier = self.challenger.reward == RewardVariant::Verdicts
            || self.curriculum.labeller == Labeller::VerifierWeighted
            || self.solver.reward == SolverReward::Verdict;
        range("roles", self.roles, |roles| roles == 3 || !needs_verifier, "3, where verdicts weigh votes or reward")?;
        let is_derived = self.verifier.as_ref().is_some_and(|verifier| verifier.verdict == VerdictForm::Derivation);
        let can_derive = !is_derived || self.domain.answers != AnswerForm::Rubric;
        range("verifier.verdict", VerdictForm::Derivation, |_| can_derive, "score, where no two answers are the same")?;
        // What one answer wins the other loses: the mean over a question's answers says nothing of how far verdicts spread.
        let is_compared = self.verifier.as_ref().is_some_and(|verifier| verifier.verdict == VerdictForm::Comparison);
        let may_compare = !self.has_verifier() || !is_compared || self.challenger.reward != RewardVariant::Verdicts;
        range("challenger.reward", self.challenger.reward, |_| may_compare, "paper, where verdicts compare")?;
        self.verifier.as_ref().map_or(Ok(()), VerifierSettings::check)
    }
}
