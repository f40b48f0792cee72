//! The summary as tables for people.

use super::benchmarks;
use super::collect::{Curriculum, Example, IterationSummary, RunSummary, Scores, Training};
use super::judge;
use super::scores::LabelAccuracy;
use crate::markdown::{ABSENT, figure, new_table, optional_gain, optional_share, percent};
use crate::scores::{Bootstrap, Evaluation, Measure, Part};
use comfy_table::Table;
use rzero_schema::vocab::{DropReason, EvalMode, Stage};
use std::fmt::Write;

/// The whole text.
pub(super) fn tables(summary: &RunSummary, subjects: &[String]) -> String {
    let record = &summary.record;
    let mut text = format!("{}: profile {}, seed {}", summary.run.display(), record.profile_name, record.seed);
    if !summary.overrides.is_empty() {
        write!(text, ", with {}", summary.overrides.join("; ")).expect("text takes text");
    }
    if !subjects.is_empty() {
        write!(text, "; held-out problems of {} only", subjects.join(", ")).expect("text takes text");
    }
    text.push('\n');
    let iterations = &summary.iterations;
    let names = with_scores(iterations).next().map_or_else(String::new, |(_, scores)| {
        Measure::MAIN.map(|measure| measure.name(scores.evaluation.num_samples)).join(" / ")
    });
    let sections = [
        ("Held-out accuracy, % [95 % interval]; gains are over the base, problem by problem".to_owned(), accuracy(iterations)),
        ("Against the base made to work in steps: how much is accuracy and not habit".to_owned(), against_worked(iterations)),
        ("Chance that one of so many samples is right, and answers that cannot be read, %".to_owned(), passes(iterations)),
        (
            "By benchmark, and averages that give each of their members the same weight, % [95 % interval]".to_owned(),
            benchmarks::table(with_scores(iterations).map(|(iteration, scores)| (iteration, scores.benchmarks.as_slice()))),
        ),
        (format!("Accuracy by level, %: {names}"), levels(iterations)),
        (format!("Accuracy by subject and level in each iteration, %: {names}"), parts(iterations)),
        ("Gain over the base by subject, in the last iteration".to_owned(), gains_by_subject(summary)),
        (judge::TITLE.to_owned(), judge::table(iterations)),
        ("Candidates and their pseudo-labels".to_owned(), curricula(iterations)),
        ("Questions that the votes alone would keep, and answers to them, %".to_owned(), voted(iterations)),
        (
            "Training: reward from the first to the last step, divergence from the start of the iteration in nats a token"
                .to_owned(),
            training(iterations),
        ),
        (
            "Verifier: mean scores of answers that are the same in every iteration, and its training".to_owned(),
            verifier(iterations),
        ),
        ("Seconds by stage".to_owned(), seconds(iterations)),
    ];
    for (title, table) in sections {
        if let Some(table) = table {
            write!(text, "\n{title}\n{table}\n").expect("text takes text");
        }
    }
    let examples = examples(iterations);
    if !examples.is_empty() {
        write!(text, "\nQuestions that were kept\n{examples}").expect("text takes text");
    }
    text.push('\n');
    for note in notes(summary) {
        writeln!(text, "- {note}").expect("text takes text");
    }
    text.truncate(text.trim_end().len());
    text
}

fn accuracy(iterations: &[IterationSummary]) -> Option<Table> {
    let num_samples = with_scores(iterations).next()?.1.evaluation.num_samples;
    let [greedy, mean, majority] = Measure::MAIN.map(|measure| measure.name(num_samples));
    let gains = [format!("gain {greedy}"), format!("gain {mean}")];
    let mut table = new_table(&["iteration", &greedy, &mean, &majority, &gains[0], &gains[1], "in steps"]);
    for (iteration, scores) in with_scores(iterations) {
        let name = if iteration == 0 { "0 (base)".to_owned() } else { iteration.to_string() };
        let gain = |index: usize| if iteration == 0 { String::new() } else { optional_gain(scores.gain[index]) };
        let [greedy, mean, majority] = scores.accuracy.map(figure);
        let worked = percent(scores.evaluation.worked_share());
        table.add_row([name, greedy, mean, majority, gain(0), gain(1), worked]);
        if let Some((_, accuracy)) = &scores.worked {
            let [greedy, mean, majority] = accuracy.map(figure);
            let name = format!("{iteration}, in steps");
            table.add_row([name, greedy, mean, majority, String::new(), String::new(), percent(100.0)]);
        }
    }
    Some(table)
}

