//! Matrix products of training: of any strides by the `gemm` crate, large ones on all threads ([`crate::product`]). Those of decoding, with few
//! rows, are in [`crate::panels`].

use crate::product;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / 16_777_216.0 - 0.5
            })
            .collect()
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
