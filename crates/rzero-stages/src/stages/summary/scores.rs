//! From graded completions and pseudo-labels to figures with intervals, in percent points.

use crate::exit::StageFailure;
use rzero_algo::equivalence::equivalent;
use rzero_algo::score::{Interval, bootstrap_mean, bootstrap_paired_gain, wilson};
use rzero_algo::vote::{Ballot, vote};
use rzero_schema::tables::{EvalResult, LabelCheck};
use rzero_schema::vocab::{AnswerStatus, EvalMode, EvalStyle, Verdict};
use std::collections::BTreeMap;

/// A share or a difference of shares with its 95 % interval, in percent points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figure {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Figure {
    fn new(share: f64, interval: Interval) -> Self {
        Self { value: 100.0 * share, low: 100.0 * interval.low, high: 100.0 * interval.high }
    }
}

/// How intervals are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bootstrap {
    pub(super) resamples: u32,
    pub(super) seed: u64,
}

/// What one problem's completions are worth, each from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ItemScore {
    item_id: String,
    subject: String,
    level: u32,
    greedy: f64,
    mean1: f64,
    majority: f64,
}

/// The three ways in which a problem is scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Measure {
    /// Whether the greedy completion is right.
    Greedy,
    /// Share of the sampled completions that are right.
    Mean1,
    /// Whether the answer that most sampled completions give is right.
    Majority,
}

impl Measure {
    pub(super) const ALL: [Self; 3] = [Self::Greedy, Self::Mean1, Self::Majority];

    fn of(self, item: &ItemScore) -> f64 {
        match self {
            Self::Greedy => item.greedy,
            Self::Mean1 => item.mean1,
            Self::Majority => item.majority,
        }
    }
}

/// One checkpoint on the held-out problems, in one style.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Evaluation {
    items: Vec<ItemScore>,
    /// Sampled completions of each problem.
    pub(super) num_samples: u32,
    /// Share of sampled completions that work in steps.
    pub(super) worked_share: f64,
    /// Accuracy of the sampled completions that work in steps; none where there are none.
    pub(super) worked_accuracy: Option<f64>,
    /// Accuracy of those that answer at once.
    pub(super) direct_accuracy: Option<f64>,
}

/// The problems of one subject, or of one level where there is one subject only.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GroupScore {
    pub(super) subject: String,
    /// None where problems are told apart by their subject.
    pub(super) level: Option<u32>,
    pub(super) num_items: usize,
    pub(super) shares: [f64; 3],
}

impl GroupScore {
    /// What people call it.
    pub(super) fn name(&self) -> String {
        self.level.map_or_else(|| self.subject.clone(), |level| format!("level {level}"))
    }
}

