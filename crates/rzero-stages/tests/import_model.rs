//! `import-model` as a process: the folder it leaves, what it refuses to replace, and how it says what is wrong with a file.

#![cfg(feature = "model")]
#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

#[path = "../../rzero-model/tests/support/gguf_file.rs"]
mod gguf_file;

use gguf_file::{model, number, text};
use rzero_model::tokenizer::Tokenizer;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Name, bytes: every file of a folder.
type Files = Vec<(String, Vec<u8>)>;

fn import(gguf: &Path, output: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_import-model"));
    command.args(["--gguf".as_ref(), gguf, "--output".as_ref(), output]).args(flags);
    command.env_remove("RUST_LOG").env_remove("RZERO_LOG").output().unwrap()
}

/// The exit code, and what was said on stderr.
fn told(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn files(folder: &Path) -> Files {
    let mut files: Files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_folder_is_written_once_known_again_and_replaced_only_when_asked() {
    let place = tempfile::tempdir().unwrap();
    let (first, second) = (place.path().join("first.gguf"), place.path().join("second.gguf"));
    let folder = place.path().join("models/tiny");
    let (mut file, _) = model("llama", "smollm");
    fs::write(&first, file.bytes()).unwrap();
    file.set("general.name", text("Other"));
    fs::write(&second, file.bytes()).unwrap();

    let output = import(&first, &folder, &[]);
    assert_eq!(told(&output).0, 0, "{}", told(&output).1);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", folder.display()));
    let written = files(&folder);
    let names: Vec<&str> = written.iter().map(|(name, _)| name.as_str()).collect();
    let expected =
        ["config.json", "generation_config.json", "import.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names, expected);
    assert_eq!(Tokenizer::read(&folder).unwrap().encode("Hello<|im_end|>").unwrap(), [gguf_file::id("Hello"), 2]);
    // The record names the source, what it was, and every file that was made of it.
    let record: Value = serde_json::from_slice(&written[2].1).unwrap();
    assert_eq!((&record["source"], &record["general"]["name"]), (&"first.gguf".into(), &"Tiny".into()));
    assert_eq!(record["source_digest"], blake3::hash(&fs::read(&first).unwrap()).to_hex().as_str());
    assert_eq!((&record["source_types"]["Q4_1"], &record["dtype"]), (&6.into(), &"f32".into()));
    assert_eq!(record["build"]["version"], env!("CARGO_PKG_VERSION"));
    for (name, bytes) in written.iter().filter(|(name, _)| name != "import.json") {
        assert_eq!(record["files"][name], blake3::hash(bytes).to_hex().as_str(), "{name}");
    }

    // The same again: nothing to do.
    assert_eq!(told(&import(&first, &folder, &[])).0, 0);
    assert_eq!(files(&folder), written);
    // Another model, or the same in another type: only when asked.
    for (gguf, flags) in [(&second, vec![]), (&first, vec!["--dtype", "bf16"])] {
        let (code, error) = told(&import(gguf, &folder, &flags));
        assert_eq!(code, 4, "{error}");
        assert!(
            error.contains("holds a model imported from first.gguf") && error.contains("hint: ") && error.contains("--overwrite")
        );
        assert_eq!(files(&folder), written);
    }
    assert_eq!(told(&import(&first, &folder, &["--dtype", "bf16", "--overwrite"])).0, 0);
    let config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
    assert_eq!(told(&import(&first, &folder, &["--overwrite"])).0, 0);
    assert_eq!(files(&folder), written);

    // What a killed import leaves has no config.json, and is begun anew without being asked.
    fs::remove_file(folder.join("config.json")).unwrap();
    fs::write(folder.join("model.safetensors"), "half").unwrap();
    assert_eq!(told(&import(&first, &folder, &[])).0, 0);
    assert_eq!(files(&folder), written);
}

#[test]
fn another_model_and_a_broken_file_are_left_as_they_are() {
    let place = tempfile::tempdir().unwrap();
    let gguf = place.path().join("model.gguf");
    let folder = place.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("tokenizer.json"), "someone's").unwrap();
    let (mut file, _) = model("qwen3", "qwen2");
    fs::write(&gguf, file.bytes()).unwrap();
    let (code, error) = told(&import(&gguf, &folder, &[]));
    assert_eq!(code, 4);
    assert!(error.contains("holds a tokenizer.json that no import of a GGUF file wrote"), "{error}");

    file.set("qwen3.expert_count", number(8));
    fs::write(&gguf, file.bytes()).unwrap();
    let (code, error) = told(&import(&gguf, &folder, &["--overwrite"]));
    assert_eq!(code, 3);
    assert!(error.contains("model.gguf") && error.contains("`qwen3.expert_count` is 8") && error.contains("hint: "), "{error}");
    // A tensor that is found broken only when it is read leaves no model behind.
    file.remove("qwen3.expert_count");
    file.tensor("output_norm.weight").data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&gguf, file.bytes()).unwrap();
    let other = place.path().join("other");
    let (code, error) = told(&import(&gguf, &other, &[]));
    assert_eq!(code, 3);
    assert!(error.contains("`output_norm.weight` holds a value that is not finite"), "{error}");
    assert!(!other.join("config.json").exists() && !other.join("model.safetensors").exists());
    assert_eq!(files(&folder), [("tokenizer.json".to_owned(), b"someone's".to_vec())]);
    assert_eq!(told(&import(&place.path().join("absent.gguf"), &folder, &[])).0, 3);
}
