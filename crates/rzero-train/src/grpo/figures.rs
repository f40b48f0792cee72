//! The figures of a step: sums over its trained tokens, added in a fixed order, and what is told of them.

use crate::error::TrainError;
use crate::loss::TokenLoss;

/// What a step did; every mean is over the completion tokens that were trained on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GrpoMetrics {
    /// The objective.
    pub loss: f64,
    /// Its surrogate part.
    pub surrogate_loss: f64,
    /// k3 divergence from the reference.
    pub kl_reference: f64,
    /// k1 divergence from the sampling policy.
    pub kl_old: f64,
    /// Entropy of the policy.
    pub entropy: f64,
    /// Share of tokens held by the lower (or dual) clip.
    pub clip_low_share: f64,
    /// Share of tokens held by the upper clip.
    pub clip_high_share: f64,
    /// Gradient norm before clipping, mean over updates.
    pub gradient_norm: f64,
    /// Largest difference between the sampler's and the trainer's log-probability, before the first update.
    pub logprob_difference_max: f64,
    /// Mean of that difference.
    pub logprob_difference_mean: f64,
    /// Tokens trained on.
    pub num_tokens: u64,
    /// Updates made.
    pub num_updates: u32,
}

/// Sums over tokens: of a micro-batch, of a part of an update, of an update.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenSums {
    /// Weighted losses.
    pub loss: f64,
    /// Their surrogate parts.
    pub surrogate: f64,
    /// k3 estimates of the divergence from the reference.
    pub kl_reference: f64,
    /// Old less new log-probability.
    pub kl_old: f64,
    /// Entropies.
    pub entropy: f64,
    /// Tokens held by the lower (or dual) clip.
    pub clipped_low: f64,
    /// Tokens held by the upper clip.
    pub clipped_high: f64,
    /// Magnitudes of old less new log-probability.
    pub difference: f64,
    /// The largest of them.
    pub difference_max: f64,
    /// Tokens.
    pub tokens: u64,
}

impl TokenSums {
    /// Adds the sums of other tokens.
    pub fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.surrogate += other.surrogate;
        self.kl_reference += other.kl_reference;
        self.kl_old += other.kl_old;
        self.entropy += other.entropy;
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.difference += other.difference;
        self.difference_max = self.difference_max.max(other.difference_max);
        self.tokens += other.tokens;
    }

    pub(super) fn add_token(&mut self, token: &TokenLoss, weight: f64, entropy: f64) {
        self.loss += weight * token.loss.value;
        self.surrogate += weight * token.surrogate;
        self.kl_reference += token.kl_reference;
        self.kl_old += token.kl_old;
        self.entropy += entropy;
        self.clipped_low += f64::from(u8::from(token.is_clipped_low));
        self.clipped_high += f64::from(u8::from(token.is_clipped_high));
        self.difference += token.kl_old.abs();
        self.difference_max = self.difference_max.max(token.kl_old.abs());
        self.tokens += 1;
    }

    fn numbers(&self) -> [u64; 10] {
        let Self {
            loss,
            surrogate,
            kl_reference,
            kl_old,
            entropy,
            clipped_low,
            clipped_high,
            difference,
            difference_max,
            tokens,
        } = self;
        let reals = [loss, surrogate, kl_reference, kl_old, entropy, clipped_low, clipped_high, difference, difference_max];
        let mut numbers = [*tokens; 10];
        numbers.iter_mut().zip(reals).for_each(|(number, real)| *number = real.to_bits());
        numbers
    }

    fn from_numbers(numbers: &[u64]) -> Option<Self> {
        let [loss, surrogate, kl_reference, kl_old, entropy, clipped_low, clipped_high, difference, difference_max, tokens] =
            numbers.try_into().ok()?;
        Some(Self {
            loss: f64::from_bits(loss),
            surrogate: f64::from_bits(surrogate),
            kl_reference: f64::from_bits(kl_reference),
            kl_old: f64::from_bits(kl_old),
            entropy: f64::from_bits(entropy),
            clipped_low: f64::from_bits(clipped_low),
            clipped_high: f64::from_bits(clipped_high),
            difference: f64::from_bits(difference),
            difference_max: f64::from_bits(difference_max),
            tokens,
        })
    }
}