impl Evaluation {
    /// The completions of one style; none where there are none.
    pub(super) fn of(rows: &[EvalResult], style: EvalStyle) -> anyhow::Result<Option<Self>> {
        let mut by_item: BTreeMap<u64, Vec<&EvalResult>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.eval_style == style.as_str()) {
            by_item.entry(row.row).or_default().push(row);
        }
        if by_item.is_empty() {
            return Ok(None);
        }
        let items: Vec<ItemScore> = by_item.values().map(|rows| item_score(rows)).collect::<anyhow::Result<_>>()?;
        let sampled: Vec<&EvalResult> = by_item.values().flatten().filter(|row| is_sampled(row)).copied().collect();
        let num_samples = sampled.len().div_ceil(items.len());
        let share = |rows: &[&&EvalResult]| {
            let num_correct = rows.iter().filter(|row| row.is_correct).count();
            (!rows.is_empty()).then(|| 100.0 * num_correct as f64 / rows.len() as f64)
        };
        let (worked, direct): (Vec<_>, Vec<_>) = sampled.iter().partition(|row| row.is_worked);
        Ok(Some(Self {
            items,
            num_samples: u32::try_from(num_samples).unwrap_or(u32::MAX),
            worked_share: 100.0 * worked.len() as f64 / sampled.len() as f64,
            worked_accuracy: share(&worked),
            direct_accuracy: share(&direct),
        }))
    }

    /// Number of problems.
    pub(super) fn num_items(&self) -> usize {
        self.items.len()
    }

    /// Accuracy over all problems.
    pub(super) fn accuracy(&self, measure: Measure, bootstrap: Bootstrap) -> Figure {
        let values = self.values(measure);
        Figure::new(mean(&values), bootstrap_mean(&values, bootstrap.resamples, bootstrap.seed))
    }

    /// Gain in accuracy over another evaluation, problem by problem; none where it has other problems.
    pub(super) fn gain_over(&self, before: &Self, measure: Measure, bootstrap: Bootstrap) -> Option<Figure> {
        let same_items = self.items.len() == before.items.len()
            && self.items.iter().zip(&before.items).all(|(after, before)| after.item_id == before.item_id);
        let (before, after) = (before.values(measure), self.values(measure));
        same_items.then(|| {
            let interval = bootstrap_paired_gain(&before, &after, bootstrap.resamples, bootstrap.seed);
            let gains: Vec<f64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
            Figure::new(mean(&gains), interval)
        })
    }

    /// Accuracy of each subject, or at each level where there is one subject only, by [`Measure::ALL`].
    pub(super) fn by_group(&self) -> Vec<GroupScore> {
        self.groups()
            .into_iter()
            .map(|(subject, level, items)| {
                let share = |measure: Measure| 100.0 * mean(&items.iter().map(|item| measure.of(item)).collect::<Vec<_>>());
                GroupScore { subject, level, num_items: items.len(), shares: Measure::ALL.map(share) }
            })
            .collect()
    }

    /// How much each subject, or level, gained over an earlier evaluation of the same problems, by [`Measure::ALL`].
    pub(super) fn gains_by_group(&self, before: &Self, bootstrap: Bootstrap) -> Vec<(String, [Option<Figure>; 3])> {
        let part = |evaluation: &Self, subject: &str, level: Option<u32>| {
            let is_in = |item: &&ItemScore| item.subject == subject && level.is_none_or(|level| item.level == level);
            Self { items: evaluation.items.iter().filter(is_in).cloned().collect(), ..*evaluation }
        };
        self.by_group()
            .iter()
            .map(|group| {
                let (before, after) = (part(before, &group.subject, group.level), part(self, &group.subject, group.level));
                (group.name(), Measure::ALL.map(|measure| after.gain_over(&before, measure, bootstrap)))
            })
            .collect()
    }

    /// Problems by subject in the order of the set, or by level where there is one subject only.
    fn groups(&self) -> Vec<(String, Option<u32>, Vec<&ItemScore>)> {
        let has_one_subject = self.items.iter().all(|item| item.subject == self.items[0].subject);
        let mut groups: Vec<(String, Option<u32>, Vec<&ItemScore>)> = Vec::new();
        for item in &self.items {
            let level = has_one_subject.then_some(item.level);
            match groups.iter_mut().find(|(subject, of_group, _)| *subject == item.subject && *of_group == level) {
                Some((_, _, items)) => items.push(item),
                None => groups.push((item.subject.clone(), level, vec![item])),
            }
        }
        if has_one_subject {
            groups.sort_by_key(|(_, level, _)| *level);
        }
        groups
    }

    fn values(&self, measure: Measure) -> Vec<f64> {
        self.items.iter().map(|item| measure.of(item)).collect()
    }
}

