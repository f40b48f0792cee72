//! Broken and hostile model folders: a clear error that names the file, in bounded time and memory, never a panic.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use rzero_model::tensor_file;
use rzero_model::weights::tensors;
use rzero_model::{ModelConfig, Weights};
use rzero_schema::vocab::FloatType;
use serde_json::{Value, json};
use std::path::Path;

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 16, "tie_word_embeddings": true, "hidden_act": "silu", "eos_token_id": [2],
    })
}

fn write(folder: &Path, config: &Value, weights: &[u8]) {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), weights).unwrap();
}

fn good_bytes() -> Vec<u8> {
    Weights::zeros(ModelConfig::from_json(&config().to_string()).unwrap()).to_safetensors()
}

#[test]
fn a_written_model_reads_back_and_every_truncation_of_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = good_bytes();
    write(folder.path(), &config(), &bytes);
    assert!(Weights::read(folder.path()).is_ok());
    for length in (0..bytes.len()).step_by(37) {
        write(folder.path(), &config(), &bytes[..length]);
        let error = Weights::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }
    // A header that claims to be longer than the file, and one that is no JSON.
    for head in [u64::MAX, 1 << 60, 40] {
        let mut lying = bytes.clone();
        lying[..8].copy_from_slice(&head.to_le_bytes());
        write(folder.path(), &config(), &lying);
        assert!(Weights::read(folder.path()).is_err());
    }
}

#[test]
fn a_configuration_of_any_size_takes_no_more_memory_than_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut huge = config();
    huge["hidden_size"] = json!(65_536);
    huge["intermediate_size"] = json!(262_144);
    huge["num_hidden_layers"] = json!(1024);
    huge["head_dim"] = json!(1024);
    write(folder.path(), &huge, &good_bytes());
    let error = Weights::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("parameters"), "{error}");
}

#[test]
fn what_is_not_served_is_named() {
    let changes = [
        ("architectures", json!(["GPT2LMHeadModel"]), "GPT2LMHeadModel"),
        ("architectures", json!([]), "architecture"),
        ("rope_scaling", json!({"type": "yarn"}), "factor"),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "dynamic"),
        ("rope_parameters", json!({"full_attention": {"rope_theta": 1e6}}), "rope_parameters"),
        ("rope_theta", json!(-1.0), "rope_theta"),
        ("mlp_bias", json!(true), "mlp_bias"),
        ("layer_types", json!(["full_attention", "sliding_attention"]), "use_sliding_window"),
        ("quantization_config", json!({"bits": 4}), "quantization_config"),
        ("hidden_act", json!("gelu"), "hidden_act"),
        ("num_key_value_heads", json!(3), "heads"),
        ("num_hidden_layers", json!(0), "num_hidden_layers"),
        ("head_dim", json!(3), "head_dim"),
        ("eos_token_id", json!(10), "vocabulary"),
        ("vocab_size", json!(-1), "vocab_size"),
    ];
    for (key, value, expected) in changes {
        let mut changed = config();
        changed[key] = value;
        let result = ModelConfig::from_json(&changed.to_string());
        let error = result.expect_err(key);
        assert!(error.contains(expected) || error.contains("-1"), "{key}: {error}");
    }
}

#[test]
fn a_tensor_of_another_shape_or_an_infinite_number_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut wider = config();
    wider["intermediate_size"] = json!(11);
    write(folder.path(), &wider, &good_bytes());
    let error = Weights::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("mlp."), "{error}");
    let mut weights = Weights::zeros(ModelConfig::from_json(&config().to_string()).unwrap());
    weights.values[3] = f32::INFINITY;
    write(folder.path(), &config(), &weights.to_safetensors());
    let error = Weights::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("embed_tokens") && error.contains("finite"), "{error}");
}

#[test]
fn shards_are_found_by_their_index_and_a_hostile_index_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let weights = Weights::zeros(ModelConfig::from_json(&config().to_string()).unwrap());
    let mut values = weights.clone();
    values.values.iter_mut().enumerate().for_each(|(at, value)| *value = at as f32 / 64.0);
    write(folder.path(), &config(), &values.to_safetensors());
    let whole = Weights::read(folder.path()).unwrap();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let (first, second) = values.layout.parameters.split_at(4);
    let mut map = serde_json::Map::new();
    for (name, parameters) in [("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second)] {
        let mut bytes = Vec::new();
        tensor_file::write(&mut bytes, &tensors(parameters, &values.values), FloatType::F16, &[]).unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
        parameters.iter().for_each(|parameter| drop(map.insert(parameter.name.clone(), json!(name))));
    }
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    assert_eq!(Weights::read(folder.path()).unwrap().values, whole.values);
    for (hostile, expected) in [
        (json!({"weight_map": {"a": "../../etc/passwd.safetensors"}}), "beside"),
        (json!({"weight_map": {"a": "/etc/x.safetensors"}}), "beside"),
        (json!({"weight_map": {"a": "config.json"}}), "beside"),
        (json!({"weight_map": {}}), "0 files"),
        (json!({}), "weight_map"),
        (json!({"weight_map": {"a": "missing.safetensors"}}), "missing.safetensors"),
        (json!({"weight_map": {"a": "model-00001-of-00002.safetensors"}}), "parameters"),
    ] {
        std::fs::write(&index, hostile.to_string()).unwrap();
        let error = Weights::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{hostile}: {error}");
    }
}

#[test]
fn generation_config_says_what_ends_a_completion() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &config(), &good_bytes());
    let path = folder.path().join("generation_config.json");
    for (text, expected) in [(r#"{"eos_token_id": [3, 4]}"#, vec![3, 4]), (r#"{"eos_token_id": 5}"#, vec![5]), ("{}", vec![2])] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(Weights::read(folder.path()).unwrap().config.eos_tokens, expected);
    }
    for broken in ["[", r#"{"eos_token_id": 99}"#, r#"{"eos_token_id": "x"}"#] {
        std::fs::write(&path, broken).unwrap();
        let error = Weights::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("generation_config.json"), "{error}");
    }
}
