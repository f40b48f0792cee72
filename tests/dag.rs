//! The order of the stages: the recipes are the only place where it stands, so a change of it must be seen here.

use crate::just::just;
use std::process::Command;

fn printed(command: &mut Command) -> String {
    let output = command.output().expect("just is installed (pipelines/bootstrap does it)");
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("recipes print text")
}

#[test]
fn two_iterations_of_smoke_run_these_stages_in_this_order() {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("plan_smoke_2", printed(just().args(["profile=smoke", "plan", "2"])));
    });
}

#[test]
fn shards_and_overrides_reach_the_plan() {
    let plan = printed(just().args(["profile=smoke", "shards=3", "set=challenger.steps=0;solver.steps=1", "plan", "1"]));
    assert!(!plan.contains("--phase challenger"), "{plan}");
    assert_eq!(plan.matches("solve-sample --iteration 1 --phase solver --step 1").count(), 3);
    assert_eq!(plan.lines().filter(|line| line.starts_with("grpo-step") || line.starts_with("filter")).count(), 2);
    assert_eq!(plan.matches("--shard-index 2 --num-shards 3").count(), plan.matches("--shard-index 0 --num-shards 3").count());
}

#[test]
fn what_is_typed_wrong_is_told_before_anything_is_built() {
    for (arguments, expected) in [
        (
            ["profile=nope", "iterate"].as_slice(),
            "choose one of: octothinker-3b paper products qwen3-4b-base smoke smollm2 smollm2-lora tiny",
        ),
        (&["profile=tiny-base", "iterate"], "no profile of a run is called `tiny-base`"),
        (&["profile=smoke", "iterate", "03"], "`03` is no number of iterations"),
        (&["profile=smoke", "plan", "-1"], "`-1` is no number of iterations"),
        (&["profile=smoke", "shards=0", "plan", "1"], "`0` is no number of shards"),
        (&["profile=smoke", "solver-phase", "x[0]"], "`x[0]` is no iteration"),
    ] {
        let output = just().args(arguments).output().expect("just is installed");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(expected), "{arguments:?}: {text}");
        assert!(!text.contains("Compiling"), "{text}");
    }
}

/// Runs that differ from the plain one lie beside it, under a name that says from which profile.
#[test]
fn seeds_have_folders_of_their_own_and_keep_what_is_set() {
    let shown = |arguments: &[&str]| {
        let output = just().env("JUST_DRY_RUN", "true").args(arguments).output().expect("just is installed");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(shown(&["profile=smoke", "seeds"]).contains("before='data/runs/smoke-seed'"));
    assert!(shown(&["seeds"]).contains("set=\"${RZERO_SET:+$RZERO_SET;}seed=$seed\" run=\"$before-$seed\""));
}

#[test]
fn a_run_without_binaries_says_how_to_build_them() {
    let output = just().args(["bin=target/nowhere", "plan", "1"]).output().expect("just is installed");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("just setup"), "{text}");
}

#[test]
fn a_dry_run_says_of_every_stage_what_it_would_do_and_does_nothing() {
    let told = |run: &std::path::Path| {
        let mut command = just();
        command.args(["profile=smoke", "shards=2"]).arg(format!("run={}", run.display())).args(["dry-run", "1"]);
        let output = command.output().expect("just is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let folder = tempfile::tempdir().unwrap();
    let text = told(&folder.path().join("new"));
    assert!(text.contains("absent, would run") && text.contains("would refuse (exit 3)"), "{text}");
    assert!(text.contains("holds no finished output of vote-label"), "{text}");
    assert!(!folder.path().join("new").exists());
    let text = told(crate::audit::whole(7, 2));
    let (stages, complete) = (text.matches(", shard ").count(), text.matches("already complete, would do nothing").count());
    assert!(stages > 20 && stages == complete, "{text}");
}
