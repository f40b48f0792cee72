//! What a judge says of an iteration's grades, beside what the grader says: both accuracies, and where the two disagree.
//!
//! Reads `judgements` where there are any, and the `eval_results` they speak of. Accuracies are of completions in the model's own
//! way of working; the counts are of every row that was asked about.

use super::collect::{IterationSummary, is_of};
use crate::exit::StageFailure;
use crate::markdown::{ABSENT, figure, new_table};
use crate::scores::{Bootstrap, Figure, Measure};
use comfy_table::Table;
use rzero_algo::score::bootstrap_mean;
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::tables::{EvalResult, Judgement};
use rzero_schema::vocab::{EvalMode, EvalStyle, Phase, Stage, Verdict};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The title of its table.
pub(in crate::stages) const TITLE: &str = "Graded again by a judge, % [95 % interval]: its verdict decides where it gave one; of the rows asked, \
                                how often it agrees with `equal` and says `equal` of the others";

/// The judge's part of an iteration.
#[derive(Debug)]
pub(in crate::stages) struct Judged {
    /// Models that judged, in the order of their names.
    models: Vec<String>,
    /// Accuracy of greedy completions: by the grader, and by the judge where it gave a verdict.
    greedy: Option<[Figure; 2]>,
    /// The same of sampled completions: mean@k.
    mean: Option<[Figure; 2]>,
    /// Sampled completions of a problem.
    num_samples: u32,
    /// By the grader's verdict: rows asked, rows with a verdict of the judge, rows that the judge calls equal.
    counts: BTreeMap<Verdict, Counts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    asked: u64,
    judged: u64,
    equal: u64,
}

/// What identifies a completion of an evaluation.
type Key<'a> = (&'a str, &'a str, &'a str, u32);

/// Reads what the judge said of an iteration; none where it was not asked, or has not finished.
pub(in crate::stages) fn read(
    layout: &RunLayout,
    iteration: u32,
    subjects: &[String],
    draws: Bootstrap,
) -> anyhow::Result<Option<Judged>> {
    let place = Place::new(iteration, Phase::Eval, 0);
    let open = |stage| StageOutput::open_finished(layout, stage, place);
    let (Some(judge), Some(eval)) = (open(Stage::Judge)?, open(Stage::Eval)?) else { return Ok(None) };
    judged(&judge.read::<Judgement>()?, &eval.read::<EvalResult>()?, subjects, draws).map(Some)
}

fn judged(judgements: &[Judgement], results: &[EvalResult], subjects: &[String], draws: Bootstrap) -> anyhow::Result<Judged> {
    let by_key: BTreeMap<Key<'_>, &EvalResult> = results
        .iter()
        .map(|row| ((row.item_id.as_str(), row.eval_style.as_str(), row.eval_mode.as_str(), row.sample), row))
        .collect();
    let is_shown = |row: &EvalResult| is_of(row, subjects);
    let mut verdicts: BTreeMap<Key<'_>, Verdict> = BTreeMap::new();
    let mut counts: BTreeMap<Verdict, Counts> = Verdict::ALL.iter().map(|verdict| (*verdict, Counts::default())).collect();
    let mut models = BTreeSet::new();
    for row in judgements {
        let key = (row.item_id.as_str(), row.eval_style.as_str(), row.eval_mode.as_str(), row.sample);
        let Some(result) = by_key.get(&key).filter(|result| result.answer == row.answer && result.verdict == row.verdict) else {
            let message = format!("the judgement on problem {} is on no answer of this evaluation", row.item_id);
            return Err(StageFailure::input(message).hint("rerun judge with --overwrite").into());
        };
        if !is_shown(result) {
            continue;
        }
        let read = |word: &str| {
            word.parse::<Verdict>().map_err(|error| StageFailure::input(format!("judgement on problem {}: {error}", row.item_id)))
        };
        let counts = counts.entry(read(&row.verdict)?).or_default();
        counts.asked += 1;
        models.insert(row.judge_model.clone());
        if let Some(word) = &row.judge_verdict {
            let verdict = read(word)?;
            counts.judged += 1;
            counts.equal += u64::from(verdict == Verdict::Equal);
            verdicts.insert(key, verdict);
        }
    }
    let free: Vec<&EvalResult> =
        results.iter().filter(|row| row.eval_style == EvalStyle::Free.as_str() && is_shown(row)).collect();
    let by_grader = |row: &EvalResult| row.is_correct;
    let by_judge = |row: &EvalResult| {
        let key = (row.item_id.as_str(), row.eval_style.as_str(), row.eval_mode.as_str(), row.sample);
        verdicts.get(&key).map_or(row.is_correct, |verdict| *verdict == Verdict::Equal)
    };
    let both = |mode| Some([accuracy(&free, mode, by_grader, draws)?, accuracy(&free, mode, by_judge, draws)?]);
    let num_samples =
        free.iter().filter(|row| row.eval_mode == EvalMode::Sampled.as_str()).map(|row| row.sample + 1).max().unwrap_or(0);
    let (greedy, mean) = (both(EvalMode::Greedy), both(EvalMode::Sampled));
    Ok(Judged { models: models.into_iter().collect(), greedy, mean, num_samples, counts })
}

