//! `verify`: Verifier checkpoint and answers to verdicts.
//!
//! In the verifier phase the policy in training judges one step's batch, for `grpo-step` to reward; in the challenger and curriculum phases the
//! Verifier of the iteration before judges the answers that are voted on; in the solver phase the newest judges what the Solver is rewarded for;
//! in the eval phase it judges answers of the base model to held-out problems, always the same, so that a drift of its scores is seen. Equal
//! answers to a question are judged once.
//!
//! Writes `rollouts`, the verdicts as they were sampled, and `verdicts`, what they say, a row an answer.

mod answers;
mod pairs;
mod probes;

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
use rzero_algo::verdict::{judge, read_verdict};
use rzero_schema::ids::Place;
use rzero_schema::profile::VerifierSettings;
use rzero_schema::tables::{JudgedAnswer, Rollout};
use rzero_schema::vocab::{AnswerKind, Phase, Role, Stage};
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
    /// What a verdict should say, where that is known: the consensus in training, the truth of a probe.
    pub(crate) target: Option<f64>,
}

impl Item {
    /// The name of its verdicts.
    fn verdict_id(&self) -> String {
        format!("{}/{}/{}", self.challenge_id, self.samples.first().copied().unwrap_or(0), self.row)
    }

    /// Its row in `verdicts`, of as many verdicts as were asked for and those that could be read.
    fn judged(self, num_verdicts: u32, scores: Vec<f64>, rubric: &str) -> JudgedAnswer {
        let judged = judge(&scores);
        JudgedAnswer {
            verdict_id: self.verdict_id(),
            row: self.row,
            challenge_id: self.challenge_id,
            sample: self.samples.first().copied().unwrap_or(0),
            equal_samples: self.samples,
            kind: self.kind.to_string(),
            response: self.response,
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
        .with_file(RUBRIC, &context.project_path(&context.profile.domain.verifier_prompt)?);
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

/// Verdicts on each answer at a place.
fn num_verdicts(context: &StageContext, settings: &VerifierSettings) -> u32 {
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
    let mut requests = Vec::new();
    for item in &items {
        // A response is data, as a question is: one that spells out a special token, or leaves no room, is not put to the model.
        let is_plain = !policy.holds_special_token(&item.response) && !policy.holds_special_token(&item.question);
        let text = if is_plain { Some(prompt.render_response(&item.question, &item.response)?) } else { None };
        if let Some(text) = text.filter(|text| policy.has_room_for(text).unwrap_or(false)) {
            requests.push(PolicyRequest { prompt: text, samples: (0..samples).map(|sample| (item.row, sample)).collect() });
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
        tally.add(&rollouts, settings.max_score);
        Ok(writer.write(&rollouts)?)
    })?;
    outputs.finish_table(writer)?;
    let rubric = inputs.digests().get(RUBRIC).cloned().unwrap_or_default();
    let judged = tally.rows(items, &rubric);
    tell(&judged, outputs);
    outputs.write_table(&judged)
}

/// Verdicts by the row of the answer that they are on.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<u64, (u32, Vec<f64>)>);

impl Tally {
    /// Reads verdicts, which come in the order of row and sample.
    pub(crate) fn add(&mut self, rollouts: &[Rollout], max_score: u32) {
        for rollout in rollouts {
            let (number, scores) = self.0.entry(rollout.row).or_default();
            *number += 1;
            scores.extend(read_verdict(&rollout.completion, max_score));
        }
    }

    /// The rows of `verdicts`.
    pub(crate) fn rows(mut self, items: Vec<Item>, rubric: &str) -> Vec<JudgedAnswer> {
        let row = |item: Item| {
            let (number, scores) = self.0.remove(&item.row).unwrap_or_default();
            item.judged(number, scores, rubric)
        };
        items.into_iter().map(row).collect()
    }
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
