//! `eval`: a Solver checkpoint on held-out problems, every completion graded and kept.
//!
//! Greedy and sampled, in the model's own way of working; the base model (iteration 0) also when it is made to work in steps, so
//! that a gain in habit can be told from a gain in accuracy. Grades come from the exact answers of the problem set, by [`grading`].
//! A problem that cannot be put to the model is kept as well, as wrong and not asked.
//!
//! `eval --compare A B` holds two finished evaluations against each other and needs no model: see [`compare`].

pub(crate) mod audited;
mod compare;
mod grading;

use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::backend::{Backend, BackendArgs};
use crate::console::Progress;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use crate::policy::{Policy, PolicyRequest, PolicySample};
use crate::prompt::Prompt;
use clap::{Args as _, FromArgMatches};
use compare::CompareArgs;
use grading::{Graded, GradingRule};
use rzero_algo::choice::{MAX_OPTIONS, question_with_options};
use rzero_io::reader::read_foreign_table;
use rzero_schema::profile::{Profile, SamplingSettings};
use rzero_schema::tables::{EvalItem, EvalResult};
use rzero_schema::vocab::{AnswerStatus, EvalMode, EvalStyle, FinishReason, Phase, Role, Stage, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What was typed: the flags of a stage, or `--compare` with its own.
#[derive(Debug)]
pub enum Args {
    /// Evaluate the Solver of an iteration on held-out problems.
    Evaluate(EvaluateArgs),
    /// Compare two finished evaluations.
    Compare(CompareArgs),
}

/// Flags of an evaluation.
#[derive(Debug, clap::Args)]
pub struct EvaluateArgs {
    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    backend: BackendArgs,
}

impl clap::CommandFactory for Args {
    fn command() -> clap::Command {
        // A subcommand that is typed as a flag: it alone can do without the flags that a stage needs.
        let compare = CompareArgs::augment_args(clap::Command::new("compare"));
        let compare = compare.long_flag("compare").about("Compare two finished evaluations of the same problems; needs no model");
        EvaluateArgs::augment_args(clap::Command::new("eval"))
            .version(env!("CARGO_PKG_VERSION"))
            .about("Evaluate the Solver of an iteration on held-out problems, or compare two evaluations")
            .after_help(EXIT_CODES_HELP)
            .subcommand(compare)
            .subcommand_negates_reqs(true)
            .disable_help_subcommand(true)
    }

    fn command_for_update() -> clap::Command {
        Self::command()
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some((_, matches)) => CompareArgs::from_arg_matches(matches).map(Self::Compare),
            None => EvaluateArgs::from_arg_matches(matches).map(Self::Evaluate),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Parser for Args {}

/// Runs the stage, or compares.
///
/// # Errors
/// As [`run_stage`]; also when the model, the problems or the evaluations to compare cannot be read.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let args = match args {
        Args::Evaluate(args) => args,
        Args::Compare(args) => return compare::run(args),
    };
    let backend = args.backend.resolve()?;
    let context = StageContext::new(Stage::Eval, &args.common, &[Phase::Eval])?;
    let items = context.project_path(&context.profile.eval.items)?;
    if !items.is_file() && !context.is_dry_run {
        let message = format!("the held-out problems are not there: {}", items.display());
        let hint = "`just ladder` makes those of the embedded model, `just import-words FOLDER` those of the word-problem profiles, \
             `just import-sample FOLDER` those of the table of benchmarks";
        return Err(StageFailure::input(message).hint(hint).into());
    }
    let mut inputs = StageInputs::new(&context)
        .with_checkpoint("solver", &context.checkpoint_dir(Role::Solver, context.place.iteration)?)
        .with_file(SOLVER_PROMPT, &context.project_path(&context.profile.domain.solver_prompt)?)
        .with_file("items", &items);
    for benchmark in &context.profile.eval.benchmarks {
        inputs = inputs.with_file(&prompt_of(&benchmark.name), &context.project_path(&benchmark.solver_prompt)?);
    }
    let inputs = backend.declare(inputs);
    run_stage(&context, inputs, |inputs, outputs| evaluate(&context, &backend, inputs, outputs))
}

const SOLVER_PROMPT: &str = "solver prompt";

/// What the prompt of a benchmark that has one of its own is called among the inputs.
fn prompt_of(benchmark: &str) -> String {
    format!("{SOLVER_PROMPT} of {benchmark}")
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

/// How a benchmark is asked and graded.
struct Benchmark {
    prompt: Prompt,
    rule: GradingRule,
}

/// A problem and how it is put to the model.
struct Asked<'a> {
    item: &'a EvalItem,
    rule: &'a GradingRule,
    /// The finished prompt; none where the problem cannot be asked.
    prompt: Option<String>,
}

fn evaluate(
    context: &StageContext,
    backend: &Backend,
    inputs: &StageInputs<'_>,
    outputs: &mut StageOutputs<'_>,
) -> anyhow::Result<()> {
    let items = chosen_items(read_items(inputs)?, context.profile.eval.max_items);
    let rows = context.shard_rows(items.len() as u64);
    let items = &items[rows.start as usize..rows.end as usize];
    let policy = Policy::read(inputs.path("solver")?, backend)?;
    let benchmarks = benchmarks(&context.profile, inputs, items)?;
    let asked: Vec<Asked<'_>> = items.iter().map(|item| ask(&policy, item, &benchmarks)).collect::<anyhow::Result<_>>()?;
    let passes = passes(context);
    let num_asked = asked.iter().filter(|asked| asked.prompt.is_some()).count() as u64;
    let total: u64 = passes.iter().map(|pass| u64::from(pass.num_samples)).sum::<u64>() * num_asked;
    let progress = Progress::start("evaluating", total, "completions");
    let by_row: BTreeMap<u64, &Asked<'_>> = asked.iter().map(|asked| (asked.item.row, asked)).collect();
    let mut writer = outputs.table_writer::<EvalResult>()?;
    let mut counts = Counts::default();
    for pass in &passes {
        let prefix = if pass.style == EvalStyle::Worked { context.profile.domain.worked_prefix.as_str() } else { "" };
        let (mut requests, mut not_asked) = (Vec::new(), Vec::new());
        for asked in &asked {
            match &asked.prompt {
                Some(prompt) => {
                    let samples = (0..pass.num_samples).map(|sample| (asked.item.row, sample)).collect();
                    requests.push(PolicyRequest { prompt: format!("{prompt}{prefix}"), samples });
                }
                None => not_asked.extend((0..pass.num_samples).map(|sample| not_asked_result(asked.item, pass, sample))),
            }
        }
        counts.add(&not_asked);
        writer.write(&not_asked)?;
        let purpose = format!("eval {} {}", pass.style, pass.mode);
        policy.complete(context, &purpose, &requests, &pass.sampling, &progress, |samples| {
            let results: Vec<EvalResult> = samples
                .into_iter()
                .filter_map(|sample| by_row.get(&sample.row).map(|asked| result(context, asked, pass, sample)))
                .collect();
            counts.add(&results);
            Ok(writer.write(&results)?)
        })?;
    }
    counts.0.into_iter().for_each(|(reason, number)| outputs.count(reason, number));
    outputs.finish_table(writer)
}

/// Completions by verdict, and by what became of their answers.
#[derive(Default)]
struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn add(&mut self, results: &[EvalResult]) {
        for result in results {
            *self.0.entry(result.verdict.clone()).or_default() += 1;
            *self.0.entry(result.answer_status.clone()).or_default() += 1;
        }
    }
}

