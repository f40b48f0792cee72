//! How each benchmark writes a problem down: one row of a table for each, and one way to read them all.
//!
//! An adapter reads a benchmark as it is published and in the plain shape {id, question, answer, options?, subject?, level?, source?}; names
//! are tried in order. The name of a file chooses the adapter. Gold answers are taken over as they are, never rewritten.

use super::fields::{entry, last_boxed, level, list, text, value_text, without_zero_decimals};
use super::origins::{self, Origin};
use super::read::Row;
use serde_json::Value;
use std::fmt;

/// One benchmark's manner.
pub(super) struct Adapter {
    /// Name of the benchmark.
    pub(super) name: &'static str,
    /// Further names, in lower case and without what parts words.
    aliases: &'static [&'static str],
    id: &'static [&'static str],
    question: fn(&Row) -> Option<String>,
    answer: fn(&Row) -> Option<String>,
    /// Whether a problem without choices is none.
    needs_options: bool,
    subject: &'static [&'static str],
    level: &'static [&'static str],
    /// Where it is published; the first is where it comes from.
    pub(super) origins: &'static [Origin],
}

/// A problem as its row gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) id: Option<String>,
    pub(super) question: String,
    pub(super) options: Vec<String>,
    /// The letter where there are choices.
    pub(super) answer: String,
    pub(super) subject: Option<String>,
    pub(super) level: u32,
    pub(super) source: Option<String>,
    pub(super) license: Option<String>,
    pub(super) revision: Option<String>,
}

/// Why a row is no problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unusable {
    NoQuestion,
    NoAnswer,
    NoOptions,
    BadOptions,
    OutsideOptions,
}

impl fmt::Display for Unusable {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::NoQuestion => "no question",
            Self::NoAnswer => "no answer",
            Self::NoOptions => "no options",
            Self::BadOptions => "options that are no list of 2 to 26 texts",
            Self::OutsideOptions => "an answer that is the letter of none of the options",
        })
    }
}

/// Choices have the letters A to Z.
const MAX_OPTIONS: usize = 26;

const PLAIN: Adapter = Adapter {
    name: "plain",
    aliases: &[],
    id: &["id"],
    question: |row| text(row, &["question"]),
    answer: |row| text(row, &["answer"]),
    needs_options: false,
    subject: &["subject"],
    level: &["level"],
    origins: &[],
};

/// Every adapter; the plain one is what a name chooses that is none of the others.
pub(super) static ADAPTERS: [Adapter; 14] = [
    PLAIN,
    Adapter {
        name: "gsm8k",
        answer: |row| text(row, &["answer"]).and_then(|worked| after_mark(&worked)),
        origins: origins::GSM8K,
        ..PLAIN
    },
    Adapter {
        name: "math500",
        id: &["id", "unique_id"],
        question: |row| text(row, &["question", "problem"]),
        subject: &["subject", "type"],
        origins: origins::MATH500,
        ..PLAIN
    },
    Adapter {
        name: "minerva_math",
        aliases: &["minerva"],
        id: &["id", "idx"],
        question: |row| text(row, &["question", "problem"]),
        answer: answer_or_box,
        subject: &["subject", "type"],
        origins: origins::MINERVA_MATH,
        ..PLAIN
    },
    Adapter {
        name: "olympiadbench",
        question: with_context,
        answer: |row| all_parts(row, &["answers", "final_answer"]).or_else(|| text(row, &["answer"])),
        subject: &["subfield", "subject"],
        origins: origins::OLYMPIADBENCH,
        ..PLAIN
    },
    Adapter {
        name: "amc23",
        aliases: &["amc2023"],
        question: competition,
        answer: answer_or_box,
        origins: origins::AMC23,
        ..PLAIN
    },
    Adapter {
        name: "aime24",
        aliases: &["aime2024"],
        id: &["id", "ID", "problem_idx"],
        question: competition,
        answer: answer_or_box,
        origins: origins::AIME24,
        ..PLAIN
    },
    Adapter {
        name: "aime25",
        aliases: &["aime2025"],
        id: &["id", "ID", "problem_idx"],
        question: competition,
        answer: answer_or_box,
        origins: origins::AIME25,
        ..PLAIN
    },
    Adapter {
        name: "mmlu_pro",
        id: &["id", "question_id"],
        answer: |row| text(row, &["answer"]).or_else(|| letter_at(text(row, &["answer_index"])?.parse().ok()?)),
        needs_options: true,
        subject: &["subject", "category"],
        origins: origins::MMLU_PRO,
        ..PLAIN
    },
    Adapter {
        name: "supergpqa",
        id: &["id", "uuid"],
        // As published, `answer` is the text of the right option.
        answer: |row| text(row, &["answer_letter", "answer"]),
        needs_options: true,
        subject: &["subject", "discipline", "field"],
        level: &["level", "difficulty"],
        origins: origins::SUPERGPQA,
        ..PLAIN
    },
    Adapter {
        name: "bbeh",
        question: |row| text(row, &["question", "input"]),
        answer: |row| text(row, &["answer", "target"]),
        subject: &["subject", "task"],
        origins: origins::BBEH,
        ..PLAIN
    },
    Adapter {
        name: "svamp",
        id: &["id", "ID"],
        question: |row| text(row, &["question"]).or_else(|| body_and_question(row)),
        // As published, every answer is a decimal: 51.0 for 51.
        answer: |row| text(row, &["answer"]).or_else(|| Some(without_zero_decimals(&text(row, &["Answer"])?).to_owned())),
        subject: &["subject", "Type"],
        origins: origins::SVAMP,
        ..PLAIN
    },
    Adapter {
        name: "bigbench_arithmetic",
        question: |row| text(row, &["question", "input", "inputs"]),
        answer: |row| text(row, &["answer", "target"]).or_else(|| first_target(row)),
        subject: &["subject", "task"],
        origins: origins::BIGBENCH_ARITHMETIC,
        ..PLAIN
    },
    Adapter {
        name: "reasoning_gym",
        aliases: &["rgeasy", "rgmedium", "rghard"],
        subject: &["subject", "source_dataset", "dataset"],
        origins: origins::REASONING_GYM,
        ..PLAIN
    },
];

