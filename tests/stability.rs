//! What is to keep the loop from collapsing, on runs of the `smoke` profile with the switches on: what they do is in the rows, and the audit
//! derives the same.

use crate::just::just;
use crate::whole_run::finish;
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::{ChallengeId, Place};
use rzero_schema::tables::{CurriculumRow, RewardRow};
use rzero_schema::vocab::{Phase, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

/// Two iterations under these settings.
fn run(run: &Path, settings: &str) -> RunLayout {
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
