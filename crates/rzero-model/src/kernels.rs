//! The elementwise and reducing loops of the transformer, forward and backward, on plain slices.
//!
//! Each loop runs on the widest vectors of the machine it finds itself on (`pulp` dispatch) and uses neither fused
//! multiply-add nor reassociated sums, so that its results do not depend on that width. Shapes: N rows, D columns, row-major.

use crate::rope::RotaryFrequencies;
use pulp::Arch;
use rayon::prelude::*;

/// Partial sums of a reduction.
pub(crate) const LANES: usize = 16;

/// Runs a loop with the widest instructions of this machine.
#[inline]
pub fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// e^x for f32 to within 2 units in the last place; 0 under -87.3, and e^88.3 above it.
///
/// Range reduction by ln 2 in two parts and a polynomial of degree 6; branch-free, so loops over it become vector code.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 x 2^23: adding it rounds to an integer held in the low mantissa bits.
    let is_tiny = x < -87.3;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (0.166_666_66 + r * (0.041_665_796 + r * (0.008_333_452 + r * 0.001_388_5)))));
    let exponent = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32).wrapping_add(127);
    let scale = f32::from_bits((exponent << 23) as u32);
    if is_tiny { 0.0 } else { p * scale }
}

/// Sum of products with sixteen partial sums in a fixed order, the same on every vector width.
#[inline(always)]
#[must_use]
pub fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut partial = [0f32; LANES];
    let (left_chunks, left_rest) = left.as_chunks::<LANES>();
    let (right_chunks, right_rest) = right.as_chunks::<LANES>();
    for (a, b) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..LANES {
            partial[lane] += a[lane] * b[lane];
        }
    }
    let mut total = fold(partial);
    for (a, b) in left_rest.iter().zip(right_rest) {
        total += a * b;
    }
    total
}

/// The sum of partial sums, halves added to halves.
#[inline(always)]
pub(crate) fn fold(mut partial: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            partial[lane] += partial[lane + width];
        }
        width /= 2;
    }
    partial[0]
}

/// target += factor * source.
#[inline(always)]
pub fn add_scaled(target: &mut [f32], factor: f32, source: &[f32]) {
    for (t, s) in target.iter_mut().zip(source) {
        *t += factor * s;
    }
}

/// RMS norm, `y = x / sqrt(mean(x^2) + eps) * weight`; returns 1 / sqrt(..) of every row. // x, y: (N, D)
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], inverse: &mut [f32]) {
    let width = weight.len();
    vectorized(
        #[inline(always)]
        || {
            for ((x, y), inverse) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inverse) {
                *inverse = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
                for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                    *y = x * *inverse * w;
                }
            }
        },
    );
}

/// Backward of [`rms_norm`]: adds to `dx` and `dweight`.
///
/// With n = x * inverse and g = dy * weight: dx = inverse * (g - n * mean(g * n)), dweight = sum over rows of dy * n.
pub fn rms_norm_backward(x: &[f32], weight: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32], dweight: &mut [f32]) {
    let width = weight.len();
    vectorized(
        #[inline(always)]
        || {
            let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)).zip(inverse);
            let mut scaled = vec![0f32; width];
            for (((x, dy), dx), &inverse) in rows {
                for ((s, d), w) in scaled.iter_mut().zip(dy).zip(weight) {
                    *s = d * w;
                }
                let mean = dot(&scaled, x) * inverse / width as f32;
                for lane in 0..width {
                    let normed = x[lane] * inverse;
                    dx[lane] += inverse * (scaled[lane] - normed * mean);
                    dweight[lane] += dy[lane] * normed;
                }
            }
        },
    );
}

/// Rows of so many columns that one thread takes at a time.
fn rows_at_a_time(width: usize) -> usize {
    (ELEMENTS / width.max(1)).max(1)
}

