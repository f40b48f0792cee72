//! Scores of small made-up evaluations, by hand.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use super::*;
use rzero_schema::profile::GroupSettings;

const DRAWS: Bootstrap = Bootstrap { resamples: 200, seed: 1 };

fn result(row: u64, mode: EvalMode, sample: u32, answer: &str, gold: &str) -> EvalResult {
    EvalResult {
        item_id: format!("item-{row}"),
        row,
        benchmark: "ladder".to_owned(),
        subject: "arithmetic".to_owned(),
        level: 1 + u32::try_from(row % 2).unwrap(),
        eval_style: EvalStyle::Free.to_string(),
        eval_mode: mode.to_string(),
        sample,
        completion: String::new(),
        num_tokens: 1,
        finish_reason: "stop".to_owned(),
        answer_status: if answer.is_empty() { AnswerStatus::NoBox } else { AnswerStatus::Parsed }.to_string(),
        answer: (!answer.is_empty()).then(|| answer.to_owned()),
        gold: gold.to_owned(),
        verdict: if answer == gold { "equal" } else { "different" }.to_owned(),
        grade_reason: "same_form".to_owned(),
        is_correct: answer == gold,
        is_worked: sample == 0,
    }
}

fn two_items(greedy: &str) -> Vec<EvalResult> {
    let mut rows = vec![result(0, EvalMode::Greedy, 0, greedy, "5"), result(1, EvalMode::Greedy, 0, "8", "7")];
    for (sample, answer) in ["5", "5", "6", ""].iter().enumerate() {
        rows.push(result(0, EvalMode::Sampled, u32::try_from(sample).unwrap(), answer, "5"));
        rows.push(result(1, EvalMode::Sampled, u32::try_from(sample).unwrap(), "8", "7"));
    }
    rows
}

fn evaluation(rows: &[EvalResult]) -> Evaluation {
    Evaluation::of(rows, EvalStyle::Free).unwrap().unwrap()
}

#[test]
fn a_problem_is_scored_in_every_measure() {
    let evaluation = evaluation(&two_items("6"));
    let [greedy, mean, majority] = Measure::MAIN.map(|measure| evaluation.accuracy(measure, DRAWS).value);
    assert_eq!([greedy, mean, majority], [0.0, 25.0, 50.0]);
    // Two of four are right in one problem and none in the other: pass@2 is (1 - 1/6) / 2.
    let passes: Vec<(Measure, f64)> = Measure::passes(4).map(|pass| (pass, evaluation.share(pass))).collect();
    assert_eq!(passes.iter().map(|(pass, _)| *pass).collect::<Vec<_>>(), [1, 2, 4].map(Measure::Pass));
    assert!(passes.iter().zip([25.0, 500.0 / 12.0, 50.0]).all(|((_, found), expected)| (found - expected).abs() < 1e-9));
    assert_eq!((evaluation.items().len(), evaluation.num_samples), (2, 4));
    let worked = (evaluation.worked_share(), evaluation.worked_accuracy(), evaluation.direct_accuracy());
    assert_eq!(worked, (25.0, Some(50.0), Some(100.0 / 6.0)));
    assert_eq!((evaluation.unparsed_share(EvalMode::Greedy), evaluation.unparsed_share(EvalMode::Sampled)), (0.0, 12.5));
    let levels = evaluation.by_subject_or_level();
    assert_eq!((levels[0].level, levels[0].evaluation.items().len()), (Some(1), 1));
    assert_eq!(Measure::MAIN.map(|measure| levels[0].evaluation.share(measure)), [0.0, 50.0, 100.0]);
    assert!(Evaluation::of(&two_items("6"), EvalStyle::Worked).unwrap().is_none());
}

#[test]
fn names_and_keys_bear_the_number_of_samples() {
    let names: Vec<String> = Measure::MAIN.into_iter().chain(Measure::passes(3)).map(|measure| measure.name(3)).collect();
    assert_eq!(names, ["greedy", "mean@3", "maj@3", "pass@1", "pass@2"]);
    assert_eq!((Measure::Mean.key(32), Measure::Pass(16).key(32)), ("mean32".to_owned(), "pass16".to_owned()));
    assert_eq!((Measure::passes(0).count(), Measure::passes(u32::MAX).count()), (0, 32));
}

#[test]
fn a_majority_of_two_forms_of_the_gold_answer_is_right_where_its_form_was_graded_right() {
    // The gold answer is no canonical form itself.
    let mut rows = two_items("5");
    for row in rows.iter_mut().filter(|row| row.row == 0) {
        row.gold = r"\frac{10}{2}".to_owned();
    }
    assert_eq!(evaluation(&rows).share(Measure::Majority), 50.0);
}

