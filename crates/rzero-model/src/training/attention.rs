//! Causal attention over packed sequences, forward and backward, by blocks of queries; key-value heads and runs of segments side by side.
//!
//! Forward: S = Q K^T / sqrt(head_dim), P = softmax of each row's past, O = P V. Only the logarithm of each row's sum is kept;
//! the backward pass computes P again from it, as flash attention does:
//! dV = P^T dO, dP = dO V^T, dS = P (dP - rowsum(dO O)) / sqrt(head_dim), dQ = dS K, dK = dS^T Q.
//!
//! The queries of all heads that share a key-value head stand one below the other (position by position, the heads within), so that one product
//! serves them all. A block of them looks at the rows of the segments that its own continues, in order, and at its own segment's up to its last
//! position: what is masked is a corner of a block, not half of the matrix. Scores of one block are held at a time.

use super::packing::Segment;
use super::workspace::Workspace;
use crate::config::ModelConfig;
use crate::kernels::{dot, exp, exp_shifted, vectorized};
use crate::matmul::{Matrix, Store, multiply};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of a block: positions times heads of a group. Its scores for some hundred positions stay in a core's own cache.
const BLOCK_ROWS: usize = 96;

/// Runs of segments are made at least this long, and no more than so many.
const RUN_ROWS: usize = 128;
const MAX_RUNS: usize = 8;

/// Sizes of the heads.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
}

impl Heads {
    /// Those of a model.
    #[must_use]
    pub fn of(config: &ModelConfig) -> Self {
        Self { num_heads: config.num_heads, num_kv_heads: config.num_kv_heads, head_dim: config.head_dim }
    }

    /// Query heads that share a key-value head.
    fn group(self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    fn group_width(self) -> usize {
        self.group() * self.head_dim
    }

    fn query_width(self) -> usize {
        self.num_heads * self.head_dim
    }

    fn kv_width(self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Width of a row of queries, keys and values side by side.
    #[must_use]
    pub fn qkv_width(self) -> usize {
        self.query_width() + 2 * self.kv_width()
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Positions of a block.
    fn block_positions(self) -> usize {
        (BLOCK_ROWS / self.group()).max(1)
    }

    /// Keys of one head. // qkv: (N, queries, keys, values)
    fn keys<'a>(self, qkv: &'a [f32], kv_head: usize, rows: &Range<usize>) -> Matrix<'a> {
        let column = self.query_width() + kv_head * self.head_dim;
        Matrix::strided(&qkv[rows.start * self.qkv_width() + column..], rows.len(), self.head_dim, self.qkv_width())
    }

    /// Values of one head. // qkv: (N, queries, keys, values)
    fn values<'a>(self, qkv: &'a [f32], kv_head: usize, rows: &Range<usize>) -> Matrix<'a> {
        let column = self.query_width() + self.kv_width() + kv_head * self.head_dim;
        Matrix::strided(&qkv[rows.start * self.qkv_width() + column..], rows.len(), self.head_dim, self.qkv_width())
    }
}

/// Most numbers of scores that one thread holds at a time where sequences have up to `longest` positions.
pub(super) fn scores(config: &ModelConfig, longest: usize) -> usize {
    let heads = Heads::of(config);
    2 * heads.block_positions() * heads.group() * longest
}

/// Segments in a row that one task takes; where they end follows from their lengths alone.
fn runs(segments: &[Segment]) -> Vec<&[Segment]> {
    let num_rows = segments.last().map_or(0, |segment| segment.rows.end);
    let least = num_rows.div_ceil(MAX_RUNS).max(RUN_ROWS);
    let (mut runs, mut start) = (Vec::new(), 0);
    for end in 1..=segments.len() {
        let is_last = end == segments.len();
        if is_last || segments[end - 1].rows.end - segments[start].rows.start >= least {
            runs.push(&segments[start..end]);
            start = end;
        }
    }
    runs
}

/// The rows of a run.
fn rows_of(run: &[Segment]) -> Range<usize> {
    run.first().map_or(0, |segment| segment.rows.start)..run.last().map_or(0, |segment| segment.rows.end)
}

