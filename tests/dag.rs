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
fn a_run_without_binaries_says_how_to_build_them() {
    let output = just().args(["bin=target/nowhere", "plan", "1"]).output().expect("just is installed");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("just setup"), "{text}");
}
