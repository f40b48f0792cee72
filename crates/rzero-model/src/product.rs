//! Large products on all threads: the right matrix laid out in panels once, then blocks of the target.
//!
//! ```text
//! for each panel of right columns, for each tile of left rows, on all threads:   copy it, k-major
//! for each block of the target, on all threads:
//!     for each part of k, for each panel, for each tile of rows:   target tile += left tile x right panel, in registers
//! ```
//!
//! The sizes were chosen by measurement: a tile stays in a core's first cache, a panel's part and a block's part of the left matrix in its second.
//! Each number of the target is one running fused sum over k in order, whatever the part, the block, the thread or the width of the vectors:
//! results depend on nothing but the operands.

use crate::matmul::{Matrix, Store};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// Most of k that is summed before a tile goes back to the target.
const DEPTH: usize = 640;

/// Rows of a block: a multiple of the rows of every kind of tile.
const BLOCK_ROWS: usize = 48;

/// Columns of a block are a multiple of this, which is one of the columns of every kind of panel.
const BLOCK_COLUMNS: usize = 96;

/// Blocks that a product is cut into, where it has room for them: enough for the threads to end together.
const BLOCKS: usize = 48;

/// Vectors side by side in a tile.
const VECTORS: usize = 2;

thread_local! {
    /// The panels and tiles of the last product that this thread began: room for the next.
    static PACKED: Cell<[Vec<f32>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// Least multiply-adds of a product, and rows, for which panels pay.
pub(crate) const LEAST_PRODUCT: usize = 1 << 20;
pub(crate) const LEAST_ROWS: usize = 48;

/// `target (+)= left right`, on all threads of the pool. // target: (left.rows, right.columns), rows `target_stride` apart
pub(crate) fn product(target: &mut [f32], target_stride: usize, store: Store, left: Matrix<'_>, right: Matrix<'_>) {
    let (rows, depth, columns) = (left.rows(), left.columns(), right.columns());
    assert!(columns <= target_stride, "target rows do not overlap");
    let (width, height) = Arch::new().dispatch(TileSizes);
    let [mut panel_buffer, mut tile_buffer] = PACKED.take();
    let panels = pack_all(right.transposed(), width, &mut panel_buffer);
    let tiles = pack_all(left, height, &mut tile_buffer);
    let used = &mut target[..(rows - 1) * target_stride + columns];
    blocks(used, target_stride, rows, columns).into_par_iter().for_each(|(first_row, first_column, target)| {
        let (tiles, panels) = (&tiles[first_row * depth..], &panels[first_column * depth..]);
        Arch::new().dispatch(Block { target, store, tiles, panels, depth });
    });
    PACKED.set([panel_buffer, tile_buffer]);
}

/// Cuts the target into blocks: first row, first column, and the rows.
fn blocks(target: &mut [f32], stride: usize, rows: usize, columns: usize) -> Vec<(usize, usize, Vec<&mut [f32]>)> {
    let num_high = rows.div_ceil(BLOCK_ROWS);
    let num_wide = (BLOCKS / num_high).clamp(1, columns.div_ceil(BLOCK_COLUMNS));
    let width = columns.div_ceil(num_wide).next_multiple_of(BLOCK_COLUMNS);
    let mut blocks = Vec::with_capacity(num_high * num_wide);
    for (high, rows) in target.chunks_mut(BLOCK_ROWS * stride).enumerate() {
        let start = blocks.len();
        for first in (0..columns).step_by(width) {
            blocks.push((high * BLOCK_ROWS, first, Vec::with_capacity(BLOCK_ROWS)));
        }
        for row in rows.chunks_mut(stride) {
            let used = columns.min(row.len());
            for (block, part) in blocks[start..].iter_mut().zip(row[..used].chunks_mut(width)) {
                block.2.push(part);
            }
        }
    }
    blocks
}

/// Bytes of a cache line: vectors that lie across two cost a tenth of the speed.
const LINE: usize = 64;

/// Lays out all rows of a matrix, `height` of them side by side, from the beginning of a cache line. // result: (rows / height, columns, height)
fn pack_all<'a>(matrix: Matrix<'_>, height: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
    let (rows, depth) = (matrix.rows(), matrix.columns());
    let length = rows.div_ceil(height) * height * depth;
    if buffer.len() < length + LINE / size_of::<f32>() {
        buffer.resize(length + LINE / size_of::<f32>(), 0.0);
    }
    let start = buffer.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
    let packed = &mut buffer[start..start + length];
    packed.par_chunks_mut(height * depth).enumerate().for_each(|(index, packed)| {
        let rows = index * height..((index + 1) * height).min(rows);
        match height {
            32 => pack::<32>(matrix, rows, packed),
            16 => pack::<16>(matrix, rows, packed),
            12 => pack::<12>(matrix, rows, packed),
            8 => pack::<8>(matrix, rows, packed),
            6 => pack::<6>(matrix, rows, packed),
            _ => pack::<VECTORS>(matrix, rows, packed),
        }
    });
    packed
}

/// Values of a row that are laid out before those of the next row.
const RUN: usize = 16;

/// Lays out some rows of a matrix k-major, WIDTH of them side by side, zeros where there are fewer. // packed: (columns, WIDTH)
fn pack<const WIDTH: usize>(matrix: Matrix<'_>, rows: Range<usize>, packed: &mut [f32]) {
    let (lines, _) = packed.as_chunks_mut::<WIDTH>();
    if rows.len() < WIDTH {
        lines.fill([0.0; WIDTH]);
    }
    if matrix.row_stride() == 1 {
        for (k, line) in lines.iter_mut().enumerate() {
            let column = matrix.contiguous_column(k, rows.clone());
            match column.first_chunk() {
                Some(column) => *line = *column,
                None => line[..column.len()].copy_from_slice(column),
            }
        }
        return;
    }
    for (run, lines) in lines.chunks_mut(RUN).enumerate() {
        let first = run * RUN;
        for (at, row) in rows.clone().enumerate() {
            let row = matrix.contiguous_row(row, first..first + lines.len());
            for (value, line) in row.iter().zip(lines.iter_mut()) {
                line[at] = *value;
            }
        }
    }
}

/// Columns of a panel and rows of a tile on this machine.
struct TileSizes;

impl WithSimd for TileSizes {
    type Output = (usize, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (usize, usize) {
        (VECTORS * S::F32_LANES, tile_rows::<S>())
    }
}

/// 12 x 2 of 32 registers (AVX-512), else 6 x 2 of 16 or more.
const fn tile_rows<S: Simd>() -> usize {
    if S::F32_LANES == 16 { 12 } else { 6 }
}

/// A block of a product.
struct Block<'a> {
    target: Vec<&'a mut [f32]>,
    store: Store,
    tiles: &'a [f32],
    panels: &'a [f32],
    depth: usize,
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match tile_rows::<S>() {
            12 => self.run::<S, 12>(simd),
            _ => self.run::<S, 6>(simd),
        }
    }
}