/// The first row that a run looks at.
fn first_seen(run: &[Segment]) -> usize {
    let past = run.iter().flat_map(|segment| &segment.past).map(|rows| rows.start);
    past.min().unwrap_or(usize::MAX).min(rows_of(run).start)
}

/// Some positions of a segment, and what they look at.
struct Block {
    /// Their rows.
    rows: Range<usize>,
    /// Positions that the first of them sees, itself included.
    first_seen: usize,
    /// Columns of their scores.
    num_seen: usize,
    /// The rows behind these columns: the column they begin at, and the rows.
    seen: Vec<(usize, Range<usize>)>,
}

/// The blocks of a segment, in order.
fn blocks(segment: &Segment, positions: usize) -> impl Iterator<Item = Block> {
    segment.rows.clone().step_by(positions).map(move |start| {
        let end = (start + positions).min(segment.rows.end);
        let (mut seen, mut column) = (Vec::with_capacity(segment.past.len() + 1), 0);
        for rows in segment.past.iter().cloned().chain(std::iter::once(segment.rows.start..end)) {
            let length = rows.len();
            seen.push((column, rows));
            column += length;
        }
        let first_seen = segment.first_position() + start - segment.rows.start + 1;
        Block { rows: start..end, first_seen, num_seen: column, seen }
    })
}

/// The columns of one group of heads, one below the other. // all: (N, stride), part: (rows, width)
fn gather(all: &[f32], stride: usize, column: usize, rows: &Range<usize>, width: usize, part: &mut Vec<f32>) {
    part.clear();
    for row in rows.clone() {
        part.extend_from_slice(&all[row * stride + column..row * stride + column + width]);
    }
}

/// Runs a task for every run and key-value head, run by run.
fn for_each_task<T: Send>(runs: &[&[Segment]], heads: Heads, task: impl Fn(&[Segment], usize) -> T + Sync) -> Vec<T> {
    let tasks = runs.len() * heads.num_kv_heads;
    (0..tasks).into_par_iter().map(|index| task(runs[index / heads.num_kv_heads], index % heads.num_kv_heads)).collect()
}

/// Cuts a buffer of rows where the runs end.
fn cut<'a>(mut values: &'a mut [f32], width: usize, runs: &[&[Segment]]) -> Vec<&'a mut [f32]> {
    let mut parts = Vec::with_capacity(runs.len());
    for run in runs {
        let (part, rest) = values.split_at_mut(rows_of(run).len() * width);
        parts.push(part);
        values = rest;
    }
    parts
}

/// Copies the columns of one group of heads to their place among all. // part: (rows, width), all: (rows, stride)
fn scatter(part: &[f32], width: usize, all: &mut [f32], stride: usize, column: usize) {
    for (part, all) in part.chunks_exact(width).zip(all.chunks_exact_mut(stride)) {
        all[column..column + width].copy_from_slice(part);
    }
}

/// Attended values (N, heads x head_dim) and the logarithm of each row's sum (N, heads). // qkv: (N, queries, keys, values)
#[must_use]
pub fn forward(heads: Heads, segments: &[Segment], qkv: &[f32], workspace: &Workspace) -> (Vec<f32>, Vec<f32>) {
    let runs = runs(segments);
    let parts = for_each_task(&runs, heads, |run, kv_head| forward_task(heads, run, kv_head, qkv));
    let num_rows = qkv.len() / heads.qkv_width();
    let (mut attended, mut log_sums) = (workspace.take(num_rows, heads.query_width()), workspace.take(num_rows, heads.num_heads));
    let targets = cut(&mut attended, heads.query_width(), &runs).into_iter().zip(cut(&mut log_sums, heads.num_heads, &runs));
    targets.zip(parts.chunks(heads.num_kv_heads)).collect::<Vec<_>>().into_par_iter().for_each(
        |((attended, log_sums), parts)| {
            for (kv_head, (part, part_log_sums)) in parts.iter().enumerate() {
                scatter(part, heads.group_width(), attended, heads.query_width(), kv_head * heads.group_width());
                scatter(part_log_sums, heads.group(), log_sums, heads.num_heads, kv_head * heads.group());
            }
        },
    );
    (attended, log_sums)
}

