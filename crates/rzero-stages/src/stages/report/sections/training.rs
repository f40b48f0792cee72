//! Reward, divergence and entropy over the steps of all roles.

use crate::stages::report::chart::{Axes, Point, Series, lines};
use crate::stages::report::collect::RunReport;
use crate::stages::report::page::{Group, Section};
use crate::stages::summary::collect::{IterationSummary, Training};
use rzero_schema::tables::TrainMetrics;
use rzero_schema::vocab::Role;

/// What is drawn of a step: its name, its unit, the figure.
type Drawn = (&'static str, &'static str, fn(&TrainMetrics) -> f64);

pub(in crate::stages::report) fn section(runs: &[RunReport]) -> anyhow::Result<Section> {
    let drawn: [Drawn; 3] = [
        ("reward", "mean reward", |step| step.reward_mean),
        ("divergence from the start of the iteration", "KL, nats a token", |step| step.kl_reference),
        ("entropy", "nats a token", |step| step.entropy),
    ];
    let mut groups = Vec::new();
    for (role, title) in [(Role::Challenger, "Challenger"), (Role::Verifier, "Verifier"), (Role::Solver, "Solver")] {
        let mut group = Group { title: Some(title.to_owned()), ..Group::default() };
        for (what, y, figure) in drawn {
            let series: Vec<Series> = runs.iter().map(|run| curve(run, role, figure)).collect();
            group.charts.extend(lines(&format!("{title}: {what}"), Axes { x: "step, through all iterations", y }, &series)?);
        }
        // Two roles of three are all there is in most runs.
        if !group.charts.is_empty() {
            groups.push(group);
        }
    }
    Ok(Section {
        id: "training",
        title: "Training",
        lead: "Steps are counted on from one iteration to the next. Each iteration begins anew from the policy it found, so divergence \
               begins at 0."
            .to_owned(),
        groups,
    })
}

fn curve(run: &RunReport, role: Role, figure: fn(&TrainMetrics) -> f64) -> Series {
    let of = |iteration: &'_ IterationSummary| -> Vec<TrainMetrics> {
        let training: Option<&Training> = match role {
            Role::Challenger => iteration.challenger.as_ref(),
            Role::Solver => iteration.solver.as_ref(),
            Role::Verifier => iteration.verifier.as_ref(),
        };
        training.map_or_else(Vec::new, |training| training.steps.clone())
    };
    let profile = &run.summary.record.profile;
    let steps = match role {
        Role::Challenger => profile.challenger.steps,
        Role::Solver => profile.solver.steps,
        Role::Verifier => profile.verifier.as_ref().map_or(0, |verifier| verifier.steps),
    };
    let place = |step: &TrainMetrics| f64::from(step.iteration.saturating_sub(1) * steps + step.step);
    let point = |step: TrainMetrics| Point { x: place(&step), y: figure(&step), interval: None };
    Series { name: run.name.clone(), points: run.summary.iterations.iter().flat_map(of).map(point).collect() }
}
