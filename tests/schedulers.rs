//! Jobs for batch schedulers, as `just render-job` prints them: they are what their scheduler reads, and every shard is done once.

use crate::just::just;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use yaml_rust2::{Yaml, YamlLoader};

const SHARDS: usize = 3;

/// Binaries that say what they would do.
fn dry_binaries(folder: &Path) -> PathBuf {
    let real = Path::new(env!("CARGO_BIN_EXE_profile-get")).parent().unwrap();
    let bin = folder.join("bin");
    std::fs::create_dir(&bin).unwrap();
    for (name, flags) in [("profile-get", ""), ("solve-sample", "--dry-run"), ("vote-label", "--dry-run")] {
        let script = bin.join(name);
        std::fs::write(&script, format!("#!/bin/sh\nexec {}/{name} \"$@\" {flags}\n", real.display())).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    bin
}

fn rendered(folder: &Path, bin: &Path, scheduler: &str, shards: usize, set: &str) -> String {
    rendered_stage(
        folder,
        bin,
        &[&format!("shards={shards}"), &format!("set={set}")],
        &[scheduler, "solve-sample", "1", "solver", "2"],
    )
}

fn rendered_stage(folder: &Path, bin: &Path, variables: &[&str], job: &[&str]) -> String {
    let mut command = just();
    // The last `bin` holds.
    command.args(["profile=smoke", &format!("bin={}", bin.display()), &format!("run={}", folder.join("run").display())]);
    let output = command.args(variables).arg("render-job").args(job).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("@{"), "{text}");
    text
}

/// The shard that a command says it would do.
fn shard_of(command: &mut Command, variables: &[(&str, String)]) -> String {
    for variable in ["RZERO_RUN", "RZERO_PROFILE", "RZERO_SET", "RZERO_INDEX_BASE", "SHARD_INDEX", "NUM_SHARDS"] {
        command.env_remove(variable);
    }
    let output = command.envs(variables.iter().cloned()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("solve-sample at 001/solver/02, shard "), "{text}");
    text.split("shard ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

fn each_shard_once(mut shard: impl FnMut(usize) -> String) {
    let shards: BTreeSet<String> = (0..SHARDS).map(&mut shard).collect();
    let expected = (0..SHARDS).map(|index| format!("{index:05}-of-{SHARDS:05}")).collect();
    assert_eq!(shards, expected);
}

#[test]
fn scripts_of_pbs_and_lsf_are_shell_and_take_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let bin = dry_binaries(folder.path());
    for (scheduler, variable, base) in [("pbs", "PBS_ARRAY_INDEX", 0), ("lsf", "LSB_JOBINDEX", 1)] {
        let script = folder.path().join(format!("{scheduler}.bash"));
        let text = rendered(folder.path(), &bin, scheduler, SHARDS, "cluster.model.throttle=2;cluster.model.minutes=90");
        std::fs::write(&script, &text).unwrap();
        assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());
        each_shard_once(|index| shard_of(Command::new("bash").arg(&script), &[(variable, (base + index).to_string())]));
        let directive = if scheduler == "pbs" { "#PBS -J 0-2\n" } else { "#BSUB -J \"rzero-solve-sample-1-solver-2[1-3]%2\"\n" };
        assert!(text.contains(directive) && !text.contains("-q default"), "{text}");
        assert!(text.contains(if scheduler == "pbs" { "walltime=01:30:00" } else { "#BSUB -W 90" }), "{text}");
        // One shard is no array for PBS.
        std::fs::write(&script, rendered(folder.path(), &bin, scheduler, 1, "cluster.model.queue=long")).unwrap();
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(!text.contains("#PBS -J") && text.contains("-q long\n"), "{text}");
        assert_eq!(shard_of(Command::new("bash").arg(&script).env_remove(variable), &[]), "00000-of-00001");
    }
}

