//! `filter`: which labelled candidates the Solver will train on. Candidates = curriculum + dropped, each drop with its first reason.
//!
//! The gates are one query over the Parquet files; its plain twin is `rzero_algo::curriculum::gate`, and a test holds them equal.
//! The gates are versioned: a change of their order or meaning raises `curriculum.gate_version`.

use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use anyhow::Context;
use polars::prelude::{
    DataFrame, Expr, JoinArgs, JoinType, LazyFrame, LiteralValue, PlRefPath, PolarsResult, ScanArgsParquet, SortMultipleOptions,
    col, lit, when,
};
use rzero_algo::curriculum::{BAND_SLACK, Gate};
use rzero_schema::tables::{Challenge, CurriculumRow, DroppedRow, Label};
use rzero_schema::vocab::{ChallengeStatus, DropReason, Phase, Stage};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Keep the informative candidates: labels to curriculum and dropped rows.
#[derive(Debug, clap::Parser)]
#[command(name = "filter", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when labels and questions do not belong to each other.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let context = StageContext::new(Stage::Filter, &args.common, &[Phase::Curriculum])?;
    context.require_unsharded()?;
    let inputs = StageInputs::new(&context).with_stage(Stage::ChallengeGen).with_stage(Stage::VoteLabel);
    run_stage(&context, inputs, |inputs, outputs| filter_candidates(&context, inputs, outputs))
}

fn filter_candidates(context: &StageContext, inputs: &StageInputs<'_>, outputs: &mut StageOutputs<'_>) -> anyhow::Result<()> {
    let settings = &context.profile.curriculum;
    let band = context.profile.band(context.place.iteration);
    let gate = Gate { version: settings.gate_version, low: band.low, high: band.high, min_margin: settings.min_margin };
    let (challenge_gen, vote_label) = (inputs.output(Stage::ChallengeGen)?, inputs.output(Stage::VoteLabel)?);
    let challenges = challenge_gen.read::<Challenge>()?;
    let labels = labels_by_row(&challenges, vote_label.read::<Label>()?)?;
    let query = verdict_query(
        scan(&challenge_gen.parts::<Challenge>()?)?,
        scan(&vote_label.parts::<Label>()?)?,
        &gate,
        if settings.drop_duplicates { Duplicates::Drop } else { Duplicates::Keep },
    );
    let verdicts = read_verdicts(query.collect().context("cannot run the filter's query")?)?;
    context.interrupt.check()?;

    let (mut curriculum, mut dropped) = (Vec::new(), Vec::new());
    let mut num_by_reason: BTreeMap<DropReason, u64> = DropReason::ALL.iter().map(|reason| (*reason, 0)).collect();
    if verdicts.len() != challenges.len() {
        return Err(StageFailure::internal(format!("{} candidates gave {} verdicts", challenges.len(), verdicts.len())).into());
    }
    for (challenge, (row, reason)) in challenges.iter().zip(verdicts) {
        if challenge.row != row {
            return Err(StageFailure::internal(format!("the verdict on row {row} met row {}", challenge.row)).into());
        }
        let label = labels.get(&row);
        match reason {
            None => curriculum.push(curriculum_row(label.context("a kept row has no label")?, gate.version)?),
            Some(reason) => {
                *num_by_reason.entry(reason).or_default() += 1;
                dropped.push(dropped_row(challenge, label, reason, gate.version));
            }
        }
    }
    if curriculum.len() + dropped.len() != challenges.len() {
        let message =
            format!("{} candidates became {} kept and {} dropped rows", challenges.len(), curriculum.len(), dropped.len());
        return Err(StageFailure::internal(message).into());
    }
    for (reason, count) in num_by_reason {
        outputs.count(reason.as_str(), count);
    }
    outputs.metric("num_candidates", challenges.len() as f64);
    outputs.metric("num_kept", curriculum.len() as f64);
    outputs.metric("kept_share", curriculum.len() as f64 / challenges.len().max(1) as f64);
    tracing::info!(candidates = challenges.len(), kept = curriculum.len(), "filtered");
    if curriculum.is_empty() {
        tracing::warn!("no candidate passed the gates: the Solver has nothing to train on");
    }
    outputs.write_table(&curriculum)?;
    outputs.write_table(&dropped)
}

/// What becomes of a question that stands earlier in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duplicates {
    Keep,
    Drop,
}

