//! What is to keep the loop from collapsing, on runs of the `smoke` profile with the switches on: what they do is in the rows, and the audit
//! derives the same.

use crate::just::just;
use crate::whole_run::finish;
use rzero_io::layout::{RunLayout, Shard};
use rzero_io::manifest::read_manifest;
use rzero_io::set::StageOutput;
use rzero_schema::ids::{ChallengeId, Place};
use rzero_schema::tables::{Challenge, CurriculumRow, DroppedRow, Label, MemoryRow, RewardRow, Rollout};
use rzero_schema::vocab::{Phase, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

/// Two iterations under these settings.
pub(crate) fn run(run: &Path, settings: &str) -> RunLayout {
    let mut command = just();
    command.arg("profile=smoke").arg(format!("run={}", run.display())).arg(format!("set={settings}"));
    command.args(["loop", "2"]).stdout(Stdio::null()).stderr(Stdio::piped());
    finish(command);
    let audit = Command::new(env!("CARGO_BIN_EXE_audit")).arg(run).arg("--replay").output().unwrap();
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    RunLayout::new(run.to_owned())
}

fn curriculum(layout: &RunLayout, iteration: u32) -> BTreeMap<String, CurriculumRow> {
    let output = StageOutput::open(layout, Stage::Filter, Place::new(iteration, Phase::Curriculum, 0)).unwrap();
    output.read::<CurriculumRow>().unwrap().into_iter().map(|row| (row.challenge_id.clone(), row)).collect()
}

fn rewards(layout: &RunLayout, iteration: u32, step: u32) -> Vec<RewardRow> {
    StageOutput::open(layout, Stage::GrpoStep, Place::new(iteration, Phase::Solver, step)).unwrap().read().unwrap()
}

#[test]
fn earlier_questions_are_replayed_and_labels_count_for_as_much_as_they_were_agreed_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "stability.replay_share=0.5;stability.weigh_by_votes=true;solver.grpo.learning_rate=0;\
                    curriculum.bands=[{ from_iteration = 1, low = 0.0, high = 1.0 }]";
    let layout = run(&folder.path().join("run"), settings);
    let (first, second) = (curriculum(&layout, 1), curriculum(&layout, 2));
    for (iteration, step) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let rows = rewards(&layout, iteration, step);
        let mut by_group: BTreeMap<u64, Vec<&RewardRow>> = BTreeMap::new();
        for row in &rows {
            let kept = first.get(&row.challenge_id).or_else(|| second.get(&row.challenge_id)).unwrap();
            assert_eq!((row.vote_share, row.pseudo_label.as_ref()), (Some(kept.vote_share), Some(&kept.pseudo_label)));
            by_group.entry(row.group).or_default().push(row);
        }
        // Of four questions, two are replayed as soon as there is an earlier curriculum.
        let is_earlier = |row: &&RewardRow| first.contains_key(&row.challenge_id);
        let num_earlier = by_group.values().filter(|rows| is_earlier(&rows[0])).count();
        assert_eq!((by_group.len(), num_earlier), if iteration == 1 { (4, 4) } else { (4, 2) });
        // (reward - mean) / deviation has a mean square of 1 (or is 0 throughout): what is over is the vote share.
        for rows in by_group.values() {
            let share = rows[0].vote_share.unwrap();
            let square: f64 = rows.iter().map(|row| row.advantage * row.advantage).sum::<f64>() / rows.len() as f64;
            let unweighted = square.sqrt() / share;
            // The deviation is that of a sample: n - 1.
            let whole = ((rows.len() - 1) as f64 / rows.len() as f64).sqrt();
            assert!(unweighted == 0.0 || (unweighted - whole).abs() < 1e-3, "{unweighted} for a share of {share}");
        }
    }
    // A replayed question's life goes on after its own iteration.
    let replayed: BTreeSet<String> =
        rewards(&layout, 2, 1).into_iter().map(|row| row.challenge_id).filter(|id| first.contains_key(id)).collect();
    let id: ChallengeId = replayed.first().unwrap().parse().unwrap();
    let told = Command::new(env!("CARGO_BIN_EXE_explain")).arg(id.to_string()).arg("--run").arg(layout.root()).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("Trained on in iteration 2, the Solver's step 1"), "{told}");
}

