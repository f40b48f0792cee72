//! `challenge-gen`: Challenger checkpoint to questions.
//!
//! In the challenger phase the policy in training writes the questions of one step; in the curriculum phase the trained one writes
//! the candidates. All completions share one prompt. Writes `rollouts` (what was written, token by token) and `challenges` (what it
//! was read as); a malformed completion keeps its row, with the reason.

use crate::answers::finish_reason;
use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::backend::{Backend, BackendArgs};
use crate::console::Progress;
use crate::context::StageContext;
use crate::curricula::ANCHORS;
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use crate::policy::{Policy, PolicyRequest, PolicySample};
use crate::prompt::Prompt;
use crate::stages::eval::read_items_of;
use rzero_algo::answer::{QuestionRule, well_formed_challenge};
use rzero_algo::seed::{StreamKey, permutation, random_stream};
use rzero_schema::ids::Place;
use rzero_schema::profile::Profile;
use rzero_schema::tables::{Challenge, Rollout};
use rzero_schema::vocab::{ChallengeStatus, Phase, Role, Stage};

/// Let the Challenger write questions.
#[derive(Debug, clap::Parser)]
#[command(name = "challenge-gen", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    backend: BackendArgs,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when the model cannot be read or run.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let backend = args.backend.resolve()?;
    let context = StageContext::new(Stage::ChallengeGen, &args.common, &[Phase::Challenger, Phase::Curriculum])?;
    let Place { iteration, phase, step, .. } = context.place;
    let checkpoint = match phase {
        Phase::Challenger => context.policy_checkpoint(Role::Challenger, iteration, step)?,
        _ => context.checkpoint_dir(Role::Challenger, iteration)?,
    };
    let inputs = StageInputs::new(&context)
        .with_checkpoint("challenger", &checkpoint)
        .with_file("challenger prompt", &context.project_path(&context.profile.domain.challenger_prompt)?);
    let inputs = match context.profile.stability.anchors_shown {
        0 => inputs,
        _ => inputs.with_file(ANCHORS, &context.project_path(&context.profile.domain.anchors)?),
    };
    let inputs = backend.declare(inputs);
    run_stage(&context, inputs, |inputs, outputs| write_questions(&context, &backend, inputs, outputs))
}

fn write_questions(
    context: &StageContext,
    backend: &Backend,
    inputs: &StageInputs<'_>,
    outputs: &mut StageOutputs<'_>,
) -> anyhow::Result<()> {
    let profile = &context.profile;
    let (num_questions, sampling) = match context.place.phase {
        Phase::Challenger => (profile.challenger.num_questions, &profile.challenger.question_sampling),
        _ => (profile.curriculum.num_candidates, &profile.curriculum.question_sampling),
    };
    let rule = question_rule(profile);
    let rows = context.shard_rows(num_questions);
    let policy = Policy::read(inputs.path("challenger")?, backend)?;
    let prompt = inputs.prompt("challenger prompt", "challenger")?;
    let prompt = match profile.stability.anchors_shown {
        0 => prompt.render("")?,
        num_shown => with_anchors(context, inputs, &policy, &prompt, num_shown as usize)?,
    };
    // One prompt for all; requests of some rows each only bound what is held at a time.
    let requests: Vec<PolicyRequest> = rows
        .clone()
        .collect::<Vec<_>>()
        .chunks(4096)
        .map(|rows| PolicyRequest { prompt: prompt.clone(), samples: rows.iter().map(|row| (*row, 0)).collect() })
        .collect();
    let progress = Progress::start("writing questions", rows.end - rows.start, "questions");
    let (mut rollouts, mut challenges) = (outputs.table_writer::<Rollout>()?, outputs.table_writer::<Challenge>()?);
    let mut counts = vec![0u64; ChallengeStatus::ALL.len()];
    policy.complete(context, "challenge-gen", &requests, sampling, &progress, |samples| {
        let written: Vec<Rollout> = samples
            .into_iter()
            .map(|sample| rollout(sample, Role::Challenger, |row| context.place.challenge_id(row).to_string()))
            .collect();
        let read: Vec<Challenge> = written
            .iter()
            .map(|rollout| challenge(rollout, &rule, |text| policy.holds_special_token(text)))
            .collect::<anyhow::Result<_>>()?;
        for (count, status) in counts.iter_mut().zip(ChallengeStatus::ALL) {
            *count += read.iter().filter(|challenge| challenge.challenge_status == status.as_str()).count() as u64;
        }
        rollouts.write(&written)?;
        challenges.write(&read)?;
        Ok(())
    })?;
    for (count, status) in counts.into_iter().zip(ChallengeStatus::ALL) {
        outputs.count(status.as_str(), count);
    }
    outputs.finish_table(rollouts)?;
    outputs.finish_table(challenges)
}

