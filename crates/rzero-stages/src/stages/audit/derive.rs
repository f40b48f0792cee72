//! Rows that follow from other rows, without a model: texts from tokens, challenges from completions, rewards and advantages from votes and
//! answers, the figures of a step from its rows, grades from answers; and the counts of manifests from all of them.

use super::files::KnownShard;
use super::findings::{Findings, Kind, Severity};
use super::{Audit, chain, differ};
use crate::args::CommonArgs;
use crate::context::StageContext;
use crate::curricula::with_curricula;
use crate::inputs::StageInputs;
use crate::stages::challenge_gen::{challenge, question_rule};
use crate::stages::eval::audited::Graders;
use crate::stages::grpo_step::audited::step_rows;
use crate::stages::solve_sample::{Question, batch_questions};
use crate::stages::verify::{RUBRIC, Reader, Tally, items, settings_of, with_answers};
use anyhow::Context;
use rayon::prelude::*;
use rzero_io::reader::{read_table, stream_table};
use rzero_model::ModelConfig;
use rzero_model::tokenizer::Tokenizer;
use rzero_schema::ids::Place;
use rzero_schema::manifest::FileRecord;
use rzero_schema::table::Table;
use rzero_schema::tables::{Challenge, EvalResult, JudgedAnswer, RewardRow, Rollout, TrainMetrics};
use rzero_schema::vocab::{ChallengeStatus, FinishReason, Phase, Stage};
use std::collections::BTreeMap;
use std::path::Path;

/// Rollouts that are read at a time.
const BATCH_ROWS: usize = 8192;

/// Derives what can be derived of a set whose files, and what they were made from, are without findings.
pub(super) fn check(audit: &Audit<'_>, stage: Stage, place: Place, shards: &[&KnownShard], findings: &mut Findings) {
    let folder = audit.layout.relative(&audit.layout.stage_folder(stage, place)).unwrap_or_default();
    if place.update > 0 || !findings.is_fit(&folder, shards) {
        return;
    }
    let checked = match stage {
        Stage::ChallengeGen => shards.iter().try_for_each(|known| questions(audit, known, findings)),
        Stage::SolveSample => answers(audit, place, shards, findings),
        Stage::Verify => shards.iter().try_for_each(|known| verdicts(audit, known, findings)),
        Stage::GrpoStep => shards.iter().try_for_each(|known| step(audit, known, findings)),
        Stage::Eval => evaluation(audit, shards, findings),
        _ => Ok(()),
    };
    if let Err(error) = checked {
        let subject = shards[0].manifest.outputs.first().map_or(&shards[0].name, |record| &record.path);
        let todo = format!("run {stage} there again with --overwrite, after what it reads is right");
        findings.add(Severity::Error, Kind::Rows, subject, format!("{error:#}"), todo);
    }
}

/// The surroundings of a stage, for reading.
pub(super) fn context_of(audit: &Audit<'_>, stage: Stage, place: Place) -> anyhow::Result<StageContext> {
    let Audit { args: typed, project_root, .. } = audit;
    let args = CommonArgs::for_reading(&typed.run, &typed.mirrors, place, typed.threads, Some(project_root));
    StageContext::new(stage, &args, &[place.phase])
}

fn record_of<T: Table>(known: &KnownShard) -> anyhow::Result<&FileRecord> {
    let is_table = |record: &&FileRecord| record.table.as_deref() == Some(T::NAME);
    known.manifest.outputs.iter().find(is_table).with_context(|| format!("its manifest lists no table {}", T::NAME))
}

fn rows_of<T: Table>(audit: &Audit<'_>, known: &KnownShard) -> anyhow::Result<Vec<T>> {
    Ok(read_table(&audit.layout.bring(record_of::<T>(known)?)?)?)
}

fn tell_rows<T: Table>(known: &KnownShard, expected: &[T], actual: &[T], findings: &mut Findings) -> anyhow::Result<()> {
    if let Some(difference) = differ::rows(expected, actual) {
        tell(record_of::<T>(known)?, known, difference, findings);
    }
    Ok(())
}