impl Block<'_> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(mut self, simd: S) {
        let (depth, width) = (self.depth, VECTORS * S::F32_LANES);
        let columns = self.target.first().map_or(0, |row| row.len());
        let part = depth.div_ceil(depth.div_ceil(DEPTH));
        for first in (0..depth).step_by(part) {
            let range = first..(first + part).min(depth);
            let starts_at_zero = first == 0 && self.store == Store::Overwrite;
            for (index, panel) in self.panels.chunks_exact(width * depth).take(columns.div_ceil(width)).enumerate() {
                let (panel, _) = S::as_simd_f32s(&panel[range.start * width..range.end * width]);
                let (panel, _) = panel.as_chunks::<VECTORS>();
                let columns = index * width..((index + 1) * width).min(columns);
                for (target, tile) in self.target.chunks_mut(ROWS).zip(self.tiles.chunks_exact(ROWS * depth)) {
                    let (tile, _) = tile[range.start * ROWS..range.end * ROWS].as_chunks::<ROWS>();
                    if target.len() < ROWS || columns.len() < width {
                        edge_tile::<S, ROWS>(simd, target, columns.clone(), starts_at_zero, tile, panel);
                        continue;
                    }
                    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
                    if !starts_at_zero {
                        for (sums, target) in sums.iter_mut().zip(target.iter()) {
                            let (line, _) = S::as_simd_f32s(&target[columns.start..columns.start + width]);
                            *sums = std::array::from_fn(|vector| line[vector]);
                        }
                    }
                    let sums = multiply_tile::<S, ROWS>(simd, tile, panel, sums);
                    for (sums, target) in sums.iter().zip(target.iter_mut()) {
                        let (line, _) = S::as_mut_simd_f32s(&mut target[columns.start..columns.start + width]);
                        line.copy_from_slice(sums);
                    }
                }
            }
        }
    }
}

