//! From the runs of a matrix to one figure a cell and iteration.

use crate::run_dir::MirrorArgs;
use crate::scores::{Bootstrap, Evaluation, Figure, Measure};
use crate::stages::summary::collect::{IterationSummary, RunSummary, read_run};
use rzero_algo::score::{bootstrap_mean, wilson};
use rzero_schema::ablation::{Ablation, Cell};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The two measures that are held against one another: greedy and mean@k.
pub(super) const MEASURES: [Measure; 2] = [Measure::Greedy, Measure::Mean];

/// What a cell came to.
#[derive(Debug, Serialize)]
pub(super) struct CellResult {
    pub(super) name: String,
    pub(super) set: Vec<String>,
    pub(super) source: String,
    /// Seeds whose runs are there.
    pub(super) seeds: Vec<u64>,
    /// Iterations that every seed has finished, from 0.
    pub(super) iterations: Vec<IterationResult>,
    /// Work of all seeds.
    pub(super) seconds: f64,
    /// Why a run goes no further, where one has stopped by itself.
    pub(super) stopped: Vec<String>,
}

/// An iteration over all seeds of a cell. Shares and gains are percent points; arrays are by [`MEASURES`].
#[derive(Debug, Serialize)]
pub(super) struct IterationResult {
    pub(super) iteration: u32,
    pub(super) accuracy: [Interval; 2],
    /// Of each seed.
    pub(super) by_seed: Vec<[f64; 2]>,
    /// Over the first cell at the same iteration; none for the first cell itself, and where it has not come so far.
    pub(super) gain: Option<[Interval; 2]>,
    /// Kept labels that are true, all seeds together.
    pub(super) labels: Option<Interval>,
    pub(super) num_kept: u64,
}

/// A figure with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Interval {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl From<Figure> for Interval {
    fn from(Figure { value, low, high }: Figure) -> Self {
        Self { value, low, high }
    }
}

impl From<Interval> for Figure {
    fn from(Interval { value, low, high }: Interval) -> Self {
        Self { value, low, high }
    }
}

/// The runs of one cell that are there, by seed.
type Runs = Vec<(u64, RunSummary)>;

/// Reads every run and measures every cell. A run that is not there is left out.
pub(super) fn measure(
    ablation: &Ablation,
    run_of: impl Fn(&Cell, u64) -> PathBuf,
    mirrors: &MirrorArgs,
) -> anyhow::Result<Vec<CellResult>> {
    let mut results = Vec::new();
    let mut baseline: Option<Runs> = None;
    for cell in &ablation.cells {
        let mut runs: Runs = Vec::new();
        for seed in &ablation.seeds {
            let run = run_of(cell, *seed);
            if exists(&run) {
                runs.push((*seed, read_run(&run, &mirrors.layout_of(&run)?, &[])?));
            }
        }
        results.push(of_cell(cell, &runs, baseline.as_ref(), ablation.iterations));
        baseline.get_or_insert(runs);
    }
    Ok(results)
}

/// Whether a run has begun; one in a store is asked for when it is read.
fn exists(run: &Path) -> bool {
    run.to_str().is_some_and(rzero_io::objects::is_url) || run.join("run.json").is_file()
}

fn of_cell(cell: &Cell, runs: &Runs, baseline: Option<&Runs>, iterations: u32) -> CellResult {
    let mut found = Vec::new();
    for iteration in 0..=iterations {
        let evaluations: Vec<&Evaluation> = runs.iter().filter_map(|(_, run)| evaluation(run, iteration)).collect();
        // Seeds that are behind would make the mean one of other runs than the iteration before.
        if evaluations.is_empty() || evaluations.len() < runs.len() {
            break;
        }
        found.push(of_iteration(iteration, runs, &evaluations, baseline));
    }
    // Another matrix may have taken the same runs further.
    let own = |found: &&IterationSummary| found.iteration <= iterations;
    let all = runs.iter().flat_map(|(_, run)| run.iterations.iter().filter(own));
    let seconds = all.flat_map(|found| found.seconds_by_stage.values()).sum();
    let last = found.last().map_or(0, |found| found.iteration);
    let behind = |(seed, run): &(u64, RunSummary)| {
        let next = run
            .iterations
            .iter()
            .find(|found| (last + 1..=iterations).contains(&found.iteration) && !found.missing.is_empty())?;
        Some(format!("seed {seed}, iteration {}: no {}", next.iteration, next.missing.first()?))
    };
    CellResult {
        name: cell.name.clone(),
        set: cell.set.clone(),
        source: cell.source.clone(),
        seeds: runs.iter().map(|(seed, _)| *seed).collect(),
        iterations: found,
        seconds,
        stopped: runs.iter().filter_map(behind).collect(),
    }
}

fn evaluation(run: &RunSummary, iteration: u32) -> Option<&Evaluation> {
    let found = run.iterations.iter().find(|found| found.iteration == iteration)?;
    Some(&found.scores.as_ref()?.evaluation)
}

