//! Matrix products: of any strides by the `gemm` crate, large ones of training on all threads ([`crate::product`]), and packed panels for
//! decoding's few rows.
//!
//! Panels are laid out once per model, 32 output columns side by side, and each output is one running sum over k in order.
//! So a row's result depends on nothing but the row: not on the batch it is in, the thread, or the width of the vectors.

use crate::product;
use pulp::{Arch, Simd, WithSimd};
use std::ops::Range;

/// A matrix seen through strides.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A dense row-major matrix.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows of `columns` numbers that lie `row_stride` apart, as one head among others does.
    #[must_use]
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(), "a matrix lies within its data");
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    pub(crate) fn columns(self) -> usize {
        self.columns
    }

    /// How far rows lie apart.
    pub(crate) fn row_stride(self) -> usize {
        self.row_stride
    }

    /// A part of a row of a matrix whose rows are contiguous.
    pub(crate) fn contiguous_row(self, row: usize, columns: Range<usize>) -> &'a [f32] {
        debug_assert_eq!(self.column_stride, 1, "rows are contiguous");
        &self.data[row * self.row_stride + columns.start..row * self.row_stride + columns.end]
    }

    /// A part of a column of a matrix whose columns are contiguous.
    pub(crate) fn contiguous_column(self, column: usize, rows: Range<usize>) -> &'a [f32] {
        debug_assert_eq!(self.row_stride, 1, "columns are contiguous");
        &self.data[column * self.column_stride + rows.start..column * self.column_stride + rows.end]
    }

    /// The transpose, without moving anything.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// What a product does to what stands in its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Replaces it.
    Overwrite,
    /// Is added to it.
    Add,
}

/// `target (+)= factor * left right`, on one thread. // target: (left.rows, right.columns), rows `target_stride` apart
pub fn multiply(target: &mut [f32], target_stride: usize, store: Store, factor: f32, left: Matrix<'_>, right: Matrix<'_>) {
    let (m, n, k) = (left.rows, right.columns, left.columns);
    assert_eq!(k, right.rows, "inner sizes of a product agree");
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= target_stride || m == 1, "target rows do not overlap");
    assert!((m - 1) * target_stride + n <= target.len(), "a product lies within its target");
    #[expect(unsafe_code, reason = "gemm takes raw pointers; the asserts here and in Matrix::strided keep it within its slices")]
    // SAFETY: `left` and `right` span at most their slices (checked when they were made), the target is checked above,
    // and the exclusive borrow keeps the target apart from both.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target.as_mut_ptr(),
            1,
            target_stride as isize,
            store == Store::Add,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0f32,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// As [`multiply`], on all threads of the pool where the product is large.
pub fn multiply_shared(target: &mut [f32], target_stride: usize, store: Store, factor: f32, left: Matrix<'_>, right: Matrix<'_>) {
    let is_large = left.rows >= product::LEAST_ROWS && left.rows * left.columns * right.columns >= product::LEAST_PRODUCT;
    if factor == 1.0 && is_large {
        assert_eq!(left.columns, right.rows, "inner sizes of a product agree");
        product::product(target, target_stride, store, left, right);
    } else {
        multiply(target, target_stride, store, factor, left, right);
    }
}

/// Output columns of a panel.
const PANEL: usize = 32;

/// A weight matrix [out, in] laid out for `x W^T` with few rows: panels of 32 outputs, k-major within.
#[derive(Debug, Clone)]
pub struct PackedWeight {
    outputs: usize,
    inputs: usize,
    panels: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl PackedWeight {
    /// Packs a matrix and its optional bias. // weight: (outputs, inputs)
    #[must_use]
    pub fn new(weight: &[f32], outputs: usize, inputs: usize, bias: Option<&[f32]>) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "a weight has outputs x inputs numbers");
        let mut panels = vec![0f32; outputs.div_ceil(PANEL) * PANEL * inputs];
        for (output, row) in weight.chunks_exact(inputs).enumerate() {
            let base = (output / PANEL) * PANEL * inputs + output % PANEL;
            for (k, value) in row.iter().enumerate() {
                panels[base + k * PANEL] = *value;
            }
        }
        Self { outputs, inputs, panels, bias: bias.map(<[f32]>::to_vec) }
    }

    /// Several matrices of the same inputs below one another, so that one pass over x serves them all.
    #[must_use]
    pub fn stacked(parts: &[(&[f32], Option<&[f32]>)], inputs: usize) -> Self {
        let weight: Vec<f32> = parts.iter().flat_map(|(weight, _)| weight.iter().copied()).collect();
        let has_bias = parts.iter().any(|(_, bias)| bias.is_some());
        let bias: Vec<f32> = parts.iter().flat_map(|(_, bias)| bias.unwrap_or_default().iter().copied()).collect();
        Self::new(&weight, weight.len() / inputs, inputs, has_bias.then_some(bias.as_slice()))
    }

    /// Output width.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y = x W^T + bias`. // x: (rows, inputs), y: (rows, outputs)
    pub fn apply(&self, x: &[f32], y: &mut [f32]) {
        let rows = x.len() / self.inputs;
        assert_eq!(y.len(), rows * self.outputs, "the target holds one output row for each input row");
        Arch::new().dispatch(ApplyPanels { weight: self, x, y, rows });
        if let Some(bias) = &self.bias {
            for row in y.chunks_exact_mut(self.outputs) {
                for (value, b) in row.iter_mut().zip(bias) {
                    *value += b;
                }
            }
        }
    }
}

