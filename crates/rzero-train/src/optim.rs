//! Optimisers over the flat weights: AdamW for reinforcement, Muon beside it for pre-training's matrices.
//!
//! AdamW (Loshchilov & Hutter 2019): m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
//! w -= lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay w), decay on matrices only.
//! Muon (Jordan 2024): the momentum of a matrix, orthogonalised by five Newton-Schulz steps, times sqrt(max(1, out / in)).
//! Sums run over fixed chunks, so that results do not depend on the number of threads.

use rayon::prelude::*;
use rzero_model::Weights;
use rzero_model::kernels::vectorized;
use rzero_model::matmul::{Matrix, Store, multiply};
use rzero_model::weights::Parameter;

/// Numbers a thread takes at a time; also the grain of the norm's sum.
const CHUNK: usize = 1 << 14;

/// AdamW's constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamSettings {
    /// First moment decay.
    pub beta1: f64,
    /// Second moment decay.
    pub beta2: f64,
    /// Denominator constant.
    pub epsilon: f64,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
}

/// The optimiser's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamState {
    /// First moments, as the flat weights.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
    /// Updates made.
    pub updates: u64,
}

impl AdamState {
    /// Before the first update.
    #[must_use]
    pub fn new(num_parameters: usize) -> Self {
        Self { first: vec![0.0; num_parameters], second: vec![0.0; num_parameters], updates: 0 }
    }
}

/// Global norm of a gradient.
#[must_use]
pub fn norm(gradient: &[f32]) -> f64 {
    const LANES: usize = 8;
    let square = |value: f32| f64::from(value) * f64::from(value);
    let partial: Vec<f64> = gradient
        .par_chunks(CHUNK)
        .map(|chunk| {
            vectorized(
                #[inline(always)]
                || {
                    let mut sums = [0f64; LANES];
                    let (lines, rest) = chunk.as_chunks::<LANES>();
                    for line in lines {
                        for lane in 0..LANES {
                            sums[lane] += square(line[lane]);
                        }
                    }
                    sums.iter().sum::<f64>() + rest.iter().map(|value| square(*value)).sum::<f64>()
                },
            )
        })
        .collect();
    partial.iter().sum::<f64>().sqrt()
}

/// What a gradient of this norm is to be multiplied by, so that its norm is at most `limit`.
#[must_use]
pub fn clip_factor(norm: f64, limit: f64) -> f32 {
    if norm > limit { (limit / (norm + 1e-6)) as f32 } else { 1.0 }
}

/// One AdamW update of those of the parameters in a flat buffer that `is_chosen` names, in one pass: the gradient is `factor * gradient`.
pub fn adamw(
    all_values: &mut [f32],
    parameters: &[Parameter],
    gradient: &[f32],
    factor: f32,
    state: &mut AdamState,
    learning_rate: f64,
    settings: &AdamSettings,
    is_chosen: impl Fn(&Parameter) -> bool,
) {
    state.updates += 1;
    let t = i32::try_from(state.updates).unwrap_or(i32::MAX);
    let (beta1, beta2) = (settings.beta1 as f32, settings.beta2 as f32);
    let step = (learning_rate / (1.0 - settings.beta1.powi(t))) as f32;
    let second_scale = (1.0 / (1.0 - settings.beta2.powi(t))) as f32;
    let epsilon = settings.epsilon as f32;
    for parameter in parameters.iter().filter(|parameter| is_chosen(parameter)) {
        let range = parameter.range.clone();
        let decay = if parameter.is_matrix() { (learning_rate * settings.weight_decay) as f32 } else { 0.0 };
        let values = all_values[range.clone()].par_chunks_mut(CHUNK);
        let moments = state.first[range.clone()].par_chunks_mut(CHUNK).zip(state.second[range.clone()].par_chunks_mut(CHUNK));
        values.zip(moments).zip(gradient[range].par_chunks(CHUNK)).for_each(|((values, (first, second)), gradient)| {
            vectorized(
                #[inline(always)]
                || {
                    for (((w, m), v), g) in values.iter_mut().zip(first).zip(second).zip(gradient) {
                        let g = factor * g;
                        *m = beta1 * *m + (1.0 - beta1) * g;
                        *v = beta2 * *v + (1.0 - beta2) * g * g;
                        *w -= step * *m / ((*v * second_scale).sqrt() + epsilon) + decay * *w;
                    }
                },
            );
        });
    }
}

