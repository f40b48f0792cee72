//! The grader against verdicts that others gave: pairs whose intended verdict is known, and the test cases of five public graders.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
#![allow(clippy::print_stderr, reason = "what disagrees is listed")]

use rzero_algo::answer::extract_answer;
use rzero_algo::equivalence::{Grade, GradeOptions, grade, grade_response};
use rzero_schema::vocab::{Extraction, Verdict};
use serde_json::Value;
use std::collections::BTreeMap;

fn rows(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

fn shown(row: &Value, expected: bool, grade: &Grade) -> String {
    let short = |text: &str| text.chars().rev().take(120).collect::<Vec<_>>().into_iter().rev().collect::<String>();
    format!(
        "{} {} | gold {} | pred {} | expected {} | {} {} | {:?} | {:?}",
        text(row, "id"),
        text(row, "category"),
        short(text(row, "gold")),
        short(text(row, "pred")),
        if expected { "=" } else { "#" },
        grade.verdict,
        grade.reason,
        grade.gold_form,
        grade.pred_form
    )
}

#[test]
fn pairs_agree_with_what_is_intended() {
    let rows = rows("grader_pairs.jsonl");
    let (mut disagreements, mut num_false_positives) = (Vec::new(), 0);
    for row in &rows {
        let intended = row["intended"].as_bool().unwrap();
        let options = GradeOptions::default();
        let grade = if text(row, "kind") == "answer" {
            grade(text(row, "gold"), text(row, "pred"), &options)
        } else {
            grade_response(text(row, "gold"), text(row, "pred"), Extraction::Last, &options)
        };
        let is_equal = grade.verdict == Verdict::Equal;
        if is_equal != intended {
            num_false_positives += usize::from(is_equal);
            disagreements.push(shown(row, intended, &grade));
        }
    }
    for line in &disagreements {
        eprintln!("{line}");
    }
    eprintln!("{} of {} disagree, {num_false_positives} false positives", disagreements.len(), rows.len());
}

#[test]
fn cases_agree_with_the_suites() {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for row in rows("grader_cases.jsonl") {
        let expected = row["equal"].as_bool().unwrap();
        let gold =
            extract_answer(text(&row, "gold"), Extraction::Last).map_or(text(&row, "gold").to_owned(), |gold| gold.into_owned());
        let grade = grade_response(&gold, text(&row, "pred"), Extraction::Last, &GradeOptions::default());
        let count = counts.entry(text(&row, "suite").to_owned()).or_default();
        count.1 += 1;
        if (grade.verdict == Verdict::Equal) == expected {
            count.0 += 1;
        } else {
            eprintln!("{}", shown(&row, expected, &grade));
        }
    }
    eprintln!("{counts:?}");
}
