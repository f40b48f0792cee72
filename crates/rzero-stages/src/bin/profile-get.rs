//! `profile-get KEY...`: values of a profile, overrides applied, one a line. Recipes ask it how many steps a phase has.

use anyhow::Context;
use rzero_schema::vocab::{Phase, Role};
use rzero_stages::console::print_product;
use rzero_stages::context::parse_profile;
use rzero_stages::exit::{StageFailure, main_with};
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

/// Print values of a profile, one a line: words bare, lists and sections as JSON.
#[derive(Debug, clap::Parser)]
#[command(name = "profile-get", version)]
struct Args {
    /// Profile to read
    #[arg(long, env = "RZERO_PROFILE", value_name = "FILE")]
    profile: PathBuf,

    /// Replace one key first, for example solver.steps=2; may be repeated (in the environment: split by `;`)
    #[arg(long = "set", env = "RZERO_SET", value_name = "KEY=VALUE", value_delimiter = ';')]
    overrides: Vec<String>,

    /// Dotted keys, for example challenger.steps; also solver.updates and its like, the optimiser updates of a step, and judged.solver and its
    /// like, the iteration from which verdicts decide something in a phase, or -1
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
}

fn main() -> ExitCode {
    main_with(run)
}

fn run(args: &Args) -> anyhow::Result<()> {
    let name = args.profile.display();
    let text = std::fs::read_to_string(&args.profile).map_err(|error| {
        StageFailure::usage(format!("cannot read profile {name}: {error}")).hint("the profiles lie in pipelines/profiles")
    })?;
    let overrides: Vec<String> =
        args.overrides.iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect();
    let profile = parse_profile(&text, &overrides, None).with_context(|| format!("cannot use profile {name}"))?;
    let mut values = serde_json::json!(profile);
    // What follows from several keys and recipes need all the same.
    for role in Role::ALL {
        // A profile of two roles may have no section of the third.
        if let Some(section) = values.get_mut(role.as_str()) {
            section["updates"] = profile.num_updates(*role).into();
        }
    }
    for phase in Phase::ALL {
        let first = (0..=2).find(|iteration| profile.is_judged(*iteration, *phase));
        values["judged"][phase.as_str()] = first.map_or(-1, i64::from).into();
    }
    for key in &args.keys {
        let value = key.split('.').try_fold(&values, |at, part| at.get(part));
        match value {
            Some(Value::String(word)) => print_product(word),
            Some(value) => print_product(value),
            None => return Err(StageFailure::usage(format!("profile {name} has no key `{key}`")).into()),
        }
    }
    Ok(())
}
