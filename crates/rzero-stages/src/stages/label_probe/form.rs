//! The form in which people say what is true: a CSV file of challenge_id, question, pseudo_label and truth, which is left empty for
//! them.
//!
//! Read back, every row must be a question of the sample: the same id alone may be another run's. A row that is not filled, or was
//! taken out, is one that nobody checked.

use crate::exit::StageFailure;
use csv::{ReaderBuilder, StringRecord, Trim, Writer};
use rzero_io::atomic::write_bytes_exclusive;
use rzero_schema::tables::CurriculumRow;
use std::collections::BTreeMap;
use std::path::Path;

const COLUMNS: [&str; 4] = ["challenge_id", "question", "pseudo_label", "truth"];

/// Largest form that is read.
const MAX_FILE_BYTES: u64 = 1 << 28;

/// Longest truth, in characters.
const MAX_TRUTH_CHARS: usize = 1000;

/// What people do with a form.
pub(super) const FILL_HINT: &str = "write the true answer of each question into its column `truth`, then run the same command again; rows that stay empty \
                                    count as not checked, and `none` says that a question has no answer";

/// Writes the form. One that is there may be filled already, and stays.
pub(super) fn write(path: &Path, rows: &[CurriculumRow]) -> anyhow::Result<()> {
    let mut writer = Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for row in rows {
        writer.write_record([row.challenge_id.as_str(), &row.question, &row.pseudo_label, ""])?;
    }
    let bytes = writer.into_inner().map_err(|error| StageFailure::internal(format!("cannot write the form: {error}")))?;
    write_bytes_exclusive(path, &bytes)?;
    Ok(())
}

/// The truth of each question of the sample; none where nobody filled it.
pub(super) fn read(path: &Path, rows: &[CurriculumRow]) -> anyhow::Result<Vec<Option<String>>> {
    let refuse = |problem: String| StageFailure::input(format!("{}: {problem}", path.display()));
    let num_bytes = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len();
    if num_bytes > MAX_FILE_BYTES {
        return Err(refuse(format!("has {num_bytes} bytes, more than is read")).into());
    }
    let mut reader = ReaderBuilder::new().trim(Trim::Headers).from_path(path).map_err(|error| refuse(error.to_string()))?;
    let header = reader.headers().map_err(|error| refuse(error.to_string()))?.clone();
    let at = |name: &str| {
        let hint = "keep the header of the exported form: challenge_id,question,pseudo_label,truth, split by commas";
        header.iter().position(|column| column == name).ok_or_else(|| refuse(format!("line 1 has no column `{name}`")).hint(hint))
    };
    let (id_at, question_at, truth_at) = (at("challenge_id")?, at("question")?, at("truth")?);
    let mut by_id: BTreeMap<&str, (usize, Option<u64>)> =
        rows.iter().enumerate().map(|(at, row)| (row.challenge_id.as_str(), (at, None))).collect();
    let mut truths = vec![None; rows.len()];
    for record in reader.records() {
        let record: StringRecord = record.map_err(|error| refuse(error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |at: usize| record.get(at).unwrap_or_default().trim();
        let refuse_line = |problem: String| refuse(format!("line {line}: {problem}"));
        let Some((at, first)) = by_id.get_mut(cell(id_at)) else {
            let message = format!("question `{}` is none of the {} of this sample", shown(cell(id_at)), rows.len());
            return Err(refuse_line(message).hint("fill the form that --export writes with this profile and seed").into());
        };
        if let Some(first) = first.replace(line) {
            return Err(refuse_line(format!("question `{}` stands in line {first} already", cell(id_at))).into());
        }
        if !same_text(cell(question_at), &rows[*at].question) {
            let message = format!("`{}` is not the question with this id", shown(cell(question_at)));
            let hint = "the form belongs to another run, or a program rewrote the question: open it with every column as text";
            return Err(refuse_line(message).hint(hint).into());
        }
        let truth = cell(truth_at);
        if truth.chars().count() > MAX_TRUTH_CHARS {
            return Err(refuse_line(format!("the truth is longer than {MAX_TRUTH_CHARS} characters")).into());
        }
        truths[*at] = (!truth.is_empty()).then(|| truth.to_owned());
    }
    if !rows.is_empty() && truths.iter().all(Option::is_none) {
        return Err(refuse("no truth is filled yet".to_owned()).hint(FILL_HINT).into());
    }
    Ok(truths)
}

/// Whether two texts differ in their line ends alone.
fn same_text(left: &str, right: &str) -> bool {
    left.lines().map(str::trim_end).eq(right.trim().lines().map(str::trim_end))
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
