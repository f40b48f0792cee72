//! Packed sequences and padded ones: where attention finds the rows of one sequence, and how they come back.
//!
//! Rows lie end to end everywhere but in attention, which wants sequences side by side, (S, heads, T, head_dim). Neighbours of similar
//! length that continue the same rows are padded to the longest of them; padding repeats a segment's first row, and since nobody looks
//! at what comes later, the causal mask covers it too. All moves are selections and slices, forward and backward: nothing is
//! scattered, so a device adds in no order of its own here.

use super::layer::{Projected, attend, causal_mask};
use crate::config::ModelConfig;
use crate::training::packing::Segment;
use candle_core::{Device, Result, Tensor, Var};
use std::ops::Range;

/// Padded scores may be so many times those of the segments themselves.
const MAX_WASTE: usize = 2;

/// Position of every row. // (N)
pub(super) fn positions(segments: &[Segment]) -> Vec<u32> {
    let of_segment = |segment: &Segment| (segment.first_position()..).take(segment.rows.len()).map(|at| at as u32);
    segments.iter().flat_map(of_segment).collect()
}

/// Neighbouring segments that attention handles together.
#[derive(Debug)]
pub(super) struct Group {
    num_segments: usize,
    length: usize,
    /// Row of every padded place. // (S x T), u32
    padded_from: Tensor,
    /// Padded place of every row of the group. // (rows), u32
    packed_from: Tensor,
    /// 1 where a padded place is a row, 0 where it is padding. // (S, 1, T, 1), f32
    is_row: Tensor,
    /// What all of them continue.
    past: Vec<Range<usize>>,
    /// (T, P + T), f32
    mask: Tensor,
}

impl Group {
    /// Cuts segments into groups, in order.
    pub(super) fn all(segments: &[Segment], device: &Device) -> Result<Vec<Self>> {
        let segments: Vec<&Segment> = segments.iter().filter(|segment| !segment.rows.is_empty()).collect();
        let mut groups = Vec::new();
        let mut rest = segments.as_slice();
        while let Some(first) = rest.first() {
            let past = first.first_position();
            let scores = |length: usize| length * (past + length);
            let (mut longest, mut area, mut count) = (0, 0, 0);
            for segment in rest.iter().take_while(|segment| segment.past == first.past) {
                let (next_longest, next_area) = (longest.max(segment.rows.len()), area + scores(segment.rows.len()));
                if (count + 1) * scores(next_longest) > MAX_WASTE * next_area {
                    break;
                }
                (longest, area, count) = (next_longest, next_area, count + 1);
            }
            let (these, others) = rest.split_at(count);
            groups.push(Self::new(these, longest, device)?);
            rest = others;
        }
        Ok(groups)
    }

    fn new(segments: &[&Segment], length: usize, device: &Device) -> Result<Self> {
        let places = || segments.iter().flat_map(|segment| (0..length).map(move |at| (&segment.rows, at)));
        let padded_from: Vec<u32> =
            places().map(|(rows, at)| (rows.start + if at < rows.len() { at } else { 0 }) as u32).collect();
        let is_row: Vec<f32> = places().map(|(rows, at)| if at < rows.len() { 1.0 } else { 0.0 }).collect();
        let packed_from: Vec<u32> = (0u32..).zip(&is_row).filter(|(_, is_row)| **is_row > 0.0).map(|(place, _)| place).collect();
        let first = segments[0].first_position();
        Ok(Self {
            num_segments: segments.len(),
            length,
            padded_from: Tensor::new(padded_from, device)?,
            packed_from: Tensor::new(packed_from, device)?,
            is_row: Tensor::from_vec(is_row, (segments.len(), 1, length, 1), device)?,
            past: segments[0].past.clone(),
            mask: causal_mask(length, first + length, device)?,
        })
    }

    /// Attention of the group's rows, without a graph. // (rows, heads, head_dim)
    pub(super) fn forward(&self, config: &ModelConfig, projected: &Projected) -> Result<Tensor> {
        let own = [self.pad(&projected.query)?, self.pad(&projected.key)?, self.pad(&projected.value)?];
        let past = self.past_of(&projected.key)?.zip(self.past_of(&projected.value)?);
        self.pack(&self.attend(config, &own, past.as_ref())?)
    }

