//! `solve-sample`: Solver checkpoint and questions to answers.
//!
//! In the challenger and curriculum phases the frozen Solver of the iteration before answers every well-formed question m times, for
//! the vote. In the solver phase the policy in training answers one step's batch of the curriculum, a group of answers a question.

mod demonstrations;

use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::backend::{Backend, BackendArgs};
use crate::console::Progress;
use crate::context::StageContext;
use crate::curricula::{Curricula, with_curricula};
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use crate::policy::{Policy, PolicyRequest, PolicySample};
use crate::stages::challenge_gen::rollout;
use rzero_schema::ids::Place;
use rzero_schema::tables::{Challenge, CurriculumRow, Rollout};
use rzero_schema::vocab::{LabelSolver, Objective, Phase, Role, Stage};
use std::collections::BTreeMap;

/// Let the Solver answer questions.
#[derive(Debug, clap::Parser)]
#[command(name = "solve-sample", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    backend: BackendArgs,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when the model cannot be read or run, or the curriculum is empty.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let backend = args.backend.resolve()?;
    let context = StageContext::new(Stage::SolveSample, &args.common, &[Phase::Challenger, Phase::Curriculum, Phase::Solver])?;
    let Place { iteration, phase, step, .. } = context.place;
    let labels_by = if phase == Phase::Curriculum { context.profile.stability.label_solver } else { LabelSolver::Newest };
    let before = |iterations: u32| context.checkpoint_dir(Role::Solver, iteration.saturating_sub(iterations));
    let inputs = StageInputs::new(&context);
    let inputs = match (phase, labels_by) {
        (Phase::Solver, _) => inputs.with_checkpoint("solver", &context.policy_checkpoint(Role::Solver, iteration, step)?),
        (_, LabelSolver::Newest) => inputs.with_checkpoint("solver", &before(1)?),
        (_, LabelSolver::Earlier) => inputs.with_checkpoint("solver", &before(2)?),
        (_, LabelSolver::Both) => inputs.with_checkpoint("solver", &before(1)?).with_checkpoint(EARLIER, &before(2)?),
    };
    let inputs = inputs.with_file("solver prompt", &context.project_path(&context.profile.domain.solver_prompt)?);
    let inputs = match phase {
        Phase::Solver => with_curricula(inputs, &context)?,
        _ => inputs.with_stage(Stage::ChallengeGen),
    };
    let inputs = backend.declare(inputs);
    run_stage(&context, inputs, |inputs, outputs| answer_questions(&context, &backend, inputs, outputs))
}

/// The second of two Solvers that answer the same candidates.
const EARLIER: &str = "earlier solver";

/// Questions that one Solver answers before the other does: only bounds what is held at a time.
const QUESTIONS_AT_ONCE: usize = 1024;

/// One question to answer: its row in this set, its id, and the samples wanted.
pub(crate) struct Question {
    pub(crate) row: u64,
    pub(crate) challenge_id: String,
    pub(crate) text: String,
    /// The answer that it brings, where it is an anchor.
    answer: Option<String>,
    pub(crate) samples: std::ops::Range<u32>,
}