#[test]
fn the_challenger_is_held_against_everything_that_was_ever_asked() {
    let folder = tempfile::tempdir().unwrap();
    let layout = run(&folder.path().join("run"), "stability.memory_weight=2.0;challenger.cluster_threshold=0.9");
    let memory = |iteration| -> Vec<MemoryRow> {
        StageOutput::open(&layout, Stage::Remember, Place::new(iteration, Phase::Curriculum, 0)).unwrap().read().unwrap()
    };
    let (first, second) = (memory(1), memory(2));
    // What was remembered stays as it was, and every well-formed candidate joins.
    assert_eq!(second[..first.len()], first[..]);
    let candidates: Vec<Challenge> =
        StageOutput::open(&layout, Stage::ChallengeGen, Place::new(2, Phase::Curriculum, 0)).unwrap().read().unwrap();
    let asked: Vec<&str> = candidates.iter().filter_map(|challenge| challenge.question.as_deref()).collect();
    assert_eq!(second[first.len()..].iter().map(|row| row.question.as_str()).collect::<Vec<_>>(), asked);
    for row in &second {
        let leader = second.iter().find(|other| other.cluster == row.cluster).unwrap();
        assert!(leader.is_leader && (row.is_leader == (row.challenge_id == leader.challenge_id)));
        assert!(row.is_leader || row.similarity > 0.1, "{row:?}");
    }
    let rewards = |iteration| -> Vec<RewardRow> {
        StageOutput::open(&layout, Stage::GrpoStep, Place::new(iteration, Phase::Challenger, 1)).unwrap().read().unwrap()
    };
    assert!(rewards(1).iter().all(|row| row.memory.is_none()));
    let mut num_alike = 0;
    for row in rewards(2).iter().filter(|row| row.status == "ok") {
        let memory = row.memory.unwrap();
        assert!((0.0..=2.0).contains(&memory));
        let reward = (row.uncertainty.unwrap() - row.repetition.unwrap()).max(0.0);
        assert!((row.reward - reward).abs() < 1e-12 && row.repetition.unwrap() >= memory);
        num_alike += usize::from(memory > 0.0);
    }
    assert!(num_alike > 0);
}

#[test]
fn two_solvers_give_half_of_the_answers_each_and_where_they_disagree_there_is_nothing_to_train_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "stability.label_solver=both;curriculum.num_samples=5;solver.grpo.learning_rate=3e-3;\
                    curriculum.bands=[{ from_iteration = 1, low = 0.0, high = 1.0 }]";
    let layout = run(&folder.path().join("run"), settings);
    let mut num_disagreed = 0;
    for iteration in [1, 2] {
        let place = Place::new(iteration, Phase::Curriculum, 0);
        let labels: Vec<Label> = StageOutput::open(&layout, Stage::VoteLabel, place).unwrap().read().unwrap();
        let dropped: Vec<DroppedRow> = StageOutput::open(&layout, Stage::Filter, place).unwrap().read().unwrap();
        let kept = curriculum(&layout, iteration);
        for label in labels {
            let lead = |classes: &[i32]| {
                let count = |class: i32| classes.iter().filter(|of| **of == class).count();
                count(0) > 0 && classes.iter().all(|class| *class < 0 || count(*class) <= count(0))
            };
            let is_agreed = lead(&label.sample_classes[..3]) && lead(&label.sample_classes[3..]);
            assert_eq!(label.is_agreed, Some(is_agreed), "{:?}", label.sample_classes);
            let reason = dropped.iter().find(|row| row.challenge_id == label.challenge_id).map(|row| row.drop_reason.as_str());
            assert_eq!(reason.is_none(), kept.contains_key(&label.challenge_id));
            assert!(is_agreed || matches!(reason, Some("disagreement" | "no_label" | "duplicate")), "{reason:?}");
            num_disagreed += usize::from(reason == Some("disagreement"));
        }
    }
    assert!(num_disagreed > 0, "no two Solvers disagreed on anything");

    // In the second iteration the two are different models.
    let manifest = layout.manifest(Stage::SolveSample, Place::new(2, Phase::Curriculum, 0), Shard::WHOLE);
    let digests = read_manifest(&manifest).unwrap().digests;
    let weights = |solver: &str| digests.get(&format!("{solver}/model.safetensors")).unwrap();
    assert_ne!(weights("solver"), weights("earlier solver"));
}

