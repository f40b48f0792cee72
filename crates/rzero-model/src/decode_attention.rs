//! Attention of one row over the cache: the query heads that share a key-value head read its keys and values once, together.
//!
//! scores = q K^T / sqrt(head_dim), weights = softmax(scores), attended = weights V. Products are sums over lanes and positions in order,
//! without fused multiply-add, and so the same on every vector width; sums stay in registers, a tile of numbers at a time.

use crate::config::ModelConfig;
use crate::kernels::{add_scaled, exp_shifted};
use crate::kv_cache::{KvCache, POSITIONS};
use crate::panels::vectors;
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;

/// Positions whose scores, and lanes of attended values, that are summed at a time.
const TILE: usize = POSITIONS;

/// Query heads that are worked on at once: three times 32 sums fit the registers.
const HEADS: usize = 3;

thread_local! {
    /// Scores of the query heads at work, reused from row to row. // (heads, positions)
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Attends from one row to the first positions of each run of the past, in order. // query, attended: (heads, head_dim)
pub(crate) fn attend(config: &ModelConfig, layer: usize, past: &[(&KvCache, usize)], query: &[f32], attended: &mut [f32]) {
    let (head_dim, group) = (config.head_dim, config.num_heads / config.num_kv_heads);
    let positions: usize = past.iter().map(|(_, count)| count).sum();
    // A block's scores are written whole; those behind its end are overwritten by the next run's, or lie in the slack.
    let stride = positions + POSITIONS;
    SCORES.with_borrow_mut(|scores| {
        scores.resize((HEADS * stride).max(scores.len()), 0.0);
        for (kv_head, (query, attended)) in
            query.chunks_exact(group * head_dim).zip(attended.chunks_exact_mut(group * head_dim)).enumerate()
        {
            let heads = query.chunks(HEADS * head_dim).zip(attended.chunks_mut(HEADS * head_dim));
            for (query, attended) in heads {
                let of = Heads { layer, kv_head, head_dim, positions, stride, past, query, attended, scores };
                Arch::new().dispatch(of);
            }
        }
    });
}

/// Up to three query heads of one key-value head. // query, attended: (heads, head_dim); scores: (heads, stride)
struct Heads<'a> {
    layer: usize,
    kv_head: usize,
    head_dim: usize,
    positions: usize,
    stride: usize,
    past: &'a [(&'a KvCache, usize)],
    query: &'a [f32],
    attended: &'a mut [f32],
    scores: &'a mut [f32],
}

impl WithSimd for Heads<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Vectors of a tile of 32: 2, 4, 8; of scalars the compiler makes what it can.
        match S::F32_LANES {
            16 => self.run::<S, 2>(simd),
            8 => self.run::<S, 4>(simd),
            4 => self.run::<S, 8>(simd),
            _ => self.run::<S, 32>(simd),
        }
    }
}

impl Heads<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        match self.query.len() / self.head_dim {
            1 => self.attend::<S, V, 1>(simd),
            2 => self.attend::<S, V, 2>(simd),
            _ => self.attend::<S, V, HEADS>(simd),
        }
    }

    #[inline(always)]
    fn attend<S: Simd, const V: usize, const N: usize>(self, simd: S) {
        let Self { layer, kv_head, head_dim, positions, stride, past, query, attended, scores } = self;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let zero = simd.splat_f32s(0.0);
        let mut start = 0;
        for (cache, count) in past {
            for (in_use, keys, _) in cache.head(layer, kv_head, *count) {
                let mut sums = [[zero; V]; N];
                for (lane, keys) in keys.as_chunks::<TILE>().0.iter().enumerate().take(head_dim) {
                    let keys = vectors::<S, V>(keys);
                    for head in 0..N {
                        let q = simd.splat_f32s(query[head * head_dim + lane] * scale);
                        for vector in 0..V {
                            sums[head][vector] = simd.add_f32s(sums[head][vector], simd.mul_f32s(q, keys[vector]));
                        }
                    }
                }
                for (head, sums) in sums.iter().enumerate() {
                    store::<S, V>(sums, &mut scores[head * stride + start..][..TILE]);
                }
                start += in_use;
            }
        }
        for head in 0..N {
            let scores = &mut scores[head * stride..][..positions];
            let (_, sum) = exp_shifted(scores);
            let inverse = 1.0 / sum;
            scores.iter_mut().for_each(|score| *score *= inverse);
        }
        let mut lane = 0;
        while lane + TILE <= head_dim {
            let mut sums = [[zero; V]; N];
            let mut start = 0;
            for (cache, count) in past {
                for (in_use, _, values) in cache.head(layer, kv_head, *count) {
                    let weights: [&[f32]; N] = std::array::from_fn(|head| &scores[head * stride + start..][..in_use]);
                    for (at, values) in values.chunks_exact(head_dim).take(in_use).enumerate() {
                        let values = vectors::<S, V>(&values[lane..lane + TILE]);
                        for head in 0..N {
                            let weight = simd.splat_f32s(weights[head][at]);
                            for vector in 0..V {
                                sums[head][vector] = simd.add_f32s(sums[head][vector], simd.mul_f32s(weight, values[vector]));
                            }
                        }
                    }
                    start += in_use;
                }
            }
            for (head, sums) in sums.iter().enumerate() {
                store::<S, V>(sums, &mut attended[head * head_dim + lane..][..TILE]);
            }
            lane += TILE;
        }
        // What is left of a head whose size is no multiple of a tile.
        for head in 0..N {
            let attended = &mut attended[head * head_dim + lane..(head + 1) * head_dim];
            attended.fill(0.0);
            let mut start = 0;
            for (cache, count) in past {
                for (in_use, _, values) in cache.head(layer, kv_head, *count) {
                    let weights = &scores[head * stride + start..][..in_use];
                    for (weight, values) in weights.iter().zip(values.chunks_exact(head_dim)) {
                        add_scaled(attended, *weight, &values[lane..]);
                    }
                    start += in_use;
                }
            }
        }
    }
}

#[inline(always)]
fn store<S: Simd, const V: usize>(vectors: &[S::f32s; V], tile: &mut [f32]) {
    S::as_mut_simd_f32s(tile).0.copy_from_slice(vectors);
}
