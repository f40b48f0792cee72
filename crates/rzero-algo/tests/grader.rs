//! The grader against verdicts that others gave: pairs whose intended verdict is known, and the test cases of five public graders.
//!
//! `fixtures/grader_pairs.jsonl` was composed for this project; beside `intended` it holds what public graders say. `fixtures/grader_cases.jsonl` holds
//! verdicts that are stated in the tests of Math-Verify, MARIO, OlympiadBench, NeMo-Skills and lighteval, which contradict each other.
//! What the grader says otherwise is listed here by id with the reason, so that no row changes sides unseen.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use rzero_algo::answer::extract_answer;
use rzero_algo::equivalence::{Grade, GradeOptions, grade, grade_response};
use rzero_schema::vocab::{Extraction, Verdict};
use serde_json::Value;
use std::collections::BTreeMap;

/// Pairs on which the grader does not say what is intended, and why. There are none.
const PAIRS_OTHERWISE: [(&str, &str); 0] = [];

/// Cases on which the grader does not say what the suite does, and why.
const CASES_OTHERWISE: [(&str, &str); 18] = [
    ("math_verify/test_all.py:test_number_extraction:6", "a comma before two digits parts a list; it is no decimal point"),
    ("math_verify/test_all.py:test_number_extraction:7", "the same"),
    ("math_verify/test_all.py:test_latex_notation:6", "a line break within a formula does not hide it"),
    ("math_verify/test_all.py:test_complex_math_expressions:7", "0.33 is not a third"),
    ("math_verify/test_all.py:test_complex_math_expressions:13", "2.6667 is not 8/3"),
    ("math_verify/test_all.py:test_math_extraction_additional_cases:7", "braces hold a set, not a pair"),
    ("math_verify/test_boxed.py:test_boxed:0", "boxes with signs between them are not one answer"),
    ("math_verify/test_all.py:test_precision:latex", "0.3333 is not a third"),
    (
        "lighteval/test_extractive_match.py:test_extraction_abc:2",
        "words between an announcement and a letter are not passed over",
    ),
    ("lighteval/test_extractive_match.py:test_extraction_abc:4", "a sentence that names several letters: the last is taken"),
    ("lighteval/test_extractive_match.py:test_extraction_abc:7", "a letter and a name without a sign between them are words"),
    ("mario_eval/test_is_equiv.py:test_is_equiv_real_or_list:9", "125.663 is not 40 pi"),
    ("mario_eval/test_is_equiv.py:test_is_equiv_units:10", "10cm is 10 with a unit"),
    ("mario_eval/test_is_equiv.py:test_is_equiv_matrix:3", "[0.5, 1] is an interval"),
    ("mario_eval/test_is_equiv.py:test_is_equiv_matrix:4", "1.732 is not the root of 3"),
    ("mario_eval/test_is_equiv.py:test_is_equiv_scinot:0", "13 digits are rounded by a person, not by a computer"),
    ("olympiadbench/scoring_examples.json:21:0", "7 is not 7.1, and 0.002 is not 0.001"),
    ("olympiadbench/scoring_examples.json:22:0", "0.003 is not 0.002"),
];

fn rows(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

/// The ids of rows on which a grader disagrees, each with the grade to show.
fn assert_listed(disagreements: &[(String, Grade)], listed: &[(&str, &str)]) {
    let found: Vec<&str> = disagreements.iter().map(|(id, _)| id.as_str()).collect();
    for (id, grade) in disagreements {
        assert!(listed.iter().any(|(known, _)| known == id), "{id} is not listed: {grade:?}");
    }
    for (id, _) in listed {
        assert!(found.contains(id), "{id} is listed and agrees");
    }
}

#[test]
fn pairs_agree_with_what_is_intended() {
    let rows = rows("grader_pairs.jsonl");
    let (mut disagreements, mut num_false_positives) = (Vec::new(), 0);
    for row in &rows {
        let options = GradeOptions::default();
        let grade = match text(row, "kind") {
            "answer" => grade(text(row, "gold"), text(row, "pred"), &options),
            _ => grade_response(text(row, "gold"), text(row, "pred"), Extraction::Last, &options),
        };
        let is_equal = grade.verdict == Verdict::Equal;
        if is_equal != row["intended"].as_bool().unwrap() {
            num_false_positives += usize::from(is_equal);
            disagreements.push((text(row, "id").to_owned(), grade));
        }
    }
    assert_listed(&disagreements, &PAIRS_OTHERWISE);
    assert!(disagreements.len() * 100 <= rows.len() * 2 && num_false_positives * 1_000 <= rows.len() * 5);
}

#[test]
fn cases_agree_with_the_suites() {
    let mut shares: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut disagreements = Vec::new();
    for row in rows("grader_cases.jsonl") {
        let gold = text(&row, "gold");
        let gold = extract_answer(gold, Extraction::Last).map_or_else(|_| gold.to_owned(), |gold| gold.into_owned());
        let grade = grade_response(&gold, text(&row, "pred"), Extraction::Last, &GradeOptions::default());
        let expected = row["equal"].as_bool().unwrap();
        let [num_rows, num_right, num_right_by_math_verify] = shares.entry(text(&row, "suite").to_owned()).or_default();
        *num_rows += 1;
        *num_right_by_math_verify += usize::from(row["math_verify"].as_bool() == Some(expected));
        if (grade.verdict == Verdict::Equal) == expected {
            *num_right += 1;
        } else {
            disagreements.push((text(&row, "id").to_owned(), grade));
        }
    }
    assert_listed(&disagreements, &CASES_OTHERWISE);
    for (suite, [num_rows, num_right, num_right_by_math_verify]) in shares {
        if suite == "math_verify" {
            assert!(num_right * 100 >= num_rows * 95, "{suite}: {num_right} of {num_rows}");
        } else {
            assert!(num_right >= num_right_by_math_verify, "{suite}: {num_right}, Math-Verify {num_right_by_math_verify}");
        }
    }
}
