//! One token from one row of logits, with its log-probability under the policy and under the distribution it was drawn from.
//!
//! Temperature, then top-k, then top-p, each over what the one before left. Equal weights are ordered by token id. One uniform
//! number of the sequence's own stream decides, so a draw depends on the logits and the stream alone.
//!
//! Logits are read once: their largest is known from the product that made them, and the pass that sums the policy's exponentials leaves the
//! weights and the sum of every block of them. An untruncated draw then looks at the blocks' sums and inside one block. Truncation finds its
//! candidates by the largest weights of strips of sixteen; only those few are ever sorted.

use crate::kernels::{LANES, exp, fold, maximum, vectorized};
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
    /// Entropy of the untruncated policy, in nats.
    pub entropy: f32,
    /// Divergence of the uniform distribution from it: KL(U || p) = -ln V - mean_j ln p_j, in nats.
    pub self_certainty: f32,
}

/// Sums over the vocabulary, of d = z - max.
struct Sums {
    /// Of e^d.
    weights: f32,
    /// Of e^d d.
    weighted: f32,
    /// Of d.
    distances: f32,
}

/// A logit farther below the largest counts as this far: one that is minus infinity adds nothing to an entropy.
const FARTHEST: f32 = -1e6;

/// Weights that one sum stands for.
const BLOCK: usize = 512;

/// Draws tokens by fixed settings, reusing its buffers.
#[derive(Debug)]
pub struct Sampler {
    settings: SamplingSettings,
    /// e^((z - max) / temperature). // (V)
    weights: Vec<f32>,
    /// Their sums, a block each.
    sums: Vec<f64>,
    /// The largest weights of strips. // (V / 16)
    largest: Vec<f32>,
    candidates: Vec<u32>,
}

impl Sampler {
    /// A sampler with these settings.
    #[must_use]
    pub fn new(settings: &SamplingSettings) -> Self {
        let settings = settings.clone();
        Self { settings, weights: Vec::new(), sums: Vec::new(), largest: Vec::new(), candidates: Vec::new() }
    }

    /// Draws one token. // logits: (V)
    pub fn draw(&mut self, logits: &[f32], stream: &mut RandomStream) -> Drawn {
        let largest = vectorized(
            #[inline(always)]
            || maximum(logits),
        );
        self.draw_from(std::iter::once(logits), largest, stream)
    }

