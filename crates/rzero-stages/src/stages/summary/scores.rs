//! From checked pseudo-labels to the share of them that is true, in percent points.

use crate::scores::Figure;
use rzero_algo::score::wilson;
use rzero_schema::tables::LabelCheck;
use rzero_schema::vocab::Verdict;

/// How many of the pseudo-labels that were drawn are true.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::stages) struct LabelAccuracy {
    /// Share of the checked ones; none where none could be checked.
    pub(in crate::stages) figure: Option<Figure>,
    pub(in crate::stages) num_checked: u64,
    pub(in crate::stages) num_drawn: u64,
}

impl LabelAccuracy {
    pub(in crate::stages) fn of(checks: &[LabelCheck]) -> Self {
        let verdicts: Vec<bool> = checks.iter().filter_map(is_true).collect();
        let (num_true, num) = (verdicts.iter().filter(|is_true| **is_true).count() as u64, verdicts.len() as u64);
        let figure = (num > 0).then(|| Figure::new(num_true as f64 / num as f64, wilson(num_true, num)));
        Self { figure, num_checked: num, num_drawn: checks.len() as u64 }
    }
}

/// Whether a pseudo-label is the true answer; none where that could not be told.
pub(in crate::stages) fn is_true(check: &LabelCheck) -> Option<bool> {
    match check.verdict.parse() {
        Ok(Verdict::Equal) => Some(true),
        Ok(Verdict::Different) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

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