#[test]
fn a_gain_needs_the_same_problems() {
    let (before, after) = (evaluation(&two_items("6")), evaluation(&two_items("5")));
    let gain = after.gain_over(&before, Measure::Greedy, DRAWS).unwrap();
    assert_eq!((gain.value, gain.low, gain.high), (50.0, 0.0, 100.0));
    assert_eq!(after.changes_from(&before), Some(Changes { num_gained: 1, num_lost: 0, p_value: 1.0 }));
    let one: Vec<EvalResult> = two_items("5").into_iter().filter(|row| row.row == 0).collect();
    assert_eq!(evaluation(&one).gain_over(&before, Measure::Greedy, DRAWS), None);
    let mut other_gold = two_items("5");
    other_gold.iter_mut().for_each(|row| row.gold = "9".to_owned());
    assert_eq!(evaluation(&other_gold).changes_from(&before), None);
}

#[test]
fn rows_that_contradict_each_other_are_refused() {
    let refused = |change: &dyn Fn(&mut Vec<EvalResult>)| {
        let mut rows = two_items("5");
        change(&mut rows);
        Evaluation::of(&rows, EvalStyle::Free).unwrap_err().to_string()
    };
    assert!(refused(&|rows| rows[0].item_id = "other".to_owned()).contains("item-0"));
    assert!(refused(&|rows| drop(rows.remove(0))).contains("lack the greedy"));
    assert!(refused(&|rows| drop(rows.pop())).contains("3 sampled completions"));
    assert!(refused(&|rows| rows[2].answer_status = "guessed".to_owned()).contains("guessed"));
}

#[test]
fn several_subjects_are_told_apart_by_name() {
    let mut rows = two_items("6");
    rows.iter_mut().filter(|row| row.row == 1).for_each(|row| row.subject = "sums".to_owned());
    let parts = evaluation(&rows).by_subject_or_level();
    let names: Vec<[String; 2]> = parts.iter().map(|part| [part.name(false), part.name(true)]).collect();
    assert_eq!(names, [["arithmetic", "ladder/arithmetic"], ["sums", "ladder/sums"]]);
    rows.iter_mut().for_each(|row| row.subject = format!("ladder/{}", row.subject));
    assert_eq!(evaluation(&rows).by_subject()[1].name(true), "ladder/sums");
}

/// Benchmarks with so many problems, of which so many are right by every completion.
fn benchmarks(of: &[(&str, u64, u64)]) -> Evaluation {
    let mut rows = Vec::new();
    for (benchmark, num_items, num_right) in of {
        for index in 0..*num_items {
            let answer = if index < *num_right { "7" } else { "8" };
            for mode in [EvalMode::Greedy, EvalMode::Sampled] {
                let row = rows.len() as u64 / 2;
                rows.push(EvalResult { benchmark: (*benchmark).to_owned(), ..result(row, mode, 0, answer, "7") });
            }
        }
    }
    evaluation(&rows)
}

#[test]
fn an_average_gives_its_members_the_same_weight_however_deep_they_stand() {
    let group = |name: &str, members: &[&str]| GroupSettings {
        name: name.to_owned(),
        members: members.iter().map(|member| (*member).to_owned()).collect(),
    };
    let groups = [group("maths", &["a", "b"]), group("all", &["maths", "c"]), group("more", &["all", "d", "a"])];
    let before = benchmarks(&[("c", 10, 0), ("a", 2, 1), ("b", 8, 8)]);
    let after = benchmarks(&[("c", 10, 5), ("a", 2, 1), ("b", 8, 8)]);
    let value = |average: &Average| average.accuracy(Measure::Greedy, DRAWS).map(|figure| figure.value);
    let (of_before, of_after) = (averages(&groups, &before), averages(&groups, &after));
    assert_eq!(of_after.iter().map(value).collect::<Vec<_>>(), [Some(75.0), Some(62.5), None]);
    assert_eq!((&of_after[2].missing, of_after[2].num_items()), (&vec!["d".to_owned()], 20));
    let gain = of_after[1].gain_over(&of_before[1], Measure::Greedy, DRAWS).unwrap();
    assert!(gain.value == 25.0 && gain.low < 25.0 && gain.high > 25.0);
    assert_eq!(of_after[1].changes_from(&of_before[1]), Some(Changes::new(5, 0)));
    assert_eq!(of_after[2].gain_over(&of_before[2], Measure::Greedy, DRAWS), None);
    assert_eq!(of_after[2].changes_from(&of_before[2]), None);
    // Where nothing can be resampled, Wilson's interval stands.
    let figure = benchmarks(&[("a", 20, 0)]).accuracy(Measure::Greedy, DRAWS);
    assert!(figure.low == 0.0 && (figure.high - 16.112_515_8).abs() < 1e-6, "{figure:?}");
    // Problems are resampled within a member: one that is all right moves nothing.
    let sure = benchmarks(&[("a", 5, 5), ("b", 9, 9)]);
    let figure = averages(&groups[..1], &sure)[0].accuracy(Measure::Mean, DRAWS).unwrap();
    assert_eq!((figure.value, figure.low, figure.high), (100.0, 100.0, 100.0));
}
