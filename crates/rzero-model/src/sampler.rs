//! One token from one row of logits, with its log-probability under the policy and under the distribution it was drawn from.
//!
//! Temperature, then top-k, then top-p, each over what the one before left. Equal weights are ordered by token id. One uniform
//! number of the sequence's own stream decides, so a draw depends on the logits and the stream alone.

use crate::kernels::{exp, exp_shifted, vectorized};
use rzero_algo::seed::{RandomStream, uniform_f64};
use rzero_schema::profile::SamplingSettings;

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token: u32,
    /// Its log-probability under the untruncated policy at temperature 1, in nats.
    pub policy_logprob: f32,
    /// Its log-probability under the distribution it was drawn from, in nats; 0 for greedy.
    pub sampler_logprob: f32,
}

/// Draws tokens by fixed settings, reusing its buffers.
#[derive(Debug)]
pub struct Sampler {
    settings: SamplingSettings,
    policy: Vec<f32>,
    weights: Vec<f32>,
    candidates: Vec<u32>,
}

impl Sampler {
    /// A sampler with these settings.
    #[must_use]
    pub fn new(settings: &SamplingSettings) -> Self {
        Self { settings: settings.clone(), policy: Vec::new(), weights: Vec::new(), candidates: Vec::new() }
    }

    /// Draws one token. // logits: (V)
    pub fn draw(&mut self, logits: &[f32], stream: &mut RandomStream) -> Drawn {
        self.policy.clear();
        self.policy.extend_from_slice(logits);
        let policy = &mut self.policy;
        let (largest, sum) = vectorized(|| exp_shifted(policy));
        let log_sum = sum.ln();
        let policy_logprob = |token: u32| logits[token as usize] - largest - log_sum;
        if self.settings.temperature == 0.0 {
            let token = logits.iter().position(|logit| *logit == largest).unwrap_or(0) as u32;
            return Drawn { token, policy_logprob: policy_logprob(token), sampler_logprob: 0.0 };
        }
        self.weigh(logits, largest);
        self.truncate();
        let total: f64 = self.candidates.iter().map(|token| f64::from(self.weights[*token as usize])).sum();
        let aim = uniform_f64(stream) * total;
        let mut reached = 0.0;
        let mut token = None;
        for candidate in &self.candidates {
            let weight = f64::from(self.weights[*candidate as usize]);
            reached += weight;
            if weight > 0.0 {
                token = Some(*candidate);
                if reached > aim {
                    break;
                }
            }
        }
        let token = token.unwrap_or(0);
        let sampler_logprob = (f64::from(self.weights[token as usize]) / total).ln() as f32;
        Drawn { token, policy_logprob: policy_logprob(token), sampler_logprob }
    }

    /// Weights e^((z - max) / temperature) of all tokens, all of them candidates in id order.
    fn weigh(&mut self, logits: &[f32], largest: f32) {
        self.weights.clear();
        if self.settings.temperature == 1.0 {
            self.weights.extend_from_slice(&self.policy);
        } else {
            let inverse = (1.0 / self.settings.temperature) as f32;
            self.weights.extend_from_slice(logits);
            let weights = &mut self.weights;
            vectorized(|| weights.iter_mut().for_each(|weight| *weight = exp((*weight - largest) * inverse)));
        }
        self.candidates.clear();
        self.candidates.extend(0..logits.len() as u32);
    }

    fn truncate(&mut self) {
        let weights = &self.weights;
        let heavier_first = |a: &u32, b: &u32| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b));
        let top_k = self.settings.top_k;
        if top_k > 0 && top_k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(top_k - 1, heavier_first);
            self.candidates.truncate(top_k);
            self.candidates.sort_unstable();
        }
        if self.settings.top_p < 1.0 {
            let total: f64 = self.candidates.iter().map(|token| f64::from(weights[*token as usize])).sum();
            // Tokens lighter than (1 - top_p) / count add up to less than 1 - top_p: the nucleus needs none of them.
            let floor = (1.0 - self.settings.top_p) * total / self.candidates.len() as f64;
            self.candidates.retain(|token| f64::from(weights[*token as usize]) >= floor);
            self.candidates.sort_unstable_by(heavier_first);
            let mut reached = 0.0;
            let needed = self.candidates.iter().position(|token| {
                reached += f64::from(weights[*token as usize]);
                reached >= self.settings.top_p * total
            });
            self.candidates.truncate(needed.map_or(usize::MAX, |last| last + 1));
            self.candidates.sort_unstable();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rzero_algo::seed::{StreamKey, random_stream};
    use rzero_schema::vocab::Phase;

    fn stream(row: u64) -> RandomStream {
        random_stream("test", &StreamKey { run_seed: 1, iteration: 1, phase: Phase::Solver, step: 1, row, sample: 0 })
    }

    fn settings(temperature: f64, top_k: usize, top_p: f64) -> SamplingSettings {
        SamplingSettings { temperature, top_k, top_p, max_tokens: 1 }
    }

    #[test]
    fn greedy_takes_the_first_of_equal_logits() {
        let drawn = Sampler::new(&settings(0.0, 0, 1.0)).draw(&[0.0, 2.0, 2.0], &mut stream(0));
        assert_eq!(drawn.token, 1);
        assert!((drawn.policy_logprob - (1.0f32 / (2.0 + (-2.0f32).exp())).ln()).abs() < 1e-6);
    }

    #[test]
    fn frequencies_follow_the_distribution() {
        let logits = [0.3f32.ln(), 0.6f32.ln(), 0.1f32.ln()];
        let mut sampler = Sampler::new(&settings(1.0, 0, 1.0));
        let mut counts = [0u32; 3];
        for row in 0..20_000 {
            counts[sampler.draw(&logits, &mut stream(row)).token as usize] += 1;
        }
        for (count, expected) in counts.iter().zip([0.3, 0.6, 0.1]) {
            assert!((f64::from(*count) / 20_000.0 - expected).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn truncation_keeps_the_nucleus_and_says_its_logprob() {
        let logits = [0.3f32.ln(), 0.6f32.ln(), 0.1f32.ln()];
        for (top_k, top_p) in [(2, 1.0), (0, 0.85)] {
            let mut sampler = Sampler::new(&settings(1.0, top_k, top_p));
            for row in 0..200 {
                let drawn = sampler.draw(&logits, &mut stream(row));
                assert!(drawn.token < 2);
                let kept = [0.3f32, 0.6][drawn.token as usize];
                assert!((drawn.sampler_logprob - (kept / 0.9).ln()).abs() < 1e-5);
                assert!((drawn.policy_logprob - kept.ln()).abs() < 1e-5);
            }
        }
    }
}
