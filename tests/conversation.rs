//! A model with a chat template: conversations as prompts through the real stages, the same rows as from the texts they stand for.

use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::tables::Rollout;
use rzero_schema::vocab::{Phase, Stage};
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PLACE: Place = Place::new(1, Phase::Challenger, 1);

/// What the texts of `pipelines/domains/arithmetic` say, in turns.
const TEMPLATE: &str = "\
{{ bos_token }}
{%- for message in messages %}
    {%- if message.content == 'Ask.' %}
        {{- '<challenger>' }}
    {%- else %}
        {{- '<solver><question>' + message.content + '</question>' }}
    {%- endif %}
{%- endfor %}";

/// The embedded model, with a chat template and prompts that need it.
fn conversing_model(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(Path::new(ROOT).join("data/models/tiny").join(name), model.join(name)).unwrap();
    }
    std::fs::write(model.join("chat_template.jinja"), TEMPLATE).unwrap();
    std::fs::write(model.join("tokenizer_config.json"), r#"{"bos_token": "<bos>"}"#).unwrap();
    for (name, content) in [("challenger", "Ask."), ("solver", "{{ question }}")] {
        let text = format!("[[messages]]\nrole = \"user\"\ncontent = \"{content}\"\n");
        std::fs::write(folder.join(name).with_extension("toml"), text).unwrap();
    }
    model
}

/// Runs the stages of a Challenger step, up to one; the exit code and what went wrong.
fn stages(run: &Path, overrides: &[String], programs: &[&str]) -> (Option<i32>, String) {
    let mut last = (Some(0), String::new());
    for program in programs {
        let output = Command::new(program)
            .current_dir(ROOT)
            .env_clear()
            .args(["--profile", "pipelines/profiles/smoke.toml", "--iteration", "1", "--phase", "challenger", "--step", "1"])
            .arg("--run")
            .arg(run)
            .args(overrides.iter().map(|text| format!("--set={text}")))
            .output()
            .unwrap();
        last = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
    }
    last
}

#[test]
fn a_conversation_gives_the_rows_of_the_text_that_it_becomes_and_its_template_goes_with_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = conversing_model(folder.path());
    let of = |name: &str| folder.path().join(name).display().to_string();
    let overrides = [
        format!("model.path={}", model.display()),
        format!("domain.challenger_prompt={}", of("challenger.toml")),
        format!("domain.solver_prompt={}", of("solver.toml")),
    ];
    let (ask, solve) = (env!("CARGO_BIN_EXE_challenge-gen"), env!("CARGO_BIN_EXE_solve-sample"));
    let all = [ask, solve, env!("CARGO_BIN_EXE_vote-label"), env!("CARGO_BIN_EXE_grpo-step")];
    let (conversing, plain) = (folder.path().join("conversing"), folder.path().join("plain"));
    let (code, told) = stages(&conversing, &overrides, &all);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = stages(&plain, &[], &[ask, solve]);
    assert_eq!(code, Some(0), "{told}");
    for stage in [Stage::ChallengeGen, Stage::SolveSample] {
        let rows = |run: &Path| {
            let rollouts = StageOutput::open(&RunLayout::new(run), stage, PLACE).unwrap().read::<Rollout>().unwrap();
            rollouts.into_iter().map(|row| (row.prompt_tokens, row.completion_tokens)).collect::<Vec<_>>()
        };
        assert!(!rows(&plain).is_empty() && rows(&conversing) == rows(&plain), "{stage}");
    }
    let checkpoint = RunLayout::new(&conversing).step_checkpoint(PLACE);
    assert_eq!(std::fs::read_to_string(checkpoint.join("chat_template.jinja")).unwrap(), TEMPLATE);
    assert!(checkpoint.join("tokenizer_config.json").is_file());

    // The template decides the output, and one that refuses the conversation is named.
    std::fs::write(model.join("chat_template.jinja"), format!("{TEMPLATE} ")).unwrap();
    assert_eq!(stages(&conversing, &overrides, &[ask]).0, Some(4));
    std::fs::write(model.join("chat_template.jinja"), "{{ raise_exception('a system turn is needed') }}").unwrap();
    let (code, told) = stages(&folder.path().join("third"), &overrides, &[ask]);
    assert!(code == Some(3) && told.contains("a system turn is needed") && told.contains("hint:"), "{told}");
}
