//! Keys and values of the past, in blocks of a fixed capacity: one shared block a prompt, one own block a completion.
//!
//! Within a block, each layer and key-value head has its keys transposed, (head_dim, capacity), so that the scores of
//! neighbouring positions are computed side by side, and its values as (capacity, head_dim).

use crate::config::ModelConfig;

/// Keys and values of up to `capacity` consecutive positions, for all layers.
#[derive(Debug, Clone)]
pub struct CacheBlock {
    head_dim: usize,
    num_kv_heads: usize,
    capacity: usize,
    length: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl CacheBlock {
    /// An empty block.
    #[must_use]
    pub fn new(config: &ModelConfig, capacity: usize) -> Self {
        let numbers = config.num_layers * config.kv_width() * capacity;
        Self {
            head_dim: config.head_dim,
            num_kv_heads: config.num_kv_heads,
            capacity,
            length: 0,
            keys: vec![0.0; numbers],
            values: vec![0.0; numbers],
        }
    }

    /// Positions it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets its content and keeps its memory.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Makes room for `count` further positions; they are written layer by layer with [`Self::write`].
    pub fn extend(&mut self, count: usize) {
        self.length += count;
        assert!(self.length <= self.capacity, "a cache block is made for the longest sequence it will hold");
    }

    fn base(&self, layer: usize, head: usize) -> usize {
        (layer * self.num_kv_heads + head) * self.head_dim * self.capacity
    }

    /// Writes one position of one layer. // key, value: (kv heads, head_dim)
    pub fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        let width = self.head_dim;
        for (head, (key, value)) in key.chunks_exact(width).zip(value.chunks_exact(width)).enumerate() {
            let base = self.base(layer, head);
            for (lane, number) in key.iter().enumerate() {
                self.keys[base + lane * self.capacity + position] = *number;
            }
            self.values[base + position * width..base + (position + 1) * width].copy_from_slice(value);
        }
    }

    /// Keys of one component of a head at the first `count` positions. // (count)
    #[inline(always)]
    #[must_use]
    pub fn key_lane(&self, layer: usize, head: usize, lane: usize, count: usize) -> &[f32] {
        let start = self.base(layer, head) + lane * self.capacity;
        &self.keys[start..start + count]
    }

    /// Values of a head at the first `count` positions. // (count, head_dim)
    #[inline(always)]
    #[must_use]
    pub fn head_values(&self, layer: usize, head: usize, count: usize) -> &[f32] {
        let start = self.base(layer, head);
        &self.values[start..start + count * self.head_dim]
    }
}
