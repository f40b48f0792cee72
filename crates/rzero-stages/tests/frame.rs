//! The frame from within: checkpoints by role and iteration, fingerprints of everything declared, files beside tables.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use rzero_schema::ids::Place;
use rzero_schema::vocab::{Phase, Role, Stage};
use rzero_stages::context::StageContext;
use rzero_stages::exit::{StageExit, exit_of};
use rzero_stages::frame::run_stage;
use rzero_stages::inputs::StageInputs;
use std::fs;
use std::path::Path;
use support::{CURRICULUM, Run};

const STEP: Place = Place::new(1, Phase::Solver, 2);

fn context(run: &Run, overrides: &[&str]) -> StageContext {
    context_at(STEP, run, overrides)
}

fn context_at(place: Place, run: &Run, overrides: &[&str]) -> StageContext {
    let mut args = run.args(place, 0, 1);
    args.overrides = overrides.iter().map(|text| (*text).to_owned()).collect();
    StageContext::new(Stage::GrpoStep, &args, &[Phase::Solver]).unwrap()
}

#[test]
fn checkpoints_follow_from_role_iteration_and_start() {
    let run = Run::new();
    let under = |path: std::path::PathBuf| path.strip_prefix(run.folder.path()).unwrap().to_string_lossy().into_owned();

    let plain = context(&run, &[]);
    assert_eq!(under(plain.checkpoint_dir(Role::Solver, 0).unwrap()), "model");
    assert_eq!(under(plain.checkpoint_dir(Role::Solver, 2).unwrap()), "run/iter-002/solver/checkpoint");
    assert_eq!(under(plain.policy_checkpoint(Role::Solver, 1, 1).unwrap()), "model");
    let second = plain.policy_checkpoint(Role::Solver, 1, 2).unwrap();
    assert_eq!(under(second), "run/iter-001/solver/step-01/grpo-step/checkpoint");

    // Where an iteration starts from is seen from the second on.
    let context = |overrides: &[&str]| context_at(Place { iteration: 3, ..STEP }, &run, overrides);
    assert_eq!(under(context(&[]).start_checkpoint(Role::Challenger, 3).unwrap()), "run/iter-002/challenger/checkpoint");
    let untrained = context(&["challenger.steps=0"]);
    assert_eq!(under(untrained.checkpoint_dir(Role::Challenger, 3).unwrap()), "model");
    let from_solver = context(&["challenger.start_from=solver"]);
    assert_eq!(under(from_solver.start_checkpoint(Role::Challenger, 3).unwrap()), "run/iter-002/solver/checkpoint");
    let restarted = context(&["solver.start_from=base"]);
    assert_eq!(under(restarted.start_checkpoint(Role::Solver, 3).unwrap()), "model");
}

fn write_model(folder: &Path, weights: &str) {
    fs::create_dir_all(folder).unwrap();
    for (name, content) in [("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors", weights)] {
        fs::write(folder.join(name), content).unwrap();
    }
}

#[test]
fn everything_declared_decides_whether_output_is_complete() {
    let run = Run::new();
    let (model, prompt) = (run.folder.path().join("model"), run.folder.path().join("solver.jinja"));
    write_model(&model, "weights");
    fs::write(&prompt, "solve").unwrap();
    let attempt = |value: u32| {
        let context = context(&run, &[]);
        let inputs = StageInputs::new(&context)
            .with_checkpoint("policy", &model)
            .with_file("solver prompt", &prompt)
            .with_value("variant", value);
        let mut has_run = false;
        let result = run_stage(&context, inputs, |inputs, outputs| {
            has_run = true;
            assert_eq!(inputs.path("policy")?, model);
            let text = inputs.text("solver prompt")?;
            let file = outputs.path("checkpoint/config.json");
            outputs.write_file(&file, text.as_bytes())?;
            outputs.copy_file(&file, &context.layout.phase_checkpoint(1, Phase::Solver).join("config.json"))?;
            outputs.metric("not a number", f64::NAN);
            outputs.count("things", 2);
            Ok(())
        });
        result.map(|()| has_run).map_err(|error| exit_of(&error))
    };
    assert_eq!(attempt(1), Ok(true));
    assert_eq!(attempt(1), Ok(false));
    assert_eq!(attempt(2), Err(StageExit::Conflict));
    fs::write(&prompt, "answer").unwrap();
    assert_eq!(attempt(1), Err(StageExit::Conflict));
    fs::write(&prompt, "solve").unwrap();
    write_model(&model, "other weights");
    assert_eq!(attempt(1), Err(StageExit::Conflict));
    write_model(&model, "weights");
    assert_eq!(attempt(1), Ok(false));
    fs::write(model.join("chat_template.jinja"), "{{ messages }}").unwrap();
    assert_eq!(attempt(1), Err(StageExit::Conflict));
    fs::remove_file(model.join("chat_template.jinja")).unwrap();
    fs::remove_file(run.layout.phase_checkpoint(1, Phase::Solver).join("config.json")).unwrap();
    assert_eq!(attempt(1), Ok(true));

    let output = run.open(Stage::GrpoStep, STEP);
    output.verify_digests().unwrap();
    let manifest = &output.manifests()[0];
    let paths: Vec<&str> = manifest.outputs.iter().map(|record| record.path.as_str()).collect();
    assert_eq!(paths, ["iter-001/solver/step-02/grpo-step/checkpoint/config.json", "iter-001/solver/checkpoint/config.json"]);
    let inputs: Vec<&str> = manifest.inputs.iter().map(|record| record.path.as_str()).collect();
    assert_eq!(inputs, ["model/config.json", "model/tokenizer.json", "model/model.safetensors", "solver.jinja"]);
    assert!(manifest.digests.contains_key("policy/model.safetensors") && manifest.digests["variant"] == "1");
    assert!(manifest.metrics.is_empty());

    fs::remove_file(model.join("tokenizer.json")).unwrap();
    assert_eq!(attempt(1), Err(StageExit::Input));
}