    /// Gradients of the group's queries, keys and values, (rows, heads, head_dim) each, and of the keys and values that it continues,
    /// (1, kv heads, P, head_dim) each, where it does. // dattended: (N, heads, head_dim)
    pub(super) fn backward(
        &self,
        config: &ModelConfig,
        projected: &Projected,
        dattended: &Tensor,
    ) -> Result<([Tensor; 3], Option<[Tensor; 2]>)> {
        let variable = |tensor: Tensor| Ok::<_, candle_core::Error>(Var::from_tensor(&tensor)?.into_inner());
        let padded = |rows: &Tensor| variable(self.pad(rows)?);
        let own = [padded(&projected.query)?, padded(&projected.key)?, padded(&projected.value)?];
        let past = match self.past_of(&projected.key)?.zip(self.past_of(&projected.value)?) {
            Some((key, value)) => Some((variable(key)?, variable(value)?)),
            None => None,
        };
        let attended = self.attend(config, &own, past.as_ref())?;
        // Padding has no gradient.
        let upstream = self.pad(dattended)?;
        let upstream = upstream.broadcast_mul(&self.is_row.to_dtype(upstream.dtype())?)?;
        let gradients = (attended * upstream)?.sum_all()?.backward()?;
        let of = |variable: &Tensor| super::training::required(&gradients, variable);
        let packed = |variable: &Tensor| self.pack(&of(variable)?);
        let own = [packed(&own[0])?, packed(&own[1])?, packed(&own[2])?];
        let past = match &past {
            Some((key, value)) => Some([of(key)?, of(value)?]),
            None => None,
        };
        Ok((own, past))
    }

    /// Adds the gradient of what the group continues to that of all rows, in place. // part: (1, kv heads, P, head_dim), all: (N, kv heads, head_dim)
    pub(super) fn add_past(&self, part: &Tensor, all: &Tensor) -> Result<()> {
        let part = part.squeeze(0)?.transpose(0, 1)?.contiguous()?; // (P, kv heads, head_dim)
        let mut start = 0;
        for rows in &self.past {
            let sum = (all.narrow(0, rows.start, rows.len())? + part.narrow(0, start, rows.len())?)?;
            all.slice_set(&sum, 0, rows.start)?;
            start += rows.len();
        }
        Ok(())
    }

    /// own: query (S, heads, T, head_dim), key and value (S, kv heads, T, head_dim); past: key and value (1, kv heads, P, head_dim)
    fn attend(&self, config: &ModelConfig, own: &[Tensor; 3], past: Option<&(Tensor, Tensor)>) -> Result<Tensor> {
        let [query, key, value] = own;
        let Some((past_key, past_value)) = past else {
            return attend(config, query, key, value, &self.mask);
        };
        let joined = |past: &Tensor, own: &Tensor| {
            let (_, heads, length, head_dim) = past.dims4()?;
            let past = past.broadcast_as((self.num_segments, heads, length, head_dim))?.contiguous()?;
            Tensor::cat(&[&past, own], 2)
        };
        attend(config, query, &joined(past_key, key)?, &joined(past_value, value)?, &self.mask)
    }

    /// Keys or values of what the group continues. // (N, kv heads, head_dim) to (1, kv heads, P, head_dim)
    fn past_of(&self, rows: &Tensor) -> Result<Option<Tensor>> {
        if self.past.is_empty() {
            return Ok(None);
        }
        let parts: Vec<Tensor> = self.past.iter().map(|past| rows.narrow(0, past.start, past.len())).collect::<Result<_>>()?;
        Ok(Some(Tensor::cat(&parts, 0)?.transpose(0, 1)?.unsqueeze(0)?.contiguous()?))
    }

    /// Rows of the batch to segments side by side. // (N, heads, head_dim) to (S, heads, T, head_dim)
    fn pad(&self, rows: &Tensor) -> Result<Tensor> {
        let (_, heads, head_dim) = rows.dims3()?;
        let padded = rows.index_select(&self.padded_from, 0)?;
        padded.reshape((self.num_segments, self.length, heads, head_dim))?.transpose(1, 2)?.contiguous()
    }

    /// Segments side by side back to the group's rows. // (S, heads, T, head_dim) to (rows, heads, head_dim)
    fn pack(&self, padded: &Tensor) -> Result<Tensor> {
        let (segments, heads, length, head_dim) = padded.dims4()?;
        let rows = padded.transpose(1, 2)?.reshape((segments * length, heads, head_dim))?;
        rows.index_select(&self.packed_from, 0)
    }
}
