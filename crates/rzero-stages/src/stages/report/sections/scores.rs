//! Held-out accuracy by iteration, and its gains.

use super::by_iteration;
use crate::markdown::optional_gain;
use crate::scores::Measure;
use crate::stages::report::chart::{Axes, Point, Series, lines};
use crate::stages::report::collect::RunReport;
use crate::stages::report::page::{Group, Section, Table};

pub(in crate::stages::report) fn section(runs: &[RunReport]) -> anyhow::Result<Section> {
    let num_samples = runs.first().map_or(0, |run| run.summary.record.profile.eval.num_samples);
    let names = Measure::MAIN.map(|measure| measure.name(num_samples));
    let mut group = Group::default();
    for (at, name) in names.iter().enumerate() {
        let mut series = by_iteration(runs, |iteration| Some(iteration.scores.as_ref()?.accuracy[at]));
        series.extend(base_in_steps(runs, at));
        group.charts.extend(lines(&format!("{name} on held-out problems"), Axes { x: "iteration", y: "right, %" }, &series)?);
    }
    let mut rows = Vec::new();
    for run in runs {
        for iteration in run.summary.iterations.iter().filter(|iteration| iteration.iteration > 0) {
            let Some(scores) = &iteration.scores else { continue };
            let gains = scores.gain.iter().chain(&scores.gain_over_worked).map(|gain| optional_gain(*gain));
            rows.push([run.name.clone(), iteration.iteration.to_string()].into_iter().chain(gains).collect());
        }
    }
    if !rows.is_empty() {
        let gains = ["over the base", "over the base in steps"]
            .iter()
            .flat_map(|over| names.iter().map(move |name| format!("{name} {over}")));
        let header: Vec<String> = ["run", "iteration"].map(str::to_owned).into_iter().chain(gains).collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        group.tables.push(Table::new("Gains, problem by problem, in percent points", &header, rows));
    }
    Ok(Section {
        id: "accuracy",
        title: "Accuracy",
        lead: "Iteration 0 is the base model. Where the base was also made to work in steps, that is a line of its own: what lies under it may \
               be habit, what lies over it is accuracy."
            .to_owned(),
        groups: vec![group],
    })
}

/// The base model made to work in steps, as a level line, of the first run that measured it.
fn base_in_steps(runs: &[RunReport], at: usize) -> Option<Series> {
    let last = runs.iter().filter_map(|run| run.summary.iterations.last()).map(|iteration| iteration.iteration).max()?;
    let (run, accuracy) = runs.iter().find_map(|run| {
        let scores = run.summary.iterations.first()?.scores.as_ref()?;
        Some((run, scores.worked.as_ref()?.1[at]))
    })?;
    let name = if runs.len() > 1 { format!("base in steps ({})", run.name) } else { "base in steps".to_owned() };
    let point = |x: f64| Point { x, y: accuracy.value, interval: None };
    Some(Series { name, points: vec![point(0.0), point(f64::from(last))] })
}