/// The gates as a query: `row` and the first `drop_reason`, null where a candidate is kept, ordered by row.
fn verdict_query(challenges: LazyFrame, labels: LazyFrame, gate: &Gate, duplicates: Duplicates) -> LazyFrame {
    let labels = labels.select([col("challenge_id"), col("pseudo_label"), col("vote_share"), col("margin")]);
    // The gates use the same slack as their twin, and like it refuse what is not a number.
    let misses = |value: &str, bound: f64| col(value).is_nan().or(col(value).lt(lit(bound - BAND_SLACK)));
    let exceeds = |value: &str, bound: f64| col(value).gt(lit(bound + BAND_SLACK));
    let is_repeated = match duplicates {
        Duplicates::Keep => lit(false),
        Duplicates::Drop => col("is_first").not(),
    };
    let reason = |reason: DropReason| lit(reason.as_str());
    challenges
        .select([col("challenge_id"), col("row"), col("challenge_status"), col("question")])
        .sort(["row"], SortMultipleOptions::default())
        .with_column(col("question").is_first_distinct().alias("is_first"))
        .join(labels, [col("challenge_id")], [col("challenge_id")], JoinArgs::new(JoinType::Left))
        .with_column(
            when(col("challenge_status").neq(lit(ChallengeStatus::Ok.as_str())))
                .then(reason(DropReason::Malformed))
                .when(is_repeated)
                .then(reason(DropReason::Duplicate))
                .when(col("pseudo_label").is_null())
                .then(reason(DropReason::NoLabel))
                .when(misses("vote_share", gate.low))
                .then(reason(DropReason::TooHard))
                .when(exceeds("vote_share", gate.high))
                .then(reason(DropReason::TooEasy))
                .when(misses("margin", gate.min_margin))
                .then(reason(DropReason::NarrowMargin))
                .otherwise(Expr::Literal(LiteralValue::untyped_null()))
                .alias("drop_reason"),
        )
        .select([col("row"), col("drop_reason")])
        .sort(["row"], SortMultipleOptions::default())
}

fn read_verdicts(frame: DataFrame) -> anyhow::Result<Vec<(u64, Option<DropReason>)>> {
    let rows = frame.column("row")?.u64()?;
    let reasons = frame.column("drop_reason")?;
    // Where every candidate is kept, the column has no type of its own.
    let reasons = reasons.cast(&polars::prelude::DataType::String)?;
    let reasons = reasons.str()?;
    rows.iter()
        .zip(reasons.iter())
        .map(|(row, reason)| Ok((row.context("a verdict has no row")?, reason.map(str::parse).transpose()?)))
        .collect()
}

fn scan(parts: &[PathBuf]) -> anyhow::Result<LazyFrame> {
    let paths = parts.iter().map(|part| PlRefPath::try_from_path(part)).collect::<PolarsResult<Vec<_>>>()?;
    // A path is a path, whatever brackets and stars it holds.
    let plain = ScanArgsParquet { glob: false, ..ScanArgsParquet::default() };
    Ok(LazyFrame::scan_parquet_files(paths.into(), plain)?)
}

/// Labels by row, exactly one for each well-formed question.
fn labels_by_row(challenges: &[Challenge], labels: Vec<Label>) -> anyhow::Result<BTreeMap<u64, Label>> {
    let refuse = |message: String| StageFailure::input(message).hint("rerun vote-label for this place");
    let mut by_row = BTreeMap::new();
    for label in labels {
        let id = label.challenge_id.clone();
        if by_row.insert(label.row, label).is_some() {
            return Err(refuse(format!("question {id} has two labels")).into());
        }
    }
    let mut num_labelled = 0;
    for challenge in challenges {
        let is_ok = challenge.challenge_status == ChallengeStatus::Ok.as_str();
        let is_labelled = by_row.get(&challenge.row).is_some_and(|label| label.challenge_id == challenge.challenge_id);
        if is_ok != is_labelled {
            let what = if is_ok { "has no label" } else { "has a label but is malformed" };
            return Err(refuse(format!("question {} {what}", challenge.challenge_id)).into());
        }
        num_labelled += usize::from(is_labelled);
    }
    if num_labelled != by_row.len() {
        return Err(refuse(format!("{} labels belong to no question of this place", by_row.len() - num_labelled)).into());
    }
    Ok(by_row)
}

fn curriculum_row(label: &Label, gate_version: u32) -> anyhow::Result<CurriculumRow> {
    Ok(CurriculumRow {
        challenge_id: label.challenge_id.clone(),
        row: label.row,
        question: label.question.clone(),
        pseudo_label: label.pseudo_label.clone().context("a kept row has no pseudo-label")?,
        vote_share: label.vote_share,
        margin: label.margin,
        gate_version,
    })
}

