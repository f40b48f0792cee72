//! `prune`: what goes, what stays, and that a run without what went is as good as one with it.

use crate::just::just;
use crate::whole_run::{finish, lasting_files};
use rzero_io::pruned::PRUNED;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn iterated(run: &Path, keep: &str, iterations: &str) -> String {
    let mut command = just();
    command.arg("profile=smoke").arg(format!("run={}", run.display())).arg(format!("keep={keep}")).arg("threads=2");
    let output = command.args(["loop", iterations]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    told
}

fn asked(binary: &str, run: &Path, flags: &[&str]) -> Output {
    Command::new(binary).arg(run).args(flags).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pruned(run: &Path, flags: &[&str]) -> String {
    let output = asked(env!("CARGO_BIN_EXE_prune"), run, flags);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn audited(run: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let output = asked(env!("CARGO_BIN_EXE_audit"), run, flags);
    (output.status.code(), text(&output.stdout))
}

fn is_weights(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "safetensors")
}

/// The files of a run, but the records of what was pruned.
fn files(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = lasting_files(run);
    files.retain(|path, _| !path.ends_with(PRUNED));
    files
}

/// A run of one iteration, and what became of it by pruning.
fn pruned_run(folder: &Path) -> (PathBuf, BTreeMap<PathBuf, Vec<u8>>) {
    let run = folder.join("run");
    iterated(&run, "all", "1");
    let before = files(&run);
    let told = pruned(&run, &["--dry-run"]);
    assert!(told.contains("001/solver") && told.contains("would go"), "{told}");
    assert_eq!(files(&run), before, "a dry run removes nothing");
    pruned(&run, &[]);
    (run, before)
}

#[test]
fn what_no_stage_reads_goes_and_the_run_goes_on_as_if_it_were_there() {
    let folder = tempfile::tempdir().unwrap();
    let (run, before) = pruned_run(folder.path());
    let after = files(&run);
    let gone: Vec<&PathBuf> = before.keys().filter(|path| !after.contains_key(*path)).collect();
    assert!(!gone.is_empty() && gone.iter().all(|path| is_weights(path)), "{gone:?}");
    // Of each phase the last step's weights stay, and those that the phase leaves.
    let left: Vec<String> = after.keys().filter(|path| is_weights(path)).map(|path| path.display().to_string()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
    assert_eq!(left.iter().filter(|path| path.contains("/step-")).count(), 2, "{left:?}");
    assert!(pruned(&run, &[]).contains("0 files"));
    assert!(iterated(&run, "all", "1").contains("nothing to do"));

    // The next iteration is that of a run which lost nothing, and prunes itself.
    iterated(&run, "last", "2");
    let whole = folder.path().join("whole");
    iterated(&whole, "all", "2");
    let (found, expected) = (files(&run), files(&whole));
    for (path, bytes) in &found {
        assert!(expected.get(path) == Some(bytes), "{} differs", path.display());
    }
    assert!(expected.keys().all(|path| found.contains_key(path) || is_weights(path)));
    assert!(!found.keys().any(|path| path.starts_with("iter-002") && path.ends_with("optimizer.safetensors")));
}

#[test]
fn an_audit_tells_what_was_pruned_from_what_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (run, _) = pruned_run(folder.path());
    let (code, told) = audited(&run, &[]);
    assert!(code == Some(0) && told.contains("were pruned") && told.contains("no findings"), "{told}");
    // What can be made again is: the first step of a phase begins at weights that are still there.
    let (code, told) = audited(&run, &["--replay", "--stages", "grpo-step"]);
    assert!(code == Some(0) && told.contains("what they were made from was pruned"), "{told}");
    assert!(!told.contains(" 0 shards run again"), "{told}");
    assert!(run.join("iter-001/solver/step-01/grpo-step").join(PRUNED).is_file(), "a replay changes nothing of the run");

    let lost = run.join("iter-001/solver/checkpoint/model.safetensors");
    let kept = std::fs::read(&lost).unwrap();
    std::fs::remove_file(&lost).unwrap();
    let (code, told) = audited(&run, &[]);
    assert!(code == Some(6) && told.contains("file_missing"), "{told}");
    std::fs::write(&lost, kept).unwrap();

    // A table is never pruned, whatever a record says.
    let record = run.join("iter-001/solver/step-01/grpo-step").join(PRUNED);
    let (table, intact) = ("iter-001/solver/step-01/grpo-step/rewards-00000-of-00001.parquet", std::fs::read(&record).unwrap());
    std::fs::write(&record, text(&intact).replacen("\"files\": [", &format!("\"files\": [\n    \"{table}\","), 1)).unwrap();
    std::fs::remove_file(run.join(table)).unwrap();
    let (code, told) = audited(&run, &[]);
    assert!(code == Some(6) && told.contains(table), "{told}");
    std::fs::write(&record, "{").unwrap();
    let (code, told) = audited(&run, &[]);
    assert!(code == Some(6) && told.contains(PRUNED), "{told}");
}

#[test]
fn a_step_whose_weights_are_gone_is_not_made_again_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let (run, before) = pruned_run(folder.path());
    let step = run.join("iter-001/solver/step-02/grpo-step");
    std::fs::remove_file(step.join("manifest-00000-of-00001.json")).unwrap();
    let mut command = just();
    command.arg("profile=smoke").arg(format!("run={}", run.display())).args(["loop", "1"]).stdout(Stdio::null());
    let output = command.output().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(3) && told.contains("was pruned") && told.contains("another run directory"), "{told}");

    // The first step of a phase can be made again, and its weights count as there from then on.
    let mut command = Command::new(env!("CARGO_BIN_EXE_grpo-step"));
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/profiles/smoke.toml");
    command.arg("--run").arg(&run).arg("--profile").arg(profile).args(["--iteration", "1", "--phase", "solver", "--step", "1"]);
    std::fs::remove_file(run.join("iter-001/solver/step-01/grpo-step/manifest-00000-of-00001.json")).unwrap();
    finish(command);
    let weights = Path::new("iter-001/solver/step-01/grpo-step/checkpoint/model.safetensors");
    assert!(files(&run).get(weights) == before.get(weights));
    assert!(!run.join("iter-001/solver/step-01/grpo-step").join(PRUNED).exists());
}

#[test]
fn what_holds_no_run_on_this_machine_is_not_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let output = asked(env!("CARGO_BIN_EXE_prune"), folder.path(), &[]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let mut command = just();
    let output = command.args(["profile=smoke", "run=s3://bucket/run", "keep=last", "loop", "1"]).output().unwrap();
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("keep=last"), "{}", text(&output.stderr));
}
