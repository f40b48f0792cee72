//! Labels in row order, as their candidates ask for them.

use super::stale_labels;
use crate::questions::BATCH_ROWS;
use arrow::array::{Array, BooleanArray, Float64Array, StringArray, UInt64Array};
use arrow::compute::concat;
use rayon::prelude::*;
use rzero_io::scan::{Columns, Piece};
use rzero_io::set::StageOutput;
use rzero_schema::tables::Label;
use std::collections::VecDeque;

/// Consecutive labels, not necessarily of consecutive rows.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    pub(super) rows: UInt64Array,
    pub(super) ids: StringArray,
    pub(super) pseudo_labels: StringArray,
    pub(super) vote_shares: Float64Array,
    pub(super) margins: Float64Array,
    pub(super) agreements: BooleanArray,
}

impl Labels {
    fn new(columns: &Columns) -> anyhow::Result<Self> {
        Ok(Self {
            rows: columns.get::<UInt64Array>("row")?.clone(),
            ids: columns.get::<StringArray>("challenge_id")?.clone(),
            pseudo_labels: columns.get::<StringArray>("pseudo_label")?.clone(),
            vote_shares: columns.get::<Float64Array>("vote_share")?.clone(),
            margins: columns.get::<Float64Array>("margin")?.clone(),
            agreements: columns.get::<BooleanArray>("is_agreed")?.clone(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn slice(&self, start: usize, num: usize) -> Self {
        Self {
            rows: self.rows.slice(start, num),
            ids: self.ids.slice(start, num),
            pseudo_labels: self.pseudo_labels.slice(start, num),
            vote_shares: self.vote_shares.slice(start, num),
            margins: self.margins.slice(start, num),
            agreements: self.agreements.slice(start, num),
        }
    }

    /// Those of `all` with rows from `start` to before `end`, as one. Labels are in row order.
    pub(super) fn of_rows(all: &[Self], start: u64, end: u64) -> anyhow::Result<Self> {
        let parts: Vec<Self> = all
            .iter()
            .map(|labels| {
                let first = labels.rows.values().partition_point(|row| *row < start);
                labels.slice(first, labels.rows.values().partition_point(|row| *row < end).saturating_sub(first))
            })
            .filter(|part| part.len() > 0)
            .collect();
        match parts.as_slice() {
            [part] => Ok(part.clone()),
            [] => Ok(Self {
                rows: Vec::<u64>::new().into(),
                ids: StringArray::new_null(0),
                pseudo_labels: StringArray::new_null(0),
                vote_shares: Vec::<f64>::new().into(),
                margins: Vec::<f64>::new().into(),
                agreements: BooleanArray::new_null(0),
            }),
            parts => Ok(Self {
                rows: joined(parts, |part| &part.rows)?,
                ids: joined(parts, |part| &part.ids)?,
                pseudo_labels: joined(parts, |part| &part.pseudo_labels)?,
                vote_shares: joined(parts, |part| &part.vote_shares)?,
                margins: joined(parts, |part| &part.margins)?,
                agreements: joined(parts, |part| &part.agreements)?,
            }),
        }
    }
}

fn joined<A: Array + Clone + 'static>(parts: &[Labels], column: impl Fn(&Labels) -> &A) -> anyhow::Result<A> {
    let arrays: Vec<&dyn Array> = parts.iter().map(|part| column(part) as &dyn Array).collect();
    let array = concat(&arrays)?;
    array.as_any().downcast_ref::<A>().cloned().ok_or_else(|| anyhow::anyhow!("columns of one kind became one of another"))
}

/// Hands out all labels in row order. Those that were handed out are forgotten.
pub(super) struct LabelStream {
    pieces: VecDeque<Piece<Label>>,
    decoded: VecDeque<Labels>,
    last_row: Option<u64>,
    num_pieces: usize,
}

impl LabelStream {
    /// Opens the labels that vote-label wrote; decodes `num_pieces` row groups at a time.
    pub(super) fn new(output: &StageOutput, num_pieces: usize) -> anyhow::Result<Self> {
        let pieces = output.scan::<Label>(&["challenge_id", "row", "pseudo_label", "vote_share", "margin", "is_agreed"])?;
        Ok(Self { pieces: pieces.into(), decoded: VecDeque::new(), last_row: None, num_pieces })
    }

    /// The labels from where the last call ended to those of rows before `end`.
    pub(super) fn until(&mut self, end: u64) -> anyhow::Result<Vec<Labels>> {
        while self.last_row.is_none_or(|last| last < end) && !self.pieces.is_empty() {
            self.decode_some()?;
        }
        let mut handed_out = Vec::new();
        while let Some(labels) = self.decoded.pop_front() {
            let num = labels.rows.values().partition_point(|row| *row < end);
            if num > 0 {
                handed_out.push(labels.slice(0, num));
            }
            if num < labels.len() {
                self.decoded.push_front(labels.slice(num, labels.len() - num));
                break;
            }
        }
        Ok(handed_out)
    }

    /// How many labels are left.
    pub(super) fn num_left(&self) -> u64 {
        self.decoded.iter().map(|labels| labels.len() as u64).chain(self.pieces.iter().map(Piece::num_rows)).sum()
    }

    fn decode_some(&mut self) -> anyhow::Result<()> {
        let wanted: Vec<Piece<Label>> = self.pieces.drain(..self.num_pieces.min(self.pieces.len())).collect();
        let decoded: Vec<Vec<Labels>> = wanted
            .par_iter()
            .with_max_len(1)
            .map(|piece| piece.open(BATCH_ROWS)?.map(|columns| Labels::new(&columns?)).collect::<anyhow::Result<_>>())
            .collect::<anyhow::Result<_>>()?;
        for labels in decoded.into_iter().flatten() {
            for (at, row) in labels.rows.values().iter().enumerate() {
                match self.last_row {
                    Some(last) if last == *row => {
                        return Err(stale_labels(format!("question {} has two labels", labels.ids.value(at))).into());
                    }
                    Some(last) if last > *row => {
                        let message = format!("the labels are not in row order: row {row} stands behind row {last}");
                        return Err(stale_labels(message).into());
                    }
                    _ => self.last_row = Some(*row),
                }
            }
            self.decoded.push_back(labels);
        }
        Ok(())
    }
}
