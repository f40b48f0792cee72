//! Files of problems to rows: JSON lines, a JSON document, CSV or Parquet, each row an object of JSON.
//!
//! The end of a file's name says its form. Every form is bounded in bytes, and what cannot be read is told with its file and line or row.
//! Nothing is known here of what a row means.

use crate::exit::StageFailure;
use rzero_io::error::IoError;
use rzero_io::rows::stream_json_rows;
use serde_json::{Map, Value};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Largest file that is read, and the most that a Parquet file may unfold to, bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Largest JSON document: it is held in memory whole.
const MAX_DOCUMENT_BYTES: u64 = 1 << 28;

/// Longest line of JSON lines, bytes.
const MAX_LINE_BYTES: u64 = 1 << 24;

/// Lists that a JSON document may hold its rows in.
const LISTS: [&str; 2] = ["examples", "data"];

/// Ends of the names of files that are read.
pub(super) const ENDS: [&str; 5] = [".jsonl", ".ndjson", ".json", ".csv", ".parquet"];

/// A row as its file gives it.
pub(super) type Row = Map<String, Value>;

/// Where in its file a row stands, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    Line(u64),
    Row(u64),
}

impl fmt::Display for Position {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(text, "line {number}"),
            Self::Row(number) => write!(text, "row {number}"),
        }
    }
}

/// Hands every row of a file to `take`, in order.
///
/// # Errors
/// When the file cannot be read as what its name says, or is too large; when `take` fails.
pub(super) fn read_rows(path: &Path, mut take: impl FnMut(Position, Row) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let metadata = std::fs::metadata(path).map_err(IoError::file("read", path))?;
    if !metadata.is_file() {
        return Err(StageFailure::input(format!("{} is no file", path.display())).into());
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(too_large(path, metadata.len(), MAX_FILE_BYTES));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ENDS.iter().find(|end| name.ends_with(**end)) {
        Some(&".parquet") => parquet_rows(path, &mut take),
        Some(&".csv") => csv_rows(path, &mut take),
        Some(&".json") if metadata.len() > MAX_DOCUMENT_BYTES => Err(too_large(path, metadata.len(), MAX_DOCUMENT_BYTES)),
        Some(&".json") => document_rows(path, &mut take),
        Some(_) => line_rows(open(path)?, path, &mut take),
        None => Err(StageFailure::usage(format!("the name of {} does not say what it is", path.display()))
            .hint(format!("it is to end in one of {}", ENDS.join(", ")))
            .into()),
    }
}

type Take<'a> = &'a mut dyn FnMut(Position, Row) -> anyhow::Result<()>;

fn parquet_rows(path: &Path, take: Take<'_>) -> anyhow::Result<()> {
    let mut number = 0;
    for rows in stream_json_rows(path, MAX_FILE_BYTES)? {
        for row in rows? {
            number += 1;
            take_value(path, Position::Row(number), row, take)?;
        }
    }
    Ok(())
}

fn csv_rows(path: &Path, take: Take<'_>) -> anyhow::Result<()> {
    let broken = |error: csv::Error| {
        StageFailure::input(format!("{} is no readable CSV: {error}", path.display()))
            .hint("every row needs as many cells as the first one has names, in UTF-8, parted by commas")
    };
    let mut reader = csv::ReaderBuilder::new().from_reader(open(path)?);
    let names = reader.headers().map_err(broken)?.clone();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, csv::Position::line);
        let cells = names.iter().zip(&record).map(|(name, cell)| (name.to_owned(), Value::String(cell.to_owned())));
        take(Position::Line(line), cells.collect())?;
    }
    Ok(())
}

/// A list of rows, an object with such a list, or in truth JSON lines.
fn document_rows(path: &Path, take: Take<'_>) -> anyhow::Result<()> {
    let bytes = std::fs::read(path).map_err(IoError::file("read", path))?;
    let bytes = without_mark(&bytes);
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let first = values.next().unwrap_or(Ok(Value::Null));
    let rest = bytes.get(values.byte_offset()..).unwrap_or_default();
    let is_alone = rest.iter().all(u8::is_ascii_whitespace);
    let rows = match first {
        Ok(Value::Array(rows)) if is_alone => rows,
        Ok(Value::Object(mut object)) if is_alone => {
            match LISTS.iter().find_map(|name| object.remove(*name).filter(Value::is_array)) {
                Some(Value::Array(rows)) => rows,
                _ => vec![Value::Object(object)],
            }
        }
        Ok(Value::Object(_)) => return line_rows(bytes, path, take),
        Ok(_) => {
            return Err(StageFailure::input(format!("{} holds no list of rows", path.display()))
                .hint(format!("it is to be a list of objects, or an object with such a list as {}", LISTS.join(" or ")))
                .into());
        }
        Err(error) => return Err(StageFailure::input(format!("{} is no readable JSON: {error}", path.display())).into()),
    };
    (1..).zip(rows).try_for_each(|(number, row)| take_value(path, Position::Row(number), row, take))
}

