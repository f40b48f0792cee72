//! The sections of a report, a file each.

pub(super) mod costs;
pub(super) mod labels;
pub(super) mod learned;
pub(super) mod origins;
pub(super) mod questions;
pub(super) mod scores;
pub(super) mod training;
pub(super) mod verifier;

use super::chart::{Point, Series};
use super::collect::RunReport;
use crate::scores::Figure;
use crate::stages::summary::collect::IterationSummary;

/// A series a run, with a point for each iteration that has the figure.
fn by_iteration(runs: &[RunReport], figure: impl Fn(&IterationSummary) -> Option<Figure>) -> Vec<Series> {
    let point = |iteration: &IterationSummary| {
        let Figure { value, low, high } = figure(iteration)?;
        Some(Point { x: f64::from(iteration.iteration), y: value, interval: Some((low, high)) })
    };
    let series =
        |run: &RunReport| Series { name: run.name.clone(), points: run.summary.iterations.iter().filter_map(point).collect() };
    runs.iter().map(series).collect()
}

/// The title of a run's group; none where there is but one run.
fn title_of(run: &RunReport, runs: &[RunReport]) -> Option<String> {
    (runs.len() > 1).then(|| run.name.clone())
}
