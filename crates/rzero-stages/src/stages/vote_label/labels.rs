//! Votes to columns of `labels`, without a row in between.

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, ListArray, RecordBatch, StringBuilder, UInt32Builder, UInt64Builder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use rzero_algo::vote::{Ballot, VoteOutcome};
use rzero_schema::table::Table;
use rzero_schema::tables::Label;
use rzero_schema::vocab::AnswerStatus;
use std::sync::Arc;

/// Labels in the making.
#[derive(Default)]
pub(super) struct Labels {
    challenge_id: StringBuilder,
    row: UInt64Builder,
    question: StringBuilder,
    pseudo_label: StringBuilder,
    vote_share: Float64Builder,
    margin: Float64Builder,
    vote_entropy: Float64Builder,
    num_samples: UInt32Builder,
    num_parsed: UInt32Builder,
    num_truncated: UInt32Builder,
    class_answers: StringBuilder,
    class_counts: UInt32Builder,
    class_weights: Float64Builder,
    sample_statuses: StringBuilder,
    sample_classes: Int32Builder,
    is_agreed: BooleanBuilder,
    score: Float64Builder,
    num_classes: Vec<usize>,
    num_ballots: Vec<usize>,
    num_by_status: NumByStatus,
}

/// Answers of each status, in the order of [`AnswerStatus::ALL`].
pub(super) type NumByStatus = [u64; AnswerStatus::ALL.len()];

/// Labels as columns, and what the manifest tells of them, in row order.
pub(super) struct LabelBatch {
    pub(super) columns: RecordBatch,
    pub(super) figures: Vec<Figures>,
    pub(super) num_by_status: NumByStatus,
}

/// What enters the means of the manifest.
pub(super) struct Figures {
    pub(super) vote_share: f64,
    pub(super) parsed_share: f64,
    pub(super) truncated_share: f64,
}

impl Labels {
    /// Adds the outcome of the vote on one question, whether those who were asked agree on it, if more than one was, and the mean verdict on
    /// its answers.
    #[allow(clippy::too_many_arguments, reason = "the columns of one row")]
    pub(super) fn add(
        &mut self,
        id: &str,
        row: u64,
        question: &str,
        ballots: &[Ballot<'_>],
        outcome: &VoteOutcome,
        is_agreed: Option<bool>,
        score: Option<f64>,
    ) -> anyhow::Result<()> {
        self.challenge_id.append_value(id);
        self.row.append_value(row);
        self.question.append_value(question);
        self.pseudo_label.append_option(outcome.pseudo_label.as_deref());
        self.vote_share.append_value(outcome.vote_share);
        self.margin.append_value(outcome.margin);
        self.vote_entropy.append_value(outcome.vote_entropy);
        self.num_samples.append_value(outcome.num_samples);
        self.num_parsed.append_value(outcome.num_parsed);
        self.num_truncated.append_value(outcome.num_truncated);
        for class in &outcome.classes {
            self.class_answers.append_value(&class.answer);
            self.class_counts.append_value(class.count);
            self.class_weights.append_value(class.weight);
        }
        for (ballot, class) in ballots.iter().zip(&outcome.class_of_sample) {
            self.sample_statuses.append_value(ballot.status.as_str());
            self.num_by_status[ballot.status as usize] += 1;
            self.sample_classes.append_value(class.map_or(Ok(-1), i32::try_from)?);
        }
        self.is_agreed.append_option(is_agreed);
        self.score.append_option(score);
        self.num_classes.push(outcome.classes.len());
        self.num_ballots.push(ballots.len());
        Ok(())
    }

    /// The columns, in the order of the table.
    pub(super) fn finish(mut self) -> anyhow::Result<LabelBatch> {
        let schema = Label::arrow_schema();
        let figures = self.figures();
        let list = |column: &str, values: ArrayRef, lengths: &[usize]| -> anyhow::Result<ArrayRef> {
            Ok(Arc::new(list(&schema, column, values, lengths)?))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.challenge_id.finish()),
            Arc::new(self.row.finish()),
            Arc::new(self.question.finish()),
            Arc::new(self.pseudo_label.finish()),
            Arc::new(self.vote_share.finish()),
            Arc::new(self.margin.finish()),
            Arc::new(self.vote_entropy.finish()),
            Arc::new(self.num_samples.finish()),
            Arc::new(self.num_parsed.finish()),
            Arc::new(self.num_truncated.finish()),
            list("class_answers", Arc::new(self.class_answers.finish()), &self.num_classes)?,
            list("class_counts", Arc::new(self.class_counts.finish()), &self.num_classes)?,
            list("class_weights", Arc::new(self.class_weights.finish()), &self.num_classes)?,
            list("sample_statuses", Arc::new(self.sample_statuses.finish()), &self.num_ballots)?,
            list("sample_classes", Arc::new(self.sample_classes.finish()), &self.num_ballots)?,
            Arc::new(self.is_agreed.finish()),
            Arc::new(self.score.finish()),
        ];
        Ok(LabelBatch { columns: RecordBatch::try_new(schema, columns)?, figures, num_by_status: self.num_by_status })
    }

    fn figures(&self) -> Vec<Figures> {
        let num_samples = self.num_samples.values_slice();
        let share = |part: &[u32], at: usize| f64::from(part[at]) / f64::from(num_samples[at]);
        (0..num_samples.len())
            .map(|at| Figures {
                vote_share: self.vote_share.values_slice()[at],
                parsed_share: share(self.num_parsed.values_slice(), at),
                truncated_share: share(self.num_truncated.values_slice(), at),
            })
            .collect()
    }
}

fn list(schema: &SchemaRef, column: &str, values: ArrayRef, lengths: &[usize]) -> anyhow::Result<ListArray> {
    let DataType::List(item) = schema.field_with_name(column)?.data_type() else {
        anyhow::bail!("column {column} is no list");
    };
    Ok(ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths(lengths.iter().copied()), values, None)?)
}