fn passes(iterations: &[IterationSummary]) -> Option<Table> {
    let first = with_scores(iterations).next()?.1;
    let names: Vec<String> = first.passes.iter().map(|(measure, _)| measure.name(first.evaluation.num_samples)).collect();
    let mut header = vec!["iteration"];
    header.extend(names.iter().map(String::as_str));
    header.extend(["unread greedy", "unread samples"]);
    let mut table = new_table(&header);
    for (iteration, scores) in with_scores(iterations) {
        let mut row = vec![iteration.to_string()];
        row.extend(scores.passes.iter().map(|(_, pass)| figure(*pass)));
        row.extend([EvalMode::Greedy, EvalMode::Sampled].map(|mode| format!("{:.1}", scores.evaluation.unparsed_share(mode))));
        table.add_row(row);
    }
    Some(table)
}

fn against_worked(iterations: &[IterationSummary]) -> Option<Table> {
    let num_samples = with_scores(iterations).next()?.1.evaluation.num_samples;
    let [greedy, mean, majority] = Measure::MAIN.map(|measure| format!("gain {}", measure.name(num_samples)));
    let mut table = new_table(&["iteration", &greedy, &mean, &majority, "accuracy in steps", "accuracy at once"]);
    for (iteration, scores) in with_scores(iterations) {
        // The base itself shows how far its habit is from its best way of working.
        if scores.gain_over_worked.iter().all(Option::is_none) {
            continue;
        }
        let [greedy, mean, majority] = scores.gain_over_worked.map(optional_gain);
        let [in_steps, at_once] = [scores.evaluation.worked_accuracy(), scores.evaluation.direct_accuracy()].map(optional_share);
        table.add_row([iteration.to_string(), greedy, mean, majority, in_steps, at_once]);
    }
    (!table.is_empty()).then_some(table)
}

/// One column a level, where all problems are of one subject.
fn levels(iterations: &[IterationSummary]) -> Option<Table> {
    let levels = with_scores(iterations).next()?.1.evaluation.by_subject_or_level();
    if levels.iter().any(|part| part.level.is_none()) {
        return None;
    }
    let mut header = vec!["iteration".to_owned()];
    header.extend(levels.iter().map(|part| part.name(false)));
    let mut table = new_table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    let row = |name: String, evaluation: &Evaluation| {
        let mut row = vec![name];
        row.extend(evaluation.by_subject_or_level().iter().map(|part| shares(&part.evaluation)));
        row
    };
    for (iteration, scores) in with_scores(iterations) {
        table.add_row(row(iteration.to_string(), &scores.evaluation));
        if let Some((worked, _)) = &scores.worked {
            table.add_row(row(format!("{iteration}, in steps"), worked));
        }
    }
    Some(table)
}

fn shares(evaluation: &Evaluation) -> String {
    Measure::MAIN.map(|measure| format!("{:.0}", evaluation.share(measure))).join(" / ")
}

