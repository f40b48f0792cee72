//! Laws of a whole run on the `smoke` profile: killed or not, in one shard or three, on one thread or two, the same bytes.
//!
//! A run is made as a user makes it, by `just loop`. Manifests and `step_timings` hold clock readings and are left out.

use crate::just::just;
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::table::Table;
use rzero_schema::tables::{Challenge, EvalResult, Label, Rollout};
use rzero_schema::vocab::{Phase, Stage};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

fn smoke(run: &Path, shards: u32, threads: u32) -> Command {
    let mut command = just();
    command.arg("profile=smoke").arg(format!("run={}", run.display())).arg(format!("shards={shards}"));
    command.arg(format!("threads={threads}")).args(["loop", "1"]).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

pub(crate) fn finish(mut command: Command) {
    let output = command.output().expect("just is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every file of a run that two equal runs share, with its bytes.
pub(crate) fn lasting_files(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![run.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.starts_with("manifest-") && !name.starts_with("step_timings-") {
                files.insert(path.strip_prefix(run).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// An undisturbed run in one shard on one thread, made once.
fn undisturbed() -> &'static (tempfile::TempDir, BTreeMap<PathBuf, Vec<u8>>) {
    static RUN: OnceLock<(tempfile::TempDir, BTreeMap<PathBuf, Vec<u8>>)> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        finish(smoke(&run, 1, 1));
        let files = lasting_files(&run);
        (folder, files)
    })
}

pub(crate) fn assert_same_files(actual: &BTreeMap<PathBuf, Vec<u8>>, expected: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    let only_in = |left: &BTreeMap<PathBuf, Vec<u8>>, right: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<PathBuf> {
        left.keys().filter(|path| !right.contains_key(*path)).cloned().collect()
    };
    assert_eq!((only_in(actual, expected), only_in(expected, actual)), (vec![], vec![]), "{what}");
    for (path, bytes) in actual {
        assert!(*bytes == expected[path], "{what}: {} differs", path.display());
    }
}

#[test]
fn a_run_killed_at_ten_random_moments_ends_with_the_bytes_of_an_undisturbed_one() {
    let (_, expected) = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let seed = u64::from(std::process::id());
    let mut state = seed;
    let mut num_killed = 0;
    for _ in 0..10 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = smoke(&run, 1, 2).process_group(0).spawn().expect("just is installed");
        sleep(Duration::from_millis(20 + (state >> 33) % 380));
        // The whole group at once: the recipe, its shell and the stage that is at work.
        let is_sent = Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status().unwrap().success();
        let status = child.wait().unwrap();
        num_killed += u32::from(is_sent && !status.success());
    }
    assert!(num_killed >= 3, "seed {seed}: only {num_killed} runs were still at work when they were killed");
    let output = smoke(&run, 1, 2).output().expect("just is installed");
    assert!(output.status.success(), "killed by seed {seed}: {}", String::from_utf8_lossy(&output.stderr));
    assert_same_files(&lasting_files(&run), expected, &format!("killed by seed {seed}"));
}

#[test]
fn a_finished_run_is_left_alone_and_another_seed_or_profile_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    finish(smoke(&run, 1, 2));
    let manifests = |run: &Path| {
        let place = Place::new(1, Phase::Solver, 2);
        std::fs::read(RunLayout::new(run).manifest(Stage::GrpoStep, place, rzero_io::layout::Shard::WHOLE)).unwrap()
    };
    let before = manifests(&run);
    let output = smoke(&run, 1, 2).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.contains("nothing to do"), "{text}");
    assert_eq!(manifests(&run), before);
    for other in ["set=seed=8", "profile=tiny"] {
        let mut command = just();
        command.args(["profile=smoke", other]).arg(format!("run={}", run.display())).args(["loop", "1"]);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{text}");
        assert!(text.contains("hint:"), "{text}");
    }
}

#[test]
fn a_loop_whose_labels_are_too_often_false_stops_and_goes_on_with_a_lower_floor() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let with = |floor: &str| {
        let mut command = smoke(&run, 1, 2);
        // `set` is a variable of the recipes, and those stand before the recipe's name.
        let arguments: Vec<std::ffi::OsString> = command.get_args().map(ToOwned::to_owned).collect();
        let mut changed = just();
        changed.arg(format!("set=probe.floor={floor}")).args(&arguments[1..]).stdout(Stdio::null());
        command = changed;
        let output = command.output().expect("just is installed");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let solver = RunLayout::new(&run).phase_folder(1, Phase::Solver);
    for _ in 0..2 {
        let (code, text) = with("0.99");
        assert_eq!(code, Some(5), "{text}");
        assert!(text.contains("labels: ") && text.contains("probe.floor") && text.contains("hint:"), "{text}");
        assert!(!solver.exists());
    }
    let (code, text) = with("0.01");
    assert!(code == Some(0) && solver.exists(), "{text}");
    // The floor is no part of the experiment: the bytes are those of a run without one. What it began with stands in run.json alone.
    let without_record = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        let mut files = files.clone();
        files.remove(Path::new("run.json"));
        files
    };
    assert_same_files(&without_record(&lasting_files(&run)), &without_record(&undisturbed().1), "after a stop");
}