struct ApplyPanels<'a> {
    weight: &'a PackedWeight,
    x: &'a [f32],
    y: &'a mut [f32],
    rows: usize,
}

impl WithSimd for ApplyPanels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Rows by vectors that fit the registers: 12 x 2 of 32 (AVX-512), 3 x 4 of 16 (AVX2), 2 x 8 (narrower).
        match S::F32_LANES {
            16 => self.run::<S, 12, 2>(simd),
            8 => self.run::<S, 3, 4>(simd),
            4 => self.run::<S, 3, 8>(simd),
            _ => self.run::<S, 1, 32>(simd),
        }
    }
}

impl ApplyPanels<'_> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let (inputs, outputs) = (self.weight.inputs, self.weight.outputs);
        for (index, panel) in self.weight.panels.chunks_exact(PANEL * inputs).enumerate() {
            let columns = index * PANEL..((index + 1) * PANEL).min(outputs);
            let mut row = 0;
            while row + ROWS <= self.rows {
                let x = &self.x[row * inputs..(row + ROWS) * inputs];
                let y = &mut self.y[row * outputs..(row + ROWS) * outputs];
                tile::<S, ROWS, VECTORS>(simd, x, panel, y, inputs, outputs, columns.clone());
                row += ROWS;
            }
            while row < self.rows {
                let x = &self.x[row * inputs..(row + 1) * inputs];
                let y = &mut self.y[row * outputs..(row + 1) * outputs];
                tile::<S, 1, VECTORS>(simd, x, panel, y, inputs, outputs, columns.clone());
                row += 1;
            }
        }
    }
}

/// ROWS x 32 outputs, each the running fused sum over k of its own row and column.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    x: &[f32],
    panel: &[f32],
    y: &mut [f32],
    inputs: usize,
    outputs: usize,
    columns: std::ops::Range<usize>,
) {
    let zero = simd.splat_f32s(0.0);
    let mut sums = [[zero; VECTORS]; ROWS];
    let (vectors, _) = S::as_simd_f32s(panel);
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &x[row * inputs..(row + 1) * inputs]);
    for (k, line) in vectors.chunks_exact(VECTORS).enumerate().take(inputs) {
        for row in 0..ROWS {
            let value = simd.splat_f32s(rows[row][k]);
            for vector in 0..VECTORS {
                sums[row][vector] = simd.mul_add_f32s(value, line[vector], sums[row][vector]);
            }
        }
    }
    let width = columns.len();
    for (row, sums) in sums.iter().enumerate() {
        let flat: &[f32] = pulp::bytemuck::cast_slice(sums);
        let start = row * outputs + columns.start;
        y[start..start + width].copy_from_slice(&flat[..width]);
    }
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

    proptest! {
        #[test]
        fn panels_agree_with_running_fused_sums_whatever_the_batch(rows in 1usize..40, inputs in 1usize..70, outputs in 1usize..100, seed in 0u64..1000) {
            let (weight, x) = (numbers(outputs * inputs, seed), numbers(rows * inputs, seed + 1));
            let packed = PackedWeight::new(&weight, outputs, inputs, None);
            let mut y = vec![f32::NAN; rows * outputs];
            packed.apply(&x, &mut y);
            for row in 0..rows {
                for output in 0..outputs {
                    let exact = (0..inputs).fold(0f32, |sum, k| x[row * inputs + k].mul_add(weight[output * inputs + k], sum));
                    prop_assert_eq!(y[row * outputs + output].to_bits(), exact.to_bits());
                }
            }
        }
    }

    #[test]
    fn a_shared_product_is_the_product() {
        // Above and below the size from which products are cut, and with a last block that is not full.
        for (m, n, k) in [(1000, 300, 257), (7, 5, 3), (700, 512, 192)] {
            let (left, right) = (numbers(m * k, 1), numbers(n * k, 2));
            let (left, right) = (Matrix::new(&left, m, k), Matrix::new(&right, n, k).transposed());
            let (mut whole, mut shared) = (vec![1.0; m * n], vec![1.0; m * n]);
            multiply(&mut whole, n, Store::Add, 0.5, left, right);
            multiply_shared(&mut shared, n, Store::Add, 0.5, left, right);
            let worst = whole.iter().zip(&shared).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{m} x {n} x {k}: differs by {worst}");
        }
    }

    #[test]
    fn multiply_reads_strides_and_transposes() {
        let left = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0];
        let right = [1.0, 0.0, 2.0, 1.0];
        let mut target = [10.0; 4];
        multiply(&mut target, 2, Store::Add, 2.0, Matrix::strided(&left, 2, 2, 3), Matrix::new(&right, 2, 2).transposed());
        // [[1,2],[3,4]] x [[1,2],[0,1]] = [[1,4],[3,10]]
        assert_eq!(target, [12.0, 18.0, 16.0, 30.0]);
    }
}
