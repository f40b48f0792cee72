//! What became of the candidates; where time and tokens went.

use super::title_of;
use crate::stages::report::chart::{Axes, Chart, Places, bars};
use crate::stages::report::collect::RunReport;
use crate::stages::report::page::{Group, Section, Table};
use rzero_schema::vocab::Stage;

/// Kept and dropped, by reason.
pub(in crate::stages::report) fn drops(runs: &[RunReport]) -> anyhow::Result<Section> {
    let mut groups = Vec::new();
    for run in runs {
        let curricula: Vec<_> =
            run.summary.iterations.iter().filter_map(|found| Some((found.iteration, found.curriculum.as_ref()?))).collect();
        let reasons =
            curricula.first().map_or_else(Vec::new, |(_, first)| first.drops.iter().map(|(reason, _)| reason.clone()).collect());
        let mut parts = vec![("kept".to_owned(), curricula.iter().map(|(_, found)| found.num_kept as f64).collect::<Vec<_>>())];
        for (at, reason) in reasons.iter().enumerate() {
            parts.push((reason.replace('_', " "), curricula.iter().map(|(_, found)| found.drops[at].1 as f64).collect()));
        }
        parts.retain(|(name, heights)| name == "kept" || heights.iter().any(|height| *height > 0.0));
        let places = Places::Named(curricula.iter().map(|(iteration, _)| iteration.to_string()).collect());
        let mut group = Group { title: title_of(run, runs), ..Group::default() };
        group.charts.extend(bars(
            "Candidates, kept and dropped by reason",
            Axes { x: "iteration", y: "candidates" },
            &places,
            &parts,
        )?);
        let mut malformed: Vec<Vec<String>> = Vec::new();
        for (iteration, found) in &curricula {
            let what = found.malformed.iter().filter(|(_, num)| *num > 0);
            malformed.extend(what.map(|(what, num)| vec![iteration.to_string(), what.replace('_', " "), num.to_string()]));
        }
        if !malformed.is_empty() {
            group.tables.push(Table::new(
                "Malformed completions by what is wrong",
                &["iteration", "what", "completions"],
                malformed,
            ));
        }
        groups.push(group);
    }
    Ok(Section {
        id: "drops",
        title: "Kept and dropped",
        lead: "Every candidate is kept or dropped with the first gate that refused it.".to_owned(),
        groups,
    })
}

/// Time and tokens by stage.
pub(in crate::stages::report) fn section(runs: &[RunReport]) -> anyhow::Result<Section> {
    let mut groups = Vec::new();
    for run in runs {
        let iterations = &run.summary.iterations;
        let seconds = |at: usize, stage: Stage| iterations[at].seconds_by_stage.get(stage.as_str()).copied().unwrap_or(0.0);
        let tokens = |at: usize, stage: Stage| {
            run.tokens.get(&(iterations[at].iteration, stage.to_string())).copied().unwrap_or(0) as f64 / 1e3
        };
        let charts = [
            by_stage(run, "Time by stage", "seconds", &|at, stage| (10.0 * seconds(at, stage)).round() / 10.0)?,
            by_stage(run, "Completion tokens by stage", "thousand tokens", &tokens)?,
        ];
        groups.push(Group { title: title_of(run, runs), charts: charts.into_iter().flatten().collect(), ..Group::default() });
    }
    Ok(Section {
        id: "costs",
        title: "Time and tokens",
        lead: "Time is that of the stages' processes, added up. Tokens are those that a stage wrote; of grpo-step, those it trained on.".to_owned(),
        groups,
    })
}

fn by_stage(run: &RunReport, title: &str, unit: &str, amount: &dyn Fn(usize, Stage) -> f64) -> anyhow::Result<Option<Chart>> {
    let iterations = &run.summary.iterations;
    let part = |stage: &Stage| {
        let heights: Vec<f64> = (0..iterations.len()).map(|at| amount(at, *stage)).collect();
        heights.iter().any(|height| *height > 0.0).then(|| (stage.to_string(), heights))
    };
    let parts: Vec<(String, Vec<f64>)> = Stage::ALL.iter().filter_map(part).collect();
    let places = Places::Named(iterations.iter().map(|iteration| iteration.iteration.to_string()).collect());
    bars(title, Axes { x: "iteration", y: unit }, &places, &parts)
}
