//! From graded completions to figures with intervals, in percent points: accuracy in every measure, gains, averages over benchmarks.
//!
//! Pure functions of the rows of `eval_results`. A problem is worth a number from 0 to 1 in each [`Measure`]; every figure is a mean over
//! problems, and its interval says how far other problems of the same kind might move it. Averages over benchmarks stand in [`averages`].
//!
//! The released code calls greedy decoding repeated 32 times mean@32; here mean@k, pass@k and maj@k come from k sampled completions.

mod averages;

pub use averages::{Average, averages};

use crate::exit::StageFailure;
use rzero_algo::score::{Interval, bootstrap_mean, bootstrap_paired_gain, mcnemar_exact, pass_at_k, wilson};
use rzero_algo::vote::{Ballot, vote};
use rzero_schema::tables::EvalResult;
use rzero_schema::vocab::{AnswerStatus, EvalMode, EvalStyle};
use std::collections::BTreeMap;

/// A share or a difference of shares with its 95 % interval, in percent points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// The figure.
    pub value: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Figure {
    /// A share from 0 to 1 with its interval.
    #[must_use]
    pub fn new(share: f64, interval: Interval) -> Self {
        Self { value: 100.0 * share, low: 100.0 * interval.low, high: 100.0 * interval.high }
    }
}

/// How intervals are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Resamples of an interval.
    pub resamples: u32,
    /// Seed of their random streams.
    pub seed: u64,
}

/// What one problem's completions are worth.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemScore {
    /// Id of the problem within its set.
    pub item_id: String,
    /// Benchmark that it belongs to.
    pub benchmark: String,
    /// Its subject.
    pub subject: String,
    /// Its level.
    pub level: u32,
    /// Its answer, as the set states it.
    pub gold: String,
    /// Whether the greedy completion is right.
    pub is_greedy_right: bool,
    is_greedy_unparsed: bool,
    is_majority_right: bool,
    num_samples: u64,
    num_correct: u64,
    num_unparsed: u64,
    num_worked: u64,
    num_worked_correct: u64,
}

/// The ways in which a problem is scored; k is the number of sampled completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Whether the greedy completion is right.
    Greedy,
    /// mean@k: share of the sampled completions that are right.
    Mean,
    /// maj@k: whether the answer that most sampled completions give is right.
    Majority,
    /// pass@j: unbiased chance that one of so many sampled completions is right.
    Pass(u32),
}

impl Measure {
    /// The three that are shown everywhere.
    pub const MAIN: [Self; 3] = [Self::Greedy, Self::Mean, Self::Majority];

    /// pass@j for j = 1, 2, 4, ... up to the number of sampled completions.
    pub fn passes(num_samples: u32) -> impl Iterator<Item = Self> {
        (0..u32::BITS).map(|power| 1 << power).take_while(move |drawn| *drawn <= num_samples).map(Self::Pass)
    }

    /// Its name with so many sampled completions, such as `mean@10`.
    #[must_use]
    pub fn name(self, num_samples: u32) -> String {
        match self {
            Self::Greedy => "greedy".to_owned(),
            Self::Mean => format!("mean@{num_samples}"),
            Self::Majority => format!("maj@{num_samples}"),
            Self::Pass(drawn) => format!("pass@{drawn}"),
        }
    }

    /// Its name as a key, such as `mean10`.
    #[must_use]
    pub fn key(self, num_samples: u32) -> String {
        self.name(num_samples).replace('@', "")
    }

    fn of(self, item: &ItemScore) -> f64 {
        match self {
            Self::Greedy => f64::from(u8::from(item.is_greedy_right)),
            Self::Mean => item.num_correct as f64 / item.num_samples as f64,
            Self::Majority => f64::from(u8::from(item.is_majority_right)),
            Self::Pass(drawn) => pass_at_k(item.num_samples, item.num_correct, u64::from(drawn)),
        }
    }
}

/// One checkpoint on held-out problems, in one style. Never without a problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    items: Vec<ItemScore>,
    /// Sampled completions of each problem.
    pub num_samples: u32,
}

/// The problems of one subject, or of one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Benchmark of the problems.
    pub benchmark: String,
    /// Subject of the problems; none where they are told apart by level.
    pub subject: Option<String>,
    /// Level of the problems; none where they are told apart by subject.
    pub level: Option<u32>,
    /// The problems.
    pub evaluation: Evaluation,
}

