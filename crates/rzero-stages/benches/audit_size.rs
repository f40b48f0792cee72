//! `audit` on a step of any size: wall time and peak memory, one line of JSON.
//!
//! `cargo bench --bench audit_size -- --folder DIR --questions 1000000`. The real stages first write a step of a few thousand questions with ten
//! answers each (`small`); its completions, token by token, are then repeated under the ids of as many questions as asked for (`large`), voted
//! on by the real `vote-label`, and audited: texts against tokens, questions against completions, every vote made again.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where it cannot go on")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use clap::Parser;
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::tables::{Challenge, Rollout};
use rzero_schema::vocab::{ChallengeStatus, Phase, Stage};
use rzero_stages::args::CommonArgs;
use rzero_stages::context::StageContext;
use rzero_stages::device::DeviceChoice;
use rzero_stages::frame::run_stage;
use rzero_stages::inputs::StageInputs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// As in the binaries.
#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

#[derive(Parser)]
struct Args {
    /// Where the runs lie, or are made
    #[arg(long, default_value = "data/runs/bench-audit")]
    folder: PathBuf,
    /// Questions of the large run, with ten answers each
    #[arg(long, default_value_t = 100_000)]
    questions: u64,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const PLACE: Place = Place::new(1, Phase::Challenger, 1);
const SMALL: u64 = 4000;

fn main() {
    let args = Args::parse();
    let (small, large) = (args.folder.join("small"), args.folder.join("large"));
    for binary in [env!("CARGO_BIN_EXE_challenge-gen"), env!("CARGO_BIN_EXE_solve-sample")] {
        stage(binary, &small, SMALL);
    }
    repeat(&small, &large, args.questions);
    stage(env!("CARGO_BIN_EXE_vote-label"), &large, args.questions);
    let started = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_audit")).arg(&large).current_dir(root()).stdout(Stdio::null()).spawn().unwrap();
    let peak = peak_bytes(child);
    let open = StageOutput::open(&RunLayout::new(std::path::absolute(&large).unwrap()), Stage::SolveSample, PLACE).unwrap();
    let line = serde_json::json!({
        "case": "audit",
        "seconds": started.elapsed().as_secs_f64(),
        "answers": open.num_rows::<Rollout>().unwrap(),
        "peak_bytes_of_all_processes": peak,
    });
    println!("{line}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn overrides(num_questions: u64) -> Vec<String> {
    vec![format!("challenger.num_questions={num_questions}"), "challenger.num_samples=10".to_owned()]
}

fn stage(binary: &str, run: &Path, num_questions: u64) {
    let mut command = Command::new(binary);
    command.args(["--iteration", "1", "--phase", "challenger", "--step", "1", "--quiet", "--profile"]);
    command.arg(root().join("pipelines/profiles/tiny.toml")).arg("--run").arg(run);
    for setting in overrides(num_questions) {
        command.arg("--set").arg(setting);
    }
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{binary} failed");
}

fn context(run: &Path, num_questions: u64, stage: Stage) -> StageContext {
    let common = CommonArgs {
        run: run.to_owned(),
        profile: Some(root().join("pipelines/profiles/tiny.toml")),
        overrides: overrides(num_questions),
        iteration: PLACE.iteration,
        phase: Some(PLACE.phase),
        step: Some(PLACE.step),
        shard_index: None,
        num_shards: 1,
        index_base: 0,
        mirrors: Default::default(),
        threads: None,
        device: DeviceChoice::Cpu,
        project_root: Some(root()),
        reuse: None,
        overwrite: false,
        dry_run: false,
        quiet: true,
        verbose: false,
    };
    StageContext::new(stage, &common, &[PLACE.phase]).unwrap()
}

/// Writes the rows of the small step again and again, each time under the next ids.
fn repeat(small: &Path, large: &Path, num_questions: u64) {
    let layout = RunLayout::new(std::path::absolute(small).unwrap());
    let written = StageOutput::open(&layout, Stage::ChallengeGen, PLACE).unwrap();
    let (completions, challenges) = (written.read::<Rollout>().unwrap(), written.read::<Challenge>().unwrap());
    let answers = StageOutput::open(&layout, Stage::SolveSample, PLACE).unwrap().read::<Rollout>().unwrap();
    let model = root().join("data/models/tiny");
    let prompts = root().join("pipelines/domains/arithmetic");
    // As many of a round as there are still questions, moved to where the round begins.
    let rounds = || (0..num_questions).step_by(SMALL as usize);
    let moved = |rows: &[Rollout], start: u64| -> Vec<Rollout> {
        let rows = rows.iter().filter(|row| start + row.row < num_questions);
        let moved = |row: &Rollout| {
            let at = start + row.row;
            Rollout { row: at, challenge_id: PLACE.challenge_id(at).to_string(), ..row.clone() }
        };
        rows.map(moved).collect()
    };

    let generate = context(large, num_questions, Stage::ChallengeGen);
    let inputs = StageInputs::new(&generate)
        .with_checkpoint("challenger", &model)
        .with_file("challenger prompt", &prompts.join("challenger.jinja"));
    run_stage(&generate, inputs, |_, outputs| {
        let (mut rollouts, mut read) = (outputs.table_writer::<Rollout>()?, outputs.table_writer::<Challenge>()?);
        let mut counts = vec![0; ChallengeStatus::ALL.len()];
        for start in rounds() {
            let completions = moved(&completions, start);
            let named = |(challenge, completion): (&Challenge, &Rollout)| {
                let Rollout { row, challenge_id, .. } = completion;
                Challenge { row: *row, challenge_id: challenge_id.clone(), ..challenge.clone() }
            };
            let challenges: Vec<Challenge> = challenges.iter().zip(&completions).map(named).collect();
            for (count, status) in counts.iter_mut().zip(ChallengeStatus::ALL) {
                *count += challenges.iter().filter(|challenge| challenge.challenge_status == status.as_str()).count() as u64;
            }
            rollouts.write(&completions)?;
            read.write(&challenges)?;
        }
        counts.into_iter().zip(ChallengeStatus::ALL).for_each(|(count, status)| outputs.count(status.as_str(), count));
        outputs.finish_table(rollouts)?;
        outputs.finish_table(read)
    })
    .unwrap();

    let solve = context(large, num_questions, Stage::SolveSample);
    let inputs = StageInputs::new(&solve)
        .with_checkpoint("solver", &model)
        .with_file("solver prompt", &prompts.join("solver.jinja"))
        .with_stage(Stage::ChallengeGen);
    run_stage(&solve, inputs, |_, outputs| {
        let mut writer = outputs.table_writer::<Rollout>()?;
        let (mut num_truncated, mut num_tokens) = (0, 0);
        for start in rounds() {
            let answers = moved(&answers, start);
            num_truncated += answers.iter().filter(|answer| answer.finish_reason == "length").count() as u64;
            num_tokens += answers.iter().map(|answer| answer.completion_tokens.len() as u64).sum::<u64>();
            writer.write(&answers)?;
        }
        outputs.count("truncated", num_truncated);
        outputs.metric("num_completion_tokens", num_tokens as f64);
        outputs.finish_table(writer)
    })
    .unwrap();
}

/// Waits for a process that must succeed; the most memory that it and its children held, at any of the moments looked at.
fn peak_bytes(mut child: Child) -> u64 {
    let id = child.id();
    let mut peak = 0;
    loop {
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        peak = peak.max(std::iter::once(id).chain(children).map(resident_bytes).sum());
        if let Some(code) = child.try_wait().unwrap() {
            assert!(code.success(), "the audit failed: {code}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}