#[test]
fn a_job_of_aws_batch_is_json_and_takes_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let bin = dry_binaries(folder.path());
    // An override with a quote in it goes through JSON, a shell and the stage.
    let text = rendered(folder.path(), &bin, "aws-batch", SHARDS, "model.float='f32'");
    let job: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(job["arrayProperties"]["size"], SHARDS);
    assert!(
        job["retryStrategy"]["evaluateOnExit"]
            .as_array()
            .unwrap()
            .iter()
            .any(|rule| rule["onExitCode"] == "75" && rule["action"] == "RETRY")
    );
    let words: Vec<&str> =
        job["containerOverrides"]["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    each_shard_once(|index| {
        shard_of(Command::new(words[0]).args(&words[1..]), &[("AWS_BATCH_JOB_ARRAY_INDEX", index.to_string())])
    });
    let single: serde_json::Value = serde_json::from_str(&rendered(folder.path(), &bin, "aws-batch", 1, "")).unwrap();
    assert!(single.get("arrayProperties").is_none());
}

#[test]
fn a_job_of_kubernetes_is_yaml_and_takes_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let bin = dry_binaries(folder.path());
    let text = rendered(folder.path(), &bin, "kubernetes", SHARDS, "cluster.model.memory_gb=3");
    let job = &YamlLoader::load_from_str(&text).unwrap()[0];
    assert_eq!((job["kind"].as_str(), job["spec"]["completionMode"].as_str()), (Some("Job"), Some("Indexed")));
    assert_eq!(job["spec"]["completions"], Yaml::Integer(SHARDS as i64));
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"]["memory"].as_str(), Some("3Gi"));
    let words: Vec<&str> = container["command"].as_vec().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let variables = container["env"].as_vec().unwrap();
    let from_index = variables.iter().find(|variable| variable["name"].as_str() == Some("SHARD_INDEX")).unwrap();
    let field = from_index["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap();
    assert!(field.contains("job-completion-index"), "{field}");
    let num_shards =
        variables.iter().find(|variable| variable["name"].as_str() == Some("NUM_SHARDS")).unwrap()["value"].as_str().unwrap();
    each_shard_once(|index| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(container["workingDir"].as_str().unwrap());
        shard_of(&mut command, &[("SHARD_INDEX", index.to_string()), ("NUM_SHARDS", num_shards.to_owned())])
    });
}

#[test]
fn a_gpu_is_asked_for_where_the_profile_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let bin = dry_binaries(folder.path());
    for (scheduler, asked) in [
        ("pbs", "ncpus=1:ngpus=1:mem"),
        ("lsf", "#BSUB -gpu \"num=1\"\n"),
        ("kubernetes", "nvidia.com/gpu: 1\n"),
        ("aws-batch", "\"GPU\""),
    ] {
        let text = |set: &str, variables: &[&str]| {
            let variables: Vec<&str> = [&[set, "shards=3"], variables].concat();
            rendered_stage(folder.path(), &bin, &variables, &[scheduler, "solve-sample", "1", "solver", "2"])
        };
        let with = text("set=cluster.model.gpus=1", &[]);
        assert!(with.contains(asked) && with.replace("\", \"", " ").contains("--device cuda"), "{with}");
        let without = text("set=", &[]);
        assert!(!without.to_lowercase().contains("gpu") && !without.contains("--device"), "{without}");
        // A server has its own.
        let served = text("set=cluster.model.gpus=1", &["backend=openai", "url=http://localhost:8000/v1", "model=its-name"]);
        let beside_settings = served.replace("cluster.model.gpus=1", "");
        assert!(!beside_settings.to_lowercase().contains("gpu") && served.contains("its-name"), "{served}");
    }
}

#[test]
fn a_stage_has_as_many_tasks_as_it_can_be_cut_into() {
    let folder = tempfile::tempdir().unwrap();
    let bin = dry_binaries(folder.path());
    let text = |job: &[&str]| rendered_stage(folder.path(), &bin, &["shards=3", "gradients=2"], job);
    let whole = text(&["pbs", "filter", "1", "curriculum"]);
    assert!(!whole.contains("#PBS -J") && whole.contains("NUM_SHARDS=1\n"), "{whole}");
    let gradient = text(&["pbs", "grpo-gradient", "1", "solver", "2", "--update", "1"]);
    assert!(gradient.contains("#PBS -J 0-1\n") && gradient.trim_end().ends_with("--update 1"), "{gradient}");
}

#[test]
fn what_is_no_scheduler_or_no_stage_is_told() {
    for (job, hint) in [(["cron", "eval"], "kubernetes"), (["pbs", "evaluate"], "choose one of challenge-gen, eval")] {
        let output = just().args(["profile=smoke", "render-job"]).args(job).args(["1", "eval"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(hint), "{text}");
    }
}
