//! `grade`: the grader for everyone, JSON lines in and JSON lines out.
//!
//! Each line of stdin is `{"gold": ..., "pred": ...}`, or `{"gold": ..., "response": ...}` for a whole response whose answer is looked for first.
//! Each line of stdout is `{"verdict": ..., "reason": ..., "gold_form": ..., "pred_form": ...}`, in the same order. Lines are graded side by side and
//! written in batches. With `--golds` the gold answers of a problem set are put to the test instead: [`golds`].

mod golds;

use crate::console::{Verbosity, print_product, start_log};
use crate::exit::StageFailure;
use rayon::prelude::*;
use rzero_algo::equivalence::{Grade, GradeOptions, grade, grade_response};
use rzero_schema::vocab::{Extraction, UnknownWord, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufWriter, Read, Write};
use std::path::PathBuf;

/// Longest line that is read.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Lines that are graded side by side.
const BATCH_LINES: usize = 4_096;

/// Say whether answers equal gold answers: JSON lines {gold, pred} or {gold, response} in, {verdict, reason, gold_form, pred_form} out.
#[derive(Debug, clap::Parser)]
#[command(
    name = "grade",
    version,
    after_help = "Example: echo '{\"gold\": \"\\\\frac{1}{2}\", \"pred\": \"0.5\"}' | grade\nVerdicts: equal, different, unknown. Unknown never counts as equal."
)]
pub struct Args {
    /// Where the answer of a `response` is looked for: box, phrase or last, each going on from the one before it
    #[arg(long, value_name = "WHERE", default_value = "last", value_parser = parse_extraction)]
    extract: Extraction,
    /// Take gold answers that are decimals for rounded: a prediction that rounds to one is equal
    #[arg(long)]
    rounded_gold: bool,
    /// Print how many lines had which verdict to stderr
    #[arg(long)]
    summary: bool,
    /// Read no lines; put the gold answers of a problem set to the test, and print a table
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rounded_gold", "summary"])]
    golds: Option<PathBuf>,
}

fn parse_extraction(word: &str) -> Result<Extraction, UnknownWord> {
    word.parse()
}

/// Runs the tool.
///
/// # Errors
/// When a line is no JSON object with `gold` and `pred` or `response`: exit code 3, with its number. What was graded before it is written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    if let Some(path) = &args.golds {
        print_product(golds::table(path)?);
        return Ok(());
    }
    let mut input = std::io::stdin().lock();
    let mut output = BufWriter::new(std::io::stdout().lock());
    let mut counts: BTreeMap<Verdict, u64> = BTreeMap::new();
    let mut first_line = 1;
    loop {
        let (lines, broken) = read_lines(&mut input, first_line)?;
        let grades: Vec<anyhow::Result<Grade>> =
            lines.par_iter().enumerate().map(|(at, line)| grade_line(line, first_line + at as u64, args)).collect();
        for grade in grades {
            let grade = match grade {
                Ok(grade) => grade,
                Err(error) => {
                    output.flush()?;
                    return Err(error);
                }
            };
            *counts.entry(grade.verdict).or_default() += 1;
            let object = json!({
                "verdict": grade.verdict.as_str(),
                "reason": grade.reason.as_str(),
                "gold_form": grade.gold_form,
                "pred_form": grade.pred_form,
            });
            if writeln!(output, "{object}").is_err() {
                // Whoever reads the verdicts has gone away.
                return Ok(());
            }
        }
        output.flush().ok();
        if let Some(error) = broken {
            return Err(error);
        }
        if lines.len() < BATCH_LINES {
            break;
        }
        first_line += lines.len() as u64;
    }
    if args.summary {
        let of = |verdict| counts.get(&verdict).copied().unwrap_or(0);
        let [equal, different, unknown] = [Verdict::Equal, Verdict::Different, Verdict::Unknown].map(of);
        crate::console::print_note(format!("{equal} equal, {different} different, {unknown} unknown"));
    }
    Ok(())
}

/// The next lines, and what is wrong with the one after them, if something is.
fn read_lines(input: &mut impl BufRead, first_line: u64) -> anyhow::Result<(Vec<String>, Option<anyhow::Error>)> {
    let mut lines = Vec::new();
    while lines.len() < BATCH_LINES {
        let mut bytes = Vec::new();
        let num_bytes = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes)? as u64;
        if num_bytes == 0 {
            break;
        }
        let number = first_line + lines.len() as u64;
        if num_bytes == MAX_LINE_BYTES && bytes.last() != Some(&b'\n') {
            return Ok((lines, Some(broken_line(number, "it is longer than is read"))));
        }
        match String::from_utf8(bytes) {
            Ok(line) => lines.push(line),
            Err(_) => return Ok((lines, Some(broken_line(number, "it is not UTF-8")))),
        }
    }
    Ok((lines, None))
}

fn broken_line(number: u64, problem: &str) -> anyhow::Error {
    StageFailure::input(format!("line {number} of the input: {problem}"))
        .hint(r#"each line is an object such as {"gold": "1/2", "pred": "0.5"}"#)
        .into()
}

fn grade_line(line: &str, number: u64, args: &Args) -> anyhow::Result<Grade> {
    let fail = |problem: &str| broken_line(number, problem);
    let row: Value = serde_json::from_str(line).map_err(|error| fail(&error.to_string()))?;
    // Gold answers that are numbers in the file are taken as they are written there.
    let text = |key: &str| match row.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let gold = text("gold").ok_or_else(|| fail("it has no `gold`"))?;
    let options = GradeOptions { is_gold_rounded: args.rounded_gold };
    match (text("pred"), text("response")) {
        (Some(pred), None) => Ok(grade(&gold, &pred, &options)),
        (None, Some(response)) => Ok(grade_response(&gold, &response, args.extract, &options)),
        (Some(_), Some(_)) => Err(fail("it has both `pred` and `response`")),
        (None, None) => Err(fail("it has neither `pred` nor `response`")),
    }
}
