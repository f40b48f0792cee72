//! Rules of the tree that no compiler checks: who may depend on whom, how files begin and how long they are, what must not stay.

use rzero_schema::ablation::Ablation;
use rzero_schema::pretrain_profile::PretrainProfile;
use rzero_schema::profile::Profile;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

/// The floor of each crate. A crate sees lower floors only, so two crates of one floor never see each other.
const FLOORS: [(&str, u32); 6] =
    [("rzero-schema", 0), ("rzero-io", 1), ("rzero-algo", 1), ("rzero-model", 2), ("rzero-train", 3), ("rzero-stages", 4)];

/// Who alone may depend on a crate directly.
const RESERVED: [(&str, &[&str]); 6] = [
    ("candle-", &["rzero-model", "rzero-train"]),
    ("parquet", &["rzero-io", "rzero-stages"]),
    ("polars", &["rzero-stages"]),
    ("clap", &["rzero-stages"]),
    ("anyhow", &["rzero-stages"]),
    ("tracing", &["rzero-stages"]),
];

fn floor(name: &str) -> Option<u32> {
    FLOORS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, floor)| *floor)
}

#[test]
fn crates_depend_on_lower_floors_only() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--no-deps"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    assert_eq!(packages.len(), FLOORS.len(), "a new crate needs a floor in this test");
    let mut broken = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("packages have names");
        let own_floor = floor(name).unwrap_or_else(|| panic!("crate {name} has no floor in this test"));
        for dependency in package["dependencies"].as_array().expect("packages list dependencies") {
            let dependency = dependency["name"].as_str().expect("dependencies have names");
            if floor(dependency).is_some_and(|floor| floor >= own_floor) {
                broken.push(format!("{name} depends on {dependency}, which is on no lower floor"));
            }
            let reserved = RESERVED.iter().find(|(prefix, _)| dependency.starts_with(prefix));
            if reserved.is_some_and(|(_, allowed)| !allowed.contains(&name)) {
                broken.push(format!("{name} depends on {dependency}, which belongs to other crates"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn pure_crates_open_no_file_and_read_no_clock() {
    let words = ["std::fs", "std::time", "std::env", "std::process", "SystemTime", "Instant::now", "File::open"];
    let mut broken = Vec::new();
    for path in files(&root().join("crates/rzero-algo/src")) {
        // Tests may measure how long something takes.
        let is_test = path.ends_with("tests.rs");
        let text = if is_test { String::new() } else { read(&path) };
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        broken.extend(words.iter().filter(|word| text.contains(**word)).map(|word| format!("{}: {word}", path.display())));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Beyond this a file has more than one subject.
const MAX_LINES: usize = 500;

#[test]
fn rust_files_say_what_they_are_for_and_stay_short() {
    let mut broken = Vec::new();
    for path in rust_files() {
        let text = read(&path);
        if !text.starts_with("//!") {
            broken.push(format!("{} does not begin with what it is for (`//!`)", path.display()));
        }
        let num_lines = text.lines().count();
        if num_lines > MAX_LINES {
            broken.push(format!("{} has {num_lines} lines, more than {MAX_LINES}", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn words_that_must_not_stay_are_gone() {
    // Written in halves, so that this file passes its own test.
    let in_rust = [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("db", "g!("), concat!("FIX", "ME")];
    let anywhere = [concat!("/wo", "rk/"), concat!("sha", "red/design")];
    let mut broken = Vec::new();
    for path in files(&root()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_rust = name.ends_with(".rs");
        let is_text = is_rust
            || [".md", ".toml", ".just", ".bash", ".jinja", "justfile", "bootstrap"].iter().any(|end| name.ends_with(end));
        if !is_text {
            continue;
        }
        let text = read(&path);
        let words = anywhere.iter().chain(if is_rust { in_rust.as_slice() } else { &[] });
        broken.extend(words.filter(|word| text.contains(**word)).map(|word| format!("{}: {word}", path.display())));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The `domain.toml` of a folder.
fn domain(folder: &str) -> Result<String, String> {
    std::fs::read_to_string(root().join(folder).join("domain.toml")).map_err(|error| error.to_string())
}

#[test]
fn every_profile_parses_and_names_files_that_exist() {
    let folder = root().join("pipelines/profiles");
    let mut names = Vec::new();
    for path in files(&folder) {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = read(&path);
        let (name, prompts) = if text.contains("\n[corpus]\n") {
            let profile = PretrainProfile::from_toml(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (profile.name, vec![profile.challenger_prompt, profile.solver_prompt])
        } else {
            let profile = Profile::from_toml(&text, &[], domain).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            // Other models and benchmarks are fetched or imported, and no part of this project.
            if ["tiny", "smoke"].contains(&stem.as_str()) {
                let model = root().join(&profile.model.path);
                for path in ["config.json", "tokenizer.json"]
                    .map(|name| model.join(name))
                    .into_iter()
                    .chain([root().join(&profile.eval.items)])
                {
                    assert!(path.is_file(), "{stem} needs {}, which is not there", path.display());
                }
            }
            let settings = [
                &profile.judge.prompt,
                &profile.probe.prompt,
                &profile.domain.challenger_prompt,
                &profile.domain.solver_prompt,
                &profile.domain.verifier_prompt,
            ];
            let own = profile.eval.benchmarks.iter().map(|benchmark| &benchmark.solver_prompt);
            (profile.name.clone(), settings.into_iter().chain(own).cloned().collect())
        };
        assert_eq!(name, stem, "a profile bears the name of its file");
        for prompt in prompts {
            assert!(root().join(&prompt).is_file(), "{stem} names {prompt}, which is not there");
        }
        names.push(stem);
    }
    names.sort();
    assert_eq!(
        names,
        ["octothinker-3b", "paper", "products", "qwen3-4b-base", "smoke", "smollm2", "smollm2-lora", "tiny", "tiny-base"]
    );
}

/// Every matrix parses, and each of its cells is something else that its profile understands. Cells of one name are the same run.
#[test]
fn every_cell_of_an_ablation_is_a_setting_of_its_profile() {
    let mut by_name: std::collections::BTreeMap<String, Profile> = std::collections::BTreeMap::new();
    for path in files(&root().join("pipelines/ablations")) {
        let name = path.display();
        let ablation = Ablation::from_toml(&read(&path)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let profile = read(&root().join(format!("pipelines/profiles/{}.toml", ablation.profile)));
        let mut profiles: Vec<Profile> = Vec::new();
        for cell in &ablation.cells {
            let changed =
                Profile::from_toml(&profile, &cell.set, domain).unwrap_or_else(|error| panic!("{name}, {}: {error}", cell.name));
            assert!(!profiles.contains(&changed), "{name}: {} is another cell once more", cell.name);
            let known = by_name.entry(cell.name.clone()).or_insert_with(|| changed.clone());
            assert!(*known == changed, "{name}: another matrix has a cell {} that is not this one", cell.name);
            profiles.push(changed);
        }
    }
    assert!(by_name.len() >= 5, "the matrices were not found");
}

/// Prompts of the embedded model are tokens: a final newline would be one more, and not in its vocabulary.
#[test]
fn prompts_of_the_embedded_model_end_where_their_last_token_ends() {
    for name in ["challenger", "solver", "spoken"] {
        let path = root().join(format!("pipelines/domains/arithmetic/{name}.jinja"));
        assert!(read(&path).ends_with('>'), "{} ends with white space", path.display());
    }
}

fn rust_files() -> Vec<PathBuf> {
    let mut paths = files(&root().join("crates"));
    paths.extend(files(&root().join("tests")));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(paths.len() > 40, "the tree was not found");
    paths
}

/// Every file under a folder, in order, but for what git ignores and what tests are fed with.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder lists its entries").path())
        .collect();
    entries.sort();
    let mut paths = Vec::new();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", ".git", "runs", "fixtures", "models"].contains(&name.as_str()) {
                paths.append(&mut files(&path));
            }
        } else {
            paths.push(path);
        }
    }
    paths
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

#[test]
fn schemas_on_disk_are_those_of_the_types() {
    let output = Command::new(env!("CARGO_BIN_EXE_export-schemas"))
        .current_dir(root())
        .arg("--check")
        .output()
        .expect("the binary was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