/// One row a subject, where a benchmark has several, and one a level of each benchmark that has several; none where there is one
/// subject only.
fn parts(iterations: &[IterationSummary]) -> Option<Table> {
    let evaluation = &with_scores(iterations).next()?.1.evaluation;
    let num_benchmarks = evaluation.by_benchmark().len();
    if evaluation.by_subject().len() == 1 {
        return None;
    }
    let several = |evaluation: &Evaluation| -> Vec<Part> {
        let mut parts = evaluation.by_subject();
        if parts.len() == num_benchmarks {
            parts.clear();
        }
        let levels = evaluation.by_benchmark().into_iter().map(|(_, benchmark)| benchmark.by_level());
        parts.extend(levels.filter(|levels| levels.len() > 1).flatten());
        parts
    };
    let mut header = vec!["subject or level".to_owned(), "problems".to_owned()];
    header.extend(with_scores(iterations).map(|(iteration, _)| iteration.to_string()));
    let mut table = new_table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    let by_iteration: Vec<Vec<Part>> = with_scores(iterations).map(|(_, scores)| several(&scores.evaluation)).collect();
    for (at, part) in several(evaluation).iter().enumerate() {
        let mut row = vec![part.name(num_benchmarks > 1), part.evaluation.items().len().to_string()];
        row.extend(
            by_iteration.iter().map(|parts| parts.get(at).map_or_else(|| ABSENT.to_owned(), |part| shares(&part.evaluation))),
        );
        table.add_row(row);
    }
    (!table.is_empty()).then_some(table)
}

/// One row a subject; none where there is one subject only, or no iteration but the base.
fn gains_by_subject(summary: &RunSummary) -> Option<Table> {
    let (_, base) = with_scores(&summary.iterations).next()?;
    let (_, last) = with_scores(&summary.iterations).last().filter(|(iteration, _)| *iteration > 0)?;
    let (before, after) = (base.evaluation.by_subject(), last.evaluation.by_subject());
    if before.len() == 1 {
        return None;
    }
    let profile = &summary.record.profile;
    let draws = Bootstrap { resamples: profile.eval.bootstrap_resamples, seed: profile.seed };
    let names = Measure::MAIN.map(|measure| measure.name(last.evaluation.num_samples));
    let gains = names.each_ref().map(|name| format!("gain {name}"));
    let mut table = new_table(&["subject", "problems", &names[0], &names[1], &gains[0], &gains[1], &gains[2]]);
    let num_benchmarks = last.evaluation.by_benchmark().len();
    for (before, after) in before.iter().zip(&after) {
        let change = |measure| format!("{:.1} -> {:.1}", before.evaluation.share(measure), after.evaluation.share(measure));
        let [greedy, mean, majority] =
            Measure::MAIN.map(|measure| optional_gain(after.evaluation.gain_over(&before.evaluation, measure, draws)));
        let num_items = after.evaluation.items().len().to_string();
        let name = after.name(num_benchmarks > 1);
        table.add_row([name, num_items, change(Measure::Greedy), change(Measure::Mean), greedy, mean, majority]);
    }
    Some(table)
}

fn curricula(iterations: &[IterationSummary]) -> Option<Table> {
    let reasons: Vec<String> = DropReason::ALL.iter().map(|reason| reason.as_str().replace('_', " ")).collect();
    let mut header = vec!["iteration", "candidates", "kept", "true labels"];
    header.extend(reasons.iter().map(String::as_str));
    let mut table = new_table(&header);
    for (iteration, curriculum) in each(iterations, |iteration| iteration.curriculum.as_ref()) {
        let kept = match curriculum.kept_share() {
            Some(share) => format!("{} ({share:.0} %)", curriculum.num_kept),
            None => curriculum.num_kept.to_string(),
        };
        let labels = curriculum.labels.and_then(|labels| labels.figure).map_or_else(|| ABSENT.to_owned(), figure);
        let num_candidates = curriculum.num_kept + curriculum.num_dropped;
        let mut row = vec![iteration.to_string(), num_candidates.to_string(), kept, labels];
        row.extend(curriculum.drops.iter().map(|(_, count)| count.to_string()));
        table.add_row(row);
    }
    (!table.is_empty()).then_some(table)
}