fn read_items(inputs: &StageInputs<'_>) -> anyhow::Result<Vec<EvalItem>> {
    read_items_of(inputs.path("items")?)
}

pub(crate) fn read_items_of(path: &Path) -> anyhow::Result<Vec<EvalItem>> {
    let items = read_foreign_table::<EvalItem>(path)?;
    if let Some(at) = items.iter().enumerate().position(|(row, item)| item.row != row as u64) {
        let message = format!("row {at} of the problems has row number {}", items[at].row);
        return Err(StageFailure::input(message).hint("make the problem set anew; its rows count from 0").into());
    }
    if let Some(item) = items.iter().find(|item| item.options.len() > MAX_OPTIONS) {
        let message = format!("problem {} has {} options, more than there are letters", item.item_id, item.options.len());
        return Err(StageFailure::input(message).hint("leave it out of the problem set").into());
    }
    Ok(items)
}

/// The first problems of every level of every subject of every benchmark, in equal parts, at most `max_items`; 0 takes all.
fn chosen_items(items: Vec<EvalItem>, max_items: u64) -> Vec<EvalItem> {
    if max_items == 0 || items.len() as u64 <= max_items {
        return items;
    }
    let group = |item: &EvalItem| (item.benchmark.clone(), item.subject.clone(), item.level);
    let num_groups = items.iter().map(group).collect::<BTreeSet<_>>().len() as u64;
    let per_group = (max_items / num_groups).max(1);
    let mut taken: BTreeMap<(String, String, u32), u64> = BTreeMap::new();
    items
        .into_iter()
        .filter(|item| {
            let taken = taken.entry(group(item)).or_default();
            *taken += 1;
            *taken <= per_group
        })
        .collect()
}

