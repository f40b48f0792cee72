//! Weights laid out once for the products of decoding, `x W^T` with few rows, in 32-bit, bfloat16 or 8-bit numbers.
//!
//! A panel is sixteen outputs side by side, k-major. Each output is one running fused sum over k in order, computed in f32; so a row's result
//! depends on nothing but the row and the weights: not on the batch it is in, the thread, or the width of the vectors. Narrow formats are
//! widened a block at a time into the first-level cache, where all rows use it, and are then ordinary f32 panels: decoding with a format is,
//! to the bit, decoding with the rounded weights.
//!
//! Formats: `bf16` rounds to nearest even. `q8` holds, for every output and every 64 inputs, code = round(w / scale) with
//! scale = max |w| / 127; w = code x scale. Deliberately absent: integer dot products, which would round activations too.

use crate::strips::{Lanes, Strips, WIDTH};
use half::bf16;
use pulp::{Arch, Simd, WithSimd, bytemuck};
use rayon::prelude::*;
use rzero_schema::vocab::WeightFormat;

/// Inputs that are widened at a time: 16 KiB of f32, half of a first-level cache.
const BLOCK: usize = 256;

/// Inputs that share a scale of `q8`.
const GROUP: usize = 64;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Numbers from an address that a cache line begins at.
#[derive(Debug)]
struct Aligned {
    values: Vec<f32>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn zeros(length: usize) -> Self {
        let values = vec![0f32; length + LINE / size_of::<f32>()];
        // The heap block keeps its place when the vector is moved; it is never grown or cloned.
        let start = values.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
        Self { values, start, length }
    }

    fn get(&self) -> &[f32] {
        &self.values[self.start..self.start + self.length]
    }

    fn get_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.length]
    }
}

/// The numbers of all panels. // (panels, inputs, 16)
#[derive(Debug)]
enum Numbers {
    F32(Aligned),
    Bf16(Vec<u16>),
    /// Codes, and scales. // scales: (panels, groups, 16)
    Q8(Vec<i8>, Vec<f32>),
}

/// A weight matrix [out, in] in panels, with its bias.
#[derive(Debug)]
pub struct PackedWeight {
    outputs: usize,
    inputs: usize,
    numbers: Numbers,
    bias: Option<Vec<Lanes>>,
}

