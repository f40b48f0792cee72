//! What the answers to a question weigh, by the labeller of the profile.

use crate::answers::{ANSWER_COLUMNS, answer_rule, known_form};
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use crate::judged::{mean, question_row};
use crate::questions::BATCH_ROWS;
use rzero_algo::answer::AnswerRule;
use rzero_algo::domain::true_answer;
use rzero_algo::labeller;
use rzero_algo::vote::{Ballot, VoteOutcome};
use rzero_schema::tables::JudgedAnswer;
use rzero_schema::vocab::{AnswerForm, AnswerStatus, Evaluator, Labeller, Phase, Stage};
use std::collections::BTreeMap;
use std::ops::Range;

/// Weighs answers.
pub(super) struct Weigher {
    labeller: Labeller,
    evaluator: Evaluator,
    rule: AnswerRule,
    /// Verdicts on samples, by row of the question; none where nobody judged.
    verdicts: Option<BTreeMap<u64, Vec<(u32, f64)>>>,
    /// Least mean verdict on the answers that gave a label, where verdicts drop questions.
    min_score: Option<f64>,
}

impl Weigher {
    /// Reads the verdicts on answers to questions of these rows, where they are asked for.
    pub(super) fn new(context: &StageContext, inputs: &StageInputs<'_>, rows: &Range<u64>) -> anyhow::Result<Self> {
        let (profile, place) = (&context.profile, context.place);
        let is_judged = profile.is_judged(place.iteration, place.phase);
        let (evaluator, rule) = (profile.domain.evaluator, answer_rule(profile));
        let labeller = match profile.curriculum.labeller {
            // No two responses are the same: the best is the label.
            _ if rule.form == AnswerForm::Rubric => Labeller::VerifierWeighted,
            // The executor knows in either phase; otherwise the Challenger is rewarded by the plain vote.
            Labeller::Executor => Labeller::Executor,
            _ if place.phase != Phase::Curriculum => Labeller::Majority,
            Labeller::VerifierWeighted if !is_judged => Labeller::Majority,
            labeller => labeller,
        };
        if !is_judged {
            return Ok(Self { labeller, evaluator, rule, verdicts: None, min_score: None });
        }
        let mut verdicts: BTreeMap<u64, Vec<(u32, f64)>> = BTreeMap::new();
        for batch in inputs.output(Stage::Verify)?.stream::<JudgedAnswer>(BATCH_ROWS)? {
            for judged in batch? {
                let row = question_row(context, &judged);
                if let (true, Some(score)) = (rows.contains(&row), judged.score) {
                    verdicts.entry(row).or_default().extend(judged.equal_samples.iter().map(|sample| (*sample, score)));
                }
            }
        }
        verdicts.values_mut().for_each(|of_question| of_question.sort_unstable_by_key(|(sample, _)| *sample));
        let is_twice = |of_question: &Vec<(u32, f64)>| of_question.windows(2).any(|pair| pair[0].0 == pair[1].0);
        if let Some((row, _)) = verdicts.iter().find(|(_, of_question)| is_twice(of_question)) {
            let message = format!("an answer to the question in row {row} was judged twice");
            return Err(StageFailure::input(message).hint("run verify there again").into());
        }
        let min_score = profile.verifier.as_ref().map(|verifier| verifier.min_score);
        let min_score = min_score.filter(|least| *least > 0.0 && place.phase == Phase::Curriculum);
        Ok(Self { labeller, evaluator, rule, verdicts: Some(verdicts), min_score })
    }

    /// The column of the rollouts that says how confident the Solver was, where that weighs.
    pub(super) fn confidence(&self) -> Option<&'static str> {
        match self.labeller {
            Labeller::SelfCertainty => Some("self_certainty"),
            Labeller::Entropy => Some("entropy"),
            Labeller::Majority | Labeller::Executor | Labeller::VerifierWeighted => None,
        }
    }

    /// The columns of the rollouts that a vote needs.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        ANSWER_COLUMNS.into_iter().chain(self.confidence()).collect()
    }

    /// The verdicts on the answers to a question, in the order of `samples`; nothing where nobody judged.
    pub(super) fn verdicts(&self, row: u64, samples: &[u32]) -> Option<Vec<Option<f64>>> {
        let of_question = self.verdicts.as_ref()?.get(&row).map_or(&[][..], Vec::as_slice);
        let verdict =
            |sample: &u32| of_question.binary_search_by_key(sample, |(sample, _)| *sample).ok().map(|at| of_question[at].1);
        Some(samples.iter().map(verdict).collect())
    }

    /// Whether the Verifier upholds a label: the mean verdict on the answers that gave it is not under the least. Nothing where it is not asked.
    pub(super) fn upholds(&self, outcome: &VoteOutcome, verdicts: Option<&[Option<f64>]>) -> Option<bool> {
        let least = self.min_score?;
        let answers = outcome.class_of_sample.iter().zip(verdicts?);
        let scores: Vec<f64> = answers.filter(|(class, _)| **class == Some(0)).filter_map(|(_, verdict)| *verdict).collect();
        Some(mean(&scores).is_some_and(|score| score >= least))
    }

    /// The vote under the label that the executor knows; or, where no two answers are the same, with the mean verdict for a vote share, so that the
    /// band keeps what is neither always well answered nor never, and the best answer's lead over it for a margin.
    pub(super) fn judged(&self, outcome: VoteOutcome, question: &str, score: Option<f64>, best: f64) -> VoteOutcome {
        if self.labeller == Labeller::Executor {
            let form = true_answer(self.evaluator, question).and_then(|truth| known_form(&truth, &self.rule).ok());
            return outcome.with_label(form.as_deref());
        }
        if self.rule.form != AnswerForm::Rubric {
            return outcome;
        }
        match score {
            Some(score) => VoteOutcome { vote_share: score, margin: best - score, ..outcome },
            None => outcome.with_label(None),
        }
    }

    /// The weights of a question's answers; nothing where all weigh the same.
    pub(super) fn weights(
        &self,
        ballots: &[Ballot<'_>],
        confidences: &[Option<f64>],
        verdicts: Option<&[Option<f64>]>,
    ) -> Option<Vec<f64>> {
        let figures = match self.labeller {
            Labeller::Majority | Labeller::Executor => return None,
            Labeller::SelfCertainty | Labeller::Entropy => confidences,
            Labeller::VerifierWeighted => verdicts?,
        };
        let votes: Vec<bool> = ballots.iter().map(|ballot| ballot.status == AnswerStatus::Parsed).collect();
        let mut weights = labeller::weights(self.labeller, figures, &votes)?;
        if self.rule.form == AnswerForm::Rubric {
            // A text that was given twice is not twice as good.
            let times = |at: usize| ballots.iter().filter(|other| other.answer == ballots[at].answer).count() as f64;
            weights.iter_mut().enumerate().for_each(|(at, weight)| *weight /= times(at));
        }
        Some(weights)
    }
}
