//! The Solver's answers, by the few columns of its rollouts that a Verifier needs.

use crate::answers::parse_finish_reason;
use crate::questions::BATCH_ROWS;
use arrow::array::{BooleanArray, StringArray, UInt32Array, UInt64Array};
use rzero_algo::answer::{AnswerRule, answer_form};
use rzero_io::scan::Piece;
use rzero_io::set::StageOutput;
use rzero_schema::tables::Rollout;
use std::ops::Range;

const COLUMNS: [&str; 6] = ["challenge_id", "row", "sample", "finish_reason", "completion", "is_valid_utf8"];

/// What was given as an answer.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) row: u64,
    pub(super) challenge_id: String,
    pub(super) sample: u32,
    pub(super) text: String,
    /// Whether an answer can be read in it.
    pub(super) is_readable: bool,
}

/// The answers to questions of these rows, in the order of row and sample.
pub(super) fn given(output: &StageOutput, rows: &Range<u64>, rule: &AnswerRule) -> anyhow::Result<Vec<Given>> {
    let may_concern =
        |piece: &Piece<Rollout>| piece.range("row").is_none_or(|range| *range.start() < rows.end && rows.start <= *range.end());
    let mut all = Vec::new();
    for piece in output.scan_where::<Rollout>(&COLUMNS, may_concern)? {
        for columns in piece.open(BATCH_ROWS)? {
            let columns = columns?;
            let ids = columns.get::<StringArray>("challenge_id")?;
            let row = columns.get::<UInt64Array>("row")?.values();
            let sample = columns.get::<UInt32Array>("sample")?.values();
            let finish_reasons = columns.get::<StringArray>("finish_reason")?;
            let completions = columns.get::<StringArray>("completion")?;
            let are_valid = columns.get::<BooleanArray>("is_valid_utf8")?;
            for at in (0..columns.num_rows()).filter(|at| rows.contains(&row[*at])) {
                let (id, text) = (ids.value(at), completions.value(at));
                let finish = parse_finish_reason(finish_reasons.value(at), id, sample[at])?;
                all.push(Given {
                    row: row[at],
                    challenge_id: id.to_owned(),
                    sample: sample[at],
                    text: text.to_owned(),
                    is_readable: are_valid.value(at) && answer_form(text, finish, rule).is_ok(),
                });
            }
        }
    }
    Ok(all)
}