    /// Draws one token of logits in pieces, whose largest is known. Every piece but the last is a multiple of 16 long.
    pub fn draw_from<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [f32]> + Clone,
        largest: f32,
        stream: &mut RandomStream,
    ) -> Drawn {
        let Sums { weights, weighted, distances } = self.weigh(pieces.clone(), largest);
        let log_sum = weights.ln();
        let policy_logprob = |token: u32| logit(pieces.clone(), token) - largest - log_sum;
        let vocab = self.weights.len() as f32;
        // H = -sum p ln p with ln p = (z - max) - log_sum.
        let entropy = (log_sum - weighted / weights).max(0.0);
        let self_certainty = (log_sum - distances / vocab - vocab.ln()).max(0.0);
        if self.settings.temperature == 0.0 {
            let token = pieces.clone().flatten().position(|logit| *logit == largest).unwrap_or(0) as u32;
            return Drawn { token, policy_logprob: policy_logprob(token), sampler_logprob: 0.0, entropy, self_certainty };
        }
        let is_whole = self.settings.top_p >= 1.0 && (self.settings.top_k == 0 || self.settings.top_k >= self.weights.len());
        let (token, total) = if is_whole { self.draw_whole(stream) } else { self.draw_truncated(stream) };
        let sampler_logprob = (f64::from(self.weights[token as usize]) / total).ln() as f32;
        Drawn { token, policy_logprob: policy_logprob(token), sampler_logprob, entropy, self_certainty }
    }

    /// Fills weights and sums; the sum of e^(z - max) is in the order of [`crate::kernels::exp_shifted`].
    fn weigh<'a>(&mut self, pieces: impl Iterator<Item = &'a [f32]>, largest: f32) -> Sums {
        let temperature = self.settings.temperature;
        let inverse = if temperature == 0.0 { 1.0 } else { (1.0 / temperature) as f32 };
        let (weights, sums) = (&mut self.weights, &mut self.sums);
        weights.clear();
        sums.clear();
        vectorized(
            #[inline(always)]
            || {
                let mut partial = [0f32; LANES];
                let (mut weighted, mut distances) = ([0f32; LANES], [0f32; LANES]);
                let mut rest: &[f32] = &[];
                for piece in pieces {
                    for block in piece.chunks(BLOCK) {
                        let start = weights.len();
                        let (chunks, behind) = block.as_chunks::<LANES>();
                        for chunk in chunks {
                            let shifted: [f32; LANES] = std::array::from_fn(|lane| exp(chunk[lane] - largest));
                            for lane in 0..LANES {
                                partial[lane] += shifted[lane];
                                let distance = (chunk[lane] - largest).max(FARTHEST);
                                weighted[lane] += shifted[lane] * distance;
                                distances[lane] += distance;
                            }
                            weights.extend_from_slice(&shifted);
                        }
                        weights.extend(behind.iter().map(|logit| exp(logit - largest)));
                        rest = &block[block.len() - behind.len()..];
                        let weights = &mut weights[start..];
                        if inverse != 1.0 {
                            weights.iter_mut().zip(block).for_each(|(weight, logit)| *weight = exp((logit - largest) * inverse));
                        }
                        sums.push(sum(weights));
                    }
                }
                // What is left of the last piece, one after the other.
                let mut sums = Sums { weights: fold(partial), weighted: fold(weighted), distances: fold(distances) };
                for logit in rest {
                    let (weight, distance) = (exp(logit - largest), (logit - largest).max(FARTHEST));
                    sums.weights += weight;
                    sums.weighted += weight * distance;
                    sums.distances += distance;
                }
                sums
            },
        )
    }

    /// A token and the sum of all weights.
    fn draw_whole(&mut self, stream: &mut RandomStream) -> (u32, f64) {
        let total: f64 = self.sums.iter().sum();
        let aim = uniform_f64(stream) * total;
        let (mut reached, mut token) = (0.0, None);
        for (block, sum) in self.sums.iter().enumerate() {
            // The last block is looked through in any case: sums round.
            if reached + sum > aim || block + 1 == self.sums.len() {
                let start = block * BLOCK;
                let end = (start + BLOCK).min(self.weights.len());
                token = pick((start as u32..end as u32).map(|token| (token, self.weights[token as usize])), reached, aim);
                if token.is_some() {
                    break;
                }
            }
            reached += sum;
        }
        let heaviest = || self.weights.iter().position(|weight| *weight > 0.0).unwrap_or(0) as u32;
        (token.unwrap_or_else(heaviest), total)
    }

    /// A token of those that truncation leaves, and the sum of their weights.
    fn draw_truncated(&mut self, stream: &mut RandomStream) -> (u32, f64) {
        self.truncate();
        let weighted = || self.candidates.iter().map(|token| (*token, self.weights[*token as usize]));
        let total: f64 = weighted().map(|(_, weight)| f64::from(weight)).sum();
        let aim = uniform_f64(stream) * total;
        (pick(weighted(), 0.0, aim).unwrap_or(0), total)
    }

    fn truncate(&mut self) {
        let Self { settings, weights, sums, largest, candidates } = self;
        let heavier_first = |a: &u32, b: &u32| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b));
        let SamplingSettings { top_k, top_p, .. } = *settings;
        let is_top_k = top_k > 0 && top_k < weights.len();
        largest.clear();
        vectorized(
            #[inline(always)]
            || largest.extend(weights.chunks(LANES).map(|strip| strip.iter().fold(0f32, |most, weight| most.max(*weight)))),
        );
        // Tokens lighter than (1 - top_p) / count add up to less than 1 - top_p: the nucleus needs none of them.
        let light = |total: f64, count: usize| (1.0 - top_p) * total / count as f64;
        let floor = match is_top_k {
            // As many strips as tokens are wanted have a token of this weight, so no wanted token is lighter.
            true if top_k < largest.len() => {
                let mut strips = largest.clone();
                f64::from(*strips.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a)).1)
            }
            true => 0.0,
            false => light(sums.iter().sum(), weights.len()),
        };
        candidates.clear();
        for (strip, _) in largest.iter().enumerate().filter(|(_, most)| f64::from(**most) >= floor) {
            let first = strip * LANES;
            let tokens = first..(first + LANES).min(weights.len());
            candidates.extend(tokens.filter(|token| f64::from(weights[*token]) >= floor).map(|token| token as u32));
        }
        if is_top_k {
            if candidates.len() > top_k {
                candidates.select_nth_unstable_by(top_k - 1, heavier_first);
                candidates.truncate(top_k);
                candidates.sort_unstable();
            }
            if top_p < 1.0 {
                let total: f64 = candidates.iter().map(|token| f64::from(weights[*token as usize])).sum();
                let floor = light(total, candidates.len());
                Self::nucleus(candidates, weights, top_p, total, floor);
            }
        } else {
            Self::nucleus(candidates, weights, top_p, sums.iter().sum(), floor);
        }
    }

    /// Leaves the heaviest candidates that reach a share of the total, in order of their ids.
    fn nucleus(candidates: &mut Vec<u32>, weights: &[f32], top_p: f64, total: f64, floor: f64) {
        candidates.retain(|token| f64::from(weights[*token as usize]) >= floor);
        candidates.sort_unstable_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b)));
        let mut reached = 0.0;
        let needed = candidates.iter().position(|token| {
            reached += f64::from(weights[*token as usize]);
            reached >= top_p * total
        });
        candidates.truncate(needed.map_or(usize::MAX, |last| last + 1));
        candidates.sort_unstable();
    }
}

/// The first token with whose weight more than the aim is reached; the last one of any weight where none is.
fn pick(weighted: impl Iterator<Item = (u32, f32)>, mut reached: f64, aim: f64) -> Option<u32> {
    let mut picked = None;
    for (token, weight) in weighted {
        reached += f64::from(weight);
        if weight > 0.0 {
            picked = Some(token);
            if reached > aim {
                break;
            }
        }
    }
    picked
}

/// One logit of a row in pieces.
fn logit<'a>(mut pieces: impl Iterator<Item = &'a [f32]>, token: u32) -> f32 {
    let mut at = token as usize;
    let mut piece = pieces.next().unwrap_or_default();
    while at >= piece.len() {
        at -= piece.len();
        let Some(next) = pieces.next() else { return f32::NEG_INFINITY };
        piece = next;
    }
    piece[at]
}

/// The sum of a block of weights, with sixteen partial sums.
#[inline(always)]
fn sum(weights: &[f32]) -> f64 {
    let mut partial = [0f64; LANES];
    let (chunks, rest) = weights.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            partial[lane] += f64::from(chunk[lane]);
        }
    }
    partial.iter().sum::<f64>() + rest.iter().map(|weight| f64::from(*weight)).sum::<f64>()
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