impl PackedWeight {
    /// Packs a matrix and its optional bias. // weight: (outputs, inputs)
    #[must_use]
    pub fn new(weight: &[f32], outputs: usize, inputs: usize, bias: Option<&[f32]>, format: WeightFormat) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "a weight has outputs x inputs numbers");
        let num_panels = outputs.div_ceil(WIDTH);
        let size = num_panels * inputs * WIDTH;
        let panel_size = (inputs * WIDTH).max(1);
        let rows_of = |panel: usize| &weight[panel * WIDTH * inputs..((panel + 1) * WIDTH * inputs).min(weight.len())];
        let numbers = match format {
            WeightFormat::F32 => {
                let mut panels = Aligned::zeros(size);
                panels.get_mut().par_chunks_mut(panel_size).enumerate().for_each(|(panel, target)| {
                    place(rows_of(panel), inputs, target, |value| value);
                });
                Numbers::F32(panels)
            }
            WeightFormat::Bf16 => {
                let mut panels = vec![0u16; size];
                panels.par_chunks_mut(panel_size).enumerate().for_each(|(panel, target)| {
                    place(rows_of(panel), inputs, target, |value| bf16::from_f32(value).to_bits());
                });
                Numbers::Bf16(panels)
            }
            WeightFormat::Q8 => {
                let num_groups = inputs.div_ceil(GROUP);
                let (mut codes, mut scales) = (vec![0i8; size], vec![0f32; num_panels * num_groups * WIDTH]);
                let parts = codes.par_chunks_mut(panel_size).zip(scales.par_chunks_mut((num_groups * WIDTH).max(1)));
                parts.enumerate().for_each(|(panel, (codes, scales))| quantize(rows_of(panel), inputs, codes, scales));
                Numbers::Q8(codes, scales)
            }
        };
        let bias = bias.map(|bias| {
            let mut lanes = vec![[0.0; WIDTH]; num_panels];
            lanes.as_flattened_mut()[..outputs].copy_from_slice(bias);
            lanes
        });
        Self { outputs, inputs, numbers, bias }
    }

    /// Output width.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Panels, one for every strip of the output.
    #[must_use]
    pub fn num_panels(&self) -> usize {
        self.outputs.div_ceil(WIDTH)
    }

    /// One strip of `x W^T + bias`. // x: (rows, inputs), y: (rows) of 16
    pub fn apply(&self, panel: usize, x: &Strips, y: &mut [Lanes]) {
        assert_eq!((x.columns(), x.rows()), (self.inputs, y.len()), "a product's rows and inputs agree");
        Arch::new().dispatch(ApplyPanel { weight: self, panel, x, y });
        if let Some(bias) = &self.bias {
            for row in y {
                for (value, b) in row.iter_mut().zip(&bias[panel]) {
                    *value += b;
                }
            }
        }
    }

    /// Lines from `first` to `end` of a panel, widened into `buffer` where they are not f32.
    #[inline(always)]
    fn block<'a, S: Simd>(
        &'a self,
        simd: S,
        panel: usize,
        first: usize,
        end: usize,
        buffer: &'a mut [Lanes; BLOCK],
    ) -> &'a [Lanes] {
        let range = (panel * self.inputs + first) * WIDTH..(panel * self.inputs + end) * WIDTH;
        match &self.numbers {
            Numbers::F32(numbers) => numbers.get()[range].as_chunks::<WIDTH>().0,
            Numbers::Bf16(numbers) => {
                let target = &mut buffer[..end - first];
                // One flat loop, which becomes vector code where sixteen lanes written out do not.
                for (number, code) in target.as_flattened_mut().iter_mut().zip(&numbers[range]) {
                    *number = f32::from_bits(u32::from(*code) << 16);
                }
                target
            }
            Numbers::Q8(codes, scales) => {
                let target = &mut buffer[..end - first];
                let num_groups = self.inputs.div_ceil(GROUP);
                // Blocks begin at a group: BLOCK is a multiple of GROUP.
                let scales = scales[(panel * num_groups + first / GROUP) * WIDTH..].as_chunks::<WIDTH>().0;
                for ((lines, codes), scale) in target.chunks_mut(GROUP).zip(codes[range].chunks(GROUP * WIDTH)).zip(scales) {
                    for (number, code) in lines.as_flattened_mut().iter_mut().zip(codes) {
                        *number = f32::from(*code);
                    }
                    let (scale, _) = S::as_simd_f32s(scale);
                    for line in lines {
                        for (vector, scale) in S::as_mut_simd_f32s(line).0.iter_mut().zip(scale) {
                            *vector = simd.mul_f32s(*vector, *scale);
                        }
                    }
                }
                target
            }
        }
    }

    /// What follows a block in memory, to be fetched while the block is worked on.
    #[inline(always)]
    fn ahead(&self, panel: usize, end: usize) -> Ahead<'_> {
        let first = (panel * self.inputs + end) * WIDTH;
        let bytes: &[u8] = match &self.numbers {
            Numbers::F32(numbers) => bytemuck::cast_slice(&numbers.get()[first..]),
            Numbers::Bf16(numbers) => bytemuck::cast_slice(&numbers[first..]),
            Numbers::Q8(codes, _) => bytemuck::cast_slice(&codes[first..]),
        };
        Ahead { lines: bytes.chunks(LINE), bytes_a_number: bytes.len() / (self.panel_end() - first).max(1) }
    }

    /// Numbers of all panels.
    fn panel_end(&self) -> usize {
        self.num_panels() * self.inputs * WIDTH
    }

    /// The matrix that products are computed with. // (outputs, inputs)
    #[must_use]
    pub fn rounded(&self) -> Vec<f32> {
        let mut weight = vec![0.0; self.outputs * self.inputs];
        let mut buffer = [[0.0; WIDTH]; BLOCK];
        for panel in 0..self.num_panels() {
            for first in (0..self.inputs).step_by(BLOCK) {
                let end = (first + BLOCK).min(self.inputs);
                for (k, line) in (first..end).zip(self.block(pulp::Scalar, panel, first, end, &mut buffer)) {
                    for (output, value) in (panel * WIDTH..self.outputs).zip(line) {
                        weight[output * self.inputs + k] = *value;
                    }
                }
            }
        }
        weight
    }
}

/// Memory that will be read soon.
struct Ahead<'a> {
    lines: std::slice::Chunks<'a, u8>,
    bytes_a_number: usize,
}

impl Ahead<'_> {
    /// Asks for some cache lines of it. Changes nothing but the time of a later read.
    #[inline(always)]
    fn fetch(&mut self, count: usize) {
        for line in self.lines.by_ref().take(count) {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "the intrinsic takes a raw pointer")]
            // SAFETY: every x86-64 has the instruction, which reads nothing that a program can see; the line is within its slice.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = line;
        }
    }
}

