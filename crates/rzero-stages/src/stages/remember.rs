//! `remember`: this iteration's questions join the memory of all that was ever asked.
//!
//! Reads the candidates of challenge-gen and the memory of the iteration before; writes `memory`, a row for every well-formed question that was
//! ever a candidate, in clusters of questions that are alike. The Challenger of the next iteration is held against it, where
//! `stability.memory_weight` says so: a batch that is varied in itself may still ask what was asked long ago.

use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use rzero_algo::repetition::memory::remember;
use rzero_schema::ids::Place;
use rzero_schema::tables::{Challenge, MemoryRow};
use rzero_schema::vocab::{Phase, Stage};

/// Let the candidates join the memory of all earlier questions.
#[derive(Debug, clap::Parser)]
#[command(name = "remember", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when the profile remembers nothing.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let context = StageContext::new(Stage::Remember, &args.common, &[Phase::Curriculum])?;
    context.require_unsharded()?;
    if context.profile.stability.memory_weight == 0.0 {
        let message = "stability.memory_weight is 0: nothing is remembered";
        return Err(StageFailure::usage(message).hint("set it to the weight of likeness to earlier questions").into());
    }
    let inputs = StageInputs::new(&context).with_stage(Stage::ChallengeGen);
    let inputs = match before(&context) {
        Some(place) => inputs.with_stage_at(Stage::Remember, place),
        None => inputs,
    };
    run_stage(&context, inputs, |inputs, outputs| join(&context, inputs, outputs))
}

/// Where the memory of the iteration before lies; nothing in the first.
fn before(context: &StageContext) -> Option<Place> {
    let iteration = context.place.iteration;
    (iteration > 1).then(|| Place { iteration: iteration - 1, ..context.place })
}

fn join(context: &StageContext, inputs: &StageInputs<'_>, outputs: &mut StageOutputs<'_>) -> anyhow::Result<()> {
    let mut memory: Vec<MemoryRow> = match before(context) {
        Some(place) => inputs.output_at(Stage::Remember, place)?.read()?,
        None => Vec::new(),
    };
    let challenges = inputs.output(Stage::ChallengeGen)?.read::<Challenge>()?;
    let asked: Vec<(&str, &str)> = challenges
        .iter()
        .filter_map(|challenge| Some((challenge.challenge_id.as_str(), challenge.question.as_deref()?)))
        .collect();
    let questions: Vec<&str> = asked.iter().map(|(_, question)| *question).collect();
    // Leaders stand in the order of their clusters: each is the first of its own.
    let leaders: Vec<&str> = memory.iter().filter(|row| row.is_leader).map(|row| row.question.as_str()).collect();
    let settings = &context.profile.challenger;
    let found = remember(&leaders, &questions, settings.bleu_tokens, settings.cluster_threshold);
    let num_new = found.iter().filter(|found| found.is_new).count();
    outputs.count("not_a_question", (challenges.len() - asked.len()) as u64);
    outputs.metric("num_clusters", (leaders.len() + num_new) as f64);
    if !found.is_empty() {
        // The share of this iteration's questions that are like nothing before them.
        outputs.metric("novelty", num_new as f64 / found.len() as f64);
    }
    for ((challenge_id, question), found) in asked.into_iter().zip(found) {
        memory.push(MemoryRow {
            challenge_id: challenge_id.to_owned(),
            question: question.to_owned(),
            cluster: u32::try_from(found.leader)?,
            is_leader: found.is_new,
            similarity: found.similarity,
        });
    }
    outputs.metric("num_questions", memory.len() as f64);
    outputs.write_table(&memory)
}
