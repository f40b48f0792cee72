//! `eval`: a Solver checkpoint on held-out problems, every completion graded and kept.
//!
//! Greedy and sampled, in the model's own way of working; the base model (iteration 0) also when it is made to work in steps, so
//! that a gain in habit can be told from a gain in accuracy. Grades come from the exact answers of the problem set.

use crate::answers::answer_rule;
use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::console::Progress;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use crate::policy::{Policy, PolicyRequest, PolicySample};
use rzero_algo::answer::{AnswerRule, ReadAnswer, read_answer};
use rzero_algo::equivalence::{GradeOptions, grade};
use rzero_io::reader::read_foreign_table;
use rzero_schema::profile::SamplingSettings;
use rzero_schema::tables::{EvalItem, EvalResult};
use rzero_schema::vocab::{AnswerStatus, EvalMode, EvalStyle, GradeReason, Phase, Role, Stage, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// Evaluate the Solver of an iteration on held-out problems.
#[derive(Debug, clap::Parser)]
#[command(name = "eval", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when the model or the problems cannot be read.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let context = StageContext::new(Stage::Eval, &args.common, &[Phase::Eval])?;
    let items = context.project_path(&context.profile.eval.items)?;
    if !items.is_file() && !context.is_dry_run {
        let message = format!("the held-out problems are not there: {}", items.display());
        let hint =
            "`just ladder` makes those of the embedded model, `just import-words FOLDER` those of the word-problem profiles";
        return Err(StageFailure::input(message).hint(hint).into());
    }
    let inputs = StageInputs::new(&context)
        .with_checkpoint("solver", &context.checkpoint_dir(Role::Solver, context.place.iteration)?)
        .with_file("solver prompt", &context.project_path(&context.profile.domain.solver_prompt)?)
        .with_file("items", &items);
    run_stage(&context, inputs, |inputs, outputs| evaluate(&context, inputs, outputs))
}

/// One pass over the problems.
struct Pass {
    style: EvalStyle,
    mode: EvalMode,
    num_samples: u32,
    sampling: SamplingSettings,
}

fn passes(context: &StageContext) -> Vec<Pass> {
    let settings = &context.profile.eval;
    let is_worked_too = context.place.iteration == 0 && settings.base_worked && !context.profile.domain.worked_prefix.is_empty();
    let styles = [EvalStyle::Free, EvalStyle::Worked];
    let greedy = SamplingSettings { temperature: 0.0, ..settings.sampling.clone() };
    styles[..1 + usize::from(is_worked_too)]
        .iter()
        .flat_map(|&style| {
            [
                Pass { style, mode: EvalMode::Greedy, num_samples: 1, sampling: greedy.clone() },
                Pass { style, mode: EvalMode::Sampled, num_samples: settings.num_samples, sampling: settings.sampling.clone() },
            ]
        })
        .collect()
}

fn evaluate(context: &StageContext, inputs: &StageInputs<'_>, outputs: &mut StageOutputs<'_>) -> anyhow::Result<()> {
    let items = chosen_items(read_items(inputs)?, context.profile.eval.max_items);
    let rows = context.shard_rows(items.len() as u64);
    let items = &items[rows.start as usize..rows.end as usize];
    let prompt = inputs.prompt("solver prompt", "solver")?;
    let policy = Policy::read(inputs.path("solver")?)?;
    let passes = passes(context);
    let total: u64 = passes.iter().map(|pass| u64::from(pass.num_samples)).sum::<u64>() * items.len() as u64;
    let progress = Progress::start("evaluating", total, "completions");
    let by_row: BTreeMap<u64, &EvalItem> = items.iter().map(|item| (item.row, item)).collect();
    let rule = answer_rule(&context.profile);
    let mut writer = outputs.table_writer::<EvalResult>()?;
    let mut num_correct = 0u64;
    for pass in &passes {
        let prefix = if pass.style == EvalStyle::Worked { context.profile.domain.worked_prefix.as_str() } else { "" };
        let requests: Vec<PolicyRequest> = items
            .iter()
            .map(|item| {
                let samples = (0..pass.num_samples).map(|sample| (item.row, sample)).collect();
                Ok(PolicyRequest { prompt: policy.ask(&prompt, &item.question)? + prefix, samples })
            })
            .collect::<anyhow::Result<_>>()?;
        let purpose = format!("eval {} {}", pass.style, pass.mode);
        policy.complete(context, &purpose, &requests, &pass.sampling, &progress, |samples| {
            let results: Vec<EvalResult> = samples
                .into_iter()
                .filter_map(|sample| by_row.get(&sample.row).map(|item| graded(context, item, pass, sample, &rule)))
                .collect();
            num_correct += results.iter().filter(|result| result.is_correct).count() as u64;
            Ok(writer.write(&results)?)
        })?;
    }
    outputs.count("correct", num_correct);
    outputs.finish_table(writer)
}

fn read_items(inputs: &StageInputs<'_>) -> anyhow::Result<Vec<EvalItem>> {
    let items = read_foreign_table::<EvalItem>(inputs.path("items")?)?;
    if let Some(at) = items.iter().enumerate().position(|(row, item)| item.row != row as u64) {
        let message = format!("row {at} of the problems has row number {}", items[at].row);
        return Err(StageFailure::input(message).hint("make the problem set anew; its rows count from 0").into());
    }
    Ok(items)
}

/// The first problems of every level of every subject, in equal parts, at most `max_items`; 0 takes all.
fn chosen_items(items: Vec<EvalItem>, max_items: u64) -> Vec<EvalItem> {
    if max_items == 0 || items.len() as u64 <= max_items {
        return items;
    }
    let group = |item: &EvalItem| (item.subject.clone(), item.level);
    let num_groups = items.iter().map(group).collect::<BTreeSet<_>>().len() as u64;
    let per_group = (max_items / num_groups).max(1);
    let mut taken: BTreeMap<(String, u32), u64> = BTreeMap::new();
    items
        .into_iter()
        .filter(|item| {
            let taken = taken.entry(group(item)).or_default();
            *taken += 1;
            *taken <= per_group
        })
        .collect()
}

fn graded(context: &StageContext, item: &EvalItem, pass: &Pass, sample: PolicySample, rule: &AnswerRule) -> EvalResult {
    let read = if sample.text.is_valid_utf8 {
        read_answer(&sample.text.text, sample.completion.finish, rule)
    } else {
        ReadAnswer { status: AnswerStatus::InvalidUtf8, answer: None }
    };
    let prefix = &context.profile.domain.worked_prefix;
    let is_worked = pass.style == EvalStyle::Worked || (!prefix.is_empty() && sample.text.text.starts_with(prefix));
    let grade = read.answer.as_deref().map(|answer| grade(&item.answer, answer, &GradeOptions::default()));
    let (verdict, reason) = grade.map_or((Verdict::Different, GradeReason::NoAnswer), |grade| (grade.verdict, grade.reason));
    EvalResult {
        item_id: item.item_id.clone(),
        row: item.row,
        benchmark: item.benchmark.clone(),
        subject: item.subject.clone(),
        level: item.level,
        eval_style: pass.style.to_string(),
        eval_mode: pass.mode.to_string(),
        sample: sample.sample,
        num_tokens: sample.completion.tokens.len() as u32,
        finish_reason: sample.completion.finish.to_string(),
        answer_status: read.status.to_string(),
        verdict: verdict.to_string(),
        grade_reason: reason.to_string(),
        is_correct: verdict == Verdict::Equal,
        answer: read.answer,
        gold: item.answer.clone(),
        completion: sample.text.text,
        is_worked,
    }
}