/// Up to sixteen rows of a matrix as a panel. // rows: (16, inputs), panel: (inputs, 16)
fn place<T>(rows: &[f32], inputs: usize, panel: &mut [T], convert: impl Fn(f32) -> T) {
    for (lane, row) in rows.chunks_exact(inputs.max(1)).enumerate() {
        for (target, value) in panel[lane..].iter_mut().step_by(WIDTH).zip(row) {
            *target = convert(*value);
        }
    }
}

fn quantize(rows: &[f32], inputs: usize, codes: &mut [i8], scales: &mut [f32]) {
    for (lane, row) in rows.chunks_exact(inputs.max(1)).enumerate() {
        for (group, values) in row.chunks(GROUP).enumerate() {
            let scale = values.iter().fold(0f32, |largest, value| largest.max(value.abs())) / 127.0;
            scales[group * WIDTH + lane] = scale;
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            for (at, value) in values.iter().enumerate() {
                codes[(group * GROUP + at) * WIDTH + lane] = (value * inverse).round() as i8;
            }
        }
    }
}

struct ApplyPanel<'a> {
    weight: &'a PackedWeight,
    panel: usize,
    x: &'a Strips,
    y: &'a mut [Lanes],
}

impl WithSimd for ApplyPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Most rows of a tile whose sums fit the registers: of 32 with 16 lanes, 16 with 8, 32 or 16 with 4.
        match S::F32_LANES {
            16 => self.run::<S, 1>(simd, 14),
            8 => self.run::<S, 2>(simd, 6),
            4 => self.run::<S, 4>(simd, 3),
            _ => self.run::<S, 16>(simd, 1),
        }
    }
}

impl ApplyPanel<'_> {
    #[inline(always)]
    fn run<S: Simd, const VECTORS: usize>(self, simd: S, most_rows: usize) {
        let Self { weight, panel, x, y } = self;
        let rows = x.rows();
        let num_tiles = rows.div_ceil(most_rows);
        let mut buffer = [[0.0; WIDTH]; BLOCK];
        for first in (0..weight.inputs).step_by(BLOCK) {
            let end = (first + BLOCK).min(weight.inputs);
            let block = weight.block(simd, panel, first, end, &mut buffer);
            let strips = &x.values()[first / WIDTH * rows..];
            // Every tile asks for its share of the next block, a few lines at a time: the units then never wait for memory alone.
            let mut ahead = weight.ahead(panel, end);
            let lines_a_strip = (WIDTH * WIDTH * ahead.bytes_a_number / LINE).div_ceil(num_tiles);
            // Tiles as even as can be: a low one leaves the units waiting for their own results.
            for tile in 0..num_tiles {
                let tile_rows = rows * tile / num_tiles..rows * (tile + 1) / num_tiles;
                let (x, y) = (&strips[tile_rows.start..], &mut y[tile_rows.clone()]);
                let is_first = first == 0;
                let ahead = (&mut ahead, lines_a_strip);
                match tile_rows.len() {
                    1 => tile_of::<S, 1, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    2 => tile_of::<S, 2, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    3 => tile_of::<S, 3, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    4 => tile_of::<S, 4, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    5 => tile_of::<S, 5, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    6 => tile_of::<S, 6, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    7 => tile_of::<S, 7, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    8 => tile_of::<S, 8, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    9 => tile_of::<S, 9, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    10 => tile_of::<S, 10, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    11 => tile_of::<S, 11, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    12 => tile_of::<S, 12, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    13 => tile_of::<S, 13, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                    _ => tile_of::<S, 14, VECTORS>(simd, block, x, rows, y, is_first, ahead),
                }
            }
        }
    }
}

