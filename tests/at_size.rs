//! What large models need, on the embedded one and through the real binaries: adapters, checkpoints of half the size, activations computed
//! again, and the memory that `--dry-run` tells.

use crate::just::just;
use rzero_model::Weights;
use rzero_model::tensor_file::TensorFile;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOLVER: &str = "iter-001/solver";

/// A run of one iteration of `smoke` with some keys replaced.
fn run(folder: &Path, set: &str) -> PathBuf {
    let run = folder.join(set.replace(['=', ';', '.', '"', '[', ']', ','], "-"));
    let mut command = just();
    command.arg("profile=smoke").arg(format!("run={}", run.display())).arg(format!("set={set}")).args(["loop", "1"]);
    let output = command.stdout(Stdio::null()).output().expect("just is installed");
    assert!(output.status.success(), "{set}: {}", String::from_utf8_lossy(&output.stderr));
    run
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn computing_activations_again_changes_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let kept = run(folder.path(), "");
    let again = run(folder.path(), "solver.grpo.recompute_activations=true;challenger.grpo.recompute_activations=true");
    for file in ["iter-001/challenger/checkpoint/model.safetensors", "iter-001/solver/checkpoint/model.safetensors"] {
        assert!(bytes(&kept.join(file)) == bytes(&again.join(file)), "{file} differs");
    }
}

#[test]
fn adapters_leave_a_merged_checkpoint_and_stand_beside_it_as_peft_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(
        folder.path(),
        "solver.grpo.lora.rank=2;solver.grpo.lora.targets=[\"q_proj\",\"down_proj\"];solver.grpo.weight_ema=0",
    );
    let base = Weights::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/models/tiny"))).unwrap();
    let trained = Weights::read(&run.join(SOLVER).join("checkpoint")).unwrap();
    for parameter in &base.layout.parameters {
        let has_adapter = parameter.name.ends_with("q_proj.weight") || parameter.name.ends_with("down_proj.weight");
        assert_eq!(base.at(&parameter.range) != trained.at(&parameter.range), has_adapter, "{}", parameter.name);
    }
    let adapter = run.join(SOLVER).join("step-02/grpo-step/adapter");
    let config: serde_json::Value = serde_json::from_slice(&bytes(&adapter.join("adapter_config.json"))).unwrap();
    assert_eq!((&config["r"], &config["target_modules"]), (&2.into(), &serde_json::json!(["q_proj", "down_proj"])));
    let mut file = TensorFile::open(&adapter.join("adapter_model.safetensors")).unwrap();
    // W + alpha / rank B A is the checkpoint.
    let parameter =
        base.layout.parameters.iter().find(|parameter| parameter.name.ends_with("0.self_attn.q_proj.weight")).unwrap();
    let (outputs, inputs) = (parameter.shape[0], parameter.shape[1]);
    let (mut a, mut b) = (vec![0.0; 2 * inputs], vec![0.0; outputs * 2]);
    let name = "base_model.model.model.layers.0.self_attn.q_proj";
    file.read(&format!("{name}.lora_A.weight"), &[2, inputs], &mut a).unwrap();
    file.read(&format!("{name}.lora_B.weight"), &[outputs, 2], &mut b).unwrap();
    let scale = config["lora_alpha"].as_f64().unwrap() as f32 / 2.0;
    for (at, (before, after)) in base.at(&parameter.range).iter().zip(trained.at(&parameter.range)).enumerate() {
        let (row, column) = (at / inputs, at % inputs);
        let moved = scale * (b[2 * row] * a[column] + b[2 * row + 1] * a[inputs + column]);
        assert!((before + moved - after).abs() < 1e-6, "({row}, {column}): {before} + {moved} is not {after}");
    }
}

#[test]
fn checkpoints_in_bf16_are_half_the_size_and_the_optimiser_keeps_what_was_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path(), "model.float=bf16");
    let step = run.join(SOLVER).join("step-01/grpo-step");
    let file = TensorFile::open(&step.join("checkpoint/model.safetensors")).unwrap();
    assert!(file.names().iter().all(|name| format!("{:?}", file.info(name).unwrap().0) == "BF16"));
    assert!(TensorFile::open(&step.join("optimizer.safetensors")).unwrap().contains("weights.trained"));
    let config: serde_json::Value = serde_json::from_slice(&bytes(&step.join("checkpoint/config.json"))).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
}

#[test]
fn the_memory_of_models_that_are_not_there_is_told() {
    for (profile, least, most) in [("qwen3-4b-base", 64.0, 110.0), ("octothinker-3b", 50.0, 90.0), ("smollm2", 2.0, 4.0)] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_grpo-step"))
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .env_clear()
            .args(["--run", folder.path().join("run").to_str().unwrap(), "--threads", "2", "--dry-run"])
            .args([
                "--profile",
                &format!("pipelines/profiles/{profile}.toml"),
                "--iteration",
                "1",
                "--phase",
                "solver",
                "--step",
                "1",
            ])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let memory = text.split_once("memory about ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
        assert!(memory.is_some_and(|gigabytes| (least..most).contains(&gigabytes)), "{profile}: {text}");
    }
}
