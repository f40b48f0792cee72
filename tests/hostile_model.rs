//! A model that writes nonsense: every malformed completion is counted with its reason, no stage panics, nothing is lost.

use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::tables::{Challenge, CurriculumRow, DroppedRow};
use rzero_schema::vocab::{Phase, Stage};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A model of the embedded one's sizes after two steps of training: it writes random tokens.
fn untrained_model(folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(Path::new(ROOT).join("pipelines/profiles/tiny-base.toml")).unwrap();
    let mut profile: toml::Table = text.parse().unwrap();
    let phases = profile["phases"].as_array_mut().unwrap();
    phases.truncate(1);
    phases[0].as_table_mut().unwrap().insert("steps".to_owned(), toml::Value::Integer(2));
    let path = folder.join("base.toml");
    std::fs::write(&path, toml::to_string(&profile).unwrap()).unwrap();
    let model = folder.join("model");
    let pretrain = Command::new(env!("CARGO_BIN_EXE_pretrain"))
        .current_dir(ROOT)
        .args(["--profile", path.to_str().unwrap(), "--output", model.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(pretrain.status.success(), "{}", String::from_utf8_lossy(&pretrain.stderr));
    model
}

fn stage(program: &str, run: &Path, model: &Path, at: &[&str]) -> Output {
    Command::new(program)
        .current_dir(ROOT)
        .env_clear()
        .args(["--run", run.to_str().unwrap(), "--profile", "pipelines/profiles/smoke.toml"])
        .arg(format!("--set=model.path={}", model.display()))
        .args(at)
        .output()
        .unwrap()
}

#[test]
fn nonsense_is_counted_with_its_reasons_and_an_empty_curriculum_stops_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let (run, model) = (folder.path().join("run"), untrained_model(folder.path()));
    let curriculum = ["--iteration", "1", "--phase", "curriculum"];
    // The Challenger is not trained here: its checkpoint is the base where it takes no steps.
    let with = |program: &str, at: &[&str]| stage(program, &run, &model, &[at, &["--set=challenger.steps=0"]].concat());
    for program in [
        env!("CARGO_BIN_EXE_challenge-gen"),
        env!("CARGO_BIN_EXE_solve-sample"),
        env!("CARGO_BIN_EXE_vote-label"),
        env!("CARGO_BIN_EXE_filter"),
    ] {
        let output = with(program, &curriculum);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let layout = RunLayout::new(&run);
    let place = Place::new(1, Phase::Curriculum, 0);
    let written = StageOutput::open(&layout, Stage::ChallengeGen, place).unwrap();
    let challenges = written.read::<Challenge>().unwrap();
    let filtered = StageOutput::open(&layout, Stage::Filter, place).unwrap();
    let dropped = filtered.read::<DroppedRow>().unwrap();
    assert_eq!(challenges.len(), dropped.len() + filtered.read::<CurriculumRow>().unwrap().len());
    let statuses: BTreeSet<&str> = challenges.iter().map(|challenge| challenge.challenge_status.as_str()).collect();
    assert!(statuses.len() >= 2 && dropped.iter().any(|row| row.drop_reason == "malformed"), "only {statuses:?}");
    let counted: u64 = written.manifests()[0].counts.values().sum();
    assert_eq!(counted, challenges.len() as u64);

    let output = with(env!("CARGO_BIN_EXE_solve-sample"), &["--iteration", "1", "--phase", "solver", "--step", "1"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("empty") && text.contains("hint:"), "{text}");
}