/// The updates of a step so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepTotals {
    sums: TokenSums,
    /// Of the first update, before which the policy is still the one that sampled.
    first: Option<TokenSums>,
    gradient_norm: f64,
    num_updates: u32,
}

impl StepTotals {
    /// Adds an update with the norm of its gradient.
    pub fn add(&mut self, sums: TokenSums, gradient_norm: f64) {
        self.sums.add(&sums);
        self.gradient_norm += gradient_norm;
        self.num_updates += 1;
        self.first.get_or_insert(sums);
    }

    /// What is told of the step.
    ///
    /// # Errors
    /// When there was no update.
    pub fn metrics(&self) -> Result<GrpoMetrics, TrainError> {
        let Self { sums, first, gradient_norm, num_updates } = self;
        let first = first.as_ref().ok_or(TrainError::NoTokens)?;
        let (tokens, updates) = (sums.tokens as f64, f64::from(*num_updates));
        Ok(GrpoMetrics {
            loss: sums.loss / updates,
            surrogate_loss: sums.surrogate / updates,
            kl_reference: sums.kl_reference / tokens,
            kl_old: sums.kl_old / tokens,
            entropy: sums.entropy / tokens,
            clip_low_share: sums.clipped_low / tokens,
            clip_high_share: sums.clipped_high / tokens,
            gradient_norm: gradient_norm / updates,
            logprob_difference_max: first.difference_max,
            logprob_difference_mean: first.difference / first.tokens as f64,
            num_tokens: sums.tokens,
            num_updates: *num_updates,
        })
    }

    /// As a text from which [`Self::from_text`] reads the same bits: numbers in hexadecimal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let own = [self.gradient_norm.to_bits(), u64::from(self.num_updates)];
        let numbers = own.into_iter().chain(self.sums.numbers()).chain(self.first.iter().flat_map(TokenSums::numbers));
        numbers.map(|number| format!("{number:x}")).collect::<Vec<_>>().join(" ")
    }

    /// Reads what [`Self::to_text`] wrote; nothing where it did not write this.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let numbers: Vec<u64> = text.split(' ').map(|word| u64::from_str_radix(word, 16).ok()).collect::<Option<_>>()?;
        let (own, sums) = numbers.split_at_checked(2)?;
        let (sums, first) = sums.split_at_checked(10)?;
        Some(Self {
            sums: TokenSums::from_numbers(sums)?,
            first: if first.is_empty() { None } else { Some(TokenSums::from_numbers(first)?) },
            gradient_norm: f64::from_bits(own[0]),
            num_updates: u32::try_from(own[1]).ok()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn totals_read_back_to_the_bit() {
        let mut totals = StepTotals::default();
        assert_eq!(StepTotals::from_text(&totals.to_text()).unwrap(), totals);
        assert!(totals.metrics().is_err());
        for update in 1..4 {
            let x = f64::from(update);
            let sums = TokenSums { loss: -0.1 * x, kl_old: 1e-17 / x, difference_max: 0.3, tokens: 7, ..TokenSums::default() };
            totals.add(sums, 1.0 / (3.0 * x));
            assert_eq!(StepTotals::from_text(&totals.to_text()).unwrap(), totals);
        }
        assert_eq!(totals.metrics().unwrap().num_updates, 3);
        let text = totals.to_text();
        for length in 0..text.len() {
            // A text that is cut short reads as nothing, or, within its last number, as another number.
            if !text[..length].contains(text.rsplit_once(' ').unwrap().0) {
                assert!(StepTotals::from_text(&text[..length]).is_none_or(|read| read != totals));
            }
        }
        assert_eq!(StepTotals::from_text("x"), None);
    }
}
