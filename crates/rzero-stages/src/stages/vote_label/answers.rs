//! The answers of rollouts, read from the columns that a vote needs, a row group at a time.

use super::stale_rollouts;
use crate::answers::answered;
use crate::questions::BATCH_ROWS;
use arrow::array::{Array, Float32Array};
use rzero_algo::answer::AnswerRule;
use rzero_algo::vote::Ballot;
use rzero_io::scan::{Columns, Piece};
use rzero_schema::tables::Rollout;
use rzero_schema::vocab::AnswerStatus;
use std::ops::Range;

/// Answers in the order of row and sample. Texts of all lie in one string.
#[derive(Debug, Default)]
pub(super) struct Answers {
    questions: Vec<Question>,
    samples: Vec<u32>,
    statuses: Vec<AnswerStatus>,
    forms: Vec<Range<usize>>,
    /// How confident the Solver was; nothing where that is not asked or not known.
    confidences: Vec<Option<f64>>,
    text: String,
}

/// Answers in a row that name the same question.
#[derive(Debug)]
struct Question {
    row: u64,
    id: Range<usize>,
    first: usize,
}

/// Answers that name the same question, or some of them: a question may stand across two row groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    answers: &'a Answers,
    at: usize,
}

impl Answers {
    /// Reads the answers of a row group to questions of these rows.
    pub(super) fn read(
        piece: &Piece<Rollout>,
        rows: &Range<u64>,
        rule: &AnswerRule,
        confidence: Option<&'static str>,
    ) -> anyhow::Result<Self> {
        let mut answers = Self::default();
        let mut last = None;
        for columns in piece.open(BATCH_ROWS)? {
            answers.add(&columns?, rows, rule, confidence, &mut last)?;
        }
        Ok(answers)
    }

    fn add(
        &mut self,
        columns: &Columns,
        rows: &Range<u64>,
        rule: &AnswerRule,
        confidence: Option<&'static str>,
        last: &mut Option<(u64, u32)>,
    ) -> anyhow::Result<()> {
        let confidences = confidence.map(|column| columns.get::<Float32Array>(column)).transpose()?;
        for (at, answer) in answered(columns)?.enumerate() {
            let (here, id) = ((answer.row, answer.sample), answer.challenge_id);
            check_order(*last, here, id)?;
            *last = Some(here);
            if !rows.contains(&here.0) {
                continue;
            }
            let form = answer.form(rule)?;
            if self.questions.last().is_none_or(|question| question.row != here.0 || &self.text[question.id.clone()] != id) {
                let id = append(&mut self.text, id);
                self.questions.push(Question { row: here.0, id, first: self.samples.len() });
            }
            self.samples.push(here.1);
            let known = confidences.as_ref().filter(|column| column.is_valid(at));
            self.confidences.push(known.map(|column| f64::from(column.value(at))));
            self.statuses.push(form.as_ref().err().copied().unwrap_or(AnswerStatus::Parsed));
            self.forms.push(append(&mut self.text, form.as_deref().unwrap_or_default()));
        }
        Ok(())
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        (0..self.questions.len()).map(|at| Run { answers: self, at })
    }

    /// Row and sample of the first answer.
    pub(super) fn first(&self) -> Option<(u64, u32)> {
        Some((self.questions.first()?.row, *self.samples.first()?))
    }

    /// Row, sample and the question's id of the last answer.
    pub(super) fn last(&self) -> Option<(u64, u32, &str)> {
        let question = self.questions.last()?;
        Some((question.row, *self.samples.last()?, &self.text[question.id.clone()]))
    }

    /// Adds a copy of a run.
    pub(super) fn copy(&mut self, run: &Run<'_>) {
        let id = append(&mut self.text, run.id());
        self.questions.push(Question { row: run.row(), id, first: self.samples.len() });
        for at in run.range() {
            self.samples.push(run.answers.samples[at]);
            self.statuses.push(run.answers.statuses[at]);
            self.confidences.push(run.answers.confidences[at]);
            self.forms.push(append(&mut self.text, &run.answers.text[run.answers.forms[at].clone()]));
        }
    }
}

impl<'a> Run<'a> {
    fn range(&self) -> Range<usize> {
        let questions = &self.answers.questions;
        questions[self.at].first..questions.get(self.at + 1).map_or(self.answers.samples.len(), |next| next.first)
    }

    pub(super) fn row(&self) -> u64 {
        self.answers.questions[self.at].row
    }

    pub(super) fn id(&self) -> &'a str {
        &self.answers.text[self.answers.questions[self.at].id.clone()]
    }

    pub(super) fn samples(&self) -> &'a [u32] {
        &self.answers.samples[self.range()]
    }

    pub(super) fn confidences(&self) -> &'a [Option<f64>] {
        &self.answers.confidences[self.range()]
    }

    pub(super) fn ballots(&self) -> impl Iterator<Item = Ballot<'a>> + use<'a> {
        let answers = self.answers;
        self.range().map(move |at| {
            let status = answers.statuses[at];
            let form = &answers.text[answers.forms[at].clone()];
            Ballot { status, answer: (status == AnswerStatus::Parsed).then_some(form) }
        })
    }
}

/// Answers come in the order of row and sample, each once.
pub(super) fn check_order(last: Option<(u64, u32)>, here: (u64, u32), id: &str) -> anyhow::Result<()> {
    match last {
        Some(last) if last == here => Err(stale_rollouts(format!("question {id} has sample {} twice", here.1)).into()),
        Some(last) if last > here => {
            let message = format!(
                "the rollouts are not in the order of row and sample: row {}, sample {} stands behind row {}, sample {}",
                here.0, here.1, last.0, last.1
            );
            Err(stale_rollouts(message).into())
        }
        _ => Ok(()),
    }
}

fn append(text: &mut String, part: &str) -> Range<usize> {
    let start = text.len();
    text.push_str(part);
    start..text.len()
}