fn tell(record: &FileRecord, known: &KnownShard, difference: String, findings: &mut Findings) {
    let todo = format!("run {} there again with --overwrite; what was made from it is to be made again as well", known.stage);
    findings.add(Severity::Error, Kind::Rows, &record.path, difference, todo);
}

fn tell_counts(known: &KnownShard, expected: &BTreeMap<String, u64>, findings: &mut Findings) {
    let differs = |(name, value): &(&String, &u64)| known.manifest.counts.get(*name) != Some(*value);
    if let Some((name, value)) = expected.iter().find(differs) {
        let said = known.manifest.counts.get(name).map_or_else(|| "nothing".to_owned(), u64::to_string);
        tell_figure(known, name, &said, &value.to_string(), findings);
    }
}

pub(super) fn tell_figure(known: &KnownShard, name: &str, said: &str, follows: &str, findings: &mut Findings) {
    let problem = format!("says {said} of {name}, of its rows {follows} follows");
    findings.add(Severity::Error, Kind::Figures, &known.name, problem, "restore it, or remove it and run the stage again");
}

/// What turns tokens into text, and which of them end one.
struct Texts {
    tokenizer: Tokenizer,
    eos_tokens: Vec<u32>,
}

impl Texts {
    /// Of the model that a shard sampled from.
    fn of(audit: &Audit<'_>, known: &KnownShard) -> anyhow::Result<Self> {
        let file = known.manifest.inputs.iter().find(|record| record.path.ends_with("/tokenizer.json"));
        let file = file.context("its manifest lists no tokenizer among its inputs")?;
        let in_run = audit.layout.absolute(&file.path);
        let path = if in_run.is_file() { in_run } else { chain::outside(audit, &file.path) };
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(Self { tokenizer: Tokenizer::read(folder)?, eos_tokens: ModelConfig::read(folder)?.eos_tokens })
    }

    /// What a rollout says of itself that does not follow from its tokens.
    fn problem(&self, rollout: &Rollout) -> Option<String> {
        let Rollout { challenge_id, sample, completion_tokens: tokens, .. } = rollout;
        let at = |problem: String| Some(format!("sample {sample} of {challenge_id}: {problem}"));
        let is_ended = tokens.last().is_some_and(|token| self.eos_tokens.contains(token));
        let decoded = self.tokenizer.decode(&tokens[..tokens.len() - usize::from(is_ended)]);
        if decoded.text != rollout.completion || decoded.is_valid_utf8 != rollout.is_valid_utf8 {
            return at(format!(
                "its completion is {:?}, its tokens spell {:?}",
                brief_text(&rollout.completion),
                brief_text(&decoded.text)
            ));
        }
        if is_ended && rollout.finish_reason != FinishReason::Stop.as_str() {
            return at(format!("it ends with the end token and finished by `{}`", rollout.finish_reason));
        }
        let lengths = [rollout.policy_logprobs.len(), rollout.sampler_logprobs.len()];
        if lengths.iter().any(|length| *length != 0 && *length != tokens.len()) {
            return at(format!("it has {} tokens and {lengths:?} log-probabilities", tokens.len()));
        }
        // Float rounding can lift a log-probability of a certain token above 0 by a hair.
        let is_logprob = |value: &f32| value.is_finite() && *value <= 1e-3;
        let values = || rollout.policy_logprobs.iter().chain(&rollout.sampler_logprobs);
        values().find(|value| !is_logprob(value)).and_then(|value| at(format!("{value} is no log-probability")))
    }
}