#[test]
fn a_checkpoint_of_the_run_counts_only_with_the_manifest_of_its_step() {
    let run = Run::new();
    let train = context(&run, &[]);
    let published = run.layout.phase_checkpoint(1, Phase::Solver);
    let read = || {
        let args = run.args(Place::new(1, Phase::Eval, 0), 0, 1);
        let eval = StageContext::new(Stage::Eval, &args, &[Phase::Eval]).unwrap();
        let inputs = StageInputs::new(&eval).with_checkpoint("solver", &eval.checkpoint_dir(Role::Solver, 1).unwrap());
        run_stage(&eval, inputs, |_, _| Ok(()))
    };
    // All files are there, as a killed step may leave them, but no manifest.
    write_model(&published, "half a training");
    let error = read().unwrap_err();
    assert_eq!(exit_of(&error), StageExit::Input);
    assert!(rzero_stages::exit::hints(&error)[0].ends_with("--iteration 1 --phase solver --step 2"));

    run_stage(&train, StageInputs::new(&train), |_, outputs| {
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            outputs.write_file(&published.join(name), b"{}")?;
        }
        Ok(())
    })
    .unwrap();
    read().unwrap();
    fs::write(published.join("model.safetensors"), "[]").unwrap();
    assert_eq!(exit_of(&read().unwrap_err()), StageExit::Input);
}

#[test]
fn a_file_of_a_stage_counts_only_as_its_manifest_lists_it() {
    let run = Run::new();
    let before = StageContext::new(Stage::GrpoStep, &run.args(Place { step: 1, ..STEP }, 0, 1), &[Phase::Solver]).unwrap();
    let optimizer = run.layout.step_optimizer(before.place);
    let read = || {
        let train = context(&run, &[]);
        run_stage(&train, StageInputs::new(&train).with_file("optimizer", &optimizer), |_, _| Ok(()))
    };
    // The file is there, as a killed step may leave it, but no manifest.
    fs::create_dir_all(optimizer.parent().unwrap()).unwrap();
    fs::write(&optimizer, "half a state").unwrap();
    let error = read().unwrap_err();
    assert_eq!(exit_of(&error), StageExit::Input);
    assert!(rzero_stages::exit::hints(&error)[0].ends_with("--iteration 1 --phase solver --step 1"));

    let write = || {
        run_stage(&before, StageInputs::new(&before), |_, outputs| outputs.write_file(&optimizer, b"state")).unwrap();
    };
    write();
    read().unwrap();
    fs::write(&optimizer, "other").unwrap();
    let error = read().unwrap_err();
    assert_eq!(exit_of(&error), StageExit::Input);
    assert!(rzero_stages::exit::hints(&error)[0].starts_with("remove the file and run: grpo-step --run "));
    // As the hint says.
    fs::remove_file(&optimizer).unwrap();
    write();
    read().unwrap();
}

#[test]
fn what_dead_processes_left_is_removed_from_every_folder_of_a_stage() {
    let run = Run::new();
    let train = context(&run, &[]);
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    // The name that a write of this process takes, but for the number of the process.
    let probe = rzero_io::atomic::AtomicFile::create(&run.folder.path().join("probe/file")).unwrap();
    let entry = fs::read_dir(run.folder.path().join("probe")).unwrap().next().unwrap().unwrap();
    let name = entry.file_name().into_string().unwrap();
    drop(probe);
    let name = name.replacen(&format!(".{}.", std::process::id()), &format!(".{}.", child.id()), 1);
    let folder = run.layout.stage_folder(Stage::GrpoStep, STEP);
    let folders = [
        run.layout.root().to_owned(),
        folder.join("checkpoint"),
        folder,
        run.layout.phase_checkpoint(STEP.iteration, STEP.phase),
    ];
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(&name), "half").unwrap();
    }
    run_stage(&train, StageInputs::new(&train), |_, _| Ok(())).unwrap();
    for folder in &folders {
        assert!(!folder.join(&name).exists(), "{}", folder.display());
    }
}

#[test]
fn an_input_that_was_not_declared_is_a_defect() {
    let run = Run::new();
    let context = context(&run, &[]);
    let error = run_stage(&context, StageInputs::new(&context), |inputs, _| inputs.output(Stage::Filter).map(drop)).unwrap_err();
    assert_eq!(exit_of(&error), StageExit::Internal);
}

#[test]
fn stages_that_start_a_run_together_agree_on_its_record() {
    let run = Run::new();
    let results: Vec<anyhow::Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|index| {
                let args = run.args(CURRICULUM, index, 4);
                scope.spawn(move || {
                    let context = StageContext::new(Stage::ChallengeGen, &args, &[Phase::Curriculum])?;
                    run_stage(&context, StageInputs::new(&context), |_, _| Ok(()))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    results.into_iter().for_each(|result| result.unwrap());
    assert_eq!(run.open(Stage::ChallengeGen, CURRICULUM).manifests().len(), 4);
}
