//! The gates of the filter as a query over columns, and its plain twin's verdicts beside it in a test.
//!
//! The twin is `rzero_algo::curriculum::gate`. The gates are versioned: a change of their order or meaning raises
//! `curriculum.gate_version`.

use polars::prelude::{
    BooleanChunked, DataFrame, Expr, Float64Chunked, IntoColumn, IntoLazy, LazyFrame, NewChunkedArray, PolarsResult, col, lit,
    when,
};
use rzero_algo::curriculum::{BAND_SLACK, Gate};
use rzero_schema::vocab::DropReason;

/// What the gates look at, one value a candidate.
#[derive(Debug, Default)]
pub(super) struct GateColumns {
    /// Whether the question is well-formed.
    pub(super) is_ok: Vec<bool>,
    /// Whether it stands earlier among the candidates, and that matters.
    pub(super) is_repeated: Vec<bool>,
    /// Whether it has a pseudo-label.
    pub(super) has_label: Vec<bool>,
    /// Whether the Solvers that answered do not agree on it.
    pub(super) is_disagreed: Vec<bool>,
    /// Any number where there was no vote.
    pub(super) vote_share: Vec<f64>,
    /// Any number where there was no vote.
    pub(super) margin: Vec<f64>,
}

/// What stands for a candidate that is kept.
const KEPT: i32 = -1;

/// The first reason to drop each candidate; nothing where it is kept.
pub(super) fn verdicts(columns: GateColumns, gate: &Gate) -> PolarsResult<Vec<Option<DropReason>>> {
    let found = verdict_query(frame(columns)?.lazy(), gate).collect()?;
    let codes = found.column("drop_reason")?.i32()?;
    let reason = |code: Option<i32>| DropReason::ALL.get(usize::try_from(code?).ok()?).copied();
    Ok(codes.iter().map(reason).collect())
}

fn frame(columns: GateColumns) -> PolarsResult<DataFrame> {
    let GateColumns { is_ok, is_repeated, has_label, is_disagreed, vote_share, margin } = columns;
    let flag = |name: &str, values: Vec<bool>| BooleanChunked::from_slice(name.into(), &values).into_column();
    let number = |name: &str, values: Vec<f64>| Float64Chunked::from_vec(name.into(), values).into_column();
    DataFrame::new_infer_height(vec![
        flag("is_ok", is_ok),
        flag("is_repeated", is_repeated),
        flag("has_label", has_label),
        flag("is_disagreed", is_disagreed),
        number("vote_share", vote_share),
        number("margin", margin),
    ])
}

/// The gates as a query: for each row the place of its first reason in [`DropReason::ALL`], or [`KEPT`].
fn verdict_query(candidates: LazyFrame, gate: &Gate) -> LazyFrame {
    // The gates use the same slack as their twin, and like it refuse what is not a number.
    let misses = |value: &str, bound: f64| col(value).is_nan().or(col(value).lt(lit(bound - BAND_SLACK)));
    let exceeds = |value: &str, bound: f64| col(value).gt(lit(bound + BAND_SLACK));
    let reason = |reason: DropReason| -> Expr { lit(reason as i32) };
    candidates.select([when(col("is_ok").not())
        .then(reason(DropReason::Malformed))
        .when(col("is_repeated"))
        .then(reason(DropReason::Duplicate))
        .when(col("has_label").not())
        .then(reason(DropReason::NoLabel))
        .when(col("is_disagreed"))
        .then(reason(DropReason::Disagreement))
        .when(misses("vote_share", gate.low))
        .then(reason(DropReason::TooHard))
        .when(exceeds("vote_share", gate.high))
        .then(reason(DropReason::TooEasy))
        .when(misses("margin", gate.min_margin))
        .then(reason(DropReason::NarrowMargin))
        .otherwise(lit(KEPT))
        .alias("drop_reason")])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rzero_algo::curriculum::gate as plain_gate;

    /// Whether a candidate is well-formed, repeated, labelled, agreed on; its vote share and its margin in tenths, or no number.
    type Candidate = (bool, bool, bool, bool, Option<u32>, Option<u32>);

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let figure = || prop::option::weighted(0.9, 0u32..=10);
        let candidate = (
            prop::bool::weighted(0.8),
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.8),
            prop::bool::weighted(0.8),
            figure(),
            figure(),
        );
        prop::collection::vec(candidate, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn the_query_and_its_plain_twin_agree(candidates in candidates(), band in 0u32..=5) {
            let gate = Gate { version: 1, low: f64::from(band) / 10.0, high: 0.8, min_margin: 0.2 };
            let tenths = |figure: Option<u32>| figure.map_or(f64::NAN, |figure| f64::from(figure) * 0.1);
            let columns = GateColumns {
                is_ok: candidates.iter().map(|candidate| candidate.0).collect(),
                is_repeated: candidates.iter().map(|candidate| candidate.1).collect(),
                has_label: candidates.iter().map(|candidate| candidate.2).collect(),
                is_disagreed: candidates.iter().map(|candidate| !candidate.3).collect(),
                vote_share: candidates.iter().map(|candidate| tenths(candidate.4)).collect(),
                margin: candidates.iter().map(|candidate| tenths(candidate.5)).collect(),
            };
            let expected: Vec<Option<DropReason>> = candidates
                .iter()
                .map(|(is_ok, is_repeated, has_label, is_agreed, share, margin)| {
                    plain_gate(*is_ok, *is_repeated, *has_label, !is_agreed, tenths(*share), tenths(*margin), &gate)
                })
                .collect();
            prop_assert_eq!(verdicts(columns, &gate).unwrap(), expected);
        }
    }
}
