//! A comparison as tables for people, with examples of what changed.

use super::{Answer, Change, Comparison, Kind, Line};
use crate::markdown::{ABSENT, new_table, optional_figure, optional_gain};
use crate::scores::{Changes, Measure};
use comfy_table::Table;
use std::fmt::Write;

/// Longest question that is shown, in characters.
const QUESTION_CHARS: usize = 200;
/// Longest answer.
const ANSWER_CHARS: usize = 60;

/// The whole text, with so many examples of each kind of change.
pub(super) fn tables(comparison: &Comparison, num_examples: usize) -> String {
    let Comparison { before, after, lines, gained, lost, missing_questions } = comparison;
    let mut text = String::new();
    for (letter, side) in [("A", before), ("B", after)] {
        let record = &side.record;
        let (name, profile, seed) = (side.name(), &record.profile_name, record.seed);
        writeln!(text, "{letter}: {name}, profile {profile}, seed {seed}, model {}", record.profile.model.path)
            .expect("text takes text");
    }
    let num_items = after.evaluation.items().len();
    let titles = [
        format!("Greedy accuracy on the same {num_items} problems, % [95 % interval]; the gain is paired, problem by problem"),
        "Accuracy of sampled completions, % [95 % interval]".to_owned(),
    ];
    for (title, table) in titles.into_iter().zip([greedy(lines), sampled(comparison)]) {
        write!(text, "\n{title}\n{table}\n").expect("text takes text");
    }
    for (title, changes) in [("Gained: wrong in A, right in B", gained), ("Lost: right in A, wrong in B", lost)] {
        if changes.is_empty() || num_examples == 0 {
            continue;
        }
        let shown = spread(changes.len(), num_examples);
        write!(text, "\n{title}: {} problems, {} of them\n", changes.len(), shown.len()).expect("text takes text");
        for index in shown {
            text.push_str(&example(&changes[index]));
        }
    }
    text.push('\n');
    for note in notes(lines, missing_questions.as_deref()) {
        writeln!(text, "- {note}").expect("text takes text");
    }
    text.truncate(text.trim_end().len());
    text
}

fn greedy(lines: &[Line]) -> Table {
    let mut table =
        new_table(&["benchmark", "problems", "A", "B", "gain", "gained", "lost", "McNemar p", "unread A", "unread B"]);
    for line in lines {
        let [pair, _] = &line.measures;
        let [gained, lost, p_value] = line.changes.map_or([ABSENT; 3].map(str::to_owned), |changes| {
            let Changes { num_gained, num_lost, p_value } = changes;
            [num_gained.to_string(), num_lost.to_string(), probability(p_value)]
        });
        let [unread_before, unread_after] =
            line.unread.map_or([ABSENT; 2].map(str::to_owned), |shares| shares.map(|share| format!("{share:.1}")));
        let figures = [optional_figure(pair.before), optional_figure(pair.after), optional_gain(pair.gain)];
        let mut row = vec![name(line), line.num_items.to_string()];
        row.extend(figures);
        row.extend([gained, lost, p_value, unread_before, unread_after]);
        table.add_row(row);
    }
    table
}

fn sampled(comparison: &Comparison) -> Table {
    let names = [&comparison.before, &comparison.after].map(|side| Measure::Mean.name(side.evaluation.num_samples));
    let mut table = new_table(&["benchmark", &format!("A, {}", names[0]), &format!("B, {}", names[1]), "gain"]);
    for line in &comparison.lines {
        let [_, pair] = &line.measures;
        table.add_row([name(line), optional_figure(pair.before), optional_figure(pair.after), optional_gain(pair.gain)]);
    }
    table
}

fn name(line: &Line) -> String {
    match line.kind {
        Kind::Average if line.missing.is_empty() => format!("average {}", line.name),
        Kind::Average => format!("average {}: incomplete without {}", line.name, line.missing.join(", ")),
        Kind::Benchmark | Kind::All => line.name.clone(),
    }
}

/// A probability with as many digits as say something.
fn probability(value: f64) -> String {
    if value < 0.001 { format!("{value:.0e}") } else { format!("{value:.3}") }
}

fn example(change: &Change) -> String {
    let question =
        change.question.as_deref().map_or_else(String::new, |question| format!(": {}", shortened(question, QUESTION_CHARS)));
    let gold = shortened(&change.gold, ANSWER_CHARS);
    let (before, after) = (answer(&change.before), answer(&change.after));
    format!("  {}{question}\n    gold {gold}; A: {before}; B: {after}\n", change.item_id)
}

fn answer(answer: &Answer) -> String {
    match &answer.answer {
        Some(text) => shortened(text, ANSWER_CHARS),
        None => format!("none ({})", answer.status.replace('_', " ")),
    }
}

/// On one line, its middle left out where it is too long. Control characters, which could move a terminal's cursor, are left out.
fn shortened(text: &str, max_chars: usize) -> String {
    let words: Vec<String> =
        text.split_whitespace().map(|word| word.chars().filter(|char| !char.is_control()).collect()).collect();
    let line: Vec<char> = words.join(" ").chars().collect();
    if line.len() <= max_chars {
        return line.into_iter().collect();
    }
    let half = max_chars / 2;
    let (start, end) = (&line[..half], &line[line.len() - half..]);
    start.iter().chain(&[' ', '.', '.', '.', ' ']).chain(end).collect()
}

/// So many places from the beginning to the end, so that the choice is not ours.
fn spread(num: usize, num_shown: usize) -> Vec<usize> {
    match (num, num_shown) {
        _ if num <= num_shown => (0..num).collect(),
        (_, 1) => vec![0],
        _ => (0..num_shown).map(|index| index * (num - 1) / (num_shown - 1)).collect(),
    }
}

fn notes(lines: &[Line], missing_questions: Option<&str>) -> Vec<String> {
    let mut notes = vec![
        "McNemar p: how likely greedy verdicts change sides this unevenly where neither is better (exact, two-sided)".to_owned(),
    ];
    if lines.iter().any(|line| line.kind == Kind::Average) {
        notes.push("an average gives each member the same weight; its gained and lost problems count one each".to_owned());
    }
    notes.extend(missing_questions.map(|why| format!("no questions are shown: {why}")));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_loses_its_middle_and_examples_are_spread() {
        assert_eq!(shortened("one \n two\u{1b}[2J", 20), "one two[2J");
        assert_eq!(shortened(&"é".repeat(30), 10), format!("{} ... {}", "é".repeat(5), "é".repeat(5)));
        assert_eq!((spread(2, 3), spread(9, 3), spread(9, 1), spread(0, 3)), (vec![0, 1], vec![0, 4, 8], vec![0], vec![]));
        assert_eq!((probability(1.0), probability(0.0384), probability(3.7e-5)), ("1.000".into(), "0.038".into(), "4e-5".into()));
    }
}