fn item_score(rows: &[&EvalResult]) -> anyhow::Result<ItemScore> {
    let first = rows[0];
    let item_id = &first.item_id;
    if let Some(other) = rows.iter().find(|row| row.item_id != *item_id) {
        let message = format!("eval results of row {} belong to problems {item_id} and {}", first.row, other.item_id);
        return Err(StageFailure::input(message).into());
    }
    let sampled: Vec<&EvalResult> = rows.iter().filter(|row| is_sampled(row)).copied().collect();
    let greedy = rows.iter().find(|row| row.eval_mode == EvalMode::Greedy.as_str());
    let (Some(greedy), false) = (greedy, sampled.is_empty()) else {
        let message = format!("eval results of problem {item_id} lack the greedy or the sampled completions");
        return Err(StageFailure::input(message).into());
    };
    let ballots = sampled.iter().map(|row| ballot(row)).collect::<anyhow::Result<Vec<_>>>()?;
    let majority = vote(&ballots).classes.first().is_some_and(|class| equivalent(&class.answer, &first.gold));
    let num_correct = sampled.iter().filter(|row| row.is_correct).count();
    Ok(ItemScore {
        item_id: item_id.clone(),
        subject: first.subject.clone(),
        level: first.level,
        greedy: f64::from(u8::from(greedy.is_correct)),
        mean1: num_correct as f64 / sampled.len() as f64,
        majority: f64::from(u8::from(majority)),
    })
}

fn ballot(row: &EvalResult) -> anyhow::Result<Ballot<'_>> {
    let status: AnswerStatus = row
        .answer_status
        .parse()
        .map_err(|error| StageFailure::input(format!("eval result of problem {}: {error}", row.item_id)))?;
    Ok(Ballot { status, answer: row.answer.as_deref() })
}

fn is_sampled(row: &EvalResult) -> bool {
    row.eval_mode == EvalMode::Sampled.as_str()
}

/// How many of the pseudo-labels that were drawn are true.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LabelAccuracy {
    /// Share of the checked ones; none where none could be checked.
    pub(super) figure: Option<Figure>,
    pub(super) num_checked: u64,
    pub(super) num_drawn: u64,
}

impl LabelAccuracy {
    pub(super) fn of(checks: &[LabelCheck]) -> Self {
        let verdicts: Vec<bool> = checks.iter().filter_map(is_true).collect();
        let (num_true, num) = (verdicts.iter().filter(|is_true| **is_true).count() as u64, verdicts.len() as u64);
        let figure = (num > 0).then(|| Figure::new(num_true as f64 / num as f64, wilson(num_true, num)));
        Self { figure, num_checked: num, num_drawn: checks.len() as u64 }
    }
}