/// One Muon update of the parameters that `is_chosen` names, all of them matrices; `momentum` lies as the flat weights, the gradient is
/// `factor * gradient`.
pub fn muon(
    weights: &mut Weights,
    gradient: &[f32],
    factor: f32,
    momentum: &mut [f32],
    learning_rate: f64,
    beta: f64,
    weight_decay: f64,
    is_chosen: impl Fn(&Parameter) -> bool,
) {
    let chosen: Vec<&Parameter> = weights.layout.parameters.iter().filter(|parameter| is_chosen(parameter)).collect();
    for parameter in &chosen {
        for (m, g) in momentum[parameter.range.clone()].iter_mut().zip(&gradient[parameter.range.clone()]) {
            *m = beta as f32 * *m + (1.0 - beta) as f32 * (factor * g);
        }
    }
    let directions: Vec<Vec<f32>> = chosen
        .par_iter()
        .map(|parameter| orthogonalize(&momentum[parameter.range.clone()], parameter.shape[0], parameter.shape[1]))
        .collect();
    for (parameter, direction) in chosen.iter().zip(&directions) {
        let (outputs, inputs) = (parameter.shape[0] as f64, parameter.shape[1] as f64);
        let scale = (learning_rate * (outputs / inputs).max(1.0).sqrt()) as f32;
        let decay = (learning_rate * weight_decay) as f32;
        for (w, d) in weights.values[parameter.range.clone()].iter_mut().zip(direction) {
            *w -= scale * d + decay * *w;
        }
    }
}

/// Five Newton-Schulz steps towards the nearest matrix with all singular values 1. // (rows, columns)
fn orthogonalize(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
    let is_tall = rows > columns;
    let (m, n) = if is_tall { (columns, rows) } else { (rows, columns) };
    let scale = (1.0 / (norm(matrix) + 1e-7)) as f32;
    let mut x: Vec<f32> = if is_tall {
        (0..m * n).map(|at| matrix[(at % n) * columns + at / n] * scale).collect()
    } else {
        matrix.iter().map(|value| value * scale).collect()
    };
    let (mut gram, mut polynomial, mut next) = (vec![0f32; m * m], vec![0f32; m * m], vec![0f32; m * n]);
    for _ in 0..5 {
        let view = Matrix::new(&x, m, n);
        multiply(&mut gram, m, Store::Overwrite, 1.0, view, view.transposed());
        polynomial.copy_from_slice(&gram);
        polynomial.iter_mut().for_each(|value| *value *= COEFFICIENTS[1]);
        let square = Matrix::new(&gram, m, m);
        multiply(&mut polynomial, m, Store::Add, COEFFICIENTS[2], square, square);
        next.copy_from_slice(&x);
        next.iter_mut().for_each(|value| *value *= COEFFICIENTS[0]);
        multiply(&mut next, n, Store::Add, 1.0, Matrix::new(&polynomial, m, m), view);
        std::mem::swap(&mut x, &mut next);
    }
    if is_tall { (0..m * n).map(|at| x[(at % columns) * n + at / columns]).collect() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newton_schulz_brings_singular_values_near_one() {
        for (rows, columns) in [(4, 6), (6, 4)] {
            let matrix: Vec<f32> = (0..rows * columns).map(|i| ((i * 7 + 3) % 11) as f32 - 5.0).collect();
            let result = orthogonalize(&matrix, rows, columns);
            let small = rows.min(columns);
            let view = Matrix::new(&result, rows, columns);
            let mut gram = vec![0f32; small * small];
            let (left, right) = if rows < columns { (view, view.transposed()) } else { (view.transposed(), view) };
            multiply(&mut gram, small, Store::Overwrite, 1.0, left, right);
            for i in 0..small {
                let diagonal = gram[i * small + i];
                assert!((0.4..1.6).contains(&diagonal), "diagonal {diagonal}");
            }
        }
    }

    #[test]
    fn clipping_scales_to_the_limit() {
        let gradient: Vec<f32> = [3.0, 4.0].into_iter().chain([0.0; 20]).collect();
        assert!((norm(&gradient) - 5.0).abs() < 1e-9);
        let factor = clip_factor(norm(&gradient), 1.0);
        let clipped: Vec<f32> = gradient.iter().map(|value| factor * value).collect();
        assert!((norm(&clipped) - 1.0).abs() < 1e-5);
        assert_eq!(clip_factor(norm(&clipped), 10.0), 1.0);
    }
}