/// Where verdicts decide what is kept: how true labels are without them, and who is more often right about an answer.
fn voted(iterations: &[IterationSummary]) -> Option<Table> {
    let mut table = new_table(&["iteration", "questions", "true labels", "of those kept", "verdicts right", "votes right"]);
    for (iteration, curriculum) in each(iterations, |iteration| iteration.curriculum.as_ref()) {
        let Some(voted) = &curriculum.voted else { continue };
        let share = |name: &str| voted.get(name).map_or_else(|| ABSENT.to_owned(), |share| format!("{:.1}", 100.0 * share));
        let kept = curriculum.labels.and_then(|labels| labels.figure).map_or_else(|| ABSENT.to_owned(), figure);
        let num_voted = voted.get("num_voted").map_or_else(|| ABSENT.to_owned(), f64::to_string);
        let [labels, verdicts, votes] = ["voted_label_share", "verdict_accuracy", "vote_accuracy"].map(share);
        table.add_row([iteration.to_string(), num_voted, labels, kept, verdicts, votes]);
    }
    (!table.is_empty()).then_some(table)
}

/// Reward, divergence and format of a role's training.
fn cells(training: Option<&Training>) -> [String; 3] {
    match training {
        Some(training) => [
            format!("{:.3} -> {:.3}", training.reward_first, training.reward_last),
            format!("{:.4}", training.kl_last),
            format!("{:.0} %", training.format_last),
        ],
        None => [ABSENT; 3].map(str::to_owned),
    }
}

fn training(iterations: &[IterationSummary]) -> Option<Table> {
    let header = ["iteration", "Challenger reward", "Challenger KL", "well-formed", "Solver reward", "Solver KL", "readable"];
    let mut table = new_table(&header);
    for iteration in iterations {
        if iteration.challenger.is_none() && iteration.solver.is_none() {
            continue;
        }
        let mut row = vec![iteration.iteration.to_string()];
        row.extend(cells(iteration.challenger.as_ref()));
        row.extend(cells(iteration.solver.as_ref()));
        table.add_row(row);
    }
    (!table.is_empty()).then_some(table)
}

/// The names of a probe's figures, and their headings.
pub(in crate::stages) const PROBES: [(&str, &str); 6] = [
    ("score_mean", "as given"),
    ("score_of_right", "right"),
    ("score_of_wrong", "wrong"),
    ("score_of_truncated", "cut off"),
    ("score_of_shuffled", "shuffled"),
    ("score_of_exchanged", "exchanged"),
];

fn verifier(iterations: &[IterationSummary]) -> Option<Table> {
    let mut header = vec!["iteration", "right or wrong, told"];
    header.extend(PROBES.map(|(_, heading)| heading));
    header.extend(["reward", "KL", "readable"]);
    let mut table = new_table(&header);
    for iteration in iterations.iter().filter(|iteration| iteration.probes.is_some() || iteration.verifier.is_some()) {
        let figure = |name: &str| iteration.probes.as_ref().and_then(|probes| probes.figures.get(name).copied());
        let mut row = vec![iteration.iteration.to_string()];
        row.push(figure("accuracy").map_or_else(|| ABSENT.to_owned(), |share| format!("{:.1} %", 100.0 * share)));
        row.extend(PROBES.map(|(name, _)| figure(name).map_or_else(|| ABSENT.to_owned(), |score| format!("{score:.2}"))));
        row.extend(cells(iteration.verifier.as_ref()));
        table.add_row(row);
    }
    (!table.is_empty()).then_some(table)
}

fn seconds(iterations: &[IterationSummary]) -> Option<Table> {
    let is_used = |stage: &&Stage| iterations.iter().any(|iteration| iteration.seconds_by_stage.contains_key(stage.as_str()));
    let stages: Vec<Stage> = Stage::ALL.iter().filter(is_used).copied().collect();
    let mut header = vec!["iteration"];
    header.extend(stages.iter().map(|stage| stage.as_str()));
    header.push("all");
    let mut table = new_table(&header);
    for iteration in iterations.iter().filter(|iteration| !iteration.seconds_by_stage.is_empty()) {
        let mut row = vec![iteration.iteration.to_string()];
        row.extend(stages.iter().map(|stage| match iteration.seconds_by_stage.get(stage.as_str()) {
            Some(seconds) => format!("{seconds:.1}"),
            None => ABSENT.to_owned(),
        }));
        row.push(format!("{:.1}", iteration.seconds_by_stage.values().sum::<f64>()));
        table.add_row(row);
    }
    (!table.is_empty()).then_some(table)
}

