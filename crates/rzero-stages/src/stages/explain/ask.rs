//! What the Solvers of a run answer to a question, each token the most likely one.

use super::Args;
use super::collect::LaterAnswer;
use crate::answers::answer_rule;
use crate::args::CommonArgs;
use crate::backend::Backend;
use crate::console::Progress;
use crate::context::{StageContext, read_text};
use crate::policy::{Policy, PolicyRequest};
use crate::prompt::Prompt;
use crate::run_record::RunRecord;
use rzero_algo::answer::read_answer;
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::profile::SamplingSettings;
use rzero_schema::vocab::{AnswerStatus, Phase, Role, Stage};

/// Asks the Solver that a question was written against, which is that of the iteration before, and those after it that are there.
pub(super) fn later_answers(
    args: &Args,
    layout: &RunLayout,
    record: &RunRecord,
    iteration: u32,
    question: &str,
) -> anyhow::Result<Vec<LaterAnswer>> {
    let mut answers = Vec::new();
    for later in iteration.saturating_sub(1)..=layout.iterations()?.last().copied().unwrap_or(iteration) {
        let last = Place::new(later, Phase::Solver, record.profile.solver.steps);
        // A run goes on while it is looked at: what has not finished is not asked.
        let trained = (later > 0).then(|| StageOutput::open(layout, Stage::GrpoStep, last));
        if let Some(trained) = trained {
            match trained {
                Ok(output) => output.bring_below(&layout.phase_checkpoint(later, Phase::Solver))?,
                Err(_) => break,
            }
        }
        answers.push(ask(args, later, question)?);
    }
    Ok(answers)
}

fn ask(args: &Args, iteration: u32, question: &str) -> anyhow::Result<LaterAnswer> {
    let place = Place::new(iteration, Phase::Eval, 0);
    let common = CommonArgs::for_reading(&args.run, &args.mirrors, place, args.threads, args.project_root.as_deref());
    let context = StageContext::new(Stage::Eval, &common, &[Phase::Eval])?;
    let folder = context.checkpoint_dir(Role::Solver, iteration)?;
    let prompt = context.project_path(&context.profile.domain.solver_prompt)?;
    let policy = Policy::read(&folder, &Backend::Engine)?;
    let prompt = Prompt::new(&read_text(&prompt)?, &prompt, Some(&folder))?;
    let request = PolicyRequest { prompt: policy.ask(&prompt, question)?, samples: vec![(0, 0)] };
    let greedy = SamplingSettings { temperature: 0.0, ..context.profile.eval.sampling.clone() };
    let mut completion = (String::new(), AnswerStatus::NotAsked, None);
    let progress = Progress::start("asking", 1, "checkpoints");
    policy.complete(&context, "explain", &[request], &greedy, &progress, |samples| {
        for sample in samples {
            let read = read_answer(&sample.text.text, sample.completion.finish, &answer_rule(&context.profile));
            completion = (sample.text.text, read.status, read.answer);
        }
        Ok(())
    })?;
    let (completion, status, answer) = completion;
    let checkpoint = context.record_path(&folder);
    Ok(LaterAnswer { iteration, checkpoint, completion, status: status.to_string(), answer, is_label: None })
}