fn dropped_row(challenge: &Challenge, label: Option<&Label>, reason: DropReason, gate_version: u32) -> DroppedRow {
    DroppedRow {
        challenge_id: challenge.challenge_id.clone(),
        row: challenge.row,
        question: challenge.question.clone(),
        drop_reason: reason.to_string(),
        challenge_status: challenge.challenge_status.clone(),
        pseudo_label: label.and_then(|label| label.pseudo_label.clone()),
        vote_share: label.map(|label| label.vote_share),
        margin: label.map(|label| label.margin),
        gate_version,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rzero_algo::curriculum::gate as plain_gate;
    use rzero_io::layout::Shard;
    use rzero_io::writer::{FooterMetadata, TableWriter};
    use rzero_schema::ids::Place;
    use std::collections::BTreeSet;
    use std::path::Path;

    const PLACE: Place = Place { iteration: 1, phase: Phase::Curriculum, step: 0 };

    /// A candidate: its question if it is one, whether it has a pseudo-label, its vote share and its margin in tenths.
    type Candidate = (Option<u8>, bool, u32, u32);

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let candidate = (prop::option::weighted(0.8, 0u8..12), any::<bool>(), 0u32..=10, 0u32..=10);
        prop::collection::vec(candidate, 0..60)
    }

    fn write<T: rzero_schema::table::Table>(path: &Path, rows: &[T]) {
        let footer =
            FooterMetadata { stage: Stage::VoteLabel, place: PLACE, shard: Shard::WHOLE, seed: 1, profile_digest: String::new() };
        let mut writer = TableWriter::create(path, &footer).unwrap();
        writer.write(rows).unwrap();
        writer.finish().unwrap();
    }

    fn challenge_of(row: u64, candidate: &Candidate) -> Challenge {
        let question = candidate.0.map(|question| format!("{question}+1"));
        Challenge {
            challenge_id: PLACE.challenge_id(row).to_string(),
            row,
            challenge_status: if question.is_some() { "ok" } else { "truncated" }.to_owned(),
            question,
            proposed_answer: None,
        }
    }

    fn label_of(row: u64, candidate: &Candidate) -> Option<Label> {
        let (question, has_label, share, margin) = candidate;
        Some(Label {
            challenge_id: PLACE.challenge_id(row).to_string(),
            row,
            question: format!("{}+1", (*question)?),
            pseudo_label: has_label.then(|| "2".to_owned()),
            vote_share: f64::from(*share) * 0.1,
            margin: f64::from(*margin) * 0.1,
            vote_entropy: 0.0,
            num_samples: 10,
            num_parsed: 10,
            num_truncated: 0,
            class_answers: Vec::new(),
            class_counts: Vec::new(),
            sample_statuses: Vec::new(),
            sample_classes: Vec::new(),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn the_query_and_its_plain_twin_agree(candidates in candidates(), cut in 0usize..60, drops in any::<bool>(), band in 0u32..=5) {
            let gate = Gate { version: 1, low: f64::from(band) / 10.0, high: 0.8, min_margin: 0.2 };
            let folder = tempfile::tempdir().unwrap();
            let challenges: Vec<Challenge> = (0..).zip(&candidates).map(|(row, candidate)| challenge_of(row, candidate)).collect();
            let labels: Vec<Label> = (0..).zip(&candidates).filter_map(|(row, candidate)| label_of(row, candidate)).collect();
            // Two parts, one perhaps empty, under names that look like a pattern.
            let cut = cut.min(challenges.len());
            let parts = [folder.path().join("[a]*.parquet"), folder.path().join("b.parquet")];
            write(&parts[0], &challenges[..cut]);
            write(&parts[1], &challenges[cut..]);
            let label_part = folder.path().join("labels.parquet");
            write(&label_part, &labels);

            let duplicates = if drops { Duplicates::Drop } else { Duplicates::Keep };
            let query = verdict_query(scan(&parts).unwrap(), scan(&[label_part]).unwrap(), &gate, duplicates);
            let verdicts = read_verdicts(query.collect().unwrap()).unwrap();

            let mut seen = BTreeSet::new();
            let expected: Vec<(u64, Option<DropReason>)> = (0..)
                .zip(&candidates)
                .map(|(row, (question, has_label, share, margin))| {
                    let is_repeated = question.is_some_and(|question| !seen.insert(question));
                    let (share, margin) = (f64::from(*share) * 0.1, f64::from(*margin) * 0.1);
                    (row, plain_gate(question.is_some(), drops && is_repeated, *has_label, share, margin, &gate))
                })
                .collect();
            prop_assert_eq!(verdicts, expected);
        }
    }
}
