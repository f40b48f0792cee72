//! How true the labels are, and how the votes fell out.

use super::{by_iteration, title_of};
use crate::stages::report::chart::{Axes, Places, bars, lines};
use crate::stages::report::collect::RunReport;
use crate::stages::report::page::{Group, Section};
use crate::stages::report::questions::NUM_BINS;

pub(in crate::stages::report) fn section(runs: &[RunReport]) -> anyhow::Result<Section> {
    let truth = by_iteration(runs, |iteration| iteration.curriculum.as_ref()?.labels?.figure);
    let truth = lines("Pseudo-labels of kept questions that are true", Axes { x: "iteration", y: "true, %" }, &truth)?;
    let mut groups = vec![Group { charts: truth.into_iter().collect(), ..Group::default() }];
    for run in runs {
        let mut group = Group { title: title_of(run, runs), ..Group::default() };
        for (iteration, questions) in &run.questions {
            let heights = |counts: [u64; NUM_BINS]| counts.iter().map(|count| *count as f64).collect::<Vec<_>>();
            let parts = [
                ("kept".to_owned(), heights(questions.kept_by_share)),
                ("not kept".to_owned(), heights(questions.other_by_share)),
            ];
            let axes = Axes { x: "vote share of the majority answer, %", y: "questions" };
            group.charts.extend(bars(&format!("Votes in iteration {iteration}"), axes, &Places::Bins(NUM_BINS), &parts)?);
        }
        groups.push(group);
    }
    Ok(Section {
        id: "labels",
        title: "Labels and votes",
        lead: "The label of a question is the answer that most of the Solver's samples give. Questions with a vote share inside the band of \
               the profile are kept. True is what the label probe held against the truth."
            .to_owned(),
        groups,
    })
}
