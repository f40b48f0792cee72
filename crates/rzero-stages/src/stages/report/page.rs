//! What stands where in a report: sections of charts, tables and examples, handed to the template.

use super::chart::Chart;
use super::collect::RunReport;
use super::differences::differences;
use super::sections::{costs, labels, learned, origins, questions, scores, training, verifier};
use super::{MARK, chart::number};
use crate::markdown::{legible, optional_figure, optional_gain};
use crate::scores::{Figure, Measure};
use crate::stages::summary::collect::{IterationSummary, Scores};
use crate::template::{bounded_environment, json_value};
use anyhow::Context;
use minijinja::AutoEscape;
use serde::Serialize;

const TEMPLATE: &str = include_str!("report.html.jinja");
const STYLE: &str = include_str!("report.css");

/// Everything that the template shows.
#[derive(Serialize)]
struct Page {
    mark: &'static str,
    style: &'static str,
    title: String,
    lead: String,
    version: &'static str,
    sections: Vec<Section>,
}

/// One section.
#[derive(Serialize)]
pub(super) struct Section {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// How it is to be read.
    pub(super) lead: String,
    pub(super) groups: Vec<Group>,
}

/// What belongs together within a section, such as that of one run.
#[derive(Default, Serialize)]
pub(super) struct Group {
    /// None where the section has one group.
    pub(super) title: Option<String>,
    pub(super) charts: Vec<Chart>,
    pub(super) tables: Vec<Table>,
    pub(super) examples: Vec<Examples>,
}

/// A table with a header; the first column names the rows.
#[derive(Serialize)]
pub(super) struct Table {
    pub(super) caption: String,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// A row of a table.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    /// Whether the eye should stop here.
    pub(super) is_marked: bool,
}

/// Texts that a model wrote.
#[derive(Serialize)]
pub(super) struct Examples {
    pub(super) title: String,
    pub(super) items: Vec<Example>,
}

/// One of them: what it is, and its parts with their names.
#[derive(Serialize)]
pub(super) struct Example {
    pub(super) title: String,
    pub(super) parts: Vec<(&'static str, String)>,
}

impl Table {
    pub(super) fn new(caption: impl Into<String>, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        let rows = rows.into_iter().map(|cells| Row { cells, is_marked: false }).collect();
        Self { caption: caption.into(), header: header.iter().map(|name| (*name).to_owned()).collect(), rows }
    }
}

/// Longest text of a model that is shown, in characters.
const MAX_SHOWN: usize = 600;

/// A model's text as it can be shown: control characters as escapes, and not without end.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(MAX_SHOWN).collect();
    let rest = text.chars().count().saturating_sub(MAX_SHOWN);
    if rest == 0 { legible(&cut) } else { format!("{} … ({rest} more characters)", legible(&cut)) }
}

/// The report.
pub(super) fn html(runs: &[RunReport]) -> anyhow::Result<String> {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let mut sections = vec![
        glance(runs),
        scores::section(runs)?,
        labels::section(runs)?,
        questions::section(runs)?,
        training::section(runs)?,
        costs::drops(runs)?,
        costs::section(runs)?,
        learned::section(runs),
        settings(runs)?,
        origins::section(runs),
    ];
    if let Some(section) = verifier::section(runs)? {
        // Behind the training, which it is a part of.
        sections.insert(5, section);
    }
    for section in &mut sections {
        section.groups.retain(|group| !(group.charts.is_empty() && group.tables.is_empty() && group.examples.is_empty()));
    }
    sections.retain(|section| !section.groups.is_empty());
    let page = Page {
        mark: MARK,
        style: STYLE,
        title: format!("Report of {}", names.join(", ")),
        lead: lead(runs),
        version: env!("CARGO_PKG_VERSION"),
        sections,
    };
    let mut environment = bounded_environment();
    // Ours, not a user's, and as large as the runs are many.
    environment.set_fuel(None);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.render_str(TEMPLATE, json_value(serde_json::to_value(page)?)).context("cannot write the report")
}