/// What a run attends to with the heads of one group (rows, group x head_dim), and the logarithms of its rows' sums (rows, group).
fn forward_task(heads: Heads, run: &[Segment], kv_head: usize, qkv: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (width, group, head_dim) = (heads.group_width(), heads.group(), heads.head_dim);
    let all = rows_of(run);
    let (mut attended, mut log_sums) = (vec![0.0; all.len() * width], vec![0.0; all.len() * group]);
    let (mut query, mut weights) = (Vec::new(), Vec::new());
    for block in run.iter().flat_map(|segment| blocks(segment, heads.block_positions())) {
        gather(qkv, heads.qkv_width(), kv_head * width, &block.rows, width, &mut query);
        let (num_queries, num_seen) = (block.rows.len() * group, block.num_seen);
        weights.resize(num_queries * num_seen, 0.0);
        let q = Matrix::new(&query, num_queries, head_dim);
        for (column, rows) in &block.seen {
            let k = heads.keys(qkv, kv_head, rows);
            multiply(&mut weights[*column..], num_seen, Store::Overwrite, heads.scale(), q, k.transposed());
        }
        let first = block.rows.start - all.start;
        let log_sums = &mut log_sums[first * group..][..num_queries];
        let attended = &mut attended[first * width..][..num_queries * head_dim];
        vectorized(
            #[inline(always)]
            || {
                for (query, line) in weights.chunks_exact_mut(num_seen).enumerate() {
                    let (past, future) = line.split_at_mut(block.first_seen + query / group);
                    let (largest, sum) = exp_shifted(past);
                    let inverse = 1.0 / sum;
                    past.iter_mut().for_each(|weight| *weight *= inverse);
                    future.fill(0.0);
                    log_sums[query] = largest + sum.ln();
                }
            },
        );
        for (column, rows) in &block.seen {
            let p = Matrix::strided(&weights[*column..], num_queries, rows.len(), num_seen);
            let store = if *column == 0 { Store::Overwrite } else { Store::Add };
            multiply(attended, head_dim, store, 1.0, p, heads.values(qkv, kv_head, rows));
        }
    }
    (attended, log_sums)
}

/// What the forward pass left.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// Queries, keys and values side by side. // (N, queries, keys, values)
    pub qkv: &'a [f32],
    /// What [`forward`] gave. // (N, heads x head_dim)
    pub attended: &'a [f32],
    /// And the logarithms of its rows' sums. // (N, heads)
    pub log_sums: &'a [f32],
}

/// The gradients that one run leaves in one group of heads.
struct TaskGradient {
    query: Vec<f32>, // (rows, group x head_dim)
    /// The first row of keys and values that the run looks at.
    first: usize,
    key: Vec<f32>,   // (rows from `first`, head_dim)
    value: Vec<f32>, // (rows from `first`, head_dim)
}

/// The gradient of queries, keys and values. // dattended: (N, heads x head_dim), result: (N, queries, keys, values)
#[must_use]
pub fn backward(heads: Heads, segments: &[Segment], kept: Kept<'_>, dattended: &[f32], workspace: &Workspace) -> Vec<f32> {
    let runs = runs(segments);
    let parts = for_each_task(&runs, heads, |run, kv_head| backward_task(heads, run, kv_head, kept, dattended));
    let (width, stride) = (heads.group_width(), heads.qkv_width());
    let mut dqkv = workspace.take(kept.qkv.len() / stride, stride);
    cut(&mut dqkv, stride, &runs).into_par_iter().enumerate().for_each(|(index, dqkv)| {
        let rows = rows_of(runs[index]);
        for (kv_head, part) in parts[index * heads.num_kv_heads..][..heads.num_kv_heads].iter().enumerate() {
            scatter(&part.query, width, dqkv, stride, kv_head * width);
        }
        dqkv.chunks_exact_mut(stride).for_each(|row| row[heads.query_width()..].fill(0.0));
        // Later runs may look at rows of this one; they add in their order.
        for (task, part) in parts.iter().enumerate().skip(index * heads.num_kv_heads) {
            let column = heads.query_width() + task % heads.num_kv_heads * heads.head_dim;
            for (values, column) in [(&part.key, column), (&part.value, column + heads.kv_width())] {
                let first = rows.start.max(part.first);
                let values = values.chunks_exact(heads.head_dim).skip(first - part.first);
                for (row, values) in dqkv.chunks_exact_mut(stride).skip(first - rows.start).zip(values) {
                    crate::kernels::add_scaled(&mut row[column..column + heads.head_dim], 1.0, values);
                }
            }
        }
    });
    dqkv
}

