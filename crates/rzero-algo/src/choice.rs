//! Multiple choice: how options are shown, and which letter a completion chooses.
//!
//! What counts as a choice, and nothing else does:
//!
//! 1. **In the last balanced box**, the letter of an option: bare or as `(B)`, `[B]`, `B)`, `B]`, `B.`, `B:`, in capitals or small,
//!    within `\text{}`, `\textbf{}` and their like or without, and behind it nothing, or the text of that same option.
//! 2. In the box, the text of exactly one option: the same words but for case, spacing and a closing full stop, or else equal by
//!    the grader ([`grade`]). An option that another one equals is no choice by its text.
//! 3. Where there is no box, or an empty one, and [`Extraction::Phrase`] allows it: the same two rules for what follows the last
//!    "answer is" or "answer:", to the end of its line or of its first sentence. "Option", "choice" and "letter" may stand before it.
//! 4. Beyond that, with [`Extraction::Last`]: a letter alone on the last line that is not blank, written as in rule 1.
//!
//! A letter wins over an option whose text is that letter, because a letter is what was asked for. Several letters, a letter beyond
//! the options, a letter followed by other words or by another option's text: unreadable, hence wrong, and counted as such.
//!
//! Departures from the released code (R-Zero at 5699329): it takes the alphabetically first letter that stands anywhere in the box,
//! whatever else does, and where it finds none it draws one of the options at random. Here nothing is drawn.

use crate::answer::extract_answer;
use crate::equivalence::{GradeOptions, grade};
use rzero_schema::vocab::{AnswerStatus, Extraction, Verdict};

/// Options that have a letter.
pub const MAX_OPTIONS: usize = 26;
/// Longest content of a box that is held against the options, in characters.
const MAX_CHARS: usize = 4_000;
/// LaTeX commands that only say how their content is set.
const TEXT_COMMANDS: [&str; 8] =
    ["\\text{", "\\textbf{", "\\textit{", "\\textrm{", "\\mathrm{", "\\mathbf{", "\\mathsf{", "\\mbox{"];
/// LaTeX for space, the longer before the shorter.
const SPACES: [&str; 8] = ["\\qquad", "\\quad", "\\ ", "\\,", "\\;", "\\:", "\\!", "~"];
/// What opens and closes a formula.
const FORMULA_MARKS: [&str; 5] = ["\\(", "\\)", "\\[", "\\]", "$"];
/// What announces an answer, in small letters.
const PHRASES: [&str; 2] = ["answer is", "answer:"];
/// What may stand between the phrase and the letter.
const NOUNS: [&str; 3] = ["option ", "choice ", "letter "];

/// The letter of an option; nothing beyond [`MAX_OPTIONS`].
#[must_use]
pub fn option_letter(index: usize) -> Option<char> {
    u8::try_from(index).ok().filter(|_| index < MAX_OPTIONS).map(|index| char::from(b'A' + index))
}

/// A question with its options below it, one a line, as `(A) text`. Options beyond [`MAX_OPTIONS`] have no letter and are left out.
#[must_use]
pub fn question_with_options(question: &str, options: &[String]) -> String {
    let mut text = question.trim_end().to_owned();
    for (index, option) in options.iter().enumerate() {
        let Some(letter) = option_letter(index) else { break };
        let words: Vec<&str> = option.split_whitespace().collect();
        text.push_str(&format!("\n({letter}) {}", words.join(" ")));
    }
    text
}

/// The letter that a gold answer names, written as in rule 1; nothing where it names none of the options.
#[must_use]
pub fn gold_letter(gold: &str, options: &[String]) -> Option<char> {
    lone_letter(&plain(gold), options.len())
}

/// The letter that a completion chooses, by the rules above. Linear in the completion; the options are compared with what stands
/// in one box or behind one phrase.
///
/// # Errors
/// [`AnswerStatus::NotReadable`] where something stands in the answer's place that is no choice, [`AnswerStatus::AnswerTooLong`]
/// where it is too long to be one, and what became of the box where nothing was found.
pub fn read_choice(completion: &str, options: &[String], extraction: Extraction) -> Result<char, AnswerStatus> {
    let missing = match extract_answer(completion, Extraction::Box) {
        Ok(content) => return choice(&content, options),
        Err(status) => status,
    };
    if extraction == Extraction::Box {
        return Err(missing);
    }
    let from_phrase = after_phrase(completion).map(|said| {
        let sentence = said.split_once(['.', '!', '?', ';']).map_or(said, |(sentence, _)| without_marks(sentence));
        choice(said, options).or_else(|_| choice(sentence, options))
    });
    match from_phrase {
        Some(Ok(letter)) => return Ok(letter),
        Some(Err(status)) if extraction == Extraction::Phrase => return Err(status),
        None if extraction == Extraction::Phrase => return Err(missing),
        _ => {}
    }
    let last_line = completion.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let is_short = last_line.chars().nth(MAX_CHARS).is_none();
    let letter = if is_short { lone_letter(&plain(without_marks(last_line)), options.len()) } else { None };
    letter.ok_or(match from_phrase {
        Some(Err(status)) => status,
        _ => missing,
    })
}