fn rows<T: Table + PartialEq + std::fmt::Debug>(run: &Path, stage: Stage, place: Place) -> Vec<T> {
    StageOutput::open(&RunLayout::new(run), stage, place).unwrap().read::<T>().unwrap()
}

#[test]
fn shards_and_threads_change_no_row_and_no_checkpoint() {
    let (reference, expected) = undisturbed();
    let reference = reference.path().join("run");
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    finish(smoke(&run, 3, 2));
    let at = |phase, step| Place::new(1, phase, step);
    for place in [at(Phase::Challenger, 2), at(Phase::Curriculum, 0)] {
        let challenges = rows::<Challenge>(&run, Stage::ChallengeGen, place);
        assert!(!challenges.is_empty());
        assert_eq!(challenges, rows::<Challenge>(&reference, Stage::ChallengeGen, place));
        assert_eq!(rows::<Label>(&run, Stage::VoteLabel, place), rows::<Label>(&reference, Stage::VoteLabel, place));
    }
    for place in [at(Phase::Challenger, 2), at(Phase::Curriculum, 0), at(Phase::Solver, 2)] {
        let rollouts = rows::<Rollout>(&run, Stage::SolveSample, place);
        assert_eq!(rollouts, rows::<Rollout>(&reference, Stage::SolveSample, place));
    }
    let sorted = |run: &Path| {
        let mut results = rows::<EvalResult>(run, Stage::Eval, at(Phase::Eval, 0));
        results.sort_by_key(|result| (result.row, result.eval_style.clone(), result.eval_mode.clone(), result.sample));
        results
    };
    assert_eq!(sorted(&run), sorted(&reference));
    // What one process writes is equal to the byte: curriculum, rewards, metrics, checkpoints.
    let of_one_process = |files: &BTreeMap<PathBuf, Vec<u8>>| -> BTreeMap<PathBuf, Vec<u8>> {
        let is_wanted = |path: &Path| {
            let text = path.to_string_lossy();
            text.contains("/filter/")
                || text.contains("/label-probe/")
                || text.contains("/grpo-step/")
                || text.contains("/checkpoint/")
        };
        files.iter().filter(|(path, _)| is_wanted(path)).map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
    };
    let actual = of_one_process(&lasting_files(&run));
    assert!(actual.len() > 20);
    assert_same_files(&actual, &of_one_process(expected), "in three shards");
}

#[test]
fn the_threads_of_a_run_change_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    finish(smoke(&run, 1, 2));
    assert_same_files(&lasting_files(&run), &undisturbed().1, "on two threads");
}
