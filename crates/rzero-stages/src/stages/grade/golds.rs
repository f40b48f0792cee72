//! `grade --golds`: whether the grader can be trusted with the gold answers of a problem set.
//!
//! Three questions, benchmark by benchmark, over the problems with a free answer: can it be read as mathematics or words, does it equal itself, and
//! does it differ from itself once its last number is one larger?

use crate::markdown::new_table;
use rzero_algo::equivalence::{GradeOptions, grade};
use rzero_io::reader::read_foreign_table;
use rzero_schema::tables::EvalItem;
use rzero_schema::vocab::Verdict;
use std::path::Path;

/// What became of the gold answers of one benchmark.
#[derive(Default)]
struct Tally {
    num_problems: u64,
    num_read: u64,
    num_text: u64,
    num_equal: u64,
    num_changed: u64,
    num_told_apart: u64,
    /// Gold answers that failed one of the questions.
    failed: Vec<String>,
}

/// The table, in Markdown, and every gold answer that failed below it.
///
/// # Errors
/// When the problem set cannot be read.
pub(super) fn table(path: &Path) -> anyhow::Result<String> {
    let mut benchmarks: Vec<(String, Tally)> = Vec::new();
    for item in read_foreign_table::<EvalItem>(path)?.iter().filter(|item| item.options.is_empty()) {
        let at = benchmarks.iter().position(|(name, _)| *name == item.benchmark).unwrap_or_else(|| {
            benchmarks.push((item.benchmark.clone(), Tally::default()));
            benchmarks.len() - 1
        });
        count(&mut benchmarks[at].1, &item.answer);
    }
    let header = [
        "benchmark",
        "gold answers",
        "read",
        "of these words",
        "equal to itself",
        "with a number",
        "different once it is changed",
    ];
    let mut table = new_table(&header);
    for (name, tally) in &benchmarks {
        let counts =
            [tally.num_problems, tally.num_read, tally.num_text, tally.num_equal, tally.num_changed, tally.num_told_apart];
        table.add_row(std::iter::once(name.clone()).chain(counts.iter().map(u64::to_string)));
    }
    let mut text = table.to_string();
    for (name, tally) in benchmarks.iter().filter(|(_, tally)| !tally.failed.is_empty()) {
        text.push_str(&format!("\n\n{name}:"));
        for failed in &tally.failed {
            text.push_str(&format!("\n- {failed}"));
        }
    }
    Ok(text)
}

fn count(tally: &mut Tally, gold: &str) {
    let options = GradeOptions::default();
    let itself = grade(gold, gold, &options);
    tally.num_problems += 1;
    match &itself.gold_form {
        Some(form) => {
            tally.num_read += 1;
            tally.num_text += u64::from(form.starts_with("text:"));
        }
        None => tally.failed.push(format!("not read: `{gold}`")),
    }
    tally.num_equal += u64::from(itself.verdict == Verdict::Equal);
    if let Some(changed) = with_last_number_changed(gold) {
        tally.num_changed += 1;
        let grade = grade(gold, &changed, &options);
        if grade.verdict == Verdict::Different {
            tally.num_told_apart += 1;
        } else {
            tally.failed.push(format!("{} ({}): `{gold}` and `{changed}`", grade.verdict, grade.reason));
        }
    }
}

/// The answer with its last run of digits counted up by one; nothing where it has none.
fn with_last_number_changed(gold: &str) -> Option<String> {
    let end = gold.rfind(|character: char| character.is_ascii_digit())? + 1;
    let start = gold[..end]
        .rfind(|character: char| !character.is_ascii_digit())
        .map_or(0, |at| at + gold[at..].chars().next().map_or(1, char::len_utf8));
    let mut digits: Vec<u8> = gold[start..end].bytes().collect();
    let mut carry = true;
    for digit in digits.iter_mut().rev() {
        if carry {
            carry = *digit == b'9';
            *digit = if carry { b'0' } else { *digit + 1 };
        }
    }
    let digits = String::from_utf8(digits).ok()?;
    Some(format!("{}{}{digits}{}", &gold[..start], if carry { "1" } else { "" }, &gold[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_counted_up() {
        for (gold, expected) in [
            ("7", Some("8")),
            ("99", Some("100")),
            (r"\frac{3}{4}", Some(r"\frac{3}{5}")),
            ("x", None),
            ("½ 9 cm", Some("½ 10 cm")),
        ] {
            assert_eq!(with_last_number_changed(gold).as_deref(), expected, "{gold}");
        }
    }
}
