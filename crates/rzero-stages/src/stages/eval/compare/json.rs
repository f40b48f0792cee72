//! A comparison as one JSON object. Accuracies and gains are percent points from 0 to 100; what is not known is null.

use super::{Answer, Change, Comparison, Kind, Line, Side};
use crate::scores::Figure;
use serde_json::{Value, json};

/// The whole object.
pub(super) fn object(comparison: &Comparison) -> Value {
    let lines = |kind: Kind| -> Vec<Value> { comparison.lines.iter().filter(|line| line.kind == kind).map(line).collect() };
    let changes = |changes: &[Change]| -> Vec<Value> { changes.iter().map(change).collect() };
    json!({
        "before": side(&comparison.before),
        "after": side(&comparison.after),
        "benchmarks": lines(Kind::Benchmark),
        "averages": lines(Kind::Average),
        "all": lines(Kind::All).into_iter().next(),
        "gained": changes(&comparison.gained),
        "lost": changes(&comparison.lost),
    })
}

fn side(side: &Side) -> Value {
    json!({
        "run": side.run.display().to_string(),
        "iteration": side.iteration,
        "profile": side.record.profile_name,
        "seed": side.record.seed,
        "model": side.record.profile.model.path,
        "num_samples": side.evaluation.num_samples,
    })
}

fn line(line: &Line) -> Value {
    let [greedy, mean] = &line.measures;
    let pair =
        |pair: &super::Pair| json!({ "before": figure(pair.before), "after": figure(pair.after), "gain": figure(pair.gain) });
    json!({
        "name": line.name,
        "num_items": line.num_items,
        "missing": line.missing,
        "greedy": pair(greedy),
        "mean": pair(mean),
        "num_gained": line.changes.map(|changes| changes.num_gained),
        "num_lost": line.changes.map(|changes| changes.num_lost),
        "mcnemar_p": line.changes.map(|changes| changes.p_value),
        "unparsed_greedy": line.unread.map(|[before, after]| json!({ "before": before, "after": after })),
    })
}

fn figure(figure: Option<Figure>) -> Value {
    json!(figure.map(|figure| json!({ "value": figure.value, "low": figure.low, "high": figure.high })))
}

fn change(change: &Change) -> Value {
    json!({
        "item_id": change.item_id,
        "benchmark": change.benchmark,
        "question": change.question,
        "gold": change.gold,
        "before": answer(&change.before),
        "after": answer(&change.after),
    })
}

fn answer(answer: &Answer) -> Value {
    json!({ "answer": answer.answer, "answer_status": answer.status, "completion": answer.completion })
}
