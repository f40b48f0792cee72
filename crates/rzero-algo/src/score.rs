//! Scores with their uncertainty: bootstrap and Wilson intervals, McNemar's test, and the unbiased pass@k.
//!
//! Every figure that the project reports carries an interval from here. All intervals are 95 %.

use crate::seed::{StreamKey, random_stream, uniform_below};
use rayon::prelude::*;
use rzero_schema::vocab::Phase;

/// The 97.5 % point of the standard normal distribution.
const NORMAL_97_5: f64 = 1.959_963_984_540_054;

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Percentile bootstrap interval of the mean (Efron 1979): values are drawn with replacement, as many as there are, `resamples`
/// times; the interval holds the middle 95 % of the means.
///
/// Each resample has its own random stream, so the result does not depend on the number of threads. Without values or resamples
/// both ends are not a number.
#[must_use]
pub fn bootstrap_mean(values: &[f64], resamples: u32, seed: u64) -> Interval {
    bootstrap_weighted(&[(1.0, values)], resamples, seed)
}

/// Percentile bootstrap interval of a weighted sum of means, such as an average over benchmarks: the values of each part are
/// resampled by themselves, as in [`bootstrap_mean`], and each part has random streams of its own.
#[must_use]
pub fn bootstrap_weighted(parts: &[(f64, &[f64])], resamples: u32, seed: u64) -> Interval {
    if parts.is_empty() || parts.iter().any(|(_, values)| values.is_empty()) || resamples == 0 {
        return Interval { low: f64::NAN, high: f64::NAN };
    }
    let mut means: Vec<f64> = (0..resamples)
        .into_par_iter()
        .map(|sample| {
            let resampled = parts.iter().zip(0_u64..).map(|((weight, values), row)| {
                let key = StreamKey { run_seed: seed, iteration: 0, phase: Phase::Eval, step: 0, row, sample };
                let mut stream = random_stream("bootstrap", &key);
                let sum: f64 = (0..values.len()).map(|_| values[uniform_below(&mut stream, values.len() as u64) as usize]).sum();
                weight * (sum / values.len() as f64)
            });
            resampled.sum()
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Interval { low: percentile(&means, 0.025), high: percentile(&means, 0.975) }
}

/// Bootstrap interval of the mean gain `after - before` over the same problems, resampled as pairs: what a problem's difficulty
/// adds to both sides cancels. Should the slices differ in length, the pairs both have count.
#[must_use]
pub fn bootstrap_paired_gain(before: &[f64], after: &[f64], resamples: u32, seed: u64) -> Interval {
    let gains: Vec<f64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    bootstrap_mean(&gains, resamples, seed)
}

/// Wilson's score interval of a proportion (1927); [0, 1] without trials. More successes than trials count as all.
#[must_use]
pub fn wilson(successes: u64, trials: u64) -> Interval {
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let count = trials as f64;
    let share = successes.min(trials) as f64 / count;
    let z_squared = NORMAL_97_5 * NORMAL_97_5;
    let scale = 1.0 + z_squared / count;
    let centre = (share + z_squared / (2.0 * count)) / scale;
    let half_width = NORMAL_97_5 / scale * (share * (1.0 - share) / count + z_squared / (4.0 * count * count)).sqrt();
    Interval { low: (centre - half_width).max(0.0), high: (centre + half_width).min(1.0) }
}

/// McNemar's exact test (1947) of two sets of verdicts on the same problems: the two-sided binomial probability of problems changing
/// sides as unevenly as `gained` and `lost` if either side were as likely, `min(1, 2 P[X <= min(gained, lost)])` with
/// `X ~ B(gained + lost, 1/2)`. 1 where nothing changed.
#[must_use]
pub fn mcnemar_exact(gained: u64, lost: u64) -> f64 {
    let (fewer, changed) = (gained.min(lost), gained.saturating_add(lost));
    // From the greatest term downwards, relative to it: no term overflows, and what is too small to count ends the sum.
    let (mut sum, mut term) = (1.0, 1.0);
    for index in (1..=fewer).rev() {
        term *= index as f64 / (changed - index + 1) as f64;
        sum += term;
        if term < f64::EPSILON * sum {
            break;
        }
    }
    let log_binomial: f64 = (1..=fewer).map(|index| ((changed - index + 1) as f64 / index as f64).ln()).sum();
    let log_greatest = log_binomial - changed as f64 * std::f64::consts::LN_2;
    (2.0 * sum * log_greatest.exp()).min(1.0)
}

/// Unbiased estimate of pass@k from n samples of which c are correct (Chen et al. 2021):
/// `1 - C(n - c, k) / C(n, k) = 1 - prod_{i < k} (n - c - i) / (n - i)`.
///
/// k is cut to n, beyond which there is no estimate; c to n. 0 where k or n is 0.
#[must_use]
pub fn pass_at_k(num_samples: u64, num_correct: u64, k: u64) -> f64 {
    let correct = num_correct.min(num_samples);
    let drawn = k.min(num_samples);
    if drawn > num_samples - correct {
        return if drawn == 0 { 0.0 } else { 1.0 };
    }
    // The quotient of binomials is symmetric in k and c: the shorter product will do.
    let (factors, missing) = (drawn.min(correct), drawn.max(correct));
    let mut all_wrong = 1.0;
    for index in 0..factors {
        all_wrong *= (num_samples - missing - index) as f64 / (num_samples - index) as f64;
        if all_wrong == 0.0 {
            break;
        }
    }
    1.0 - all_wrong
}

/// Percentile of sorted values by linear interpolation between neighbours.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binomial(n: u64, k: u64) -> f64 {
        (0..k).map(|i| (n - i) as f64 / (k - i) as f64).product()
    }

    #[test]
    fn pass_at_k_agrees_with_binomials() {
        for (n, c, k) in [(10, 3, 1), (10, 3, 4), (10, 1, 10), (32, 5, 8), (10, 0, 5), (5, 5, 1), (10, 8, 2)] {
            let expected = if n - c < k { 1.0 } else { 1.0 - binomial(n - c, k) / binomial(n, k) };
            assert!((pass_at_k(n, c, k) - expected).abs() < 1e-12, "{n} {c} {k}");
        }
        assert!((pass_at_k(10, 3, 1) - 0.3).abs() < 1e-15);
        assert_eq!(pass_at_k(10, 3, 0), 0.0);
        assert_eq!(pass_at_k(0, 0, 1), 0.0);
        assert_eq!(pass_at_k(4, 9, 1), 1.0);
        assert_eq!(pass_at_k(4, 0, 9), 0.0);
        assert_eq!(pass_at_k(u64::MAX, u64::MAX / 2, u64::MAX / 2), 1.0);
    }

    #[test]
    fn mcnemar_has_known_values() {
        // Hand-derived: 2 (1 + 12 + 66) / 4096, and so on; the last is that of exact2x2 for 86 and 150 changes.
        for (gained, lost, expected) in [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (1, 1, 1.0),
            (5, 0, 0.0625),
            (10, 0, 2.0 / 1024.0),
            (10, 2, 158.0 / 4096.0),
            (2, 10, 158.0 / 4096.0),
            (86, 150, 3.715_9e-5),
        ] {
            let found = mcnemar_exact(gained, lost);
            assert!((found - expected).abs() < 1e-9, "{gained} {lost}: {found}");
        }
        assert!(mcnemar_exact(4_000, 6_000) < 1e-80 && mcnemar_exact(50_000, 50_000) == 1.0);
    }

    #[test]
    fn an_average_gives_each_part_its_weight() {
        // A part of a thousand equal values moves nothing; the other's interval is halved.
        let (sure, halves) = (vec![1.0; 1_000], (0..100).map(|row| f64::from(row % 2)).collect::<Vec<f64>>());
        let alone = bootstrap_mean(&halves, 1_000, 5);
        let both = bootstrap_weighted(&[(0.5, halves.as_slice()), (0.5, sure.as_slice())], 1_000, 5);
        assert!((both.low - (0.5 + alone.low / 2.0)).abs() < 1e-12 && (both.high - (0.5 + alone.high / 2.0)).abs() < 1e-12);
        assert!(bootstrap_weighted(&[(1.0, &[])], 10, 0).low.is_nan() && bootstrap_weighted(&[], 10, 0).low.is_nan());
    }

    #[test]
    fn wilson_has_known_values() {
        let half = wilson(5, 10);
        assert!((half.low - 0.236_593_090_512_564).abs() < 1e-9 && (half.high - 0.763_406_909_487_436).abs() < 1e-9);
        let none = wilson(0, 20);
        assert!(none.low == 0.0 && (none.high - 0.161_125_158_052_819).abs() < 1e-9);
        assert_eq!(wilson(0, 0), Interval { low: 0.0, high: 1.0 });
        assert_eq!(wilson(9, 3), wilson(3, 3));
    }

    #[test]
    fn the_bootstrap_finds_the_standard_error() {
        // 1,000 zeros and ones, half each: standard error 0.0158, so the interval is about 0.031 either way.
        let values: Vec<f64> = (0..1_000).map(|row| f64::from(row % 2)).collect();
        let interval = bootstrap_mean(&values, 2_000, 3);
        assert!((0.46..0.48).contains(&interval.low) && (0.52..0.54).contains(&interval.high), "{interval:?}");
        assert_eq!(interval, bootstrap_mean(&values, 2_000, 3));
        assert_ne!(interval, bootstrap_mean(&values, 2_000, 4));
        assert!(bootstrap_mean(&[], 10, 0).low.is_nan() && bootstrap_mean(&values, 0, 0).high.is_nan());
    }

    #[test]
    fn pairing_removes_what_both_sides_share() {
        let before: Vec<f64> = (0..100).map(|row| f64::from(row % 10)).collect();
        let after: Vec<f64> = before.iter().map(|value| value + 0.5).collect();
        let gain = bootstrap_paired_gain(&before, &after, 200, 1);
        assert!((gain.low - 0.5).abs() < 1e-12 && (gain.high - 0.5).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn wilson_holds_the_share(trials in 1_u64..1_000, part in 0.0..=1.0_f64) {
            let successes = (trials as f64 * part) as u64;
            let interval = wilson(successes, trials);
            let share = successes as f64 / trials as f64;
            prop_assert!(0.0 <= interval.low && interval.low <= share + 1e-12);
            prop_assert!(share - 1e-12 <= interval.high && interval.high <= 1.0);
        }

        #[test]
        fn mcnemar_is_a_probability_and_has_no_sides(gained in 0_u64..400, lost in 0_u64..400) {
            let found = mcnemar_exact(gained, lost);
            prop_assert!((0.0..=1.0).contains(&found));
            prop_assert_eq!(found, mcnemar_exact(lost, gained));
        }

        #[test]
        fn more_draws_never_pass_less(n in 1_u64..40, c in 0_u64..40, k in 1_u64..40) {
            prop_assert!(pass_at_k(n, c, k) <= pass_at_k(n, c, k + 1) + 1e-12);
        }
    }
}
