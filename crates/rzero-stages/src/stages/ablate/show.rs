//! The table of a matrix: a row a cell, then the course of each.

use super::measure::{CellResult, Interval, IterationResult, MEASURES};
use crate::markdown::{ABSENT, new_table, optional_figure, optional_gain};
use crate::scores::Figure;
use rzero_schema::ablation::Ablation;

/// The whole table.
pub(super) fn table(ablation: &Ablation, results: &[CellResult]) -> String {
    let seeds = ablation.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let first = ablation.cells.first().map_or("", |cell| cell.name.as_str());
    let mut text = format!(
        "{}\n\nProfile {}, seeds {seeds}, {} iterations. Figures are means over the seeds with 95 % intervals over problems; gains are over \
         `{first}` at the same iteration, seed by seed and problem by problem. A fall is how far the mean lies under its best so far, at worst.\n\n",
        ablation.title, ablation.profile, ablation.iterations
    );
    text += &overview(results);
    for (at, name) in ["greedy", "mean@k"].into_iter().enumerate() {
        text += &format!("\n\n{name} by iteration, %\n");
        text += &course(ablation, results, |found| format!("{:.1}", found.accuracy[at].value));
    }
    text += "\n\nTrue labels of the kept questions by iteration, %\n";
    text += &course(ablation, results, |found| {
        found.labels.map_or_else(|| ABSENT.to_owned(), |labels| format!("{:.1}", labels.value))
    });
    text += "\n\nQuestions kept by iteration, all seeds\n";
    text += &course(ablation, results, |found| found.num_kept.to_string());
    text += "\n\nThe cells\n";
    for cell in results {
        let set = if cell.set.is_empty() { "the profile as it is".to_owned() } else { format!("`{}`", cell.set.join("; ")) };
        text += &format!("- {}: {set} ({})\n", cell.name, cell.source);
        for stopped in &cell.stopped {
            text += &format!("  - stopped: {stopped}\n");
        }
    }
    text.trim_end().to_owned()
}

fn overview(results: &[CellResult]) -> String {
    let mut table = new_table(&[
        "cell",
        "seeds",
        "iterations",
        "greedy",
        "mean@k",
        "gain greedy",
        "gain mean@k",
        "deepest fall, greedy / mean@k",
        "least true labels",
        "minutes",
    ]);
    for cell in results {
        let last = cell.iterations.last();
        let accuracy = |at: usize| optional_figure(last.map(|last| Figure::from(last.accuracy[at])));
        let gain =
            |at: usize| optional_gain(last.and_then(|last| last.gain).map(|gain: [Interval; MEASURES.len()]| gain[at].into()));
        // Of a cell that has not run there is nothing to tell.
        let told = |text: String| last.map_or_else(|| ABSENT.to_owned(), |_| text);
        table.add_row([
            cell.name.clone(),
            cell.seeds.len().to_string(),
            last.map_or_else(|| ABSENT.to_owned(), |last| last.iteration.to_string()),
            accuracy(0),
            accuracy(1),
            gain(0),
            gain(1),
            told(format!("{:.1} / {:.1}", cell.deepest_fall(0), cell.deepest_fall(1))),
            optional_figure(cell.least_labels().map(Figure::from)),
            told(format!("{:.1}", cell.seconds / 60.0)),
        ]);
    }
    table.to_string()
}

/// A row a cell, a column an iteration.
fn course(ablation: &Ablation, results: &[CellResult], figure: impl Fn(&IterationResult) -> String) -> String {
    let header: Vec<String> =
        std::iter::once("cell".to_owned()).chain((0..=ablation.iterations).map(|at| at.to_string())).collect();
    let mut table = new_table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for cell in results {
        let of = |at: u32| cell.iterations.iter().find(|found| found.iteration == at).map_or_else(|| ABSENT.to_owned(), &figure);
        table.add_row(std::iter::once(cell.name.clone()).chain((0..=ablation.iterations).map(of)));
    }
    table.to_string()
}
