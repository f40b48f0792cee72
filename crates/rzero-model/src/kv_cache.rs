//! Keys and values of the past in blocks of thirty-two positions, taken from a pool and given back to it.
//!
//! A run of positions (the beginning that all prompts share, the rest of a prompt, what one sequence wrote) is a list of such blocks, so that a
//! sequence holds what it needs and not what it may need. Within a block, each layer and key-value head has its keys transposed,
//! (head_dim, 32), so that the scores of neighbouring positions are computed side by side, and its values as (32, head_dim).

use crate::config::ModelConfig;

/// Positions of a block.
pub const POSITIONS: usize = 32;

/// Keys and values of up to 32 consecutive positions, for all layers.
#[derive(Debug)]
struct Block {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Blocks that are free.
#[derive(Debug, Default)]
pub struct BlockPool {
    free: Vec<Block>,
}

/// The cache of consecutive positions. It begins at a position of its own, 0.
#[derive(Debug)]
pub struct KvCache {
    head_dim: usize,
    num_kv_heads: usize,
    num_layers: usize,
    length: usize,
    blocks: Vec<Block>,
}

impl KvCache {
    /// An empty cache.
    #[must_use]
    pub fn new(config: &ModelConfig) -> Self {
        Self {
            head_dim: config.head_dim,
            num_kv_heads: config.num_kv_heads,
            num_layers: config.num_layers,
            length: 0,
            blocks: Vec::new(),
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

    /// Makes room for `count` further positions; they are written layer by layer with [`Self::write`].
    pub fn extend(&mut self, count: usize, pool: &mut BlockPool) {
        self.length += count;
        let numbers = self.num_layers * self.num_kv_heads * self.head_dim * POSITIONS;
        while self.blocks.len() * POSITIONS < self.length {
            let new = || Block { keys: vec![0.0; numbers], values: vec![0.0; numbers] };
            self.blocks.push(pool.free.pop().unwrap_or_else(new));
        }
    }

    /// Forgets everything and gives the blocks back.
    pub fn clear(&mut self, pool: &mut BlockPool) {
        self.length = 0;
        pool.free.append(&mut self.blocks);
    }

    fn base(&self, layer: usize, kv_head: usize) -> usize {
        (layer * self.num_kv_heads + kv_head) * self.head_dim * POSITIONS
    }

    /// Writes one position of one layer. // key, value: (kv heads, head_dim)
    pub fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        let width = self.head_dim;
        for (head, (key, value)) in key.chunks_exact(width).zip(value.chunks_exact(width)).enumerate() {
            let base = self.base(layer, head);
            let (block, at) = (&mut self.blocks[position / POSITIONS], position % POSITIONS);
            let lanes = block.keys[base..base + width * POSITIONS].chunks_exact_mut(POSITIONS);
            lanes.zip(key).for_each(|(lane, number)| lane[at] = *number);
            block.values[base + at * width..base + (at + 1) * width].copy_from_slice(value);
        }
    }

    /// Keys and values of one head at the first `count` positions, a block at a time: the block's positions in use, its keys
    /// (head_dim, 32) and its values (32, head_dim).
    #[inline(always)]
    pub fn head(&self, layer: usize, kv_head: usize, count: usize) -> impl Iterator<Item = (usize, &[f32], &[f32])> + Clone {
        let (base, size) = (self.base(layer, kv_head), self.head_dim * POSITIONS);
        let blocks = self.blocks[..count.div_ceil(POSITIONS)].iter().enumerate();
        blocks.map(move |(index, block)| {
            (POSITIONS.min(count - index * POSITIONS), &block.keys[base..base + size], &block.values[base..base + size])
        })
    }
}
