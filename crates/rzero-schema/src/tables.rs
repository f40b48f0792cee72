//! Every table of a run. One module a topic; a column is named here and nowhere else.

mod challenges;
mod evaluation;
mod labels;
mod rollouts;
mod training;
mod verdicts;

pub use challenges::{Challenge, MemoryRow};
pub use evaluation::{EvalItem, EvalResult, Judgement};
pub use labels::{CurriculumRow, DroppedRow, Label, LabelCheck};
pub use rollouts::Rollout;
pub use training::{GradientSum, PretrainMetrics, RewardRow, StepTiming, TrainMetrics};
pub use verdicts::JudgedAnswer;

use crate::table::{Column, Table};

/// What `schemas/` says of one table.
#[derive(Debug, Clone)]
pub struct TableDescription {
    /// Table name.
    pub name: &'static str,
    /// Version.
    pub version: u32,
    /// Key columns.
    pub key: &'static [&'static str],
    /// What it is for.
    pub doc: String,
    /// Columns in order.
    pub columns: Vec<Column>,
}

fn describe<T: Table>() -> TableDescription {
    TableDescription { name: T::NAME, version: T::VERSION, key: T::KEY, doc: T::doc(), columns: T::columns() }
}

/// All tables, in the order in which data flows through them.
#[must_use]
pub fn all_tables() -> Vec<TableDescription> {
    vec![
        describe::<Rollout>(),
        describe::<Challenge>(),
        describe::<MemoryRow>(),
        describe::<JudgedAnswer>(),
        describe::<Label>(),
        describe::<CurriculumRow>(),
        describe::<DroppedRow>(),
        describe::<LabelCheck>(),
        describe::<RewardRow>(),
        describe::<GradientSum>(),
        describe::<TrainMetrics>(),
        describe::<StepTiming>(),
        describe::<PretrainMetrics>(),
        describe::<EvalItem>(),
        describe::<EvalResult>(),
        describe::<Judgement>(),
    ]
}
