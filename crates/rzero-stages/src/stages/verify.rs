//! `verify`: Verifier checkpoint and answers to verdicts.
//!
//! In the verifier phase the policy in training judges one step's batch, for `grpo-step` to reward; in the challenger and curriculum phases the
//! Verifier of the iteration before judges the answers that are voted on; in the solver phase the newest judges what the Solver is rewarded for;
//! in the eval phase it judges answers of the base model to held-out problems, always the same, so that a drift of its scores is seen. Equal
//! answers to a question are judged once. Where verdicts compare, each answer is held against the next, in both orders. Where a verdict is an answer of the Verifier's own, the same completions judge all answers to a question.
//!
//! Writes `rollouts`, the verdicts as they were sampled, and `verdicts`, what they say, a row an answer.

mod answers;
mod given;
mod pairs;
mod probes;
mod said;

pub(crate) use said::{Reader, Tally};

use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::backend::{Backend, BackendArgs};
use crate::console::Progress;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::judged::figures;
use crate::outputs::StageOutputs;
use crate::policy::{Policy, PolicyRequest};
use crate::stages::challenge_gen::rollout;
use rzero_algo::verdict::judge;
use rzero_schema::ids::Place;
use rzero_schema::profile::VerifierSettings;
use rzero_schema::tables::{JudgedAnswer, Rollout};
use rzero_schema::vocab::{AnswerKind, Phase, Role, Stage, VerdictForm};
use std::collections::BTreeMap;

/// Let the Verifier judge answers.
#[derive(Debug, clap::Parser)]
#[command(name = "verify", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    backend: BackendArgs,
}

/// Phases in which answers are judged.
const PHASES: [Phase; 5] = [Phase::Challenger, Phase::Curriculum, Phase::Verifier, Phase::Solver, Phase::Eval];

/// What the prompt is called among the inputs.
pub(crate) const RUBRIC: &str = "verifier prompt";

/// An answer to judge.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// Its row at this place, and that of its verdicts.
    pub(crate) row: u64,
    pub(crate) challenge_id: String,
    /// The first of the answers that are this text, then the others.
    pub(crate) samples: Vec<u32>,
    pub(crate) kind: AnswerKind,
    pub(crate) question: String,
    pub(crate) response: String,
    /// What it is compared with, if there is anything.
    pub(crate) other: Option<String>,
    /// What a verdict should say, where that is known: the consensus in training, the truth of a probe.
    pub(crate) target: Option<f64>,
}

impl Item {
    /// The question that it is an answer to.
    pub(crate) fn question_id(&self) -> &str {
        &self.challenge_id
    }

    /// The name of its verdicts.
    fn verdict_id(&self) -> String {
        format!("{}/{}/{}", self.challenge_id, self.samples.first().copied().unwrap_or(0), self.row)
    }

    /// Its row in `verdicts`, of as many verdicts as were asked for and those that could be read.
    fn judged(&self, num_verdicts: u32, scores: Vec<f64>, rubric: &str) -> JudgedAnswer {
        let judged = judge(&scores);
        JudgedAnswer {
            verdict_id: self.verdict_id(),
            row: self.row,
            challenge_id: self.challenge_id.clone(),
            sample: self.samples.first().copied().unwrap_or(0),
            equal_samples: self.samples.clone(),
            kind: self.kind.to_string(),
            response: self.response.clone(),
            other: self.other.clone(),
            target: self.target,
            num_verdicts,
            scores,
            score: judged.map(|judged| judged.score),
            agreement: judged.map(|judged| judged.agreement),
            rubric: rubric.to_owned(),
        }
    }
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when the profile has no Verifier, or the model cannot be read or run.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let backend = args.backend.resolve()?;
    let context = StageContext::new(Stage::Verify, &args.common, &PHASES)?;
    let settings = settings_of(&context)?;
    let Place { iteration, phase, step, .. } = context.place;
    let checkpoint = match phase {
        Phase::Verifier => context.policy_checkpoint(Role::Verifier, iteration, step)?,
        Phase::Solver | Phase::Eval => context.checkpoint_dir(Role::Verifier, iteration)?,
        _ => context.checkpoint_dir(Role::Verifier, iteration.saturating_sub(1))?,
    };
    let inputs = StageInputs::new(&context)
        .with_checkpoint("verifier", &checkpoint)
        .with_file(RUBRIC, &context.project_path(settings.prompt(&context.profile.domain))?);
    let inputs = backend.declare(with_answers(inputs, &context)?);
    run_stage(&context, inputs, |inputs, outputs| judge_answers(&context, settings, &backend, inputs, outputs))
}

/// The Verifier's settings.
///
/// # Errors
/// When the profile has two roles.
pub(crate) fn settings_of(context: &StageContext) -> anyhow::Result<&VerifierSettings> {
    let verifier = context.profile.verifier.as_ref().filter(|_| context.profile.has_verifier());
    verifier.ok_or_else(|| {
        let message = "the profile has no Verifier: its roles are two";
        StageFailure::usage(message).hint("set roles = 3, with a section [verifier]").into()
    })
}