/// Problems with answers, as anchors.
pub(crate) fn labelled(folder: &Path) -> String {
    let file = folder.join("labelled.parquet");
    let mut command = Command::new(env!("CARGO_BIN_EXE_make-ladder"));
    command.args(["--seed", "5", "--per-level", "3", "--output"]).arg(&file);
    command.arg("--profile").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/profiles/tiny-base.toml"));
    finish(command);
    file.display().to_string()
}

#[test]
fn anchors_stand_beside_the_challengers_questions_or_in_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let anchors = labelled(folder.path());
    let layout = run(&folder.path().join("mixed"), &format!("domain.anchors={anchors};stability.anchor_share=0.25"));
    for (iteration, step) in [(1, 1), (2, 2)] {
        let rows = rewards(&layout, iteration, step);
        let asked: BTreeMap<u64, &str> = rows.iter().map(|row| (row.group, row.challenge_id.as_str())).collect();
        assert_eq!(asked.values().filter(|id| id.starts_with("anchor:ladder-5/")).count(), 1, "{asked:?}");
    }
    // Alone, they are all that is asked, and nobody writes questions.
    let settings = format!("domain.anchors={anchors};stability.anchor_share=1");
    let layout = run(&folder.path().join("gold"), &settings);
    let rows = rewards(&layout, 2, 1);
    assert!(rows.iter().all(|row| row.challenge_id.starts_with("anchor:") && row.vote_share == Some(1.0)));
    assert!(rows.iter().any(|row| row.reward == 1.0) && rows.iter().any(|row| row.reward == 0.0));
    assert!(!layout.root().join("iter-001/curriculum").exists() && !layout.root().join("iter-001/challenger").exists());
}

#[test]
fn shown_answers_become_more_likely_and_are_in_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    let anchors = labelled(folder.path());
    let settings = format!(
        "domain.anchors={anchors};stability.anchor_share=1;solver.objective=sft;solver.num_questions=18;\
         solver.steps=6;solver.grpo.learning_rate=3e-3;solver.grpo.kl_coef=0"
    );
    let layout = run(&folder.path().join("run"), &settings);
    let losses: Vec<f64> = (1..=6)
        .map(|step| {
            let output = StageOutput::open(&layout, Stage::GrpoStep, Place::new(1, Phase::Solver, step)).unwrap();
            // The mean of -log p over the 18 answers, and nothing of their prompts.
            output.manifests()[0].metrics["negative_log_likelihood"]
        })
        .collect();
    assert!(losses[5] < 0.8 * losses[0], "{losses:?}");
    let rollouts: Vec<Rollout> =
        StageOutput::open(&layout, Stage::SolveSample, Place::new(1, Phase::Solver, 1)).unwrap().read().unwrap();
    assert_eq!(rollouts.len(), 18);
    let rows = rewards(&layout, 1, 1);
    for (rollout, row) in rollouts.iter().zip(&rows) {
        assert_eq!(rollout.completion, format!("\\boxed{{{}}}", row.pseudo_label.as_deref().unwrap()));
        assert_eq!((row.reward, row.advantage), (1.0, 1.0));
    }
}