fn of_iteration(iteration: u32, runs: &Runs, evaluations: &[&Evaluation], baseline: Option<&Runs>) -> IterationResult {
    let draws = draws(runs);
    let accuracy = MEASURES.map(|measure| interval(&mean_values(evaluations, measure), draws));
    let by_seed = evaluations.iter().map(|evaluation| MEASURES.map(|measure| evaluation.share(measure))).collect();
    let gain = baseline.and_then(|baseline| gain(iteration, runs, baseline, draws));
    let (mut num_true, mut num_checked, mut num_kept) = (0.0, 0, 0);
    for (_, run) in runs {
        let found = run.iterations.iter().find(|found| found.iteration == iteration);
        let Some(curriculum) = found.and_then(|found| found.curriculum.as_ref()) else { continue };
        num_kept += curriculum.num_kept;
        if let Some((labels, figure)) = curriculum.labels.and_then(|labels| Some((labels, labels.figure?))) {
            num_true += (figure.value / 100.0 * labels.num_checked as f64).round();
            num_checked += labels.num_checked;
        }
    }
    let labels =
        (num_checked > 0).then(|| Figure::new(num_true / num_checked as f64, wilson(num_true as u64, num_checked)).into());
    IterationResult { iteration, accuracy, by_seed, gain, labels, num_kept }
}

/// The gain over the first cell, over the seeds that both have; none where they have none in common or other problems.
fn gain(iteration: u32, runs: &Runs, baseline: &Runs, draws: Bootstrap) -> Option<[Interval; 2]> {
    let pairs: Vec<(&Evaluation, &Evaluation)> = runs
        .iter()
        .filter_map(|(seed, run)| {
            let (_, before) = baseline.iter().find(|(other, _)| other == seed)?;
            Some((evaluation(before, iteration)?, evaluation(run, iteration)?))
        })
        .collect();
    let (before, after): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let first: &Evaluation = before.first()?;
    if !before.iter().chain(&after).all(|other: &&Evaluation| first.has_items_of(other)) {
        return None;
    }
    Some(MEASURES.map(|measure| {
        let (before, after) = (mean_values(&before, measure), mean_values(&after, measure));
        let gains: Vec<f64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
        interval(&gains, draws)
    }))
}

/// What each problem is worth, in the mean over the seeds.
fn mean_values(evaluations: &[&Evaluation], measure: Measure) -> Vec<f64> {
    let mut sums = vec![0.0; evaluations.first().map_or(0, |first| first.items().len())];
    for evaluation in evaluations {
        sums.iter_mut().zip(evaluation.values(measure)).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().map(|sum| sum / evaluations.len() as f64).collect()
}

fn interval(values: &[f64], draws: Bootstrap) -> Interval {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    Figure::new(mean, bootstrap_mean(values, draws.resamples, draws.seed)).into()
}

fn draws(runs: &Runs) -> Bootstrap {
    let profile = runs.first().map(|(_, run)| &run.record.profile);
    Bootstrap { resamples: profile.map_or(1_000, |profile| profile.eval.bootstrap_resamples), seed: 0 }
}

impl CellResult {
    /// How far a measure lies under its best so far, at worst, in percent points: of the mean over the seeds. 0 where it only rises.
    pub(super) fn deepest_fall(&self, measure: usize) -> f64 {
        let mut best = f64::NEG_INFINITY;
        let mut deepest = 0.0_f64;
        for found in &self.iterations {
            let value = found.accuracy[measure].value;
            best = best.max(value);
            deepest = deepest.max(best - value);
        }
        deepest
    }

    /// The smallest share of true labels of an iteration.
    pub(super) fn least_labels(&self) -> Option<Interval> {
        let labels = self.iterations.iter().filter_map(|found| found.labels);
        labels.min_by(|one, other| one.value.total_cmp(&other.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fall_is_measured_from_the_best_so_far() {
        let at = |value: f64| Interval { value, low: value, high: value };
        let found = |(iteration, value): (usize, &f64)| IterationResult {
            iteration: iteration as u32,
            accuracy: [at(*value), at(10.0)],
            by_seed: Vec::new(),
            gain: None,
            labels: Some(at(90.0 - *value)),
            num_kept: 1,
        };
        let result = |values: &[f64]| CellResult {
            name: String::new(),
            set: Vec::new(),
            source: String::new(),
            seeds: Vec::new(),
            iterations: values.iter().enumerate().map(found).collect(),
            seconds: 0.0,
            stopped: Vec::new(),
        };
        let measured = result(&[30.0, 70.0, 68.5, 71.0, 70.0]);
        assert_eq!((measured.deepest_fall(0), measured.deepest_fall(1)), (1.5, 0.0));
        assert_eq!(measured.least_labels(), Some(at(19.0)));
        assert_eq!(result(&[]).deepest_fall(0), 0.0);
    }
}