/// How each benchmark of these problems is asked and graded.
fn benchmarks(profile: &Profile, inputs: &StageInputs<'_>, items: &[EvalItem]) -> anyhow::Result<BTreeMap<String, Benchmark>> {
    let names: BTreeSet<&String> = items.iter().map(|item| &item.benchmark).collect();
    let mut benchmarks = BTreeMap::new();
    for name in names {
        let has_own = profile.eval.benchmarks.iter().any(|settings| settings.name == *name);
        let prompt = if has_own { prompt_of(name) } else { SOLVER_PROMPT.to_owned() };
        let benchmark = Benchmark { prompt: inputs.prompt(&prompt, "solver")?, rule: GradingRule::new(profile, name) };
        benchmarks.insert(name.clone(), benchmark);
    }
    Ok(benchmarks)
}

fn ask<'a>(policy: &Policy, item: &'a EvalItem, benchmarks: &'a BTreeMap<String, Benchmark>) -> anyhow::Result<Asked<'a>> {
    let Some(Benchmark { prompt, rule }) = benchmarks.get(&item.benchmark) else {
        return Err(StageFailure::internal(format!("benchmark {} has no prompt", item.benchmark)).into());
    };
    let question = question_with_options(&item.question, &item.options);
    let prompt = match policy.holds_special_token(&question) {
        true => None,
        false => Some(policy.ask(prompt, &question)?),
    };
    let has_room = prompt.as_deref().map_or(Ok(false), |prompt| policy.has_room_for(prompt))?;
    Ok(Asked { item, rule, prompt: prompt.filter(|_| has_room) })
}

fn result(context: &StageContext, asked: &Asked<'_>, pass: &Pass, sample: PolicySample) -> EvalResult {
    let (text, finish) = (sample.text.text, sample.completion.finish);
    let graded = match sample.text.is_valid_utf8 {
        true => asked.rule.grade(asked.item, &text, finish),
        false => Graded::unread(AnswerStatus::InvalidUtf8),
    };
    EvalResult {
        num_tokens: sample.completion.tokens.len() as u32,
        finish_reason: finish.to_string(),
        is_worked: is_worked(context, pass, &text),
        completion: text,
        ..graded_result(asked.item, pass, sample.sample, graded)
    }
}

/// Whether a completion works in steps: it was made to begin so, or does by itself.
fn is_worked(context: &StageContext, pass: &Pass, completion: &str) -> bool {
    let prefix = &context.profile.domain.worked_prefix;
    pass.style == EvalStyle::Worked || (!prefix.is_empty() && completion.starts_with(prefix))
}

/// The row of a problem that the model was never given: nothing was written, and that is wrong.
fn not_asked_result(item: &EvalItem, pass: &Pass, sample: u32) -> EvalResult {
    graded_result(item, pass, sample, Graded::unread(AnswerStatus::NotAsked))
}

fn graded_result(item: &EvalItem, pass: &Pass, sample: u32, graded: Graded) -> EvalResult {
    EvalResult {
        item_id: item.item_id.clone(),
        row: item.row,
        benchmark: item.benchmark.clone(),
        subject: item.subject.clone(),
        level: item.level,
        eval_style: pass.style.to_string(),
        eval_mode: pass.mode.to_string(),
        sample,
        completion: String::new(),
        num_tokens: 0,
        finish_reason: FinishReason::Stop.to_string(),
        answer_status: graded.status.to_string(),
        answer: graded.answer,
        gold: item.answer.clone(),
        verdict: graded.verdict.to_string(),
        grade_reason: graded.reason.to_string(),
        is_correct: graded.verdict == Verdict::Equal,
        is_worked: pass.style == EvalStyle::Worked,
    }
}