impl Evaluation {
    /// The completions of one style; none where there are none.
    ///
    /// # Errors
    /// When the rows of a problem contradict each other, or it lacks completions that others have.
    pub fn of(rows: &[EvalResult], style: EvalStyle) -> anyhow::Result<Option<Self>> {
        let mut by_item: BTreeMap<u64, Vec<&EvalResult>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.eval_style == style.as_str()) {
            by_item.entry(row.row).or_default().push(row);
        }
        let items: Vec<ItemScore> = by_item.values().map(|rows| item_score(rows)).collect::<anyhow::Result<_>>()?;
        let Some(num_samples) = items.first().map(|item| item.num_samples) else { return Ok(None) };
        if let Some(other) = items.iter().find(|item| item.num_samples != num_samples) {
            let ItemScore { item_id, num_samples: found, .. } = other;
            let message = format!("problem {item_id} has {found} sampled completions, the first one has {num_samples}");
            return Err(StageFailure::input(message).hint("run eval again with --overwrite").into());
        }
        Ok(Some(Self { items, num_samples: u32::try_from(num_samples).unwrap_or(u32::MAX) }))
    }

    /// The problems, in the order of the set.
    #[must_use]
    pub fn items(&self) -> &[ItemScore] {
        &self.items
    }

    /// Accuracy over all problems, with its bootstrap interval. Where every problem is right, or every one wrong, resampling them
    /// says nothing, and Wilson's interval stands.
    #[must_use]
    pub fn accuracy(&self, measure: Measure, bootstrap: Bootstrap) -> Figure {
        let values = self.values(measure);
        let num_items = values.len() as u64;
        let interval = match values[0] {
            same if same == 0.0 && values.iter().all(|value| *value == same) => wilson(0, num_items),
            same if same == 1.0 && values.iter().all(|value| *value == same) => wilson(num_items, num_items),
            _ => bootstrap_mean(&values, bootstrap.resamples, bootstrap.seed),
        };
        Figure::new(mean(&values), interval)
    }

    /// Accuracy over all problems without an interval, in percent points.
    #[must_use]
    pub fn share(&self, measure: Measure) -> f64 {
        100.0 * mean(&self.values(measure))
    }

    /// Whether both are over the same problems.
    #[must_use]
    pub fn has_items_of(&self, other: &Self) -> bool {
        self.items.len() == other.items.len()
            && self
                .items
                .iter()
                .zip(&other.items)
                .all(|(one, other)| (&one.item_id, &one.benchmark, &one.gold) == (&other.item_id, &other.benchmark, &other.gold))
    }

    /// Gain in accuracy over another evaluation, problem by problem; none where it has other problems.
    #[must_use]
    pub fn gain_over(&self, before: &Self, measure: Measure, bootstrap: Bootstrap) -> Option<Figure> {
        self.has_items_of(before).then(|| {
            let (before, after) = (before.values(measure), self.values(measure));
            let interval = bootstrap_paired_gain(&before, &after, bootstrap.resamples, bootstrap.seed);
            let gains: Vec<f64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
            Figure::new(mean(&gains), interval)
        })
    }

    /// How the greedy verdicts changed from another evaluation; none where it has other problems.
    #[must_use]
    pub fn changes_from(&self, before: &Self) -> Option<Changes> {
        self.has_items_of(before).then(|| {
            let count = |is_right: bool| {
                let pairs = self.items.iter().zip(&before.items);
                pairs.filter(|(after, before)| after.is_greedy_right == is_right && before.is_greedy_right != is_right).count()
            };
            Changes::new(count(true) as u64, count(false) as u64)
        })
    }

    /// Share of the completions of a mode whose answer could not be read, in percent points.
    #[must_use]
    pub fn unparsed_share(&self, mode: EvalMode) -> f64 {
        match mode {
            EvalMode::Greedy => percent(self.sum(|item| u64::from(item.is_greedy_unparsed)), self.items.len() as u64),
            EvalMode::Sampled => percent(self.sum(|item| item.num_unparsed), self.sum(|item| item.num_samples)),
        }
        .unwrap_or(0.0)
    }

    /// Share of the sampled completions that work in steps, in percent points.
    #[must_use]
    pub fn worked_share(&self) -> f64 {
        percent(self.sum(|item| item.num_worked), self.sum(|item| item.num_samples)).unwrap_or(0.0)
    }

    /// Accuracy of the sampled completions that work in steps; none where there are none.
    #[must_use]
    pub fn worked_accuracy(&self) -> Option<f64> {
        percent(self.sum(|item| item.num_worked_correct), self.sum(|item| item.num_worked))
    }

    /// Accuracy of those that answer at once.
    #[must_use]
    pub fn direct_accuracy(&self) -> Option<f64> {
        let num_correct = self.sum(|item| item.num_correct - item.num_worked_correct);
        percent(num_correct, self.sum(|item| item.num_samples - item.num_worked))
    }

    /// Each benchmark, in the order of the set.
    #[must_use]
    pub fn by_benchmark(&self) -> Vec<(String, Self)> {
        self.parts(|item| item.benchmark.clone())
    }

    /// Each subject of each benchmark, in the order of the set.
    #[must_use]
    pub fn by_subject(&self) -> Vec<Part> {
        self.parts(|item| (item.benchmark.clone(), item.subject.clone()))
            .into_iter()
            .map(|((benchmark, subject), evaluation)| Part { benchmark, subject: Some(subject), level: None, evaluation })
            .collect()
    }

    /// Each level of each benchmark, the levels of a benchmark from the lowest.
    #[must_use]
    pub fn by_level(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self
            .parts(|item| (item.benchmark.clone(), item.level))
            .into_iter()
            .map(|((benchmark, level), evaluation)| Part { benchmark, subject: None, level: Some(level), evaluation })
            .collect();
        let order: Vec<String> = self.by_benchmark().into_iter().map(|(name, _)| name).collect();
        parts.sort_by_key(|part| (order.iter().position(|name| *name == part.benchmark), part.level));
        parts
    }

    /// By level where all problems are of one subject, else by subject.
    #[must_use]
    pub fn by_subject_or_level(&self) -> Vec<Part> {
        let subjects = self.by_subject();
        if subjects.len() == 1 { self.by_level() } else { subjects }
    }

    fn parts<K: PartialEq>(&self, key: impl Fn(&ItemScore) -> K) -> Vec<(K, Self)> {
        let mut parts: Vec<(K, Self)> = Vec::new();
        for item in &self.items {
            let key = key(item);
            match parts.iter_mut().find(|(of_part, _)| *of_part == key) {
                Some((_, part)) => part.items.push(item.clone()),
                None => parts.push((key, Self { items: vec![item.clone()], num_samples: self.num_samples })),
            }
        }
        parts
    }

    /// What each problem is worth, from 0 to 1, in the order of the set.
    #[must_use]
    pub fn values(&self, measure: Measure) -> Vec<f64> {
        self.items.iter().map(|item| measure.of(item)).collect()
    }

    fn sum(&self, count: impl Fn(&ItemScore) -> u64) -> u64 {
        self.items.iter().map(count).sum()
    }
}

