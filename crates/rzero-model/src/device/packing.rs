//! Packed sequences and padded ones: where attention finds the rows of one sequence, and how they come back.
//!
//! Sequences lie end to end everywhere but in attention, which wants them side by side, (S, heads, L, head_dim). Neighbours of similar
//! length are padded to the longest of them; padding repeats a sequence's first row, and since nobody looks at what comes later, the
//! causal mask covers it too. All moves are selections of rows, forward and backward: a device adds in no order of its own here.

use super::layer::causal_mask;
use crate::training::PackedSequences;
use candle_core::{Device, Result, Tensor};
use std::ops::Range;

/// Padded area may be so many times the area of the sequences themselves.
const MAX_WASTE: usize = 2;

/// Neighbouring sequences that attention handles together.
#[derive(Debug)]
pub(super) struct Group {
    num_sequences: usize,
    length: usize,
    /// Row of every padded place. // (S x L), u32
    padded_from: Tensor,
    /// Padded place of every row of the group. // (rows), u32
    packed_from: Tensor,
    /// 1 where a padded place is a row, 0 where it is padding. // (S, 1, L, 1), f32
    is_row: Tensor,
    /// Causal mask. // (L, L), f32
    pub(super) mask: Tensor,
}

impl Group {
    /// Cuts a batch into groups, in order.
    pub(super) fn all(batch: &PackedSequences, device: &Device) -> Result<Vec<Self>> {
        let segments: Vec<Range<usize>> = batch.segments.iter().filter(|segment| !segment.is_empty()).cloned().collect();
        let mut groups = Vec::new();
        let mut start = 0;
        while start < segments.len() {
            let (mut longest, mut area, mut end) = (0, 0, start);
            while let Some(segment) = segments.get(end) {
                let (next_longest, next_area) = (longest.max(segment.len()), area + segment.len().pow(2));
                if (end + 1 - start) * next_longest.pow(2) > MAX_WASTE * next_area {
                    break;
                }
                (longest, area, end) = (next_longest, next_area, end + 1);
            }
            groups.push(Self::new(&segments[start..end], longest, device)?);
            start = end;
        }
        Ok(groups)
    }

    fn new(segments: &[Range<usize>], length: usize, device: &Device) -> Result<Self> {
        let places = || segments.iter().flat_map(|segment| (0..length).map(move |at| (segment, at)));
        let padded_from: Vec<u32> =
            places().map(|(segment, at)| (segment.start + if at < segment.len() { at } else { 0 }) as u32).collect();
        let is_row: Vec<f32> = places().map(|(segment, at)| if at < segment.len() { 1.0 } else { 0.0 }).collect();
        let packed_from: Vec<u32> = (0u32..).zip(&is_row).filter(|(_, is_row)| **is_row > 0.0).map(|(place, _)| place).collect();
        Ok(Self {
            num_sequences: segments.len(),
            length,
            padded_from: Tensor::new(padded_from, device)?,
            packed_from: Tensor::new(packed_from, device)?,
            is_row: Tensor::from_vec(is_row, (segments.len(), 1, length, 1), device)?,
            mask: causal_mask(length, length, device)?,
        })
    }

    /// Rows of the batch to sequences side by side. // (N, heads, head_dim) to (S, heads, L, head_dim)
    pub(super) fn pad(&self, rows: &Tensor) -> Result<Tensor> {
        let (_, heads, head_dim) = rows.dims3()?;
        let padded = rows.index_select(&self.padded_from, 0)?;
        padded.reshape((self.num_sequences, self.length, heads, head_dim))?.transpose(1, 2)?.contiguous()
    }

    /// As [`Self::pad`], with zeros in place of padding: for gradients, of which padding has none.
    pub(super) fn pad_with_zeros(&self, rows: &Tensor) -> Result<Tensor> {
        let padded = self.pad(rows)?;
        padded.broadcast_mul(&self.is_row.to_dtype(padded.dtype())?)
    }

    /// Sequences side by side back to the group's rows. // (S, heads, L, head_dim) to (rows, heads, head_dim)
    pub(super) fn pack(&self, padded: &Tensor) -> Result<Tensor> {
        let (sequences, heads, length, head_dim) = padded.dims4()?;
        let rows = padded.transpose(1, 2)?.reshape((sequences * length, heads, head_dim))?;
        rows.index_select(&self.packed_from, 0)
    }
}