/// Rules 1 and 2.
fn choice(content: &str, options: &[String]) -> Result<char, AnswerStatus> {
    if content.chars().nth(MAX_CHARS).is_some() {
        return Err(AnswerStatus::AnswerTooLong);
    }
    let written = plain(content);
    if let Some((index, rest)) = leading_letter(&written).filter(|(index, _)| *index < options.len().min(MAX_OPTIONS))
        && (rest.is_empty() || same_words(rest, &plain(&options[index])))
    {
        return option_letter(index).ok_or(AnswerStatus::NotReadable);
    }
    let by_words = one_option(options, |option| same_words(&written, &plain(option)));
    let is_equal = |option: &str| grade(option, content, &GradeOptions::default()).verdict == Verdict::Equal;
    let index = match by_words {
        Matches::None => match one_option(options, is_equal) {
            Matches::One(index) => Some(index),
            _ => None,
        },
        Matches::One(index) => Some(index),
        Matches::Several => None,
    };
    index.and_then(option_letter).ok_or(AnswerStatus::NotReadable)
}

/// How many options are of a kind.
enum Matches {
    None,
    One(usize),
    Several,
}

fn one_option(options: &[String], is_it: impl Fn(&str) -> bool) -> Matches {
    let mut found = options.iter().take(MAX_OPTIONS).enumerate().filter(|(_, option)| is_it(option)).map(|(index, _)| index);
    match (found.next(), found.next()) {
        (None, _) => Matches::None,
        (Some(index), None) => Matches::One(index),
        (Some(_), Some(_)) => Matches::Several,
    }
}

fn same_words(left: &str, right: &str) -> bool {
    !left.is_empty() && left.to_lowercase() == right.to_lowercase()
}

/// A letter and nothing else.
fn lone_letter(written: &str, num_options: usize) -> Option<char> {
    let (index, rest) = leading_letter(written)?;
    option_letter(index).filter(|_| rest.is_empty() && index < num_options)
}

/// The letter that a text begins with, as the index of an option, and what follows it.
fn leading_letter(written: &str) -> Option<(usize, &str)> {
    let (inner, closing) = match written.chars().next()? {
        '(' => (&written[1..], Some(')')),
        '[' => (&written[1..], Some(']')),
        _ => (written, None),
    };
    let inner = inner.trim_start();
    let letter = inner.chars().next().filter(char::is_ascii_alphabetic)?;
    let behind = inner[1..].trim_start();
    let rest = match closing {
        Some(closing) => behind.strip_prefix(closing)?.strip_prefix(['.', ':']).unwrap_or_else(|| &behind[1..]),
        None => match behind.strip_prefix([')', ']', '.', ':']) {
            Some(rest) => rest,
            // A bare letter ends where a word does.
            None if behind.len() == inner.len() - 1 && !behind.is_empty() => return None,
            None => behind,
        },
    };
    let index = usize::from(letter.to_ascii_uppercase() as u8 - b'A');
    Some((index, rest.trim_start_matches([' ', '-', '\u{2013}', '\u{2014}', ':'])))
}

/// What follows the last phrase that announces an answer, to the end of its line.
fn after_phrase(completion: &str) -> Option<&str> {
    // Small letters of ASCII are as long as large ones, so places are the same.
    let small = completion.to_ascii_lowercase();
    let end = PHRASES.iter().filter_map(|phrase| small.rfind(phrase).map(|at| at + phrase.len())).max()?;
    let said = without_marks(&completion[end..]);
    let line = without_marks(said.lines().next().unwrap_or_default());
    let noun = NOUNS.iter().find(|noun| line.get(..noun.len()).is_some_and(|start| start.eq_ignore_ascii_case(noun)));
    Some(without_marks(noun.map_or(line, |noun| &line[noun.len()..])))
}

/// Takes off white space, colons, quotation marks and marks of emphasis at both ends.
fn without_marks(text: &str) -> &str {
    text.trim_matches(|mark: char| mark.is_whitespace() || ['*', '_', '`', '"', '\'', ':'].contains(&mark))
}

/// A text without the commands that only set it: words with one space between them, no closing full stop.
fn plain(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    // Of each brace that is open, whether it goes with its command.
    let mut open_braces: Vec<bool> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let starts = |marks: &[&str]| marks.iter().find(|mark| rest.starts_with(**mark)).map(|mark| mark.len());
        let taken = if let Some(length) = starts(&TEXT_COMMANDS) {
            open_braces.push(true);
            length
        } else if let Some(length) = starts(&SPACES) {
            written.push(' ');
            length
        } else if let Some(length) = starts(&FORMULA_MARKS) {
            length
        } else {
            let is_gone = match first {
                '{' => {
                    open_braces.push(false);
                    false
                }
                '}' => open_braces.pop().unwrap_or(false),
                _ => false,
            };
            if !is_gone {
                written.push(first);
            }
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    let words: Vec<&str> = written.split_whitespace().collect();
    words.join(" ").trim_end_matches('.').trim_end().to_owned()
}

#[cfg(test)]
mod tests;
