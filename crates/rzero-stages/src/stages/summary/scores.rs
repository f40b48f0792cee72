//! From pseudo-labels to the share of them that is true, in percent points.

use crate::scores::Figure;
use rzero_algo::arithmetic::true_answer;
use rzero_algo::equivalence::equivalent;
use rzero_algo::score::wilson;
use rzero_schema::tables::CurriculumRow;

/// How many pseudo-labels are true, among the questions whose answer can be computed; none where none can.
pub(super) fn label_accuracy(rows: &[CurriculumRow]) -> Option<(Figure, u64)> {
    let verdicts: Vec<bool> = rows.iter().filter_map(is_true).collect();
    let (num_true, num) = (verdicts.iter().filter(|is_true| **is_true).count() as u64, verdicts.len() as u64);
    (num > 0).then(|| (Figure::new(num_true as f64 / num as f64, wilson(num_true, num)), num))
}

/// Whether a pseudo-label is the true answer; none where that cannot be computed.
pub(super) fn is_true(row: &CurriculumRow) -> Option<bool> {
    true_answer(&row.question).map(|truth| equivalent(&truth, &row.pseudo_label))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn labels_are_held_against_the_exact_evaluator() {
        let row = |question: &str, label: &str| CurriculumRow {
            challenge_id: String::new(),
            row: 0,
            question: question.to_owned(),
            pseudo_label: label.to_owned(),
            vote_share: 0.5,
            margin: 0.1,
            gate_version: 1,
        };
        let rows = [row("2+3*4", "14"), row("2-3", "-1"), row("2*2", "5"), row("what is love?", "3")];
        let (figure, num) = label_accuracy(&rows).unwrap();
        assert_eq!(num, 3);
        assert!((figure.value - 200.0 / 3.0).abs() < 1e-9 && figure.low > 15.0 && figure.high < 95.0);
        assert!(label_accuracy(&rows[3..]).is_none());
    }
}
