//! `make-ladder`: a seed to a held-out ladder of exactly checkable problems, some for each number of operators.
//!
//! Reads the expression rule of a base model's profile and writes one `eval_items` Parquet file. Only questions of the held-out
//! eighth are drawn, so no ladder shares a question with the corpus of the base model.

use crate::console::{Verbosity, print_product, start_log};
use crate::exit::StageFailure;
use crate::stages::base_profile::{read_base_profile, write_base_table};
use rzero_algo::arithmetic::{is_held_out, random_expression};
use rzero_algo::seed::{StreamKey, random_stream};
use rzero_io::reader::read_foreign_table;
use rzero_schema::pretrain_profile::CorpusSettings;
use rzero_schema::tables::EvalItem;
use rzero_schema::vocab::{Phase, Stage};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Draws before a level counts as exhausted.
const MAX_DRAWS: u64 = 2_000_000;

/// Makes a held-out ladder of arithmetic problems.
#[derive(Debug, clap::Parser)]
#[command(name = "make-ladder", version)]
pub struct Args {
    /// Profile of the base model, whose expression rule the problems follow
    #[arg(long, value_name = "FILE", default_value = "pipelines/profiles/tiny-base.toml")]
    profile: PathBuf,
    /// Parquet file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Seed of the ladder
    #[arg(long, value_name = "N")]
    seed: u64,
    /// Problems of each level
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    per_level: u64,
    /// Levels: 1 to this many operators
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    levels: u32,
    /// Problem set whose questions are left out, so that what is trained on is not what is measured with
    #[arg(long, value_name = "FILE")]
    except: Option<PathBuf>,
}

/// Runs the stage.
///
/// # Errors
/// When the profile cannot be read, a level has too few problems or the file cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let (profile, profile_digest) = read_base_profile(&args.profile)?;
    let taken: BTreeSet<String> = match &args.except {
        Some(file) => read_foreign_table::<EvalItem>(file)?.into_iter().map(|item| item.question).collect(),
        None => BTreeSet::new(),
    };
    let items = ladder(&profile.corpus, args.seed, args.per_level, args.levels, &taken)?;
    write_base_table(&args.output, &items, Stage::MakeLadder, Phase::Eval, args.seed, profile_digest)?;
    print_product(args.output.display());
    Ok(())
}

fn ladder(
    rule: &CorpusSettings,
    seed: u64,
    per_level: u64,
    levels: u32,
    taken: &BTreeSet<String>,
) -> anyhow::Result<Vec<EvalItem>> {
    let mut items = Vec::new();
    for level in 1..=levels {
        let key = StreamKey { run_seed: seed, iteration: 0, phase: Phase::Eval, step: level, row: 0, sample: 0 };
        let mut stream = random_stream("ladder", &key);
        let mut seen = BTreeSet::new();
        let mut draws = 0;
        while (seen.len() as u64) < per_level {
            draws += 1;
            if draws > MAX_DRAWS {
                let found = seen.len();
                return Err(
                    StageFailure::usage(format!("level {level} has only {found} problems of the {per_level} asked for")).into()
                );
            }
            let expression = random_expression(level, rule, &mut stream);
            let question = expression.to_string();
            let Some(answer) = expression.evaluate() else { continue };
            if !is_held_out(&question) || taken.contains(&question) || !seen.insert(question.clone()) {
                continue;
            }
            items.push(EvalItem {
                item_id: format!("ladder-{seed}/{level}/{:04}", seen.len() - 1),
                row: items.len() as u64,
                benchmark: "ladder".to_owned(),
                question,
                options: Vec::new(),
                answer: answer.to_string(),
                subject: "arithmetic".to_owned(),
                level,
                source: format!("make-ladder, seed {seed}"),
                license: env!("CARGO_PKG_LICENSE").to_owned(),
                revision: env!("CARGO_PKG_VERSION").to_owned(),
                digest: String::new(),
            });
        }
    }
    Ok(items)
}
