//! Each benchmark of one checkpoint, and each average that the profile names.
//!
//! Where the set holds one benchmark only, it is the whole and needs no table of its own, unless averages are named.

use crate::markdown::{ABSENT, new_table, optional_figure, optional_gain};
use crate::scores::{Average, Bootstrap, Evaluation, Figure, Measure, averages};
use comfy_table::Table;
use rzero_schema::profile::GroupSettings;
use rzero_schema::vocab::EvalMode;

/// A benchmark or an average. Arrays are by [`Measure::MAIN`].
#[derive(Debug)]
pub(in crate::stages) struct Line {
    pub(in crate::stages) name: String,
    pub(in crate::stages) num_items: usize,
    pub(in crate::stages) num_samples: u32,
    pub(in crate::stages) accuracy: [Option<Figure>; 3],
    /// Over the base model.
    pub(in crate::stages) gain: [Option<Figure>; 3],
    /// Each pass@j.
    pub(in crate::stages) passes: Vec<(Measure, Option<Figure>)>,
    /// Members of an average; none of a benchmark.
    pub(in crate::stages) members: Vec<String>,
    /// Benchmarks of an average that are not in the set.
    pub(in crate::stages) missing: Vec<String>,
    /// The problems of a benchmark; none of an average.
    pub(in crate::stages) evaluation: Option<Evaluation>,
}

/// Every benchmark in the order of the set, then every average in that of the profile.
pub(in crate::stages) fn lines(
    evaluation: &Evaluation,
    base: Option<&Evaluation>,
    groups: &[GroupSettings],
    draws: Bootstrap,
) -> Vec<Line> {
    let benchmarks = evaluation.by_benchmark();
    if benchmarks.len() == 1 && groups.is_empty() {
        return Vec::new();
    }
    let before: Vec<(String, Evaluation)> = base.map(Evaluation::by_benchmark).unwrap_or_default();
    let averages_before: Vec<Average> = base.map(|base| averages(groups, base)).unwrap_or_default();
    let num_samples = evaluation.num_samples;
    let of_benchmark = |(name, evaluation): (String, Evaluation)| {
        let before = before.iter().find(|(of_before, _)| *of_before == name).map(|(_, before)| before);
        let gain = |measure| before.and_then(|before| evaluation.gain_over(before, measure, draws));
        Line {
            num_items: evaluation.items().len(),
            num_samples,
            accuracy: Measure::MAIN.map(|measure| Some(evaluation.accuracy(measure, draws))),
            gain: Measure::MAIN.map(gain),
            passes: Measure::passes(num_samples).map(|pass| (pass, Some(evaluation.accuracy(pass, draws)))).collect(),
            members: Vec::new(),
            missing: Vec::new(),
            name,
            evaluation: Some(evaluation),
        }
    };
    let of_average = |average: Average| {
        let before = averages_before.iter().find(|before| before.name == average.name);
        Line {
            num_items: average.num_items(),
            num_samples,
            accuracy: Measure::MAIN.map(|measure| average.accuracy(measure, draws)),
            gain: Measure::MAIN.map(|measure| before.and_then(|before| average.gain_over(before, measure, draws))),
            passes: Measure::passes(num_samples).map(|pass| (pass, average.accuracy(pass, draws))).collect(),
            name: average.name,
            members: average.members,
            missing: average.missing,
            evaluation: None,
        }
    };
    let lines = benchmarks.into_iter().map(of_benchmark);
    lines.chain(averages(groups, evaluation).into_iter().map(of_average)).collect()
}

/// One row a benchmark or average, in each iteration.
pub(in crate::stages) fn table<'a>(iterations: impl Iterator<Item = (u32, &'a [Line])>) -> Option<Table> {
    let iterations: Vec<(u32, &[Line])> = iterations.collect();
    let num_samples = iterations.iter().find_map(|(_, lines)| lines.first())?.num_samples;
    let [greedy, mean, majority] = Measure::MAIN.map(|measure| measure.name(num_samples));
    let last_pass = Measure::passes(num_samples).last()?;
    let (pass, gain) = (last_pass.name(num_samples), format!("gain {greedy}"));
    let mut table = new_table(&[
        "benchmark",
        "iteration",
        "problems",
        &greedy,
        &mean,
        &majority,
        &pass,
        "unread greedy",
        "unread samples",
        &gain,
    ]);
    for (iteration, line) in iterations.iter().flat_map(|(iteration, lines)| lines.iter().map(move |line| (iteration, line))) {
        let name = match (line.members.is_empty(), line.missing.is_empty()) {
            (true, _) => line.name.clone(),
            (false, true) => format!("average {}", line.name),
            (false, false) => format!("average {}: incomplete without {}", line.name, line.missing.join(", ")),
        };
        let [greedy, mean, majority] = line.accuracy.map(optional_figure);
        let pass = optional_figure(line.passes.last().and_then(|(_, figure)| *figure));
        let unread = |mode| {
            line.evaluation
                .as_ref()
                .map_or_else(|| ABSENT.to_owned(), |benchmark| format!("{:.1}", benchmark.unparsed_share(mode)))
        };
        let gain = if *iteration == 0 { String::new() } else { optional_gain(line.gain[0]) };
        let (unread_greedy, unread_sampled) = (unread(EvalMode::Greedy), unread(EvalMode::Sampled));
        let num_items = line.num_items.to_string();
        table.add_row([
            name,
            iteration.to_string(),
            num_items,
            greedy,
            mean,
            majority,
            pass,
            unread_greedy,
            unread_sampled,
            gain,
        ]);
    }
    Some(table)
}