/// ROWS x 16 outputs over one block of inputs, going on from what stands in y unless it is the first block.
///
/// x begins at the tile's first row of the block's first strip; strips lie `stride` apart.
#[inline(always)]
fn tile_of<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    block: &[Lanes],
    x: &[Lanes],
    stride: usize,
    y: &mut [Lanes],
    is_first: bool,
    (ahead, lines_a_strip): (&mut Ahead<'_>, usize),
) {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    if !is_first {
        for (sums, y) in sums.iter_mut().zip(y.iter()) {
            *sums = vectors::<S, VECTORS>(y);
        }
    }
    let (strips, rest) = block.as_chunks::<WIDTH>();
    let mut x = x.chunks(stride).map(|strip| strip.first_chunk::<ROWS>());
    for lines in strips {
        let Some(x) = x.next().flatten() else { break };
        ahead.fetch(lines_a_strip);
        for lane in 0..WIDTH {
            let line = vectors::<S, VECTORS>(&lines[lane]);
            for row in 0..ROWS {
                let value = simd.splat_f32s(x[row][lane]);
                for vector in 0..VECTORS {
                    sums[row][vector] = simd.mul_add_f32s(value, line[vector], sums[row][vector]);
                }
            }
        }
    }
    if let (false, Some(x)) = (rest.is_empty(), x.next().flatten()) {
        for (lane, line) in rest.iter().enumerate() {
            let line = vectors::<S, VECTORS>(line);
            for row in 0..ROWS {
                let value = simd.splat_f32s(x[row][lane]);
                for vector in 0..VECTORS {
                    sums[row][vector] = simd.mul_add_f32s(value, line[vector], sums[row][vector]);
                }
            }
        }
    }
    for (sums, y) in sums.iter().zip(y) {
        S::as_mut_simd_f32s(y).0.copy_from_slice(sums);
    }
}

/// Numbers as vectors, of which they fill VECTORS.
#[inline(always)]
pub(crate) fn vectors<S: Simd, const VECTORS: usize>(numbers: &[f32]) -> [S::f32s; VECTORS] {
    let (all, _) = S::as_simd_f32s(numbers);
    std::array::from_fn(|vector| all[vector])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / 16_777_216.0 - 0.5
            })
            .collect()
    }

    fn product(packed: &PackedWeight, x: &[f32], rows: usize) -> Vec<f32> {
        let (mut strips, mut y) = (Strips::default(), Strips::default());
        strips.shape(rows, packed.inputs);
        x.chunks_exact(packed.inputs).enumerate().for_each(|(row, x)| strips.scatter(row, x));
        y.shape(rows, packed.outputs);
        y.values_mut().chunks_mut(rows).enumerate().for_each(|(panel, y)| packed.apply(panel, &strips, y));
        let mut rows_of_y = vec![0.0; rows * packed.outputs];
        rows_of_y.chunks_exact_mut(packed.outputs).enumerate().for_each(|(row, target)| y.gather(row, target));
        rows_of_y
    }

    proptest! {
        #[test]
        fn panels_agree_with_running_fused_sums_whatever_the_batch_and_the_format(
            rows in 1usize..40,
            inputs in 1usize..600,
            outputs in 1usize..70,
            seed in 0u64..1000,
            has_bias in any::<bool>(),
        ) {
            let (weight, x, bias) = (numbers(outputs * inputs, seed), numbers(rows * inputs, seed + 1), numbers(outputs, seed + 2));
            for format in WeightFormat::ALL {
                let packed = PackedWeight::new(&weight, outputs, inputs, has_bias.then_some(bias.as_slice()), *format);
                let rounded = packed.rounded();
                let y = product(&packed, &x, rows);
                for row in 0..rows {
                    for output in 0..outputs {
                        let (x, weight) = (&x[row * inputs..(row + 1) * inputs], &rounded[output * inputs..(output + 1) * inputs]);
                        let sum = x.iter().zip(weight).fold(0f32, |sum, (x, w)| x.mul_add(*w, sum));
                        let exact = if has_bias { sum + bias[output] } else { sum };
                        prop_assert_eq!(y[row * outputs + output].to_bits(), exact.to_bits());
                    }
                }
            }
        }
    }

    #[test]
    fn formats_round_as_they_say() {
        let (outputs, inputs) = (21, 150);
        let mut weight = numbers(outputs * inputs, 5);
        weight[3] = f32::from_bits(0x3f80_8000); // halfway between two bfloat16 numbers: to even
        weight[inputs..2 * inputs].fill(0.0);
        let rounded = |format| PackedWeight::new(&weight, outputs, inputs, None, format).rounded();
        assert_eq!(rounded(WeightFormat::F32), weight);
        let narrow = rounded(WeightFormat::Bf16);
        assert_eq!(narrow[3], 1.0);
        assert!(narrow.iter().zip(&weight).all(|(narrow, value)| bf16::from_f32(*value).to_f32() == *narrow));
        for (rounded, weight) in rounded(WeightFormat::Q8).chunks(inputs).zip(weight.chunks(inputs)) {
            for (rounded, weight) in rounded.chunks(GROUP).zip(weight.chunks(GROUP)) {
                let largest = weight.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                for (rounded, weight) in rounded.iter().zip(weight) {
                    assert!((rounded - weight).abs() <= largest / 254.0 * 1.001, "{rounded} for {weight}");
                }
            }
        }
    }
}