/// [`rms_norm`] on all threads of the pool.
pub fn rms_norm_shared(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], inverse: &mut [f32]) {
    let rows = rows_at_a_time(weight.len());
    let sources = x.par_chunks(rows * weight.len()).zip(inverse.par_chunks_mut(rows));
    y.par_chunks_mut(rows * weight.len()).zip(sources).for_each(|(y, (x, inverse))| rms_norm(x, weight, eps, y, inverse));
}

/// What [`rms_norm`] gave, computed again from its 1 / sqrt(..), on all threads of the pool.
pub fn rms_norm_again(x: &[f32], weight: &[f32], inverse: &[f32], y: &mut [f32]) {
    let width = weight.len();
    let rows = rows_at_a_time(width);
    let sources = x.par_chunks(rows * width).zip(inverse.par_chunks(rows));
    y.par_chunks_mut(rows * width).zip(sources).for_each(|(y, (x, inverse))| {
        vectorized(
            #[inline(always)]
            || {
                for ((y, x), inverse) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(inverse) {
                    for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                        *y = x * *inverse * w;
                    }
                }
            },
        );
    });
}

/// [`rms_norm_backward`] on all threads of the pool; rows are summed in chunks that follow from the width, and these in order.
pub fn rms_norm_backward_shared(x: &[f32], weight: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32], dweight: &mut [f32]) {
    let width = weight.len();
    let rows = rows_at_a_time(width);
    let sources = x.par_chunks(rows * width).zip(dy.par_chunks(rows * width)).zip(inverse.par_chunks(rows));
    let parts: Vec<Vec<f32>> = dx
        .par_chunks_mut(rows * width)
        .zip(sources)
        .map(|(dx, ((x, dy), inverse))| {
            let mut part = vec![0f32; width];
            rms_norm_backward(x, weight, inverse, dy, dx, &mut part);
            part
        })
        .collect();
    parts.iter().for_each(|part| add_scaled(dweight, 1.0, part));
}

/// cos and sin of every position and frequency. // (positions, head_dim / 2) each
#[derive(Debug, Clone)]
pub struct RotaryTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RotaryTable {
    /// The table of these frequencies for positions 0..`positions`.
    #[must_use]
    pub fn new(rotary: &RotaryFrequencies, positions: usize) -> Self {
        let half = rotary.frequencies.len();
        let (mut cos, mut sin) = (Vec::with_capacity(positions * half), Vec::with_capacity(positions * half));
        for position in 0..positions {
            for frequency in &rotary.frequencies {
                let angle = position as f64 * frequency;
                cos.push((rotary.amplitude * angle.cos()) as f32);
                sin.push((rotary.amplitude * angle.sin()) as f32);
            }
        }
        Self { half, cos, sin }
    }

    /// Positions the table covers.
    #[must_use]
    pub fn num_positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }

    /// Turns the pairs (i, i + head_dim / 2) of every head of one row (times the amplitude); backwards is the transpose of that. // row: (heads, head_dim)
    #[inline(always)]
    pub fn rotate(&self, row: &mut [f32], position: usize, direction: Rotation) {
        let half = self.half;
        let cos = &self.cos[position * half..(position + 1) * half];
        let sin = &self.sin[position * half..(position + 1) * half];
        let sign = match direction {
            Rotation::Forward => 1.0,
            Rotation::Backward => -1.0,
        };
        for head in row.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for lane in 0..half {
                let (a, b, c, s) = (first[lane], second[lane], cos[lane], sign * sin[lane]);
                first[lane] = a * c - b * s;
                second[lane] = b * c + a * s;
            }
        }
    }
}

/// Direction of [`RotaryTable::rotate`]; the backward pass of a rotation is the rotation back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// By the position's angle.
    Forward,
    /// By its negative.
    Backward,
}

/// Numbers that one thread takes at a time of an elementwise loop.
const ELEMENTS: usize = 1 << 16;

