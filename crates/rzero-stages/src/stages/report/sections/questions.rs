//! How hard, how varied and how long the questions are, with examples.

use crate::stages::report::chart::{Axes, Point, Series, lines};
use crate::stages::report::collect::RunReport;
use crate::stages::report::page::{Group, Section, Table, shown};
use crate::stages::report::questions::{MAX_COMPARED, Questions};

pub(in crate::stages::report) fn section(runs: &[RunReport]) -> anyhow::Result<Section> {
    type Drawn = fn(&Questions) -> Option<(f64, Option<(f64, f64)>)>;
    let drawn: [(&str, &str, Drawn); 4] = [
        ("Difficulty: how far the Solver agrees with itself", "vote share, %", |found| {
            found.vote_share.map(|(mean, low, high)| (100.0 * mean, Some((100.0 * low, 100.0 * high))))
        }),
        ("Clusters of alike questions", "clusters a hundred", |found| {
            Some((100.0 * found.num_clusters as f64 / found.num_compared as f64, None))
        }),
        ("Distinct n-grams (n = 4)", "distinct, %", |found| Some((100.0 * found.distinct[3], None))),
        ("Length", "tokens", |found| Some((found.length.0, Some((found.length.1, found.length.2))))),
    ];
    let mut group = Group::default();
    for (title, y, figure) in drawn {
        let point = |(iteration, questions): (&u32, &Questions)| {
            let (y, interval) = figure(questions)?;
            Some(Point { x: f64::from(*iteration), y, interval })
        };
        let series =
            |run: &RunReport| Series { name: run.name.clone(), points: run.questions.iter().filter_map(point).collect() };
        group.charts.extend(lines(title, Axes { x: "iteration", y }, &runs.iter().map(series).collect::<Vec<_>>())?);
    }
    let mut rows = Vec::new();
    let mut examples = Vec::new();
    for run in runs {
        for (iteration, found) in &run.questions {
            let percent = |share: f64| format!("{:.1}", 100.0 * share);
            let mut row = vec![run.name.clone(), iteration.to_string(), found.num.to_string(), found.num_distinct.to_string()];
            row.extend([found.num_compared, found.num_clusters, found.largest_cluster].map(|num| num.to_string()));
            row.extend(found.distinct.map(percent));
            row.push(format!("{:.1}", found.length.0));
            rows.push(row);
        }
        for iteration in &run.summary.iterations {
            for example in iteration.curriculum.iter().flat_map(|curriculum| &curriculum.examples) {
                let truth = example.is_true.map_or("not known", |is_true| if is_true { "yes" } else { "no" });
                let votes = format!("{:.0} %", example.vote_share);
                let [question, label] = [&example.question, &example.pseudo_label].map(|text| shown(text));
                examples.push(vec![run.name.clone(), iteration.iteration.to_string(), question, label, votes, truth.to_owned()]);
            }
        }
    }
    if !rows.is_empty() {
        let header = [
            "run",
            "iteration",
            "well-formed",
            "different",
            "compared",
            "clusters",
            "largest",
            "distinct-1, %",
            "distinct-2, %",
            "distinct-3, %",
            "distinct-4, %",
            "mean length",
        ];
        group.tables.push(Table::new("Candidates of each iteration", &header, rows));
    }
    if !examples.is_empty() {
        let header = ["run", "iteration", "question", "label", "votes", "true"];
        group.tables.push(Table::new(
            "Questions that were kept: the first, the middle and the last of each iteration",
            &header,
            examples,
        ));
    }
    Ok(Section {
        id: "questions",
        title: "Questions",
        lead: format!(
            "Of all well-formed candidates. Whiskers reach from the lower to the upper tenth. Clusters are those of the repetition penalty \
             (average linkage over 1 - BLEU). Clusters and n-grams are counted over the same number of questions, at most {MAX_COMPARED} of an \
             iteration, evenly spread."
        ),
        groups: vec![group],
    })
}