/// The prompt with some anchors, drawn anew in every step.
fn with_anchors(
    context: &StageContext,
    inputs: &StageInputs<'_>,
    policy: &Policy,
    prompt: &Prompt,
    num_shown: usize,
) -> anyhow::Result<String> {
    let items = read_items_of(inputs.path(ANCHORS)?)?;
    let Place { iteration, phase, step, .. } = context.place;
    let key = StreamKey { run_seed: context.profile.seed, iteration, phase, step, row: 0, sample: 0 };
    let drawn = permutation(items.len(), &mut random_stream("shown anchors", &key)).into_iter().take(num_shown);
    let shown: Vec<(String, String)> = drawn.map(|at| (items[at].question.clone(), items[at].answer.clone())).collect();
    let is_special =
        |(question, answer): &&(String, String)| [question, answer].iter().any(|text| policy.holds_special_token(text));
    if let Some((question, _)) = shown.iter().find(is_special) {
        let message = format!("an anchor spells out a special token of the model: {question:?}");
        return Err(StageFailure::input(message).hint("take it out of the file that domain.anchors names").into());
    }
    let text = prompt.render_anchors(&shown)?;
    if text == prompt.render_anchors(&[])? {
        let message = "the Challenger's prompt shows no anchors, but stability.anchors_shown asks for some";
        return Err(StageFailure::usage(message).hint("use its variable `anchors`, or set anchors_shown to 0").into());
    }
    Ok(text)
}

/// A sample as a row of `rollouts`.
pub(crate) fn rollout(sample: PolicySample, role: Role, challenge_id: impl Fn(u64) -> String) -> Rollout {
    Rollout {
        challenge_id: challenge_id(sample.row),
        row: sample.row,
        sample: sample.sample,
        role: role.to_string(),
        prompt_tokens: sample.prompt_tokens,
        completion_tokens: sample.completion.tokens,
        policy_logprobs: sample.completion.policy_logprobs,
        sampler_logprobs: sample.completion.sampler_logprobs,
        entropy: sample.completion.entropy,
        self_certainty: sample.completion.self_certainty,
        finish_reason: sample.completion.finish.to_string(),
        completion: sample.text.text,
        is_valid_utf8: sample.text.is_valid_utf8,
    }
}

/// What counts as a question in the profile's domain.
pub(crate) fn question_rule(profile: &Profile) -> QuestionRule {
    QuestionRule {
        kind: profile.domain.questions,
        max_question_chars: profile.domain.max_question_chars,
        min_operators: profile.domain.min_operators,
    }
}

/// What a completion is as a question.
pub(crate) fn challenge(
    rollout: &Rollout,
    rule: &QuestionRule,
    holds_special_token: impl Fn(&str) -> bool,
) -> anyhow::Result<Challenge> {
    let finish = finish_reason(rollout)?;
    let read = if rollout.is_valid_utf8 {
        well_formed_challenge(&rollout.completion, finish, rule)
    } else {
        Err(ChallengeStatus::InvalidUtf8)
    };
    let read = match read {
        Ok(read) if holds_special_token(&read.question) => Err(ChallengeStatus::SpecialToken),
        read => read,
    };
    let status = read.as_ref().err().copied().unwrap_or(ChallengeStatus::Ok);
    let (question, proposed_answer) = read.ok().map(|read| (read.question, read.proposed_answer)).unzip();
    Ok(Challenge {
        challenge_id: rollout.challenge_id.clone(),
        row: rollout.row,
        challenge_status: status.to_string(),
        question,
        proposed_answer,
    })
}