/// SwiGLU, `y = silu(gate) * up` with silu(z) = z / (1 + e^-z), on one thread.
pub fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                *y = g / (1.0 + exp(-g)) * u;
            }
        },
    );
}

/// [`swiglu`] where the target holds `up`.
pub fn swiglu_in_place(gate: &[f32], up: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (y, g) in up.iter_mut().zip(gate) {
                *y *= g / (1.0 + exp(-g));
            }
        },
    );
}

/// [`swiglu`] of rows that hold gate and up side by side, on all threads of the pool. // gate_up: (N, 2 F), y: (N, F)
pub fn swiglu_shared(gate_up: &[f32], y: &mut [f32], inner: usize) {
    let rows = rows_at_a_time(2 * inner);
    y.par_chunks_mut(rows * inner).zip(gate_up.par_chunks(2 * rows * inner)).for_each(|(y, gate_up)| {
        for (y, row) in y.chunks_exact_mut(inner).zip(gate_up.chunks_exact(2 * inner)) {
            swiglu(&row[..inner], &row[inner..], y);
        }
    });
}

/// Backward of [`swiglu_shared`], on all threads of the pool: overwrites gate and up with their gradients, and the gradient of y with y.
///
/// With s = sigmoid(gate): dgate = dy * up * s * (1 + gate * (1 - s)), dup = dy * gate * s. // gate_up: (N, 2 F), dy: (N, F)
pub fn swiglu_backward_shared(gate_up: &mut [f32], dy: &mut [f32], inner: usize) {
    let rows = rows_at_a_time(2 * inner);
    dy.par_chunks_mut(rows * inner).zip(gate_up.par_chunks_mut(2 * rows * inner)).for_each(|(dy, gate_up)| {
        vectorized(
            #[inline(always)]
            || {
                for (dy, row) in dy.chunks_exact_mut(inner).zip(gate_up.chunks_exact_mut(2 * inner)) {
                    let (gate, up) = row.split_at_mut(inner);
                    for ((g, u), d) in gate.iter_mut().zip(up.iter_mut()).zip(dy) {
                        let divisor = 1.0 + exp(-*g);
                        let s = 1.0 / divisor;
                        let y = *g / divisor * *u;
                        let dgate = *d * *u * s * (1.0 + *g * (1.0 - s));
                        *u = *d * *g * s;
                        *g = dgate;
                        *d = y;
                    }
                }
            },
        );
    });
}

/// Largest value of a slice; negative infinity for an empty one.
#[inline(always)]
#[must_use]
pub fn maximum(values: &[f32]) -> f32 {
    let mut partial = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            partial[lane] = if chunk[lane] > partial[lane] { chunk[lane] } else { partial[lane] };
        }
    }
    partial.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, value| largest.max(*value))
}

/// Overwrites scores with e^(score - max) and returns (max, sum of the exponentials).
#[inline(always)]
pub fn exp_shifted(scores: &mut [f32]) -> (f32, f32) {
    let largest = maximum(scores);
    let mut partial = [0f32; LANES];
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - largest);
            partial[lane] += chunk[lane];
        }
    }
    let mut total = fold(partial);
    for score in rest {
        *score = exp(*score - largest);
        total += *score;
    }
    (largest, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_three_ulp_of_the_exact_value() {
        let mut worst = 0f64;
        let mut x = -87.0f32;
        while x < 88.0 {
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
            x += 0.000_37;
        }
        assert!(worst < 3.0 * f64::from(f32::EPSILON), "worst relative error {worst:e}");
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn rotation_backward_undoes_rotation() {
        let table = RotaryTable::new(&RotaryFrequencies::new(8, 10_000.0, None), 50);
        let original: Vec<f32> = (0..16).map(|i| i as f32 - 5.0).collect();
        let mut row = original.clone();
        table.rotate(&mut row, 37, Rotation::Forward);
        table.rotate(&mut row, 37, Rotation::Backward);
        for (a, b) in row.iter().zip(&original) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