/// The adapter of this very name.
pub(super) fn adapter_named(name: &str) -> Option<&'static Adapter> {
    let name = joined(name);
    ADAPTERS.iter().find(|adapter| adapter.is_called(&name))
}

/// The adapter that the name of a file chooses: it begins with the adapter's name, and no word is cut. `MATH-500` and `math500` are
/// one name, `mmlu_pro_sample500` begins with `mmlu_pro`.
pub(super) fn adapter_for(name: &str) -> &'static Adapter {
    let words: Vec<&str> = name.split(|letter: char| !letter.is_ascii_alphanumeric()).collect();
    let beginnings = (1..=words.len()).rev().map(|num_words| joined(&words[..num_words].concat()));
    beginnings.into_iter().find_map(|beginning| adapter_named(&beginning)).unwrap_or(&ADAPTERS[0])
}

/// A name without case and without what parts its words.
pub(super) fn joined(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

impl Adapter {
    fn is_called(&self, name: &str) -> bool {
        joined(self.name) == name || self.aliases.contains(&name)
    }

    /// Reads a row. `task` is the subject of a file that holds one task only.
    pub(super) fn read(&self, row: &Row, task: Option<&str>) -> Result<Problem, Unusable> {
        let question = (self.question)(row).ok_or(Unusable::NoQuestion)?;
        let options = options(row)?;
        if options.is_empty() && self.needs_options {
            return Err(Unusable::NoOptions);
        }
        let answer = (self.answer)(row).ok_or(Unusable::NoAnswer)?;
        let is_a_letter = (0..options.len()).any(|at| letter_at(at).as_ref() == Some(&answer));
        if !options.is_empty() && !is_a_letter {
            return Err(Unusable::OutsideOptions);
        }
        let of_metadata = || value_text(&entry(row, "metadata", "source_dataset")?);
        Ok(Problem {
            id: text(row, self.id),
            question,
            options,
            answer,
            subject: text(row, self.subject).or_else(of_metadata).or_else(|| task.map(str::to_owned)),
            level: level(row, self.level).unwrap_or(1),
            source: text(row, &["source"]),
            license: text(row, &["license"]),
            revision: text(row, &["revision"]),
        })
    }
}

/// The choices in their order; none where the answer is free.
fn options(row: &Row) -> Result<Vec<String>, Unusable> {
    if row.get("options").is_none_or(|options| options.is_null() || options.as_str().is_some_and(|text| text.trim().is_empty())) {
        return Ok(Vec::new());
    }
    let values = list(row, "options").ok_or(Unusable::BadOptions)?;
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let texts: Option<Vec<String>> = values.iter().map(value_text).collect();
    texts.filter(|texts| (2..=MAX_OPTIONS).contains(&texts.len())).ok_or(Unusable::BadOptions)
}

fn letter_at(index: usize) -> Option<String> {
    (index < MAX_OPTIONS).then(|| char::from(b'A' + index as u8).to_string())
}

/// What follows the last `####`; all of it where there is no such mark.
fn after_mark(worked: &str) -> Option<String> {
    let answer = worked.rsplit_once("####").map_or(worked, |(_, answer)| answer).trim();
    (!answer.is_empty()).then(|| answer.to_owned())
}

fn competition(row: &Row) -> Option<String> {
    text(row, &["question", "problem", "Problem"])
}

fn answer_or_box(row: &Row) -> Option<String> {
    text(row, &["answer", "Answer"]).or_else(|| last_boxed(&text(row, &["solution", "Solution"])?))
}

fn with_context(row: &Row) -> Option<String> {
    let question = text(row, &["question"])?;
    Some(text(row, &["context"]).map_or_else(|| question.clone(), |context| format!("{context}\n{question}")))
}

/// The parts of an answer, in the order of the first of these lists that has any.
fn all_parts(row: &Row, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let parts: Vec<String> = list(row, name)?.iter().filter_map(value_text).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    })
}

fn body_and_question(row: &Row) -> Option<String> {
    let (body, question) = (text(row, &["Body"])?, text(row, &["Question"])?);
    let stop = if body.ends_with(|last: char| last.is_ascii_punctuation()) { "" } else { "." };
    Some(format!("{body}{stop} {question}"))
}

/// The target of a task: the first where several are right, or the one that scores.
fn first_target(row: &Row) -> Option<String> {
    let listed = ["target", "targets"].iter().find_map(|name| value_text(list(row, name)?.first()?));
    listed.or_else(|| {
        let scores = row.get("target_scores").and_then(Value::as_object)?;
        scores.iter().find(|(_, score)| score.as_f64() == Some(1.0)).map(|(target, _)| target.clone())
    })
}

#[cfg(test)]
mod tests;