fn backward_task(heads: Heads, run: &[Segment], kv_head: usize, kept: Kept<'_>, dattended: &[f32]) -> TaskGradient {
    let (width, group, head_dim) = (heads.group_width(), heads.group(), heads.head_dim);
    let (all, first) = (rows_of(run), first_seen(run));
    let mut dquery = vec![0.0; all.len() * width];
    let (mut dkey, mut dvalue) = (vec![0.0; (all.end - first) * head_dim], vec![0.0; (all.end - first) * head_dim]);
    let (mut query, mut dout, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let (mut weights, mut dweights) = (Vec::new(), Vec::new());
    for block in run.iter().flat_map(|segment| blocks(segment, heads.block_positions())) {
        gather(kept.qkv, heads.qkv_width(), kv_head * width, &block.rows, width, &mut query);
        gather(dattended, heads.query_width(), kv_head * width, &block.rows, width, &mut dout);
        gather(kept.attended, heads.query_width(), kv_head * width, &block.rows, width, &mut out);
        let (num_queries, num_seen) = (block.rows.len() * group, block.num_seen);
        weights.resize(num_queries * num_seen, 0.0);
        dweights.resize(num_queries * num_seen, 0.0);
        let (q, dout_matrix) = (Matrix::new(&query, num_queries, head_dim), Matrix::new(&dout, num_queries, head_dim));
        for (column, rows) in &block.seen {
            let (k, v) = (heads.keys(kept.qkv, kv_head, rows), heads.values(kept.qkv, kv_head, rows));
            multiply(&mut weights[*column..], num_seen, Store::Overwrite, heads.scale(), q, k.transposed());
            multiply(&mut dweights[*column..], num_seen, Store::Overwrite, 1.0, dout_matrix, v.transposed());
        }
        vectorized(
            #[inline(always)]
            || {
                let lines = weights.chunks_exact_mut(num_seen).zip(dweights.chunks_exact_mut(num_seen));
                for (query, (line, dline)) in lines.enumerate() {
                    let at = query * head_dim..(query + 1) * head_dim;
                    let inner = dot(&dout[at.clone()], &out[at]);
                    let (row, head) = (block.rows.start + query / group, kv_head * group + query % group);
                    let log_sum = kept.log_sums[row * heads.num_heads + head];
                    let (past, future) = line.split_at_mut(block.first_seen + query / group);
                    let (dpast, dfuture) = dline.split_at_mut(block.first_seen + query / group);
                    for (weight, dweight) in past.iter_mut().zip(dpast) {
                        *weight = exp(*weight - log_sum);
                        *dweight = *weight * (*dweight - inner);
                    }
                    future.fill(0.0);
                    dfuture.fill(0.0);
                }
            },
        );
        let dquery = &mut dquery[(block.rows.start - all.start) * width..][..num_queries * head_dim];
        for (column, rows) in &block.seen {
            let p = Matrix::strided(&weights[*column..], num_queries, rows.len(), num_seen);
            let ds = Matrix::strided(&dweights[*column..], num_queries, rows.len(), num_seen);
            let store = if *column == 0 { Store::Overwrite } else { Store::Add };
            multiply(dquery, head_dim, store, heads.scale(), ds, heads.keys(kept.qkv, kv_head, rows));
            let seen = (rows.start - first) * head_dim..(rows.end - first) * head_dim;
            multiply(&mut dkey[seen.clone()], head_dim, Store::Add, heads.scale(), ds.transposed(), q);
            multiply(&mut dvalue[seen], head_dim, Store::Add, 1.0, p.transposed(), dout_matrix);
        }
    }
    TaskGradient { query: dquery, first, key: dkey, value: dvalue }
}
