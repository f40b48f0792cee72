//! `vote-label` and `filter` as processes on runs of any size: wall time, peak memory, one line of JSON a case.
//!
//! `cargo bench --bench table_stages -- --folder DIR --rows 10000000`. Makes two runs under the folder unless they are there: `votes`, where
//! questions have ten answers each and all answers together are the rows, and `candidates`, where the rows are questions with a label.
//! Then it runs the binaries on them. `pipelines/bench/tables_peer.py` does the same work from the same files with DuckDB and polars.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where it cannot go on")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use clap::Parser;
use rayon::prelude::*;
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::table::Table;
use rzero_schema::tables::{Challenge, Label, Rollout};
use rzero_schema::vocab::{AnswerStatus, ChallengeStatus, FinishReason, Phase, Role, Stage};
use rzero_stages::args::CommonArgs;
use rzero_stages::context::StageContext;
use rzero_stages::device::DeviceChoice;
use rzero_stages::frame::run_stage;
use rzero_stages::inputs::StageInputs;
use rzero_stages::outputs::StageOutputs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// As in the binaries.
#[global_allocator]
static ALLOCATOR: rzero_stages::MiMalloc = rzero_stages::MiMalloc;

#[derive(Parser)]
struct Args {
    /// Where the runs lie, or are made
    #[arg(long, default_value = "data/runs/bench-tables")]
    folder: PathBuf,
    /// Rows of each run
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Answers to a question
    #[arg(long, default_value_t = 10)]
    samples: u32,
    /// Threads of the stages
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How often each stage runs
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Which stage: vote-label or filter; left out, both
    #[arg(long)]
    only: Option<String>,
    /// Make the runs and go no further
    #[arg(long)]
    make: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const PLACE: Place = Place::new(1, Phase::Curriculum, 0);

fn main() {
    let args = Args::parse();
    let cases = [
        ("vote-label", "votes", env!("CARGO_BIN_EXE_vote-label"), Stage::VoteLabel),
        ("filter", "candidates", env!("CARGO_BIN_EXE_filter"), Stage::Filter),
    ];
    for (name, folder, binary, stage) in cases {
        if args.only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let run = args.folder.join(folder);
        match stage {
            Stage::VoteLabel => make_votes(&args, &run),
            _ => make_candidates(&args, &run),
        }
        if !args.make {
            measure(&args, name, binary, stage, &run);
        }
    }
}

/// Runs a stage so often, and prints the median of the seconds.
fn measure(args: &Args, name: &str, binary: &str, stage: Stage, run: &Path) {
    let layout = RunLayout::new(std::path::absolute(run).unwrap());
    let output = layout.stage_folder(stage, PLACE);
    let open = |stage| StageOutput::open(&layout, stage, PLACE).unwrap();
    let num_rows = match stage {
        Stage::VoteLabel => open(Stage::SolveSample).num_rows::<Rollout>().unwrap(),
        _ => open(Stage::ChallengeGen).num_rows::<Challenge>().unwrap(),
    };
    let (mut seconds, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..args.repeat {
        if output.exists() {
            std::fs::remove_dir_all(&output).unwrap();
        }
        let started = Instant::now();
        let child = Command::new(binary)
            .env("POLARS_MAX_THREADS", args.threads.to_string())
            .args(["--iteration", "1", "--phase", "curriculum", "--quiet", "--threads"])
            .arg(args.threads.to_string())
            .arg("--run")
            .arg(run)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        peaks.push(peak_bytes(child));
        seconds.push(started.elapsed().as_secs_f64());
    }
    let median = {
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let line = serde_json::json!({
        "case": format!("{name} {}", short(args.rows)),
        "name": "rzero",
        "seconds": median,
        "runs": seconds,
        "rows": num_rows,
        "peak_bytes": peaks.iter().max(),
        "threads": args.threads,
    });
    println!("{line}");
}

/// Waits for a process; the most memory it held, as the system told a moment before it ended.
fn peak_bytes(mut child: Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(found) = std::fs::read_to_string(&status).ok().as_deref().and_then(high_water_mark) {
            peak = peak.max(found);
        }
        if let Some(code) = child.try_wait().unwrap() {
            assert!(code.success(), "the stage failed: {code}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn short(number: u64) -> String {
    match number {
        number if number.is_multiple_of(1_000_000) => format!("{}M", number / 1_000_000),
        number if number.is_multiple_of(1_000) => format!("{}k", number / 1_000),
        number => number.to_string(),
    }
}

fn context(args: &Args, run: &Path, stage: Stage) -> StageContext {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let common = CommonArgs {
        run: run.to_owned(),
        profile: Some(root.join("pipelines/profiles/tiny.toml")),
        overrides: vec![format!("curriculum.num_samples={}", args.samples)],
        iteration: PLACE.iteration,
        phase: Some(PLACE.phase),
        step: None,
        shard_index: None,
        num_shards: 1,
        index_base: 0,
        mirrors: Default::default(),
        threads: Some(args.threads),
        device: DeviceChoice::Cpu,
        project_root: Some(root),
        reuse: None,
        overwrite: false,
        dry_run: false,
        quiet: true,
        verbose: false,
    };
    StageContext::new(stage, &common, &[PLACE.phase]).unwrap()
}

fn make_votes(args: &Args, run: &Path) {
    // So many more as are malformed.
    let num_questions = args.rows * 50 / 49 / u64::from(args.samples);
    let generate = context(args, run, Stage::ChallengeGen);
    run_stage(&generate, StageInputs::new(&generate), |_, outputs| write(outputs, num_questions, |row| [challenge(row)]))
        .unwrap();
    let solve = context(args, run, Stage::SolveSample);
    let inputs = StageInputs::new(&solve).with_stage(Stage::ChallengeGen);
    let samples = args.samples;
    run_stage(&solve, inputs, |_, outputs| {
        write(outputs, num_questions, |row| {
            (0..if is_question(row) { samples } else { 0 }).map(move |sample| rollout(row, sample))
        })
    })
    .unwrap();
}

fn make_candidates(args: &Args, run: &Path) {
    let generate = context(args, run, Stage::ChallengeGen);
    run_stage(&generate, StageInputs::new(&generate), |_, outputs| write(outputs, args.rows, |row| [challenge(row)])).unwrap();
    let vote = context(args, run, Stage::VoteLabel);
    let inputs = StageInputs::new(&vote).with_stage(Stage::ChallengeGen);
    let samples = args.samples;
    run_stage(&vote, inputs, |_, outputs| write(outputs, args.rows, |row| is_question(row).then(|| label(row, samples))))
        .unwrap();
}

/// Writes a table whose rows are made side by side.
fn write<T: Table, R: IntoIterator<Item = T>>(
    outputs: &mut StageOutputs<'_>,
    num: u64,
    make: impl Fn(u64) -> R + Sync,
) -> anyhow::Result<()> {
    const AT_ONCE: u64 = 1024;
    let mut writer = outputs.table_writer::<T>()?;
    for start in (0..num).step_by(32 * AT_ONCE as usize) {
        let part = start..num.min(start + 32 * AT_ONCE);
        let pieces: Vec<Range<u64>> =
            part.clone().step_by(AT_ONCE as usize).map(|start| start..part.end.min(start + AT_ONCE)).collect();
        let batches: Vec<_> = pieces.into_par_iter().map(|rows| T::to_batch(&rows.flat_map(&make).collect::<Vec<T>>())).collect();
        batches.iter().try_for_each(|batch| writer.write_columns(batch))?;
    }
    outputs.finish_table(writer)
}

/// Numbers that look random and follow from row and purpose.
fn mixed(row: u64, purpose: u64) -> u64 {
    let mut state = row.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ purpose.wrapping_mul(0xD1B5_4A32_D192_ED03);
    for factor in [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB] {
        state = (state ^ (state >> 30)).wrapping_mul(factor);
    }
    state ^ (state >> 31)
}

/// One completion in fifty is no question.
fn is_question(row: u64) -> bool {
    !mixed(row, 1).is_multiple_of(50)
}

/// The numbers of a question. One question in twenty repeats an earlier one.
fn numbers(row: u64) -> [u64; 3] {
    let row = if mixed(row, 2).is_multiple_of(20) { mixed(row, 3) % (row + 1) } else { row };
    [mixed(row, 4) % 1000, mixed(row, 5) % 1000, mixed(row, 6) % 10_000]
}

fn challenge(row: u64) -> Challenge {
    let [a, b, c] = numbers(row);
    let is_ok = is_question(row);
    let status = if is_ok { ChallengeStatus::Ok } else { ChallengeStatus::NoQuestion };
    Challenge {
        challenge_id: PLACE.challenge_id(row).to_string(),
        row,
        challenge_status: status.to_string(),
        question: is_ok.then(|| format!("What is {a} times {b}, less {c}?")),
        proposed_answer: is_ok.then(|| (a * b).to_string()),
    }
}

/// The answers that a question is given: mostly one, the others near it. A fraction where the question has a remainder.
fn answer(row: u64, sample: u32) -> String {
    let [a, b, c] = numbers(row);
    let draw = mixed(row * 1024 + u64::from(sample), 7) % 100;
    // How sure the Solver is of this question, in per cent.
    let sure = 5 + mixed(row, 8) % 95;
    let value = (a * b) as i64 - c as i64 + if draw < sure { 0 } else { 1 + (draw % 4) as i64 };
    if mixed(row, 9).is_multiple_of(16) { format!("{}/7", 7 * value + 1) } else { value.to_string() }
}

fn rollout(row: u64, sample: u32) -> Rollout {
    let [a, b, c] = numbers(row);
    let draw = mixed(row * 1024 + u64::from(sample), 10) % 100;
    let value = answer(row, sample);
    let completion = match draw {
        0 => format!("{a} times {b} is {}, and I do not know how to go on.", a * b),
        1 => format!("{a} times {b} is {}. Less {c}, that is \\boxed{{{value}", a * b),
        _ => format!("{a} times {b} is {}. Less {c}, that is \\boxed{{{value}}}.", a * b),
    };
    let finish = if draw == 2 { FinishReason::Length } else { FinishReason::Stop };
    let token = |at: u64| (mixed(row * 1024 + u64::from(sample), 11 + at) % 4096) as u32;
    let logprob = |at: u64| -(mixed(row * 1024 + u64::from(sample), 31 + at) as f32 / u64::MAX as f32);
    Rollout {
        challenge_id: PLACE.challenge_id(row).to_string(),
        row,
        sample,
        role: Role::Solver.to_string(),
        prompt_tokens: (0..4).map(token).collect(),
        completion_tokens: (4..12).map(token).collect(),
        policy_logprobs: (0..8).map(logprob).collect(),
        sampler_logprobs: (0..8).map(logprob).collect(),
        entropy: Some(0.5),
        self_certainty: Some(2.0),
        finish_reason: finish.to_string(),
        completion,
        is_valid_utf8: true,
    }
}

fn label(row: u64, num_samples: u32) -> Label {
    let [a, b, c] = numbers(row);
    let num_agreeing = (mixed(row, 12) % u64::from(num_samples + 1)) as u32;
    let num_others = num_samples - num_agreeing;
    let first = (a * b) as i64 - c as i64;
    let mut classes = vec![(first.to_string(), num_agreeing), ((first + 1).to_string(), num_others / 2)];
    classes.retain(|class| class.1 > 0);
    classes.sort_by_key(|class| std::cmp::Reverse(class.1));
    let second = classes.get(1).map_or(0, |class| class.1);
    let first = classes.first().map_or(0, |class| class.1);
    let num_parsed = first + second;
    let class_of = |sample: u32| {
        if sample < first {
            0
        } else if sample < num_parsed {
            1
        } else {
            -1
        }
    };
    let status_of = |sample: u32| if sample < num_parsed { AnswerStatus::Parsed } else { AnswerStatus::NoBox };
    Label {
        challenge_id: PLACE.challenge_id(row).to_string(),
        row,
        question: format!("What is {a} times {b}, less {c}?"),
        pseudo_label: classes.first().map(|class| class.0.clone()),
        vote_share: f64::from(first) / f64::from(num_samples),
        margin: f64::from(first.saturating_sub(second)) / f64::from(num_samples),
        vote_entropy: f64::from(second) / f64::from(num_samples),
        num_samples,
        num_parsed,
        num_truncated: 0,
        class_answers: classes.iter().map(|class| class.0.clone()).collect(),
        class_counts: classes.iter().map(|class| class.1).collect(),
        sample_statuses: (0..num_samples).map(|sample| status_of(sample).to_string()).collect(),
        sample_classes: (0..num_samples).map(class_of).collect(),
        class_weights: classes.iter().map(|class| f64::from(class.1)).collect(),
        is_agreed: None,
        score: None,
    }
}
