//! What a completion of the Verifier says of answers: a score of the one that it was shown, or an answer of its own, which is held against
//! all answers to the question.

use super::{Item, num_verdicts};
use crate::answers::{answer_rule, read_rollout_answer, response_form};
use crate::context::StageContext;
use rzero_algo::answer::AnswerRule;
use rzero_algo::verdict::read_verdict;
use rzero_schema::profile::VerifierSettings;
use rzero_schema::tables::{JudgedAnswer, Rollout};
use rzero_schema::vocab::VerdictForm;
use std::collections::BTreeMap;

/// What a completion says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// Nothing that can be read.
    Nothing,
    /// A verdict, in 0..=1.
    Score(f64),
    /// The canonical form of an answer to the question.
    Answer(String),
}

impl Said {
    /// The verdict on an answer of this canonical form, if it has one; nothing where nothing was said.
    pub(crate) fn verdict(&self, form: Option<&str>) -> Option<f64> {
        match self {
            Self::Nothing => None,
            Self::Score(score) => Some(*score),
            Self::Answer(own) => Some(f64::from(u8::from(form == Some(own)))),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Score(score) => Some(score.to_string()),
            Self::Answer(own) => Some(own.clone()),
        }
    }
}

/// Reads completions of the Verifier.
pub(crate) struct Reader {
    form: VerdictForm,
    max_score: u32,
    rule: AnswerRule,
    /// Where verdicts compare: those of a smaller sample show the answer first, the others second.
    first_second: u32,
}

impl Reader {
    pub(crate) fn new(context: &StageContext, settings: &VerifierSettings) -> Self {
        let first_second = match settings.verdict {
            VerdictForm::Comparison => num_verdicts(context, settings) / 2,
            VerdictForm::Score | VerdictForm::Derivation => u32::MAX,
        };
        Self { form: settings.verdict, max_score: settings.max_score, rule: answer_rule(&context.profile), first_second }
    }

    pub(crate) fn read(&self, rollout: &Rollout) -> anyhow::Result<Said> {
        Ok(match self.form {
            VerdictForm::Score | VerdictForm::Comparison => {
                let score = read_verdict(&rollout.completion, self.max_score);
                let score = score.map(|first| if rollout.sample < self.first_second { first } else { 1.0 - first });
                score.map_or(Said::Nothing, Said::Score)
            }
            VerdictForm::Derivation => read_rollout_answer(rollout, &self.rule)?.answer.map_or(Said::Nothing, Said::Answer),
        })
    }

    /// The canonical form of an answer that is judged, where that is what is looked at.
    pub(crate) fn form(&self, response: &str) -> Option<String> {
        (self.form == VerdictForm::Derivation).then(|| response_form(response, &self.rule).ok())?
    }

    /// Answers, asked for or judged, that the same completions judge: they stand at the row of the first. `id` is the question's.
    pub(crate) fn groups<'a, T>(&self, answers: &'a [T], id: fn(&T) -> &str) -> impl Iterator<Item = &'a [T]> {
        let is_shared = self.form == VerdictForm::Derivation;
        answers.chunk_by(move |one, other| is_shared && id(one) == id(other))
    }
}

/// What was said, by the row where it stands.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<u64, Vec<Said>>);

impl Tally {
    /// Reads completions, which come in the order of row and sample.
    pub(crate) fn add(&mut self, reader: &Reader, rollouts: &[Rollout]) -> anyhow::Result<()> {
        for rollout in rollouts {
            self.0.entry(rollout.row).or_default().push(reader.read(rollout)?);
        }
        Ok(())
    }

    /// The rows of `verdicts`.
    pub(crate) fn rows(&self, reader: &Reader, items: &[Item], rubric: &str) -> Vec<JudgedAnswer> {
        let mut rows = Vec::with_capacity(items.len());
        for group in reader.groups(items, Item::question_id) {
            let said = self.0.get(&group[0].row).map_or(&[][..], Vec::as_slice);
            for item in group {
                let form = reader.form(&item.response);
                let scores = said.iter().filter_map(|said| said.verdict(form.as_deref())).collect();
                rows.push(item.judged(said.len() as u32, scores, rubric));
            }
        }
        rows
    }
}