fn examples(iterations: &[IterationSummary]) -> String {
    let line = |example: &Example| {
        let verdict = match example.is_true {
            Some(true) => ", true",
            Some(false) => ", FALSE",
            None => "",
        };
        format!("{} -> {} ({:.0} % of the votes{verdict})", example.question, example.pseudo_label, example.vote_share)
    };
    let mut text = String::new();
    for (iteration, curriculum) in each(iterations, |iteration| iteration.curriculum.as_ref()) {
        for example in &curriculum.examples {
            writeln!(text, "  {iteration}: {}", line(example)).expect("text takes text");
        }
    }
    text
}

/// The share of true labels under which a run is warned about: where the source's first iteration stood.
const LABEL_FLOOR: f64 = 79.0;

fn notes(summary: &RunSummary) -> Vec<String> {
    let mut notes = Vec::new();
    let iterations = &summary.iterations;
    let last = with_scores(iterations).last().filter(|(iteration, _)| *iteration > 0);
    if let Some((iteration, Scores { gain: [Some(gain), ..], gain_over_worked: [Some(beyond), ..], .. })) = last {
        let habit = gain.value - beyond.value;
        notes.push(format!(
            "of the {:+.1} points of greedy gain at iteration {iteration}, {habit:+.1} are what the base gains by being made to work in steps, \
             {:+.1} [{:+.1}, {:+.1}] come on top of that",
            gain.value, beyond.value, beyond.low, beyond.high
        ));
    }
    for (iteration, curriculum) in each(iterations, |iteration| iteration.curriculum.as_ref()) {
        let Some(LabelAccuracy { figure, num_checked, num_drawn }) = curriculum.labels else { continue };
        if let Some(labels) = figure.filter(|labels| labels.value < LABEL_FLOOR) {
            notes.push(format!("at iteration {iteration} only {:.1} % of {num_checked} labels are true", labels.value));
        }
        if num_checked < curriculum.num_kept {
            let (num_kept, unknown) = (curriculum.num_kept, num_drawn - num_checked);
            notes.push(format!(
                "at iteration {iteration} {num_checked} of {num_kept} kept labels were checked: {num_drawn} were drawn, of {unknown} the truth is not known"
            ));
        }
    }
    if let Some((_, scores)) = with_scores(iterations).next() {
        notes.push(format!(
            "intervals say how far other problems of the same kind might move a figure ({} problems here); they say nothing of other seeds of the run",
            scores.evaluation.items().len()
        ));
    }
    for iteration in iterations.iter().filter(|iteration| !iteration.missing.is_empty()) {
        notes.push(format!("iteration {} has not finished: {}", iteration.iteration, iteration.missing.join(", ")));
    }
    if iterations.is_empty() {
        notes.push("no stage has finished yet".to_owned());
    }
    notes
}

impl Curriculum {
    /// Share of the candidates that were kept; none without candidates.
    pub(super) fn kept_share(&self) -> Option<f64> {
        let num_candidates = self.num_kept + self.num_dropped;
        (num_candidates > 0).then(|| 100.0 * self.num_kept as f64 / num_candidates as f64)
    }
}

fn with_scores(iterations: &[IterationSummary]) -> impl Iterator<Item = (u32, &Scores)> {
    each(iterations, |iteration| iteration.scores.as_ref())
}

fn each<'a, T>(
    iterations: &'a [IterationSummary],
    part: impl Fn(&'a IterationSummary) -> Option<T>,
) -> impl Iterator<Item = (u32, T)> {
    iterations.iter().filter_map(move |iteration| part(iteration).map(|part| (iteration.iteration, part)))
}
