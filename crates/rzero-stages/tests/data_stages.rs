//! The data stages as processes: votes, gates, and the frame's promises (skip, refuse, overwrite, dry run, shards, exit codes).

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use rzero_schema::ids::Place;
use rzero_schema::tables::{Challenge, CurriculumRow, DroppedRow, Label};
use rzero_schema::vocab::{Phase, Stage};
use std::fs;
use support::{CURRICULUM, Case, Run, told};

const VOTE: &str = "--iteration 1 --phase curriculum";

/// One case for every drop reason, and two that stay.
fn cases() -> Vec<Case<'static>> {
    let boxed = |answers: [&'static str; 4]| answers.to_vec();
    vec![
        (Some("1+1"), boxed([r"\boxed{2}", r"\boxed{2}", r"\boxed{3}", "none"])),
        (None, vec![]),
        (Some("2+2"), boxed([r"\boxed{4}", r"\boxed{4}", r"\boxed{4}", r"\boxed{4}"])),
        (Some("1+1"), boxed([r"\boxed{2}", r"\boxed{2}", r"\boxed{3}", "none"])),
        (Some("3+3"), boxed(["none", r"\boxed{", r"\boxed{6}…", "\u{fffd}"])),
        (Some("4+4"), boxed([r"\boxed{8}", "none", "none", "none"])),
        (Some("5+5"), boxed([r"\boxed{10}", r"\boxed{10}", r"\boxed{9}", r"\boxed{9}"])),
        (Some("6+6"), boxed([r"\boxed{12}", r"\boxed{12}", r"\boxed{12}", r"\boxed{9}"])),
    ]
}

#[test]
fn candidates_are_kept_or_dropped_with_their_first_reason() {
    let run = Run::new();
    run.play(CURRICULUM, &cases());
    let vote = run.command(Stage::VoteLabel, VOTE);
    assert!(told(&vote).starts_with("exit 0"), "{}", told(&vote));
    let filter = run.command(Stage::Filter, "--iteration 1");
    assert!(told(&filter).starts_with("exit 0"), "{}", told(&filter));
    let manifest_path = String::from_utf8(filter.stdout).unwrap();
    assert!(manifest_path.trim().ends_with("iter-001/curriculum/filter/manifest-00000-of-00001.json"), "{manifest_path}");

    let labels = run.open(Stage::VoteLabel, CURRICULUM);
    let counts = &labels.manifests()[0].counts;
    assert_eq!((counts["parsed"], counts["no_box"], counts["unbalanced_box"]), (19, 6, 1));
    assert_eq!((counts["truncated"], counts["invalid_utf8"]), (1, 1));
    let labels = labels.read::<Label>().unwrap();
    assert_eq!(labels.iter().map(|label| label.row).collect::<Vec<_>>(), [0, 2, 3, 4, 5, 6, 7]);
    assert_eq!((labels[0].pseudo_label.as_deref(), labels[0].vote_share, labels[0].num_parsed), (Some("2"), 0.5, 3));
    assert_eq!(labels[0].sample_classes, [0, 0, 1, -1]);
    assert_eq!(labels[3].pseudo_label, None);

    let filtered = run.open(Stage::Filter, CURRICULUM);
    let kept: Vec<u64> = filtered.read::<CurriculumRow>().unwrap().iter().map(|row| row.row).collect();
    assert_eq!(kept, [0, 7]);
    let dropped = filtered.read::<DroppedRow>().unwrap();
    let reasons: Vec<(u64, &str)> = dropped.iter().map(|row| (row.row, row.drop_reason.as_str())).collect();
    let expected = [(1, "malformed"), (2, "too_easy"), (3, "duplicate"), (4, "no_label"), (5, "too_hard"), (6, "narrow_margin")];
    assert_eq!(reasons, expected);
    assert!(dropped.iter().all(|row| row.gate_version == 3));
    for (_, reason) in expected {
        assert_eq!(filtered.manifests()[0].counts[reason], 1);
    }
}