fn brief_text(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Calls a function for the rollouts of a shard, some at a time, after holding each against its tokens.
fn each_rollouts(
    audit: &Audit<'_>,
    known: &KnownShard,
    texts: &Texts,
    findings: &mut Findings,
    mut each: impl FnMut(&[Rollout]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let record = record_of::<Rollout>(known)?;
    let is_server = known.manifest.digests.contains_key("backend");
    for rollouts in stream_table::<Rollout>(&audit.layout.bring(record)?, BATCH_ROWS)? {
        let rollouts = rollouts?;
        audit.interrupt.check()?;
        // A server's tokens are those that its text was cut into here.
        if !is_server && let Some(problem) = rollouts.par_iter().find_map_first(|rollout| texts.problem(rollout)) {
            tell(record, known, problem, findings);
        }
        each(&rollouts)?;
    }
    Ok(())
}

/// Challenges follow from the completions they were read from, row by row.
fn questions(audit: &Audit<'_>, known: &KnownShard, findings: &mut Findings) -> anyhow::Result<()> {
    let texts = Texts::of(audit, known)?;
    let rule = question_rule(&audit.record.profile);
    let (record, place) = (record_of::<Challenge>(known)?, known.place);
    let mut written = stream_table::<Challenge>(&audit.layout.bring(record)?, BATCH_ROWS)?;
    let (mut num_rows, mut difference, mut odd) = (0, None, None::<Challenge>);
    let mut counts: BTreeMap<String, u64> = ChallengeStatus::ALL.iter().map(|status| (status.to_string(), 0)).collect();
    each_rollouts(audit, known, &texts, findings, |rollouts| {
        let read = |rollout| challenge(rollout, &rule, |text| texts.tokenizer.holds_special_token(text));
        let expected = rollouts.par_iter().map(read).collect::<anyhow::Result<Vec<Challenge>>>()?;
        // Both tables could name their questions alike, and wrongly.
        odd = odd
            .take()
            .or_else(|| expected.iter().find(|read| read.challenge_id != place.challenge_id(read.row).to_string()).cloned());
        expected.iter().for_each(|read| *counts.entry(read.challenge_status.clone()).or_default() += 1);
        if difference.is_none() {
            difference = differ::rows_from(num_rows, &expected, &written.next().transpose()?.unwrap_or_default());
        }
        num_rows += expected.len();
        Ok(())
    })?;
    if difference.is_none() && written.next().transpose()?.is_some() {
        difference = Some(format!("has more rows than the {num_rows} completions that they follow from"));
    }
    if let Some(odd) = odd {
        let problem = format!("row {} is named {}, its place says {}", odd.row, odd.challenge_id, place.challenge_id(odd.row));
        tell(record_of::<Rollout>(known)?, known, problem, findings);
        return Ok(());
    }
    match difference {
        Some(difference) => tell(record, known, difference, findings),
        None => tell_counts(known, &counts, findings),
    }
    Ok(())
}

/// Answers say what their tokens do; those of a training step are to the questions of its batch.
fn answers(audit: &Audit<'_>, place: Place, shards: &[&KnownShard], findings: &mut Findings) -> anyhow::Result<()> {
    let mut asked: Vec<(u64, String, u32)> = Vec::new();
    for known in shards {
        let texts = Texts::of(audit, known)?;
        let (mut num_truncated, mut num_tokens) = (0u64, 0u64);
        each_rollouts(audit, known, &texts, findings, |rollouts| {
            num_truncated +=
                rollouts.iter().filter(|rollout| rollout.finish_reason == FinishReason::Length.as_str()).count() as u64;
            num_tokens += rollouts.iter().map(|rollout| rollout.completion_tokens.len() as u64).sum::<u64>();
            if place.phase == Phase::Solver {
                asked.extend(rollouts.iter().map(|rollout| (rollout.row, rollout.challenge_id.clone(), rollout.sample)));
            }
            Ok(())
        })?;
        tell_counts(known, &[("truncated".to_owned(), num_truncated)].into(), findings);
        let said = known.manifest.metrics.get("num_completion_tokens").copied();
        if said != Some(num_tokens as f64) {
            tell_figure(known, "num_completion_tokens", &format!("{said:?}"), &num_tokens.to_string(), findings);
        }
    }
    if place.phase != Phase::Solver {
        return Ok(());
    }
    let context = context_of(audit, Stage::SolveSample, place)?;
    let inputs = with_curricula(StageInputs::new(&context), &context)?.require_all()?;
    let batch = batch_questions(&context, &inputs)?;
    let of_question = |question: Question| {
        let Question { row, challenge_id, samples, .. } = question;
        samples.map(move |sample| (row, challenge_id.clone(), sample))
    };
    let expected: Vec<_> = batch.into_iter().flat_map(of_question).collect();
    let at = expected.iter().zip(&asked).position(|(one, other)| one != other);
    if at.is_some() || expected.len() != asked.len() {
        let record = record_of::<Rollout>(shards[0])?;
        let problem = match at {
            Some(at) => format!("answer {at} is to {:?}, the step's batch asks {:?}", asked[at], expected[at]),
            None => format!("holds {} answers, the step's batch asks for {}", asked.len(), expected.len()),
        };
        tell(record, shards[0], problem, findings);
    }
    Ok(())
}

/// Verdicts follow from the answers of the place and from what the Verifier wrote of them.
fn verdicts(audit: &Audit<'_>, known: &KnownShard, findings: &mut Findings) -> anyhow::Result<()> {
    let texts = Texts::of(audit, known)?;
    let mut context = context_of(audit, Stage::Verify, known.place)?;
    context.shard = known.shard;
    let inputs = with_answers(StageInputs::new(&context), &context)?.require_all()?;
    let (reader, mut tally) = (Reader::new(&context, settings_of(&context)?), Tally::default());
    each_rollouts(audit, known, &texts, findings, |rollouts| tally.add(&reader, rollouts))?;
    let rubric = known.manifest.digests.get(RUBRIC).context("its manifest lists no prompt of the Verifier")?;
    let expected = tally.rows(&reader, &items(&context, &inputs)?, rubric);
    tell_rows::<JudgedAnswer>(known, &expected, &rows_of(audit, known)?, findings)
}

/// Rewards, advantages and figures of a step.
fn step(audit: &Audit<'_>, known: &KnownShard, findings: &mut Findings) -> anyhow::Result<()> {
    let context = context_of(audit, Stage::GrpoStep, known.place)?;
    let written = rows_of::<TrainMetrics>(audit, known)?;
    let [found] = written.as_slice() else {
        tell(record_of::<TrainMetrics>(known)?, known, format!("has {} rows, a step has one", written.len()), findings);
        return Ok(());
    };
    let (rewards, metrics) = step_rows(&context, found)?;
    tell_rows::<RewardRow>(known, &rewards, &rows_of(audit, known)?, findings)?;
    if metrics != *found {
        // The manifest's figures are those of the row that is not right.
        return tell_rows(known, &[metrics], &written, findings);
    }
    for (name, value) in [
        ("reward_mean", found.reward_mean),
        ("kl_reference", found.kl_reference),
        ("entropy", found.entropy),
        ("gradient_norm", found.gradient_norm),
        ("zero_variance_share", found.zero_variance_share),
    ] {
        let said = known.manifest.metrics.get(name);
        if said != Some(&value) {
            let said = said.map_or_else(|| "nothing".to_owned(), f64::to_string);
            tell_figure(known, name, &said, &value.to_string(), findings);
        }
    }
    Ok(())
}

/// Grades of completions, and that each problem was asked as often as the profile says.
fn evaluation(audit: &Audit<'_>, shards: &[&KnownShard], findings: &mut Findings) -> anyhow::Result<()> {
    let first = shards[0];
    let digest = first.manifest.digests.get("items").context("its manifest tells of no problems")?;
    let file = first.manifest.inputs.iter().find(|record| record.digest == *digest).context("its manifest lists no problems")?;
    let context = context_of(audit, Stage::Eval, first.place)?;
    let graders = Graders::new(&context, &chain::outside(audit, &file.path))?;
    let results: Vec<Vec<EvalResult>> = shards.iter().map(|known| rows_of(audit, known)).collect::<anyhow::Result<_>>()?;
    let num_results: u64 = results.iter().map(|results| results.len() as u64).sum();
    if num_results != graders.num_results() {
        let problem = format!("{num_results} results, of the problems and the profile follow {}", graders.num_results());
        tell(record_of::<EvalResult>(first)?, first, problem, findings);
        return Ok(());
    }
    for (known, found) in shards.iter().zip(results) {
        let expected: Vec<EvalResult> = found.par_iter().map(|row| graders.regrade(row)).collect::<anyhow::Result<_>>()?;
        tell_rows(known, &expected, &found, findings)?;
        tell_counts(known, &Graders::counts(&expected), findings);
    }
    Ok(())
}
