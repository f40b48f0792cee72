//! Named averages over benchmarks: each member has the same weight, whatever its number of problems.
//!
//! An average of which a member is missing has no figure: it is shown with what is missing, and never as an average over fewer.

use super::{Bootstrap, Changes, Evaluation, Figure, Measure, mean};
use rzero_algo::score::bootstrap_weighted;
use rzero_schema::profile::GroupSettings;
use std::collections::BTreeMap;

/// One named average of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Average {
    /// Its name.
    pub name: String,
    /// Benchmarks and groups that it is over, as the profile names them.
    pub members: Vec<String>,
    /// Benchmarks that are not in the set.
    pub missing: Vec<String>,
    /// Its benchmarks with their weights, which add up to one.
    benchmarks: Vec<(f64, Evaluation)>,
}

/// The averages that a profile names, in its order.
#[must_use]
pub fn averages(groups: &[GroupSettings], evaluation: &Evaluation) -> Vec<Average> {
    let benchmarks = evaluation.by_benchmark();
    // What each group comes to, as weights of benchmarks; a group's members stand before it.
    let mut weights_by_group: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    let mut averages = Vec::new();
    for group in groups {
        let share = 1.0 / group.members.len() as f64;
        let mut weights: BTreeMap<&str, f64> = BTreeMap::new();
        for member in &group.members {
            match weights_by_group.get(member.as_str()) {
                Some(inner) => inner.iter().for_each(|(name, weight)| *weights.entry(name).or_default() += share * weight),
                None => *weights.entry(member).or_default() += share,
            }
        }
        let is_there = |name: &str| benchmarks.iter().any(|(benchmark, _)| benchmark == name);
        averages.push(Average {
            name: group.name.clone(),
            members: group.members.clone(),
            missing: weights.keys().filter(|name| !is_there(name)).map(|name| (*name).to_owned()).collect(),
            benchmarks: benchmarks
                .iter()
                .filter_map(|(name, evaluation)| Some((*weights.get(name.as_str())?, evaluation.clone())))
                .collect(),
        });
        weights_by_group.insert(&group.name, weights);
    }
    averages
}

impl Average {
    /// The average; none where a member is missing. Problems are resampled within each benchmark.
    #[must_use]
    pub fn accuracy(&self, measure: Measure, bootstrap: Bootstrap) -> Option<Figure> {
        let values: Vec<Vec<f64>> = self.benchmarks.iter().map(|(_, evaluation)| evaluation.values(measure)).collect();
        self.figure(&values, bootstrap)
    }

    /// Its gain over that of another evaluation, problem by problem; none where a member is missing or has other problems.
    #[must_use]
    pub fn gain_over(&self, before: &Self, measure: Measure, bootstrap: Bootstrap) -> Option<Figure> {
        if self.benchmarks.len() != before.benchmarks.len() {
            return None;
        }
        let pairs = self.benchmarks.iter().zip(&before.benchmarks);
        let gains = pairs.map(|((_, after), (_, before))| {
            let values = after.values(measure).into_iter().zip(before.values(measure));
            after.has_items_of(before).then(|| values.map(|(after, before)| after - before).collect())
        });
        self.figure(&gains.collect::<Option<Vec<Vec<f64>>>>()?, bootstrap)
    }

    /// How the greedy verdicts of all its problems changed, each with the same weight; none where a member is missing or has other
    /// problems.
    #[must_use]
    pub fn changes_from(&self, before: &Self) -> Option<Changes> {
        if !self.missing.is_empty() || self.benchmarks.len() != before.benchmarks.len() {
            return None;
        }
        let pairs = self.benchmarks.iter().zip(&before.benchmarks);
        let changes = pairs.map(|((_, after), (_, before))| after.changes_from(before)).collect::<Option<Vec<_>>>()?;
        let sum = |count: fn(&Changes) -> u64| changes.iter().map(count).sum();
        Some(Changes::new(sum(|changes| changes.num_gained), sum(|changes| changes.num_lost)))
    }

    /// Number of problems that it is over.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.benchmarks.iter().map(|(_, evaluation)| evaluation.items().len()).sum()
    }

    fn figure(&self, values: &[Vec<f64>], bootstrap: Bootstrap) -> Option<Figure> {
        if !self.missing.is_empty() {
            return None;
        }
        let parts: Vec<(f64, &[f64])> =
            self.benchmarks.iter().zip(values).map(|((weight, _), values)| (*weight, values.as_slice())).collect();
        let value = parts.iter().map(|(weight, values)| weight * mean(values)).sum();
        Some(Figure::new(value, bootstrap_weighted(&parts, bootstrap.resamples, bootstrap.seed)))
    }
}