fn answer_questions(
    context: &StageContext,
    backend: &Backend,
    inputs: &StageInputs<'_>,
    outputs: &mut StageOutputs<'_>,
) -> anyhow::Result<()> {
    let profile = &context.profile;
    let (sampling, questions) = match context.place.phase {
        Phase::Challenger => {
            (&profile.challenger.answer_sampling, challenge_questions(context, inputs, profile.challenger.num_samples)?)
        }
        Phase::Curriculum => {
            (&profile.curriculum.answer_sampling, challenge_questions(context, inputs, profile.curriculum.num_samples)?)
        }
        _ => (&profile.solver.sampling, batch_questions(context, inputs)?),
    };
    let policy = Policy::read(inputs.path("solver")?, backend)?;
    let prompt = inputs.prompt("solver prompt", "solver")?;
    let ids: BTreeMap<u64, &str> = questions.iter().map(|question| (question.row, question.challenge_id.as_str())).collect();
    let total: usize = questions.iter().map(|question| question.samples.len()).sum();
    let progress = Progress::start("answering", total as u64, "answers");
    let mut writer = outputs.table_writer::<Rollout>()?;
    let (mut num_truncated, mut num_tokens) = (0, 0);
    let mut write = |samples: Vec<PolicySample>| {
        let rollouts: Vec<Rollout> = samples
            .into_iter()
            .map(|sample| rollout(sample, Role::Solver, |row| ids.get(&row).copied().unwrap_or_default().to_owned()))
            .collect();
        num_truncated += rollouts.iter().filter(|rollout| rollout.finish_reason == "length").count() as u64;
        num_tokens += rollouts.iter().map(|rollout| rollout.completion_tokens.len() as u64).sum::<u64>();
        Ok(writer.write(&rollouts)?)
    };
    let ask = |policy: &Policy, questions: &[Question], samples: std::ops::Range<u32>| -> anyhow::Result<Vec<PolicyRequest>> {
        let wanted = |question: &Question| samples.start.max(question.samples.start)..samples.end.min(question.samples.end);
        let request = |question: &Question| {
            let samples = wanted(question).map(|sample| (question.row, sample)).collect();
            Ok(PolicyRequest { prompt: policy.ask(&prompt, &question.text)?, samples })
        };
        questions.iter().map(request).collect()
    };
    if context.place.phase == Phase::Solver && profile.solver.objective == Objective::Sft {
        write(demonstrations::written(&policy, &prompt, &questions)?)?;
    } else if context.place.phase == Phase::Curriculum && profile.stability.label_solver == LabelSolver::Both {
        let earlier = Policy::read(inputs.path(EARLIER)?, backend)?;
        let num_first = profile.stability.num_of_newest(profile.curriculum.num_samples);
        for questions in questions.chunks(QUESTIONS_AT_ONCE) {
            let mut answers = Vec::new();
            for (policy, samples) in [(&policy, 0..num_first), (&earlier, num_first..u32::MAX)] {
                let requests = ask(policy, questions, samples)?;
                policy.complete(context, "solve-sample", &requests, sampling, &progress, |samples| {
                    answers.extend(samples);
                    Ok(())
                })?;
            }
            answers.sort_by_key(|answer| (answer.row, answer.sample));
            write(answers)?;
        }
    } else {
        let requests = ask(&policy, &questions, 0..u32::MAX)?;
        policy.complete(context, "solve-sample", &requests, sampling, &progress, write)?;
    }
    outputs.count("truncated", num_truncated);
    outputs.metric("num_completion_tokens", num_tokens as f64);
    outputs.finish_table(writer)
}

/// The well-formed questions of this shard, `num_samples` answers each.
fn challenge_questions(context: &StageContext, inputs: &StageInputs<'_>, num_samples: u32) -> anyhow::Result<Vec<Question>> {
    let challenges = inputs.output(Stage::ChallengeGen)?.read::<Challenge>()?;
    let rows = context.shard_rows(challenges.len() as u64);
    let mine = &challenges[rows.start as usize..rows.end as usize];
    let questions = mine.iter().filter_map(|challenge| {
        let text = challenge.question.clone()?;
        Some(Question {
            row: challenge.row,
            challenge_id: challenge.challenge_id.clone(),
            text,
            answer: None,
            samples: 0..num_samples,
        })
    });
    Ok(questions.collect())
}

/// The part of this step's batch that belongs to this shard. A question that stands in the batch twice gets other samples.
pub(crate) fn batch_questions(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<Vec<Question>> {
    let settings = &context.profile.solver;
    let curricula = Curricula::read(context, inputs)?;
    let batch = curricula.batch(context)?;
    let group_size = if settings.objective == Objective::Sft { 1 } else { settings.group_size };
    let mut times_before = vec![0u32; curricula.rows.len()];
    let questions: Vec<Question> = batch
        .into_iter()
        .enumerate()
        .map(|(row, index)| {
            let first = times_before[index] * group_size;
            times_before[index] += 1;
            let CurriculumRow { challenge_id, question, .. } = &curricula.rows[index];
            let samples = first..first + group_size;
            Question {
                row: row as u64,
                challenge_id: challenge_id.clone(),
                text: question.clone(),
                answer: curricula.answer(index).map(str::to_owned),
                samples,
            }
        })
        .collect();
    let rows = context.shard_rows(questions.len() as u64);
    Ok(questions.into_iter().filter(|question| rows.contains(&question.row)).collect())
}
