//! Activations of many rows as the packed products read and write them: strips of sixteen columns, all rows of a strip side by side.
//!
//! A product's output strip is one piece of memory, so that threads can take strips; its inputs stand together too, sixteen of one row after
//! sixteen of the next. Columns beyond the width are zero. Elementwise work does not see the layout; what needs whole rows gathers them.

use crate::kernels::{LANES, fold};
use crate::team::Team;

/// Columns of a strip: those of a weight's panel, and the lanes of a row's sums.
pub const WIDTH: usize = LANES;

/// A strip's part of one row.
pub type Lanes = [f32; WIDTH];

/// Rows of activations. // (strips, rows, 16)
#[derive(Debug, Clone, Default)]
pub struct Strips {
    rows: usize,
    columns: usize,
    values: Vec<Lanes>,
}

impl Strips {
    /// Makes room for so many rows and columns; what stood there is undefined, but for columns beyond the width.
    pub fn shape(&mut self, rows: usize, columns: usize) {
        let numbers = rows * columns.div_ceil(WIDTH);
        if self.rows != rows || self.columns != columns {
            (self.rows, self.columns) = (rows, columns);
            self.values.clear();
        }
        self.values.resize(numbers, [0.0; WIDTH]);
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, without those that fill the last strip.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All of it. // (strips x rows)
    #[must_use]
    pub fn values(&self) -> &[Lanes] {
        &self.values
    }

    /// All of it, to be written; columns beyond the width stay zero.
    pub fn values_mut(&mut self) -> &mut [Lanes] {
        &mut self.values
    }

    /// One strip of all rows. // (rows)
    #[must_use]
    pub fn strip(&self, strip: usize) -> &[Lanes] {
        &self.values[strip * self.rows..(strip + 1) * self.rows]
    }

    /// Copies one row out. // target: (columns)
    pub fn gather(&self, row: usize, target: &mut [f32]) {
        let strips = self.values[row..].iter().step_by(self.rows.max(1));
        for (target, lanes) in target.chunks_mut(WIDTH).zip(strips) {
            target.copy_from_slice(&lanes[..target.len()]);
        }
    }

    /// Copies one row in. // source: (columns)
    pub fn scatter(&mut self, row: usize, source: &[f32]) {
        let strips = self.values[row..].iter_mut().step_by(self.rows.max(1));
        for (source, lanes) in source.chunks(WIDTH).zip(strips) {
            lanes[..source.len()].copy_from_slice(source);
        }
    }

    /// Copies all rows in, of which each stands at `offset` of its part of `source`; the team shares the strips. // source: (rows, row width)
    pub fn scatter_all(&mut self, source: &[f32], row_width: usize, offset: usize, team: &mut Team<'_>) {
        let (rows, columns) = (self.rows, self.columns);
        let strips = self.strips_a_part();
        team.split(&mut self.values, rows * strips, |_, part, target| {
            for (strip, target) in (part * strips..).zip(target.chunks_mut(rows)) {
                let first = offset + strip * WIDTH;
                let width = WIDTH.min(columns - strip * WIDTH);
                for (lanes, source) in target.iter_mut().zip(source.chunks_exact(row_width)) {
                    lanes[..width].copy_from_slice(&source[first..first + width]);
                }
            }
        });
    }

    /// The RMS norm of every row, as [`crate::kernels::rms_norm`] computes it, to the bit; the team shares first the rows, then the strips.
    /// `inverse` is a buffer for 1 / rms of each row.
    pub fn rms_norm_into(&self, weight: &[f32], eps: f32, team: &mut Team<'_>, inverse: &mut Vec<f32>, target: &mut Self) {
        target.shape(self.rows, self.columns);
        let rows = self.rows;
        inverse.resize(rows, 0.0);
        let rows_a_part = if self.is_small() { rows } else { ROWS_AT_ONCE };
        team.split(inverse, rows_a_part, |_, part, inverse| {
            crate::kernels::vectorized(
                #[inline(always)]
                || self.inverse_rms(part * rows_a_part, eps, inverse),
            );
        });
        let inverse = &*inverse;
        let strips = self.strips_a_part();
        team.split(&mut target.values, rows * strips, |_, part, target| {
            let source = &self.values[part * rows * strips..];
            crate::kernels::vectorized(
                #[inline(always)]
                || {
                    for (at, (target, source)) in target.chunks_mut(rows).zip(source.chunks(rows)).enumerate() {
                        let first = (part * strips + at) * WIDTH;
                        let mut scale = [0.0; WIDTH];
                        let width = WIDTH.min(weight.len() - first);
                        scale[..width].copy_from_slice(&weight[first..first + width]);
                        for ((y, x), inverse) in target.iter_mut().zip(source).zip(inverse) {
                            for lane in 0..WIDTH {
                                y[lane] = x[lane] * *inverse * scale[lane];
                            }
                        }
                    }
                },
            );
        });
    }

    /// 1 / rms of the rows from `first` on.
    #[inline(always)]
    fn inverse_rms(&self, first: usize, eps: f32, inverse: &mut [f32]) {
        let width = self.columns;
        let num_whole = width / WIDTH;
        // Some rows at a time, so that their sums stay in registers.
        for (group, inverse) in inverse.chunks_mut(ROWS_AT_ONCE).enumerate() {
            let first = first + group * ROWS_AT_ONCE;
            let mut sums = [[0f32; WIDTH]; ROWS_AT_ONCE];
            for strip in 0..num_whole {
                for (sum, x) in sums.iter_mut().zip(&self.strip(strip)[first..first + inverse.len()]) {
                    for lane in 0..WIDTH {
                        sum[lane] += x[lane] * x[lane];
                    }
                }
            }
            for (row, inverse) in inverse.iter_mut().enumerate() {
                let mut total = fold(sums[row]);
                if num_whole * WIDTH < width {
                    let x = &self.strip(num_whole)[first + row];
                    x[..width - num_whole * WIDTH].iter().for_each(|x| total += x * x);
                }
                *inverse = 1.0 / (total / width as f32 + eps).sqrt();
            }
        }
    }

    /// Whether one thread is done with it sooner than a team has gathered.
    fn is_small(&self) -> bool {
        self.values.len() <= SMALL
    }

    fn strips_a_part(&self) -> usize {
        if self.is_small() { self.columns.div_ceil(WIDTH).max(1) } else { STRIPS_AT_ONCE }
    }
}

/// Rows whose sums are taken together.
const ROWS_AT_ONCE: usize = 4;

/// Strips that a member takes at a time.
const STRIPS_AT_ONCE: usize = 2;

/// Strips' rows up to which work is not shared: some thousand numbers.
const SMALL: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::with_team;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_go_in_and_out_and_their_norm_is_the_plain_one(rows in 1usize..40, width in 1usize..200, seed in 0u32..1000) {
            let number = |at: usize| ((at as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 1e7 - 0.8;
            let x: Vec<f32> = (0..rows * width).map(number).collect();
            let weight: Vec<f32> = (0..width).map(|at| number(at + 7777)).collect();
            let (mut strips, mut normed) = (Strips::default(), Strips::default());
            strips.shape(rows, width);
            x.chunks_exact(width).enumerate().for_each(|(row, x)| strips.scatter(row, x));
            with_team(2, |team| strips.rms_norm_into(&weight, 1e-5, team, &mut Vec::new(), &mut normed));
            let mut copied = Strips::default();
            copied.shape(rows, width);
            let wide: Vec<f32> = x.chunks_exact(width).flat_map(|x| [&[7.0; 3], x].concat()).collect();
            with_team(2, |team| copied.scatter_all(&wide, width + 3, 3, team));
            prop_assert_eq!(copied.values(), strips.values());
            let (mut expected, mut inverse) = (vec![0.0; x.len()], vec![0.0; rows]);
            crate::kernels::rms_norm(&x, &weight, 1e-5, &mut expected, &mut inverse);
            let mut row_values = vec![0.0; width];
            for row in 0..rows {
                strips.gather(row, &mut row_values);
                prop_assert_eq!(&row_values, &x[row * width..(row + 1) * width]);
                normed.gather(row, &mut row_values);
                prop_assert_eq!(&row_values, &expected[row * width..(row + 1) * width]);
            }
            prop_assert!(normed.values().iter().skip(width / WIDTH * rows).all(|lanes| lanes[width % WIDTH..].iter().all(|x| *x == 0.0) || width % WIDTH == 0));
        }
    }
}
