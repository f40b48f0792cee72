//! A run in a temporary folder whose model stages are played by the test, and the real binaries for the data stages.

#![allow(dead_code, clippy::unwrap_used, reason = "a test stops where it cannot go on, and each test file uses its own part")]

#[cfg(feature = "fetch")]
pub(crate) mod server;

use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::table::Table;
use rzero_schema::tables::{Challenge, Rollout};
use rzero_schema::vocab::{Phase, Role, Stage};
use rzero_stages::args::CommonArgs;
use rzero_stages::context::StageContext;
use rzero_stages::frame::run_stage;
use rzero_stages::inputs::StageInputs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The curriculum of iteration 1.
pub(crate) const CURRICULUM: Place = Place::new(1, Phase::Curriculum, 0);

/// Every variable that the binaries read.
const ENVIRONMENT: [&str; 23] = [
    "RZERO_RUN",
    "RZERO_PROFILE",
    "RZERO_SET",
    "RZERO_THREADS",
    "RZERO_DEVICE",
    "RZERO_ROOT",
    "RZERO_LOG",
    "RZERO_INDEX_BASE",
    "SHARD_INDEX",
    "NUM_SHARDS",
    "SLURM_JOB_ID",
    "RUST_LOG",
    "RZERO_JUDGE_KEY",
    "RZERO_SERVER_KEY",
    "RZERO_BACKEND",
    "RZERO_URL",
    "RZERO_SERVED_MODEL",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// A run and its profile.
pub(crate) struct Run {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) layout: RunLayout,
}

/// A question with the completions that answer it; no question is a malformed one.
pub(crate) type Case<'a> = (Option<&'a str>, Vec<&'a str>);

impl Run {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = RunLayout::new(folder.path().join("run"));
        std::fs::write(folder.path().join("profile.toml"), include_str!("profile.toml")).unwrap();
        Self { folder, layout }
    }

    pub(crate) fn profile(&self) -> PathBuf {
        self.folder.path().join("profile.toml")
    }

    /// Flags as a stage at `place` would be given.
    pub(crate) fn args(&self, place: Place, shard_index: u32, num_shards: u32) -> CommonArgs {
        CommonArgs {
            run: self.layout.root().to_owned(),
            profile: Some(self.profile()),
            overrides: Vec::new(),
            iteration: place.iteration,
            phase: Some(place.phase),
            step: (place.step > 0).then_some(place.step),
            shard_index: Some(shard_index),
            num_shards,
            index_base: 0,
            mirrors: Default::default(),
            threads: Some(2),
            device: rzero_stages::device::DeviceChoice::Cpu,
            project_root: Some(self.folder.path().to_owned()),
            reuse: None,
            overwrite: false,
            dry_run: false,
            quiet: true,
            verbose: false,
        }
    }

    /// Plays challenge-gen and solve-sample: each case is a row.
    pub(crate) fn play(&self, place: Place, cases: &[Case<'_>]) {
        let challenges: Vec<Challenge> = (0..).zip(cases).map(|(row, (question, _))| challenge(place, row, *question)).collect();
        self.play_table(Stage::ChallengeGen, place, &challenges);
        self.play_answers(place, cases);
    }

    /// Plays solve-sample alone.
    pub(crate) fn play_answers(&self, place: Place, cases: &[Case<'_>]) {
        let rollouts: Vec<Rollout> = (0..)
            .zip(cases)
            .flat_map(|(row, (_, completions))| {
                (0..).zip(completions).map(move |(sample, text)| rollout(place, row, sample, text))
            })
            .collect();
        self.play_table(Stage::SolveSample, place, &rollouts);
    }

    /// Plays a stage that writes these rows.
    pub(crate) fn play_table<T: Table>(&self, stage: Stage, place: Place, rows: &[T]) {
        let context = StageContext::new(stage, &self.args(place, 0, 1), &[place.phase]).unwrap();
        let mut inputs = StageInputs::new(&context);
        if stage != Stage::ChallengeGen {
            inputs = inputs.with_stage(Stage::ChallengeGen);
        }
        run_stage(&context, inputs, |_, outputs| outputs.write_table(rows)).unwrap();
    }

    /// Runs a binary on this run with an empty environment of ours.
    pub(crate) fn command(&self, stage: Stage, arguments: &str) -> Output {
        self.command_with(stage, arguments, &[])
    }

    /// The same with these variables set.
    pub(crate) fn command_with(&self, stage: Stage, arguments: &str, variables: &[(&str, &str)]) -> Output {
        let binary = match stage {
            Stage::VoteLabel => env!("CARGO_BIN_EXE_vote-label"),
            Stage::Filter => env!("CARGO_BIN_EXE_filter"),
            Stage::LabelProbe => env!("CARGO_BIN_EXE_label-probe"),
            #[cfg(feature = "fetch")]
            Stage::Judge => env!("CARGO_BIN_EXE_judge"),
            other => panic!("{other} is played, not run"),
        };
        let mut command = Command::new(binary);
        for variable in ENVIRONMENT {
            command.env_remove(variable);
        }
        command
            .current_dir(self.folder.path())
            .envs(variables.iter().copied())
            .args(["--run", "run", "--threads", "2"])
            .args(arguments.split_whitespace())
            .output()
            .unwrap()
    }

    pub(crate) fn open(&self, stage: Stage, place: Place) -> StageOutput {
        StageOutput::open(&self.layout, stage, place).unwrap()
    }
}

/// What a process printed, with the exit code in front.
pub(crate) fn told(output: &Output) -> String {
    let code = output.status.code().map_or_else(|| "signal".to_owned(), |code| code.to_string());
    format!("exit {code}\n{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn challenge(place: Place, row: u64, question: Option<&str>) -> Challenge {
    Challenge {
        challenge_id: place.challenge_id(row).to_string(),
        row,
        challenge_status: if question.is_some() { "ok" } else { "no_question" }.to_owned(),
        question: question.map(str::to_owned),
        proposed_answer: None,
    }
}

pub(crate) fn rollout(place: Place, row: u64, sample: u32, text: &str) -> Rollout {
    let (completion, finish_reason) = text.strip_suffix('…').map_or((text, "stop"), |cut| (cut, "length"));
    Rollout {
        challenge_id: place.challenge_id(row).to_string(),
        row,
        sample,
        role: Role::Solver.to_string(),
        prompt_tokens: vec![1],
        completion_tokens: vec![2],
        policy_logprobs: vec![-0.5],
        sampler_logprobs: vec![-0.5],
        entropy: None,
        self_certainty: None,
        finish_reason: finish_reason.to_owned(),
        completion: completion.to_owned(),
        is_valid_utf8: !completion.contains('\u{fffd}'),
    }
}