#[test]
fn rows_are_equal_for_any_number_of_shards() {
    let all = cases();
    let whole = Run::new();
    whole.play(CURRICULUM, &all);
    whole.command(Stage::VoteLabel, VOTE);
    let expected = whole.open(Stage::VoteLabel, CURRICULUM).read::<Label>().unwrap();
    for num_shards in [2, 3, 7] {
        let run = Run::new();
        run.play(CURRICULUM, &all);
        for index in 0..num_shards {
            let done = run.command(
                Stage::VoteLabel,
                &format!("{VOTE} --index-base 1 --num-shards {num_shards} --shard-index {}", index + 1),
            );
            assert!(told(&done).starts_with("exit 0"), "{}", told(&done));
        }
        assert_eq!(run.open(Stage::VoteLabel, CURRICULUM).read::<Label>().unwrap(), expected);
        assert!(told(&run.command(Stage::Filter, "--iteration 1")).starts_with("exit 0"));
    }
}

#[test]
fn a_missing_answer_stops_the_vote_and_names_the_question() {
    let mut wrong = cases();
    wrong[2].1.pop();
    let run = Run::new();
    run.play(CURRICULUM, &wrong);
    let output = told(&run.command(Stage::VoteLabel, VOTE));
    assert!(output.starts_with("exit 3\n"), "{output}");
    assert!(output.contains("question 001/curriculum/00/00002 has answers [0, 1, 2], expected samples 0 to 3"), "{output}");
    assert!(output.contains("\nhint: rerun solve-sample"), "{output}");
}

#[test]
fn an_answer_to_a_malformed_question_stops_the_vote() {
    let mut wrong = cases();
    wrong[1].1 = vec!["a", "b", "c", "d"];
    let run = Run::new();
    run.play(CURRICULUM, &wrong);
    let output = told(&run.command(Stage::VoteLabel, VOTE));
    assert!(output.starts_with("exit 3\n") && output.contains("001/curriculum/00/00001"), "{output}");
}

#[test]
fn missing_inputs_are_named_with_the_command_that_makes_them() {
    let run = Run::new();
    run.play(CURRICULUM, &cases());
    let output = told(&run.command(Stage::Filter, "--iteration 1"));
    assert!(output.starts_with("exit 3\n"), "{output}");
    assert!(output.contains("hint: run: vote-label --run ") && output.contains("--iteration 1 --phase curriculum"), "{output}");

    run.command(Stage::VoteLabel, &format!("{VOTE} --num-shards 3 --shard-index 1"));
    let output = told(&run.command(Stage::Filter, "--iteration 1"));
    assert!(output.starts_with("exit 3\n") && output.contains("lacks 2 of 3 shards of vote-label: 0, 2"), "{output}");
}

#[test]
fn the_same_again_does_nothing_and_other_inputs_are_refused() {
    let run = Run::new();
    run.play(CURRICULUM, &cases());
    run.command(Stage::VoteLabel, VOTE);
    let manifest = run.layout.manifest(Stage::VoteLabel, CURRICULUM, rzero_io::layout::Shard::WHOLE);
    let first = fs::read(&manifest).unwrap();
    let again = run.command(Stage::VoteLabel, VOTE);
    assert!(told(&again).contains("already complete"), "{}", told(&again));
    assert!(String::from_utf8_lossy(&again.stdout).trim().ends_with("manifest-00000-of-00001.json"));
    assert_eq!(fs::read(&manifest).unwrap(), first);

    // The stage before runs anew on something else, as with --overwrite.
    fs::remove_dir_all(run.layout.stage_folder(Stage::SolveSample, CURRICULUM)).unwrap();
    let mut other = cases();
    other[0].1[0] = r"\boxed{5}";
    run.play_answers(CURRICULUM, &other);
    let refused = told(&run.command(Stage::VoteLabel, VOTE));
    assert!(refused.starts_with("exit 4\n") && refused.contains("--iteration 1 --phase curriculum --overwrite"), "{refused}");
    let plan = told(&run.command(Stage::VoteLabel, &format!("{VOTE} --dry-run")));
    assert!(plan.starts_with("exit 0\n") && plan.contains("would refuse (exit 4)"), "{plan}");
    assert_eq!(fs::read(&manifest).unwrap(), first);

    let replaced = told(&run.command(Stage::VoteLabel, &format!("{VOTE} --overwrite")));
    assert!(replaced.starts_with("exit 0\n"), "{replaced}");
    assert_ne!(fs::read(&manifest).unwrap(), first);
}