/// Whether a pseudo-label is the true answer; none where that could not be told.
pub(super) fn is_true(check: &LabelCheck) -> Option<bool> {
    match check.verdict.parse() {
        Ok(Verdict::Equal) => Some(true),
        Ok(Verdict::Different) => Some(false),
        _ => None,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    const DRAWS: Bootstrap = Bootstrap { resamples: 200, seed: 1 };

    fn result(row: u64, mode: EvalMode, sample: u32, answer: &str, gold: &str) -> EvalResult {
        EvalResult {
            item_id: format!("item-{row}"),
            row,
            benchmark: "ladder".to_owned(),
            subject: "arithmetic".to_owned(),
            level: 1 + u32::try_from(row % 2).unwrap(),
            eval_style: EvalStyle::Free.to_string(),
            eval_mode: mode.to_string(),
            sample,
            completion: String::new(),
            num_tokens: 1,
            finish_reason: "stop".to_owned(),
            answer_status: if answer.is_empty() { AnswerStatus::NoBox } else { AnswerStatus::Parsed }.to_string(),
            answer: (!answer.is_empty()).then(|| answer.to_owned()),
            gold: gold.to_owned(),
            verdict: if answer == gold { "equal" } else { "different" }.to_owned(),
            grade_reason: "same_form".to_owned(),
            is_correct: answer == gold,
            is_worked: sample == 0,
        }
    }

    fn two_items(greedy: &str) -> Vec<EvalResult> {
        let mut rows = vec![result(0, EvalMode::Greedy, 0, greedy, "5"), result(1, EvalMode::Greedy, 0, "8", "7")];
        for (sample, answer) in ["5", "5", "6", ""].iter().enumerate() {
            rows.push(result(0, EvalMode::Sampled, u32::try_from(sample).unwrap(), answer, "5"));
            rows.push(result(1, EvalMode::Sampled, u32::try_from(sample).unwrap(), "8", "7"));
        }
        rows
    }

    #[test]
    fn a_problem_is_scored_in_three_ways() {
        let evaluation = Evaluation::of(&two_items("6"), EvalStyle::Free).unwrap().unwrap();
        let value = |measure| evaluation.accuracy(measure, DRAWS).value;
        assert_eq!([value(Measure::Greedy), value(Measure::Mean1), value(Measure::Majority)], [0.0, 25.0, 50.0]);
        assert_eq!((evaluation.num_items(), evaluation.num_samples), (2, 4));
        assert_eq!(
            (evaluation.worked_share, evaluation.worked_accuracy, evaluation.direct_accuracy),
            (25.0, Some(50.0), Some(100.0 / 6.0))
        );
        let levels = evaluation.by_group();
        assert_eq!((levels[0].level, levels[0].num_items, levels[0].shares), (Some(1), 1, [0.0, 50.0, 100.0]));
        assert!(Evaluation::of(&two_items("6"), EvalStyle::Worked).unwrap().is_none());
    }

    #[test]
    fn a_gain_needs_the_same_problems() {
        let before = Evaluation::of(&two_items("6"), EvalStyle::Free).unwrap().unwrap();
        let after = Evaluation::of(&two_items("5"), EvalStyle::Free).unwrap().unwrap();
        let gain = after.gain_over(&before, Measure::Greedy, DRAWS).unwrap();
        assert_eq!((gain.value, gain.low, gain.high), (50.0, 0.0, 100.0));
        let one: Vec<EvalResult> = two_items("5").into_iter().filter(|row| row.row == 0).collect();
        let one = Evaluation::of(&one, EvalStyle::Free).unwrap().unwrap();
        assert_eq!(one.gain_over(&before, Measure::Greedy, DRAWS), None);
    }

    #[test]
    fn several_subjects_are_told_apart_by_name_and_each_has_its_gain() {
        let rows = |greedy: &str| {
            let mut rows = two_items(greedy);
            rows.iter_mut().filter(|row| row.row == 1).for_each(|row| row.subject = "sums".to_owned());
            Evaluation::of(&rows, EvalStyle::Free).unwrap().unwrap()
        };
        let (before, after) = (rows("6"), rows("5"));
        let names: Vec<String> = after.by_group().iter().map(GroupScore::name).collect();
        assert_eq!(names, ["arithmetic", "sums"]);
        let gains = after.gains_by_group(&before, DRAWS);
        assert_eq!(gains.iter().map(|(_, gains)| gains[0].unwrap().value).collect::<Vec<_>>(), [100.0, 0.0]);
    }

    #[test]
    fn the_truth_that_is_not_known_enters_no_share() {
        let check = |verdict: &str| LabelCheck {
            challenge_id: String::new(),
            row: 0,
            question: "2+3".to_owned(),
            pseudo_label: "5".to_owned(),
            vote_share: 0.5,
            truth_source: "exact".to_owned(),
            truth: None,
            verdict: verdict.to_owned(),
            judge_reply: None,
        };
        let checks = ["equal", "equal", "different", "unknown"].map(check);
        let labels = LabelAccuracy::of(&checks);
        let figure = labels.figure.unwrap();
        assert_eq!((labels.num_checked, labels.num_drawn), (3, 4));
        assert!((figure.value - 200.0 / 3.0).abs() < 1e-9 && figure.low > 15.0 && figure.high < 95.0);
        assert_eq!(LabelAccuracy::of(&checks[3..]), LabelAccuracy { figure: None, num_checked: 0, num_drawn: 1 });
    }
}
