//! What the Verifier makes of answers that are the same in every iteration: drift, and what it rewards.

use super::title_of;
use crate::stages::report::chart::{Axes, Point, Series, lines};
use crate::stages::report::collect::RunReport;
use crate::stages::report::page::{Example, Examples, Group, Section, shown};
use crate::stages::summary::collect::Probes;
use crate::stages::summary::show::PROBES;
use rzero_schema::tables::JudgedAnswer;

/// Nothing where no run has a Verifier.
pub(in crate::stages::report) fn section(runs: &[RunReport]) -> anyhow::Result<Option<Section>> {
    let mut groups = Vec::new();
    for run in runs {
        let Some(last) = run.summary.iterations.iter().rev().find_map(|iteration| iteration.probes.as_ref()) else { continue };
        let mut group = Group { title: title_of(run, runs), ..Group::default() };
        let scores: Vec<Series> = PROBES.iter().map(|(figure, name)| curve(run, figure, name, 1.0)).collect();
        let axes = Axes { x: "iteration", y: "mean score, 0 to 1" };
        group.charts.extend(lines("Scores of the same answers", axes, &scores)?);
        let told = [curve(run, "accuracy", "right or wrong, told", 100.0)];
        group.charts.extend(lines("Right and wrong answers told apart", Axes { x: "iteration", y: "told, %" }, &told)?);
        group.examples = examples(last);
        groups.push(group);
    }
    Ok((!groups.is_empty()).then(|| Section {
        id: "verifier",
        title: "Verifier",
        lead: "In every iteration the Verifier judges the same answers of the base model to held-out problems: right ones, wrong ones, and right \
               ones cut off, shuffled or exchanged for the answer to another problem. A score that drifts, or that no longer tells these apart, shows a Verifier that is being played. \
               Iteration 0 is the base model, which has not learned to judge. The examples are what the last Verifier thinks most and least of."
            .to_owned(),
        groups,
    }))
}

fn curve(run: &RunReport, figure: &str, name: &str, scale: f64) -> Series {
    let points = run.summary.iterations.iter().filter_map(|iteration| {
        let value = *iteration.probes.as_ref()?.figures.get(figure)?;
        Some(Point { x: f64::from(iteration.iteration), y: scale * value, interval: None })
    });
    Series { name: name.to_owned(), points: points.collect() }
}

fn examples(probes: &Probes) -> Vec<Examples> {
    let of = |title: &str, judged: &[JudgedAnswer]| Examples {
        title: format!("{title}, of {} judged", probes.num_judged),
        items: judged.iter().map(example).collect(),
    };
    [of("The highest scores", &probes.best), of("The lowest scores", &probes.worst)]
        .into_iter()
        .filter(|examples| !examples.items.is_empty())
        .collect()
}

fn example(judged: &JudgedAnswer) -> Example {
    let truth = match judged.target {
        Some(target) if target >= 0.5 => "right",
        Some(_) => "wrong",
        None => "not known",
    };
    let score =
        judged.score.map_or_else(|| "none".to_owned(), |score| format!("{score:.2} from {} verdicts", judged.num_verdicts));
    let parts = vec![("answer", shown(&judged.response)), ("score", score), ("in truth", truth.to_owned())];
    Example { title: shown(&judged.challenge_id), parts }
}
