//! The path of an accelerator through the real binaries, on `--device candle-cpu`: it samples and trains as the CPU's own path does,
//! but for rounding. What needs an accelerator is not tested anywhere yet.

use rzero_io::layout::{RunLayout, Shard};
use rzero_io::manifest::read_manifest;
use rzero_io::set::StageOutput;
use rzero_model::Weights;
use rzero_schema::ids::Place;
use rzero_schema::tables::{Rollout, TrainMetrics};
use rzero_schema::vocab::{Phase, Stage};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PLACE: Place = Place::new(1, Phase::Challenger, 1);

fn stage(program: &str, run: &Path, device: &str) -> Output {
    Command::new(program)
        .current_dir(ROOT)
        .env_clear()
        .args(["--run", run.to_str().unwrap(), "--profile", "pipelines/profiles/smoke.toml", "--threads", "2"])
        .args(["--iteration", "1", "--phase", "challenger", "--step", "1", "--device", device])
        .output()
        .unwrap()
}

fn succeed(program: &str, run: &Path, device: &str) {
    let output = stage(program, run, device);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn copy(from: &Path, to: PathBuf) -> PathBuf {
    let status = Command::new("cp").arg("-r").args([from, &to]).status().unwrap();
    assert!(status.success());
    to
}

fn device_of(run: &Path, stage: Stage) -> String {
    let path = RunLayout::new(run).manifest(stage, PLACE, Shard::WHOLE);
    read_manifest(&path).unwrap().device
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_step_on_a_device_is_the_cpus_but_for_rounding() {
    let folder = tempfile::tempdir().unwrap();
    let on_cpu = folder.path().join("cpu");
    succeed(env!("CARGO_BIN_EXE_challenge-gen"), &on_cpu, "cpu");

    let sampled = copy(&on_cpu, folder.path().join("sampled"));
    succeed(env!("CARGO_BIN_EXE_solve-sample"), &on_cpu, "cpu");
    succeed(env!("CARGO_BIN_EXE_solve-sample"), &sampled, "candle-cpu");
    assert_eq!(device_of(&sampled, Stage::SolveSample), "candle-cpu:f32");
    let rollouts = |run: &Path| -> Vec<Rollout> {
        StageOutput::open(&RunLayout::new(run), Stage::SolveSample, PLACE).unwrap().read().unwrap()
    };
    let (expected, actual) = (rollouts(&on_cpu), rollouts(&sampled));
    assert!(expected.len() >= 20 && actual.len() == expected.len());
    let pairs = actual.iter().zip(&expected).filter(|(actual, expected)| actual.completion_tokens == expected.completion_tokens);
    let mut num_equal = 0;
    for (actual, expected) in pairs {
        num_equal += 1;
        assert!(largest_difference(&actual.policy_logprobs, &expected.policy_logprobs) < 1e-4);
    }
    // A draw at the very edge of two tokens may fall to the other side.
    assert!(num_equal * 10 >= expected.len() * 9, "only {num_equal} of {} completions are the same", expected.len());

    // A stage without a model leaves the flag alone.
    succeed(env!("CARGO_BIN_EXE_vote-label"), &on_cpu, "candle-cpu");
    assert_eq!(device_of(&on_cpu, Stage::VoteLabel), "cpu");

    let trained = copy(&on_cpu, folder.path().join("trained"));
    succeed(env!("CARGO_BIN_EXE_grpo-step"), &on_cpu, "cpu");
    succeed(env!("CARGO_BIN_EXE_grpo-step"), &trained, "candle-cpu");
    assert_eq!(device_of(&trained, Stage::GrpoStep), "candle-cpu:f32");
    let metrics = |run: &Path| -> TrainMetrics {
        StageOutput::open(&RunLayout::new(run), Stage::GrpoStep, PLACE).unwrap().read().unwrap().remove(0)
    };
    let (expected, actual) = (metrics(&on_cpu), metrics(&trained));
    for (name, actual, expected) in [
        ("loss", actual.loss, expected.loss),
        ("kl_reference", actual.kl_reference, expected.kl_reference),
        ("entropy", actual.entropy, expected.entropy),
        ("gradient_norm", actual.gradient_norm, expected.gradient_norm),
    ] {
        assert!((actual - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{name}: {actual} instead of {expected}");
    }
    let checkpoint = |run: &Path| Weights::read(&RunLayout::new(run).step_checkpoint(PLACE)).unwrap().values;
    let base = Weights::read(&Path::new(ROOT).join("data/models/tiny")).unwrap().values;
    let (expected, actual) = (checkpoint(&on_cpu), checkpoint(&trained));
    let step = largest_difference(&expected, &base);
    assert!(step > 1e-5, "the step moved nothing");
    // AdamW's first step moves every weight by the learning rate whatever its gradient's size; one that is zero but for rounding may
    // go the other way.
    let num_apart = actual.iter().zip(&expected).filter(|(a, b)| (**a - **b).abs() > 0.05 * step).count();
    assert!(num_apart * 100 < expected.len(), "{num_apart} of {} weights were moved elsewhere", expected.len());
}

#[test]
fn a_device_that_this_build_or_machine_does_not_have_is_a_usage_error_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    for device in ["cuda", "cuda:7:bf16", "gpu"] {
        let output = stage(env!("CARGO_BIN_EXE_challenge-gen"), &folder.path().join("run"), device);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if device == "gpu" || !cfg!(feature = "cuda") {
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(if device == "gpu" { "expected cpu" } else { "--features cuda" }), "{text}");
        }
    }
    let help = Command::new(env!("CARGO_BIN_EXE_challenge-gen")).env_clear().arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("cuda:N") && !help.contains("candle"), "{help}");
}