/// What has not finished, in words.
fn lead(runs: &[RunReport]) -> String {
    let missing = |run: &RunReport| {
        let of = |iteration: &IterationSummary| {
            let what = iteration.missing.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            let more = if iteration.missing.len() > 3 { " and more" } else { "" };
            (!what.is_empty()).then(|| format!("{}, iteration {}: {what}{more}", run.name, iteration.iteration))
        };
        run.summary.iterations.iter().filter_map(of).collect::<Vec<_>>()
    };
    let missing: Vec<String> = runs.iter().flat_map(missing).collect();
    if missing.is_empty() { String::new() } else { format!("Not finished yet: {}.", missing.join("; ")) }
}

fn glance(runs: &[RunReport]) -> Section {
    let row = |run: &RunReport| {
        let iterations = &run.summary.iterations;
        let last = iterations.iter().rev().find_map(|iteration| iteration.scores.as_ref());
        let base = iterations.iter().find(|iteration| iteration.iteration == 0).and_then(|iteration| iteration.scores.as_ref());
        let accuracy = |scores: Option<&Scores>, at: usize| optional_figure(scores.map(|scores| scores.accuracy[at]));
        let gain = |at: usize| optional_gain(last.and_then(|scores: &Scores| scores.gain[at]));
        let curricula = || iterations.iter().filter_map(|iteration| iteration.curriculum.as_ref());
        let labels: Option<Figure> = curricula().filter_map(|curriculum| curriculum.labels?.figure).next_back();
        let seconds: f64 = iterations.iter().flat_map(|iteration| iteration.seconds_by_stage.values()).sum();
        vec![
            run.name.clone(),
            format!("{}, seed {}", run.summary.record.profile_name, run.summary.record.seed),
            iterations.last().map_or(0, |iteration| iteration.iteration).to_string(),
            format!("{} → {}", accuracy(base, 0), accuracy(last, 0)),
            format!("{} → {}", accuracy(base, 1), accuracy(last, 1)),
            gain(1),
            optional_figure(labels),
            number(curricula().map(|curriculum| curriculum.num_kept as f64).sum()),
            format!("{:.1}", seconds / 60.0),
        ]
    };
    let num_samples = runs.first().map_or(0, |run| run.summary.record.profile.eval.num_samples);
    let [greedy, mean, _] = Measure::MAIN.map(|measure| measure.name(num_samples));
    let header = [
        "run",
        "profile",
        "iterations",
        &format!("{greedy}, base → last, %"),
        &format!("{mean}, base → last, %"),
        &format!("gain of {mean}"),
        "true labels, last, %",
        "questions kept",
        "minutes of work",
    ];
    Section {
        id: "glance",
        title: "At a glance",
        lead: "Figures in brackets are 95 % intervals: how far other problems of the same kind might move a figure. They say nothing of other \
               seeds of a run."
            .to_owned(),
        groups: vec![Group { tables: vec![Table::new("Each run from its base model to its last iteration", &header, runs.iter().map(row))], ..Group::default() }],
    }
}

fn settings(runs: &[RunReport]) -> anyhow::Result<Section> {
    let profiles: Vec<_> = runs.iter().map(|run| &run.summary.record.profile).collect();
    let found = differences(&profiles)?;
    let header: Vec<&str> = ["setting", "paper"].into_iter().chain(runs.iter().map(|run| run.name.as_str())).collect();
    let mut table = Table::new("Settings that are not the paper's", &header, []);
    table.rows = found
        .into_iter()
        .map(|found| Row {
            is_marked: found.among_runs && found.setting != "seed",
            cells: [found.setting, found.paper].into_iter().chain(found.runs).map(|cell| shown(&cell)).collect(),
        })
        .collect();
    let lead = if runs.len() > 1 { "Rows in which the runs differ from one another are marked." } else { "" };
    Ok(Section {
        id: "settings",
        title: "What is not as in the paper",
        lead: lead.to_owned(),
        groups: vec![Group { tables: vec![table], ..Group::default() }],
    })
}
