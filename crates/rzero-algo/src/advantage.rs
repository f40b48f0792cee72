//! Group-relative advantages: how much better a rollout did than its group.
//!
//! `A_i = (r_i - mean(r_group)) / (std(r_group) + 1e-6)`, std with n - 1 (GRPO, arXiv 2402.03300, as EasyR1 and R-Zero compute it).
//! A group whose rewards are all equal teaches nothing: its advantages are exactly 0, and it is counted. So is a group of one,
//! whose std has no value; the released code gives it its bare reward as advantage.

use std::collections::BTreeMap;

/// Added to the standard deviation.
pub const STD_EPSILON: f64 = 1e-6;

/// Advantages of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// One for each reward, in order.
    pub advantages: Vec<f64>,
    /// Distinct groups.
    pub num_groups: u32,
    /// Groups without a signal: one member, equal rewards, or a reward that is not a finite number.
    pub num_zero_variance_groups: u32,
}

/// Advantages of rewards whose groups are named by equal numbers; members of a group need not stand together.
///
/// The two slices have one entry a rollout each. Should one be shorter, the rollouts past its end have no group and get 0.
#[must_use]
pub fn group_advantages(rewards: &[f64], groups: &[u64]) -> Advantages {
    let mut members: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (row, &group) in groups.iter().enumerate().take(rewards.len()) {
        members.entry(group).or_default().push(row);
    }
    let mut advantages = vec![0.0; rewards.len()];
    let mut num_zero_variance_groups = 0;
    for rows in members.values() {
        let first = rewards[rows[0]];
        let has_signal = rows.iter().all(|&row| rewards[row].is_finite())
            // Equality and not a small std: a mean of equal numbers may differ from them by rounding.
            && rows.iter().any(|&row| rewards[row] != first);
        if !has_signal {
            num_zero_variance_groups += 1;
            continue;
        }
        let count = rows.len() as f64;
        let mean = rows.iter().map(|&row| rewards[row]).sum::<f64>() / count;
        let squares = rows.iter().map(|&row| (rewards[row] - mean).powi(2)).sum::<f64>();
        let std = (squares / (count - 1.0)).sqrt();
        for &row in rows {
            advantages[row] = (rewards[row] - mean) / (std + STD_EPSILON);
        }
    }
    let num_groups = u32::try_from(members.len()).unwrap_or(u32::MAX);
    Advantages { advantages, num_groups, num_zero_variance_groups }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const GOLDEN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/golden/grpo_golden.json"));

    fn numbers(list: &Value) -> Vec<f64> {
        list.as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
    }

    #[test]
    fn advantages_agree_with_the_golden_cases() {
        let golden: Value = serde_json::from_str(GOLDEN).expect("the golden file is JSON");
        let cases = golden["cases"].as_array().expect("a list of cases");
        assert_eq!(cases.len(), 10);
        for case in cases {
            let rewards = numbers(&case["inputs"]["rewards"]);
            let groups: Vec<u64> = case["inputs"]["group_ids"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|name| name.as_str().and_then(|name| name[1..].parse().ok()).expect("a name like q0"))
                .collect();
            let found = group_advantages(&rewards, &groups);
            for (advantage, expected) in found.advantages.iter().zip(numbers(&case["outputs"]["seq_advantages"])) {
                assert!((advantage - expected).abs() < 1e-12, "{}", case["name"]);
            }
        }
    }

    #[test]
    fn groups_without_a_signal_are_zero_and_counted() {
        let found = group_advantages(&[0.1, 0.1, 0.1, 1.0, 0.0, 5.0], &[3, 3, 3, 1, 1, 2]);
        assert_eq!(found.advantages[..3], [0.0; 3]);
        assert_eq!(found.advantages[5], 0.0);
        assert!(found.advantages[3] > 0.7 && found.advantages[4] < -0.7);
        assert_eq!((found.num_groups, found.num_zero_variance_groups), (3, 2));
    }

    #[test]
    fn odd_input_gives_zeros_and_no_panic() {
        assert_eq!(group_advantages(&[], &[]).num_groups, 0);
        assert_eq!(group_advantages(&[1.0, 0.0], &[]).advantages, [0.0, 0.0]);
        assert_eq!(group_advantages(&[1.0], &[0, 0]).advantages, [0.0]);
        let found = group_advantages(&[f64::NAN, 1.0, f64::INFINITY, 0.0], &[0, 0, 1, 1]);
        assert_eq!((found.advantages, found.num_zero_variance_groups), (vec![0.0; 4], 2));
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_groups_sum_to_zero(rewards in prop::collection::vec(0_u8..4, 1..20)) {
            let rewards: Vec<f64> = rewards.into_iter().map(f64::from).collect();
            let groups: Vec<u64> = (0..rewards.len() as u64).map(|row| row % 3).collect();
            let found = group_advantages(&rewards, &groups);
            for group in 0..3 {
                let sum: f64 =
                    found.advantages.iter().zip(&groups).filter(|(_, of)| **of == group).map(|(a, _)| a).sum();
                prop_assert!(sum.abs() < 1e-9);
            }
            let reversed = group_advantages(
                &rewards.iter().rev().copied().collect::<Vec<_>>(),
                &groups.iter().rev().copied().collect::<Vec<_>>(),
            );
            for (forward, backward) in found.advantages.iter().zip(reversed.advantages.iter().rev()) {
                prop_assert!((forward - backward).abs() < 1e-9);
            }
        }
    }
}