/// A tile at the edge of the target goes through a full one.
#[inline(always)]
fn edge_tile<S: Simd, const ROWS: usize>(
    simd: S,
    target: &mut [&mut [f32]],
    columns: Range<usize>,
    starts_at_zero: bool,
    tile: &[[f32; ROWS]],
    panel: &[[S::f32s; VECTORS]],
) {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    if !starts_at_zero {
        for (sums, target) in sums.iter_mut().zip(target.iter()) {
            let sums: &mut [f32] = pulp::bytemuck::cast_slice_mut(sums);
            sums[..columns.len()].copy_from_slice(&target[columns.clone()]);
        }
    }
    let sums = multiply_tile::<S, ROWS>(simd, tile, panel, sums);
    for (sums, target) in sums.iter().zip(target.iter_mut()) {
        let sums: &[f32] = pulp::bytemuck::cast_slice(sums);
        target[columns.clone()].copy_from_slice(&sums[..columns.len()]);
    }
}

/// `sums += tile panel` with the sums in registers. // tile: (k, ROWS), panel: (k, VECTORS), sums: (ROWS, VECTORS)
#[inline(always)]
fn multiply_tile<S: Simd, const ROWS: usize>(
    simd: S,
    tile: &[[f32; ROWS]],
    panel: &[[S::f32s; VECTORS]],
    mut sums: [[S::f32s; VECTORS]; ROWS],
) -> [[S::f32s; VECTORS]; ROWS] {
    for (left, right) in tile.iter().zip(panel) {
        for row in 0..ROWS {
            let value = simd.splat_f32s(left[row]);
            for vector in 0..VECTORS {
                sums[row][vector] = simd.mul_add_f32s(value, right[vector], sums[row][vector]);
            }
        }
    }
    sums
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 7_919 + seed * 104_729) % 2_003) as f32 / 1_001.5 - 1.0).collect()
    }

    proptest! {
        #[test]
        fn every_number_is_one_running_fused_sum_whatever_the_sizes_and_threads(
            rows in 1usize..130, columns in 1usize..90, depth in 1usize..700, seed in 0usize..100, threads in 1usize..4,
        ) {
            let (left, right, before) = (numbers(rows * depth, seed), numbers(depth * columns, seed + 1), numbers(rows * columns, seed + 2));
            let exact = |start: f32, row: usize, column: usize| {
                (0..depth).fold(start, |sum, k| left[row * depth + k].mul_add(right[k * columns + column], sum))
            };
            let transposed = |values: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns).map(|at| values[at % rows * columns + at / rows]).collect()
            };
            let (left_transposed, right_transposed) = (transposed(&left, rows, depth), transposed(&right, depth, columns));
            let lefts = [Matrix::new(&left, rows, depth), Matrix::new(&left_transposed, depth, rows).transposed()];
            let rights = [Matrix::new(&right, depth, columns), Matrix::new(&right_transposed, columns, depth).transposed()];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for (store, left, right) in
                [(Store::Overwrite, lefts[0], rights[0]), (Store::Add, lefts[1], rights[0]), (Store::Add, lefts[0], rights[1])]
            {
                let mut target = before.clone();
                pool.install(|| product(&mut target, columns, store, left, right));
                for (at, value) in target.iter().enumerate() {
                    let start = if store == Store::Add { before[at] } else { 0.0 };
                    prop_assert_eq!(value.to_bits(), exact(start, at / columns, at % columns).to_bits());
                }
            }
        }
    }
}