fn line_rows(mut reader: impl BufRead, path: &Path, take: Take<'_>) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let num_bytes = reader.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line);
        if num_bytes.map_err(IoError::file("read", path))? == 0 {
            break;
        }
        let at = Position::Line(number);
        if line.len() as u64 > MAX_LINE_BYTES {
            let message = format!("{at} of {} has more than {MAX_LINE_BYTES} bytes", path.display());
            return Err(StageFailure::input(message).into());
        }
        let text = if number == 1 { without_mark(&line) } else { &line };
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let value = serde_json::from_slice(text).map_err(|error| {
            let problem = error.to_string();
            // serde counts lines within what it was given, which is one line.
            let problem = problem.split(" at line ").next().unwrap_or_default();
            StageFailure::input(format!("{at} of {} is no readable JSON: {problem}, column {}", path.display(), error.column()))
        })?;
        take_value(path, at, value, take)?;
    }
    Ok(())
}

fn take_value(path: &Path, at: Position, value: Value, take: Take<'_>) -> anyhow::Result<()> {
    match value {
        Value::Object(row) => take(at, row),
        _ => Err(StageFailure::input(format!("{at} of {} is no object", path.display())).into()),
    }
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).map_err(IoError::file("open", path))?))
}

/// Some editors begin a file with a mark of its encoding.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn too_large(path: &Path, num_bytes: u64, most: u64) -> anyhow::Error {
    StageFailure::input(format!("{} has {num_bytes} bytes, at most {most} are read", path.display()))
        .hint("cut it into several files, or write it as JSON lines")
        .into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use std::io::Write;

    /// What becomes of a file of this name and these bytes.
    fn read(name: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        let mut rows = Vec::new();
        let read = read_rows(&path, |at, row| {
            rows.push(format!("{at}: {}", Value::Object(row)));
            Ok(())
        });
        read.map(|()| rows).map_err(|error| error.to_string().replace(&path.display().to_string(), name))
    }

    #[test]
    fn every_form_of_json_and_csv_gives_the_same_rows() {
        let rows = |unit: &str, numbers: [u32; 2]| {
            let [first, second] = numbers;
            Ok(vec![format!(r#"{unit} {first}: {{"a":"1"}}"#), format!(r#"{unit} {second}: {{"a":"x,\ny"}}"#)])
        };
        let lines = b"\xef\xbb\xbf{\"a\": \"1\"}\r\n\n{\"a\": \"x,\\ny\"}";
        assert_eq!(read("a.jsonl", lines), rows("line", [1, 3]));
        assert_eq!(read("A.NDJSON", lines), rows("line", [1, 3]));
        assert_eq!(read("a.json", lines), rows("line", [1, 3]));
        assert_eq!(read("a.json", br#" [{"a": "1"}, {"a": "x,\ny"}] "#), rows("row", [1, 2]));
        assert_eq!(read("a.json", br#"{"canary": "", "examples": [{"a": "1"}, {"a": "x,\ny"}]}"#), rows("row", [1, 2]));
        assert_eq!(read("a.csv", b"\xef\xbb\xbfa\n1\n\"x,\ny\"\n"), rows("line", [2, 3]));
        assert_eq!(read("a.json", br#"{"a": "1"}"#).unwrap().len(), 1);
        assert_eq!(read("a.jsonl", b""), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_file_and_line() {
        for (name, bytes, expected) in [
            ("a.jsonl", b"{}\n{\"a\": 1,}\n".as_slice(), "line 2 of a.jsonl is no readable JSON: trailing comma, column 9"),
            ("a.jsonl", b"{}\n[1]\n", "line 2 of a.jsonl is no object"),
            ("a.jsonl", b"{\"a\": \"\xff\"}", "line 1 of a.jsonl is no readable JSON"),
            ("a.json", b"[{}, 3]", "row 2 of a.json is no object"),
            ("a.json", b"[{}] {}", "a.json holds no list of rows"),
            ("a.json", b"[{}, ", "a.json is no readable JSON: EOF"),
            ("a.json", b"", "a.json holds no list of rows"),
            ("a.csv", b"a,b\n1,2\n3\n", "a.csv is no readable CSV: CSV error: record 2 (line: 3"),
            ("a.csv", b"a\n\xff\n", "a.csv is no readable CSV"),
            ("a.parquet", b"PAR1 and no more", "a.parquet is no readable parquet file"),
            ("a.txt", b"", "the name of a.txt does not say what it is"),
        ] {
            let problem = read(name, bytes).unwrap_err();
            assert!(problem.contains(expected), "{name}: {problem}");
        }
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert!(read("a.json", &deep).is_err() && read("a.jsonl", &deep).is_err());
        let long = [b"{\"a\": \"".as_slice(), &vec![b'x'; 1 << 24], b"\"}"].concat();
        assert!(read("a.jsonl", &long).unwrap_err().contains("line 1 of a.jsonl has more than"));
    }
}
