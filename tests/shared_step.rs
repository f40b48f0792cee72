//! A training step shared among processes: by any number of them the bytes of one, and nothing wrong is added up in silence.

use crate::just::just;
use crate::whole_run::{assert_same_files, finish, lasting_files};
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::tables::GradientSum;
use rzero_schema::vocab::{Phase, Stage};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Steps of three or two updates, each of several micro-batches, in up to eight parts.
const CUT: &str = "challenger.grpo.update_batch=5;challenger.grpo.micro_batch_tokens=32;challenger.grpo.gradient_parts=8;\
solver.grpo.update_batch=12;solver.grpo.micro_batch_tokens=96;solver.grpo.gradient_parts=8";

/// Adapters of a model whose checkpoints are rounded: more is trained than a checkpoint holds.
const ADAPTERS: &str = "model.float=bf16;challenger.grpo.lora.rank=4;solver.grpo.lora.rank=4;solver.grpo.weight_ema=0.5;\
challenger.grpo.lora.targets=['q_proj', 'down_proj'];solver.grpo.lora.targets=['q_proj', 'down_proj']";

fn smoke(run: &Path, gradients: u32, set: &str) -> Command {
    let mut command = just();
    command.arg("profile=smoke").arg(format!("set={set}")).arg(format!("run={}", run.display()));
    command.arg(format!("gradients={gradients}")).arg("threads=2").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn run_of(folder: &tempfile::TempDir, gradients: u32, set: &str) -> PathBuf {
    let run = folder.path().join(format!("gradients-{gradients}"));
    let mut command = smoke(&run, gradients, set);
    command.args(["loop", "1"]);
    finish(command);
    run
}

#[test]
fn any_number_of_processes_leave_the_bytes_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let expected = lasting_files(&run_of(&folder, 0, CUT));
    for gradients in [1, 2, 8] {
        let run = run_of(&folder, gradients, CUT);
        assert_same_files(&lasting_files(&run), &expected, &format!("{gradients} processes share a gradient"));
    }
    // A run that was shared is complete for one that is not.
    let run = folder.path().join("gradients-2");
    let mut command = smoke(&run, 0, CUT);
    command.args(["loop", "1"]);
    let output = command.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing to do"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn adapters_and_rounded_checkpoints_are_shared_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let set = format!("{CUT};{ADAPTERS}");
    let expected = lasting_files(&run_of(&folder, 0, &set));
    assert_same_files(&lasting_files(&run_of(&folder, 3, &set)), &expected, "three processes share adapters");
    let bf16 = format!("{CUT};model.float=bf16");
    let expected = lasting_files(&run_of(&tempfile::tempdir().unwrap(), 0, &bf16));
    let folder = tempfile::tempdir().unwrap();
    assert_same_files(&lasting_files(&run_of(&folder, 3, &bf16)), &expected, "three processes share 16-bit weights");
}

/// What a stage of the first Challenger step prints, with its exit code.
fn stage(run: &Path, name: &str, flags: &str) -> (Option<i32>, String) {
    let binary = match name {
        "grpo-step" => env!("CARGO_BIN_EXE_grpo-step"),
        "grpo-gradient" => env!("CARGO_BIN_EXE_grpo-gradient"),
        other => panic!("{other} is not run here"),
    };
    let output = Command::new(binary)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .env("RUST_LOG", "info")
        .env("RZERO_RUN", run)
        .args(["--iteration", "1", "--phase", "challenger", "--step", "1", "--threads", "2"])
        .args(flags.split_whitespace())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

#[test]
fn parts_that_are_missing_damaged_or_of_something_else_are_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    for stage in ["challenge-gen", "solve-sample", "vote-label"] {
        let mut command = smoke(&run, 0, CUT);
        command.args([stage, "1", "challenger", "1"]);
        finish(command);
    }
    let told = |name: &str, flags: &str, code: i32, words: &[&str]| {
        let (found, text) = stage(&run, name, flags);
        assert_eq!(found, Some(code), "{name} {flags}: {text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{name} {flags}: `{word}` is not in: {text}"));
    };
    let place = Place::new(1, Phase::Challenger, 1);
    told("grpo-gradient", "", 2, &["has 3 updates", "--update"]);
    told("grpo-gradient", "--update 4", 2, &["update 4", "update_batch"]);
    told("grpo-step", "--update 1", 2, &["--from-gradients"]);
    told("grpo-step", "--from-gradients --update 1", 3, &["grpo-gradient", "--update 1"]);
    // One of two shards alone, then with the other.
    told("grpo-gradient", "--update 1 --num-shards 2 --shard-index 1", 0, &[]);
    told("grpo-step", "--from-gradients --update 1", 3, &["shard", "grpo-gradient", "--num-shards 2"]);
    told("grpo-gradient", "--update 1 --num-shards 2 --shard-index 0", 0, &[]);
    // The second update begins where the first ends.
    told("grpo-gradient", "--update 2", 3, &["grpo-step", "--update 1", "--from-gradients"]);

    let layout = RunLayout::new(&run);
    let output = StageOutput::open(&layout, Stage::GrpoGradient, place.at_update(1)).unwrap();
    let rows = output.read::<GradientSum>().unwrap();
    assert!(rows.len() > 2 && rows.iter().all(|row| row.update == 1 && row.num_tokens > 0), "{rows:?}");
    // With fewer micro-batches than parts, some parts are empty. The first that is not is the first shard's.
    assert!(rows[0].part < 4, "{rows:?}");
    let name = format!("part-{:05}-of-00008.safetensors", rows[0].part);
    let part = layout.stage_folder(Stage::GrpoGradient, place.at_update(1)).join(&name);
    let whole = std::fs::read(&part).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&part, &flipped).unwrap();
    told("grpo-step", "--from-gradients --update 1", 3, &[&name]);
    std::fs::write(&part, &whole[..whole.len() - 4]).unwrap();
    told("grpo-step", "--from-gradients --update 1", 3, &[&name]);
    // A cut file is no whole output: the same command mends it.
    told("grpo-gradient", "--update 1 --num-shards 2 --shard-index 0", 0, &["made anew"]);
    assert!(std::fs::read(&part).unwrap() == whole);
    told("grpo-step", "--from-gradients --update 1 --drop-gradients", 0, &["update-01"]);
    assert!(!part.exists() && layout.update_state(place.at_update(1)).exists());
    // Its parts are gone, and nobody asks for them again.
    told("grpo-gradient", "--update 1 --num-shards 2 --shard-index 0", 0, &["used already"]);
    assert!(!part.exists());
}