/// Declares what the answers of this place follow from.
pub(crate) fn with_answers<'a>(inputs: StageInputs<'a>, context: &StageContext) -> anyhow::Result<StageInputs<'a>> {
    match context.place.phase {
        Phase::Verifier => Ok(pairs::declare(inputs, context)),
        Phase::Eval => probes::declare(inputs, context),
        _ => answers::declare(inputs, context),
    }
}

/// The answers that this shard judges, in the order of their rows.
pub(crate) fn items(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<Vec<Item>> {
    match context.place.phase {
        Phase::Verifier => pairs::items(context, inputs),
        Phase::Eval => probes::items(context, inputs),
        _ => answers::items(context, inputs),
    }
}

/// Whether verdicts compare an answer with another.
fn compares(context: &StageContext) -> anyhow::Result<bool> {
    Ok(settings_of(context)?.verdict == VerdictForm::Comparison)
}

/// Verdicts on each answer at a place.
pub(crate) fn num_verdicts(context: &StageContext, settings: &VerifierSettings) -> u32 {
    if context.place.phase == Phase::Verifier { settings.group_size } else { settings.num_verdicts }
}

fn judge_answers(
    context: &StageContext,
    settings: &VerifierSettings,
    backend: &Backend,
    inputs: &StageInputs<'_>,
    outputs: &mut StageOutputs<'_>,
) -> anyhow::Result<()> {
    let items = items(context, inputs)?;
    let policy = Policy::read(inputs.path("verifier")?, backend)?;
    let prompt = inputs.prompt(RUBRIC, "verifier")?;
    let samples = num_verdicts(context, settings);
    let reader = Reader::new(context, settings);
    let is_plain = |text: &str| !policy.holds_special_token(text);
    let mut requests = Vec::new();
    for group in reader.groups(&items, Item::question_id) {
        let item = &group[0];
        // A response is data, as a question is: one that spells out a special token, or leaves no room, is not put to the model.
        if ![&item.question, &item.response].into_iter().chain(&item.other).all(|text| is_plain(text)) {
            continue;
        }
        let texts = match (settings.verdict, &item.other) {
            (VerdictForm::Score, _) => vec![prompt.render_response(&item.question, &item.response)?],
            (VerdictForm::Derivation, _) => vec![prompt.render(&item.question)?],
            (VerdictForm::Comparison, Some(other)) => vec![
                prompt.render_comparison(&item.question, &item.response, other)?,
                prompt.render_comparison(&item.question, other, &item.response)?,
            ],
            (VerdictForm::Comparison, None) => continue,
        };
        if !texts.iter().all(|text| policy.has_room_for(text).unwrap_or(false)) {
            continue;
        }
        let share = samples / texts.len() as u32;
        for (order, prompt) in (0..).zip(texts) {
            let samples = (order * share..(order + 1) * share).map(|sample| (item.row, sample)).collect();
            requests.push(PolicyRequest { prompt, samples });
        }
    }
    let ids: BTreeMap<u64, String> = items.iter().map(|item| (item.row, item.verdict_id())).collect();
    let total: usize = requests.iter().map(|request| request.samples.len()).sum();
    let progress = Progress::start("judging", total as u64, "verdicts");
    let mut writer = outputs.table_writer::<Rollout>()?;
    let mut tally = Tally::default();
    policy.complete(context, "verify", &requests, &settings.sampling, &progress, |samples| {
        let rollouts: Vec<Rollout> = samples
            .into_iter()
            .map(|sample| rollout(sample, Role::Verifier, |row| ids.get(&row).cloned().unwrap_or_default()))
            .collect();
        tally.add(&reader, &rollouts)?;
        Ok(writer.write(&rollouts)?)
    })?;
    outputs.finish_table(writer)?;
    let rubric = inputs.digests().get(RUBRIC).cloned().unwrap_or_default();
    let judged = tally.rows(&reader, &items, &rubric);
    tell(&judged, outputs);
    outputs.write_table(&judged)
}

/// Counts and figures of the manifest.
fn tell(judged: &[JudgedAnswer], outputs: &mut StageOutputs<'_>) {
    let num_verdicts: u64 = judged.iter().map(|row| u64::from(row.num_verdicts)).sum();
    let num_read: u64 = judged.iter().map(|row| row.scores.len() as u64).sum();
    outputs.count("not_asked", judged.iter().filter(|row| row.num_verdicts == 0).count() as u64);
    outputs.count("unreadable", num_verdicts - num_read);
    outputs.metric("num_judged", judged.len() as f64);
    for (name, value) in figures(judged) {
        outputs.metric(name, value);
    }
}