#[test]
fn another_shard_count_is_refused_and_replaced_only_when_asked() {
    let run = Run::new();
    run.play(CURRICULUM, &cases());
    run.command(Stage::VoteLabel, VOTE);
    let two = format!("{VOTE} --num-shards 2 --shard-index");
    let refused = told(&run.command(Stage::VoteLabel, &format!("{two} 0")));
    assert!(refused.starts_with("exit 4\n") && refused.contains("cut into 1 shards, not 2"), "{refused}");
    assert!(refused.contains("--num-shards 2 --shard-index 0 --overwrite"), "{refused}");
    for index in 0..2 {
        let replaced = told(&run.command(Stage::VoteLabel, &format!("{two} {index} --overwrite")));
        assert!(replaced.starts_with("exit 0\n"), "{replaced}");
    }
    assert_eq!(run.open(Stage::VoteLabel, CURRICULUM).manifests().len(), 2);
    let files = fs::read_dir(run.layout.stage_folder(Stage::VoteLabel, CURRICULUM)).unwrap().count();
    assert_eq!(files, 4);
}

#[test]
fn what_a_killed_process_left_is_replaced() {
    let run = Run::new();
    run.play(CURRICULUM, &cases());
    run.command(Stage::VoteLabel, VOTE);
    let folder = run.layout.stage_folder(Stage::VoteLabel, CURRICULUM);
    let part = folder.join("labels-00000-of-00001.parquet");
    let whole = fs::read(&part).unwrap();

    // A part without a manifest.
    fs::remove_file(folder.join("manifest-00000-of-00001.json")).unwrap();
    fs::write(&part, "half").unwrap();
    assert!(told(&run.command(Stage::VoteLabel, VOTE)).starts_with("exit 0\n"));
    assert_eq!(fs::read(&part).unwrap(), whole);

    // A manifest whose part is gone.
    fs::remove_file(&part).unwrap();
    let output = told(&run.command(Stage::VoteLabel, VOTE));
    assert!(output.starts_with("exit 0\n") && output.contains("not whole"), "{output}");
    assert_eq!(fs::read(&part).unwrap(), whole);

    // A manifest that a crash of the machine cut short.
    for torn in ["", "{\"manifest_version\": 2,"] {
        fs::write(folder.join("manifest-00000-of-00001.json"), torn).unwrap();
        let refused = told(&run.command(Stage::Filter, "--iteration 1"));
        assert!(refused.starts_with("exit 3\n") && refused.contains("hint: a crash"), "{refused}");
        let output = told(&run.command(Stage::VoteLabel, VOTE));
        assert!(output.starts_with("exit 0\n") && output.contains("no whole manifest"), "{output}");
    }
    assert!(told(&run.command(Stage::Filter, "--iteration 1")).starts_with("exit 0\n"));
}

#[test]
fn a_stage_in_one_piece_may_be_counted_from_one() {
    let run = Run::new();
    run.play(CURRICULUM, &cases());
    for (stage, arguments) in [(Stage::VoteLabel, VOTE), (Stage::Filter, "--iteration 1")] {
        let output = told(&run.command(stage, &format!("{arguments} --index-base 1")));
        assert!(output.starts_with("exit 0\n"), "{output}");
    }
}

#[test]
fn a_damaged_input_is_found_before_it_is_read() {
    let run = Run::new();
    run.play(CURRICULUM, &cases());
    let part = run.open(Stage::ChallengeGen, CURRICULUM).parts::<Challenge>().unwrap().remove(0);
    let mut bytes = fs::read(&part).unwrap();
    bytes[20] ^= 1;
    fs::write(&part, bytes).unwrap();
    let output = told(&run.command(Stage::VoteLabel, VOTE));
    assert!(output.starts_with("exit 3\n") && output.contains("its manifest says"), "{output}");
}

#[test]
fn one_run_is_one_profile() {
    let run = Run::new();
    run.play(CURRICULUM, &cases());
    // Without a profile the run's own holds.
    assert!(told(&run.command(Stage::VoteLabel, VOTE)).starts_with("exit 0\n"));
    let output = told(&run.command(Stage::VoteLabel, &format!("{VOTE} --set seed=8 --set curriculum.num_samples=5")));
    assert!(output.starts_with("exit 4\n"), "{output}");
    assert!(output.contains("curriculum.num_samples 4 -> 5, seed 7 -> 8"), "{output}");
}