/// Mean over problems of the share of right completions of a mode; none where there are none.
fn accuracy(rows: &[&EvalResult], mode: EvalMode, is_right: impl Fn(&EvalResult) -> bool, draws: Bootstrap) -> Option<Figure> {
    let mut by_item: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.eval_mode == mode.as_str()) {
        let (right, all) = by_item.entry(row.row).or_default();
        *right += f64::from(u8::from(is_right(row)));
        *all += 1.0;
    }
    if by_item.is_empty() {
        return None;
    }
    let values: Vec<f64> = by_item.values().map(|(right, all)| right / all).collect();
    let interval = bootstrap_mean(&values, draws.resamples, draws.seed);
    let value = 100.0 * values.iter().sum::<f64>() / values.len() as f64;
    Some(Figure { value, low: 100.0 * interval.low, high: 100.0 * interval.high })
}

/// The iterations that a judge has seen, as a table; none where it has seen none.
pub(in crate::stages) fn table(iterations: &[IterationSummary]) -> Option<Table> {
    let num_samples = iterations.iter().find_map(|iteration| iteration.judged.as_ref())?.num_samples;
    let mean = Measure::Mean.name(num_samples);
    let [mean_grader, mean_judge] = ["grader", "judge"].map(|who| format!("{mean}, {who}"));
    let header = [
        "iteration",
        "greedy, grader",
        "greedy, judge",
        &mean_grader,
        &mean_judge,
        "asked",
        "no verdict",
        "`equal`: agrees",
        "`different`: says equal",
        "`unknown`: says equal",
        "judge",
    ];
    let mut table = new_table(&header);
    for iteration in iterations {
        let Some(judged) = &iteration.judged else { continue };
        let cells = |figures: Option<[Figure; 2]>| figures.map_or([ABSENT; 2].map(str::to_owned), |figures| figures.map(figure));
        let of = |verdict: Verdict| {
            let counts = judged.counts[&verdict];
            format!("{} of {}", counts.equal, counts.judged)
        };
        let sum = |count: fn(&Counts) -> u64| judged.counts.values().map(count).sum::<u64>();
        let mut row = vec![iteration.iteration.to_string()];
        row.extend(cells(judged.greedy));
        row.extend(cells(judged.mean));
        row.extend([sum(|counts| counts.asked).to_string(), sum(|counts| counts.asked - counts.judged).to_string()]);
        row.extend([of(Verdict::Equal), of(Verdict::Different), of(Verdict::Unknown), judged.models.join(", ")]);
        table.add_row(row);
    }
    (!table.is_empty()).then_some(table)
}

/// The judge's part of an iteration as JSON; null where it was not asked.
pub(in crate::stages) fn object(judged: Option<&Judged>) -> Value {
    let Some(judged) = judged else { return Value::Null };
    let both = |figures: Option<[Figure; 2]>| {
        let one = |figure: Figure| json!({ "value": figure.value, "low": figure.low, "high": figure.high });
        figures.map(|[grader, judge]| json!({ "grader": one(grader), "judge": one(judge) }))
    };
    let counts: serde_json::Map<String, Value> = judged
        .counts
        .iter()
        .map(|(verdict, counts)| {
            let value = json!({ "num_asked": counts.asked, "num_judged": counts.judged, "num_judged_equal": counts.equal });
            (verdict.to_string(), value)
        })
        .collect();
    let mean = Measure::Mean.key(judged.num_samples);
    json!({ "models": judged.models, "greedy": both(judged.greedy), mean: both(judged.mean), "by_grader_verdict": counts })
}