impl Part {
    /// What people call it; the benchmark is named where `is_among_several` stand beside each other.
    #[must_use]
    pub fn name(&self, is_among_several: bool) -> String {
        let own = match (self.level, &self.subject) {
            (Some(level), _) => format!("level {level}"),
            (None, subject) => subject.clone().unwrap_or_default(),
        };
        match is_among_several {
            // Sets name a subject as they like, with its benchmark before it or without.
            true if own.starts_with(&self.benchmark) => own,
            true if own.is_empty() => self.benchmark.clone(),
            true => format!("{}/{own}", self.benchmark),
            false => own,
        }
    }
}

/// How the greedy verdicts of the same problems differ between two checkpoints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Changes {
    /// Problems that were wrong before and are right after.
    pub num_gained: u64,
    /// Problems that were right before and are wrong after.
    pub num_lost: u64,
    /// McNemar's exact test.
    pub p_value: f64,
}

impl Changes {
    /// So many changes either way.
    #[must_use]
    pub fn new(num_gained: u64, num_lost: u64) -> Self {
        Self { num_gained, num_lost, p_value: mcnemar_exact(num_gained, num_lost) }
    }
}

fn item_score(rows: &[&EvalResult]) -> anyhow::Result<ItemScore> {
    let first = rows[0];
    let item_id = &first.item_id;
    if let Some(other) = rows.iter().find(|row| row.item_id != *item_id) {
        let message = format!("eval results of row {} belong to problems {item_id} and {}", first.row, other.item_id);
        return Err(StageFailure::input(message).into());
    }
    let sampled: Vec<&EvalResult> = rows.iter().filter(|row| row.eval_mode == EvalMode::Sampled.as_str()).copied().collect();
    let greedy = rows.iter().find(|row| row.eval_mode == EvalMode::Greedy.as_str());
    let (Some(greedy), false) = (greedy, sampled.is_empty()) else {
        let message = format!("eval results of problem {item_id} lack the greedy or the sampled completions");
        return Err(StageFailure::input(message).into());
    };
    let ballots = sampled.iter().map(|row| ballot(row)).collect::<anyhow::Result<Vec<_>>>()?;
    // The form that stands for the class is the answer of one of its members, and that member was graded.
    let majority = vote(&ballots).pseudo_label;
    let is_majority_right =
        majority.is_some_and(|label| sampled.iter().any(|row| row.is_correct && row.answer.as_ref() == Some(&label)));
    let count = |is_it: &dyn Fn(&EvalResult) -> bool| sampled.iter().filter(|row| is_it(row)).count() as u64;
    let is_unparsed = |row: &EvalResult| row.answer_status != AnswerStatus::Parsed.as_str();
    Ok(ItemScore {
        item_id: item_id.clone(),
        benchmark: first.benchmark.clone(),
        subject: first.subject.clone(),
        level: first.level,
        gold: first.gold.clone(),
        is_greedy_right: greedy.is_correct,
        is_greedy_unparsed: is_unparsed(greedy),
        is_majority_right,
        num_samples: sampled.len() as u64,
        num_correct: count(&|row| row.is_correct),
        num_unparsed: count(&is_unparsed),
        num_worked: count(&|row| row.is_worked),
        num_worked_correct: count(&|row| row.is_worked && row.is_correct),
    })
}

fn ballot(row: &EvalResult) -> anyhow::Result<Ballot<'_>> {
    let status: AnswerStatus = row
        .answer_status
        .parse()
        .map_err(|error| StageFailure::input(format!("eval result of problem {}: {error}", row.item_id)))?;
    Ok(Ballot { status, answer: row.answer.as_deref() })
}

fn percent(count: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| 100.0 * count as f64 / of as f64)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests;