#[test]
fn a_dry_run_tells_everything_and_writes_nothing() {
    let run = Run::new();
    let profile = format!("--profile {}", run.profile().display());
    let output = told(&run.command(Stage::VoteLabel, &format!("{VOTE} {profile} --dry-run")));
    assert!(output.starts_with("exit 0\n"), "{output}");
    for line in [
        "input  challenge-gen at 001/curriculum/00:",
        "input  solve-sample at",
        "hint: run: challenge-gen",
        "would refuse (exit 3)",
    ] {
        assert!(output.contains(line), "{output}");
    }
    assert!(!run.layout.root().exists());
}

#[test]
fn usage_errors_exit_with_2() {
    let run = Run::new();
    let profile = format!("--profile {}", run.profile().display());
    for (stage, arguments, expected) in [
        (Stage::VoteLabel, "--phase curriculum".to_owned(), "--iteration"),
        (Stage::VoteLabel, VOTE.to_owned(), "no profile was given"),
        (Stage::VoteLabel, format!("{profile} --iteration 1"), "serves several phases"),
        (Stage::VoteLabel, format!("{profile} --iteration 1 --phase solver"), "no part in phase solver"),
        (Stage::VoteLabel, format!("{profile} --iteration 1 --phase challenger"), "has steps"),
        (Stage::VoteLabel, format!("{profile} --iteration 1 --phase challenger --step 3"), "not one of the 2 steps"),
        (Stage::VoteLabel, format!("{profile} {VOTE} --step 1"), "has no steps"),
        (Stage::VoteLabel, format!("{profile} --iteration 0 --phase curriculum"), "iteration 0"),
        (Stage::VoteLabel, format!("{profile} {VOTE} --shard-index 1"), "shard index 1 is not one of 1 shards"),
        (Stage::VoteLabel, format!("{profile} {VOTE} --num-shards 0"), "--num-shards is at least 1"),
        (Stage::VoteLabel, format!("{profile} {VOTE} --set nonsense=1"), "names no key `nonsense`"),
        (Stage::VoteLabel, format!("{VOTE} --profile absent.toml"), "cannot read profile"),
        (Stage::Filter, format!("{profile} --iteration 1 --num-shards 2"), "works on all rows at once"),
    ] {
        let output = told(&run.command(stage, &arguments));
        assert!(output.starts_with("exit 2\n") && output.contains(expected), "{arguments}: {output}");
    }
}

#[test]
fn challenger_steps_vote_with_their_own_number_of_samples() {
    let run = Run::new();
    let place = Place::new(1, Phase::Challenger, 2);
    run.play(place, &[(Some("1+1"), vec![r"\boxed{2}"; 4]), (None, vec![])]);
    let output = told(&run.command(Stage::VoteLabel, "--iteration 1 --phase challenger --step 2"));
    assert!(output.starts_with("exit 0\n"), "{output}");
    let labels = run.open(Stage::VoteLabel, place).read::<Label>().unwrap();
    assert_eq!((labels[0].challenge_id.as_str(), labels[0].vote_share), ("001/challenger/02/00000", 1.0));
}

#[test]
fn a_ladder_needs_a_profile_and_problems() {
    let folder = tempfile::tempdir().unwrap();
    let make = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_make-ladder"));
        command.current_dir(folder.path()).args(["--output", "ladder.parquet", "--seed", "1"]).args(arguments);
        told(&command.output().unwrap())
    };
    fs::write(folder.path().join("bad.toml"), "name = 1").unwrap();
    for (arguments, expected) in [
        (["--profile", "absent.toml"], "cannot read profile absent.toml"),
        (["--profile", "bad.toml"], "cannot use profile bad.toml"),
        (["--per-level", "0"], "0 is not in 1.."),
    ] {
        let output = make(&arguments);
        assert!(output.starts_with("exit 2\n") && output.contains(expected), "{output}");
    }
    assert!(!folder.path().join("ladder.parquet").exists());
}

#[test]
fn what_is_typed_about_messages_wins_over_the_environment() {
    let run = Run::new();
    run.play(CURRICULUM, &cases());
    run.command(Stage::VoteLabel, VOTE);
    let vote = |level: &str, flags: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vote-label"));
        command.current_dir(run.folder.path()).env("RUST_LOG", level).env_remove("RZERO_LOG");
        told(&command.args(["--run", "run"]).args(VOTE.split_whitespace()).args(flags).output().unwrap())
    };
    assert!(!vote("warn", &[]).contains("already complete"));
    assert!(vote("warn", &["--verbose"]).contains("already complete"));
    assert!(vote("debug", &[]).contains("already complete"));
    assert!(!vote("debug", &["--quiet"]).contains("already complete"));
}
