//! Keys and values of the past on a device: a fixed number of rows of a fixed capacity, one sequence a row.
//!
//! A layer's keys (and its values) are one tensor (rows, kv heads, capacity, head_dim) that is written in place. The first rows are in
//! use; a row is right-padded, and what lies beyond its length is never looked at, because a mask covers it.

use super::DeviceModel;
use candle_core::{Result, Tensor};

#[derive(Debug)]
pub(super) struct DeviceCache {
    /// Keys and values of each layer.
    layers: Vec<[Tensor; 2]>,
}

impl DeviceCache {
    pub(super) fn new(model: &DeviceModel, rows: usize, capacity: usize) -> Result<Self> {
        let config = &model.config;
        let shape = (rows, config.num_kv_heads, capacity, config.head_dim);
        let empty = || Tensor::zeros(shape, model.dtype(), model.device());
        Ok(Self { layers: (0..config.num_layers).map(|_| Ok([empty()?, empty()?])).collect::<Result<_>>()? })
    }

    /// Writes consecutive positions of the first row. // key, value: (1, kv heads, T, head_dim)
    pub(super) fn write_block(&self, layer: usize, start: usize, key: &Tensor, value: &Tensor) -> Result<()> {
        for (target, source) in self.layers[layer].iter().zip([key, value]) {
            target.narrow(0, 0, 1)?.slice_set(&source.contiguous()?, 2, start)?;
        }
        Ok(())
    }

    /// Writes one position of each of the first n rows. // positions: as key, u32; key, value: (n, kv heads, 1, head_dim)
    pub(super) fn write_rows(&self, layer: usize, positions: &Tensor, key: &Tensor, value: &Tensor) -> Result<()> {
        for (target, source) in self.layers[layer].iter().zip([key, value]) {
            target.narrow(0, 0, source.dims()[0])?.scatter_set(positions, &source.contiguous()?, 2)?;
        }
        Ok(())
    }

    /// Keys and values of the first rows, up to a number of positions. // (rows, kv heads, length, head_dim)
    pub(super) fn past(&self, layer: usize, rows: usize, length: usize) -> Result<[Tensor; 2]> {
        let [key, value] = &self.layers[layer];
        let view = |tensor: &Tensor| tensor.narrow(0, 0, rows)?.narrow(2, 0, length);
        Ok([view(key)?, view(value)?])
    }

    /// Copies the first `length` positions of a row of another cache into a row of this one.
    pub(super) fn copy_row(&self, row: usize, other: &Self, other_row: usize, length: usize) -> Result<()> {
        for (targets, sources) in self.layers.iter().zip(&other.layers) {
            for (target, source) in targets.iter().zip(sources) {
                let source = source.narrow(0, other_row, 1)?.narrow(2, 0, length)?.force_contiguous()?;
                target.narrow(0, row, 1)?.slice_set(&source, 2, 0)?;
            }
        }
        Ok(())
    }
}
