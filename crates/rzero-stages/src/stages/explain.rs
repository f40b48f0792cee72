//! `explain`: the life of one question, from the prompt that it was written for to the answers that later Solvers give to it.
//!
//! `collect.rs` reads it from the tables that hold it, `ask.rs` puts it to the Solvers of the run, `show.rs` writes it for people. Nothing is derived here but what
//! stands in a table: whether the tables follow from one another is what `audit` tells.

mod ask;
mod collect;
mod show;

use crate::console::{Verbosity, print_product, start_log};
use crate::run_dir::MirrorArgs;
use crate::run_record::{RunRecord, no_run};
use collect::Reader;
use std::path::PathBuf;

/// Tell the life of one question: prompt, completion, answers, votes, label, gate, rewards, training, later answers.
#[derive(Debug, clap::Parser)]
#[command(
    name = "explain",
    version,
    after_help = "A question's id is iteration/phase/step/row, such as 001/curriculum/00/00017; it stands in every table as challenge_id."
)]
pub struct Args {
    /// Id of the question, or the beginning of one
    #[arg(value_name = "ID", required_unless_present = "random", conflicts_with = "random")]
    id: Option<String>,

    /// Any question that the Solver trained on
    #[arg(long)]
    random: bool,

    /// Run directory, or its URL in an object store
    #[arg(long, env = "RZERO_RUN", value_name = "DIR")]
    run: PathBuf,

    #[command(flatten)]
    mirrors: MirrorArgs,

    /// One JSON object instead of text
    #[arg(long)]
    json: bool,

    /// Put the question to no model: tell what the tables hold
    #[arg(long)]
    no_model: bool,

    /// Threads to use; left out, all cores
    #[arg(long, env = "RZERO_THREADS", value_name = "N")]
    threads: Option<usize>,

    /// Folder that the profile's paths are relative to; left out, the nearest folder upwards that holds `justfile` and `pipelines`
    #[arg(long, env = "RZERO_ROOT", value_name = "DIR")]
    project_root: Option<PathBuf>,
}

/// Tells it.
///
/// # Errors
/// When there is no such question, or several begin so: exit code 2. When the directory holds no run, or a table cannot be believed: 3.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let layout = args.mirrors.layout_of(&args.run)?;
    let Some(record) = RunRecord::read(&layout)? else {
        return Err(no_run(&args.run).hint("name the directory of a run with --run, such as data/runs/tiny").into());
    };
    let reader = Reader { layout: &layout, profile: &record.profile, project_root: args.project_root.as_deref() };
    let id = match &args.id {
        Some(typed) => reader.find(typed)?,
        None => reader.any()?,
    };
    let mut life = reader.life(id)?;
    if !args.no_model
        && let Some(question) = &life.question
    {
        life.later_answers = ask::later_answers(args, &layout, &record, id.place.iteration, question)?;
        let label = life.label.as_ref().and_then(|label| label.pseudo_label.clone());
        for later in &mut life.later_answers {
            later.is_label = label.as_ref().map(|label| later.answer.as_ref() == Some(label));
        }
    }
    if args.json {
        print_product(serde_json::to_string(&life)?);
    } else {
        print_product(show::text(&life));
    }
    Ok(())
}
