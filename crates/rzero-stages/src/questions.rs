//! The questions of a place as columns, in row order and in bounded pieces: what vote-label and filter stream along.
//!
//! Rows count from 0 without a gap, and exactly the well-formed questions have a text: both are checked as the rows come.

use crate::exit::StageFailure;
use arrow::array::{Array, StringArray, UInt64Array};
use rayon::prelude::*;
use rzero_io::scan::{Columns, Piece};
use rzero_io::set::StageOutput;
use rzero_schema::tables::Challenge;
use rzero_schema::vocab::ChallengeStatus;
use std::collections::VecDeque;
use std::ops::Range;

/// Rows that are decoded, and worked on, at a time.
pub(crate) const BATCH_ROWS: usize = 8192;

/// Consecutive questions.
#[derive(Debug, Clone)]
pub(crate) struct Questions {
    /// Row of the first; those of the others follow.
    pub(crate) first: u64,
    pub(crate) ids: StringArray,
    pub(crate) statuses: StringArray,
    /// Null where the question is malformed.
    pub(crate) texts: StringArray,
}

impl Questions {
    fn new(columns: &Columns) -> anyhow::Result<Self> {
        let questions = Self {
            first: columns.first(),
            ids: columns.get::<StringArray>("challenge_id")?.clone(),
            statuses: columns.get::<StringArray>("challenge_status")?.clone(),
            texts: columns.get::<StringArray>("question")?.clone(),
        };
        let rows = columns.get::<UInt64Array>("row")?.values();
        for (at, row) in questions.rows().enumerate() {
            if rows[at] != row || (questions.statuses.value(at) == ChallengeStatus::Ok.as_str()) != questions.texts.is_valid(at) {
                let (id, status) = (questions.ids.value(at), questions.statuses.value(at));
                let found = rows[at];
                let message =
                    format!("challenge {id} stands in row {row} of its table with row number {found} and status {status}");
                return Err(StageFailure::input(message).hint("rerun challenge-gen for this place").into());
            }
        }
        Ok(questions)
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Their row numbers.
    pub(crate) fn rows(&self) -> Range<u64> {
        self.first..self.first + self.len() as u64
    }

    /// Whether a question is well-formed.
    pub(crate) fn is_ok(&self, at: usize) -> bool {
        self.texts.is_valid(at)
    }

    /// Some of them, without copying.
    pub(crate) fn slice(&self, start: usize, num: usize) -> Self {
        Self {
            first: self.first + start as u64,
            ids: self.ids.slice(start, num),
            statuses: self.statuses.slice(start, num),
            texts: self.texts.slice(start, num),
        }
    }
}

/// Hands out all questions in row order. Those that were handed out are forgotten.
pub(crate) struct QuestionStream {
    pieces: VecDeque<Piece<Challenge>>,
    decoded: VecDeque<Questions>,
    next: u64,
    num_rows: u64,
}

impl QuestionStream {
    /// Opens the questions that challenge-gen wrote.
    pub(crate) fn new(output: &StageOutput) -> anyhow::Result<Self> {
        let pieces = output.scan::<Challenge>(&["challenge_id", "row", "challenge_status", "question"])?;
        let num_rows = pieces.last().map_or(0, |piece| piece.first() + piece.num_rows());
        Ok(Self { pieces: pieces.into(), decoded: VecDeque::new(), next: 0, num_rows })
    }

    /// Questions in all.
    pub(crate) fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// Passes over the questions before a row.
    pub(crate) fn skip_to(&mut self, row: u64) {
        self.pieces.retain(|piece| piece.first() + piece.num_rows() > row);
        self.next = row;
    }

    /// Where the next pieces end, as many of them as are worth decoding side by side.
    pub(crate) fn next_end(&self, num_pieces: usize) -> u64 {
        let mut ends = self.pieces.iter().take(num_pieces).map(|piece| piece.first() + piece.num_rows());
        ends.next_back().unwrap_or(self.num_rows)
    }

    /// The questions from where the last call ended to those before row `end`.
    pub(crate) fn until(&mut self, end: u64) -> anyhow::Result<Vec<Questions>> {
        let num_wanted = self.pieces.iter().take_while(|piece| piece.first() < end).count();
        let wanted: Vec<Piece<Challenge>> = self.pieces.drain(..num_wanted).collect();
        let decoded: Vec<Vec<Questions>> = wanted
            .par_iter()
            .with_max_len(1)
            .map(|piece| piece.open(BATCH_ROWS)?.map(|columns| Questions::new(&columns?)).collect::<anyhow::Result<_>>())
            .collect::<anyhow::Result<_>>()?;
        self.decoded.extend(decoded.into_iter().flatten());
        let mut handed_out = Vec::new();
        while let Some(questions) = self.decoded.pop_front() {
            let rows = questions.rows();
            let part = self.next.max(rows.start)..end.min(rows.end);
            if rows.end > end {
                self.decoded.push_front(questions.clone());
            }
            if !part.is_empty() {
                handed_out.push(questions.slice((part.start - rows.start) as usize, (part.end - part.start) as usize));
            }
            if rows.end > end {
                break;
            }
        }
        self.next = self.next.max(end);
        Ok(handed_out)
    }
}
