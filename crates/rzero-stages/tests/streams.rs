//! vote-label and filter on more rows than one row group: the plain computation's rows, the same bytes for any number of threads, and every
//! order that is not row order refused.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use rzero_algo::curriculum::{Gate, gate};
use rzero_algo::vote::{Ballot, vote};
use rzero_schema::tables::{Challenge, CurriculumRow, DroppedRow, Label, Rollout};
use rzero_schema::vocab::{AnswerStatus, DropReason, Stage};
use rzero_stages::exit::StageExit;
use std::collections::BTreeSet;
use std::fs;
use support::{CURRICULUM, Run, challenge, rollout, told};

const VOTE: &str = "--iteration 1 --phase curriculum";
const NUM_SAMPLES: u32 = 4;

/// Numbers that look random and follow from two others.
fn mixed(one: u64, other: u64) -> u64 {
    let state = (one.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ other).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (state ^ (state >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 33
}

fn questions(num: u64) -> Vec<Challenge> {
    let text = |row| (!mixed(row, 1).is_multiple_of(10)).then(|| format!("{}+1", mixed(row, 2) % num));
    (0..num).map(|row| challenge(CURRICULUM, row, text(row).as_deref())).collect()
}

/// Answers to the well-formed questions, with the form that each is read as.
fn answers(questions: &[Challenge]) -> Vec<(Rollout, Result<String, AnswerStatus>)> {
    let well_formed = questions.iter().filter(|challenge| challenge.question.is_some());
    well_formed
        .flat_map(|challenge| (0..NUM_SAMPLES).map(move |sample| (challenge.row, sample)))
        .map(|(row, sample)| {
            let draw = mixed(row * 8 + u64::from(sample), 3);
            let number = draw % 3;
            let (text, read) = match draw % 11 {
                0 => ("none".to_owned(), Err(AnswerStatus::NoBox)),
                1 => (format!("\\boxed{{{number}}}…"), Err(AnswerStatus::Truncated)),
                2 => (format!("\\boxed{{{number}.50}}"), Ok(format!("{}/2", 2 * number + 1))),
                _ => (format!("so \\boxed{{{number}}}"), Ok(number.to_string())),
            };
            (rollout(CURRICULUM, row, sample, &text), read)
        })
        .collect()
}

/// The labels as the functions of `rzero_algo` give them, one question at a time.
fn plain_labels(questions: &[Challenge], answers: &[(Rollout, Result<String, AnswerStatus>)]) -> Vec<Label> {
    let votes = answers.chunk_by(|left, right| left.0.row == right.0.row);
    let labels = votes.map(|answers| {
        let ballot = |read: &Result<String, AnswerStatus>| read.as_ref().err().copied().unwrap_or(AnswerStatus::Parsed);
        let ballots: Vec<Ballot<'_>> = answers
            .iter()
            .map(|(_, read)| Ballot { status: ballot(read), answer: read.as_ref().ok().map(String::as_str) })
            .collect();
        let outcome = vote(&ballots);
        let challenge = &questions[answers[0].0.row as usize];
        Label {
            challenge_id: challenge.challenge_id.clone(),
            row: challenge.row,
            question: challenge.question.clone().unwrap(),
            pseudo_label: outcome.pseudo_label,
            vote_share: outcome.vote_share,
            margin: outcome.margin,
            vote_entropy: outcome.vote_entropy,
            num_samples: outcome.num_samples,
            num_parsed: outcome.num_parsed,
            num_truncated: outcome.num_truncated,
            class_answers: outcome.classes.iter().map(|class| class.answer.clone()).collect(),
            class_counts: outcome.classes.iter().map(|class| class.count).collect(),
            sample_statuses: ballots.iter().map(|ballot| ballot.status.to_string()).collect(),
            sample_classes: outcome.class_of_sample.iter().map(|class| class.map_or(-1, |class| class as i32)).collect(),
            class_weights: outcome.classes.iter().map(|class| class.weight).collect(),
            is_agreed: None,
            score: None,
        }
    });
    labels.collect()
}

#[test]
fn streams_give_the_rows_of_the_plain_computation() {
    let run = Run::new();
    let questions = questions(70_000);
    let answers = answers(&questions);
    let rollouts: Vec<Rollout> = answers.iter().map(|(rollout, _)| rollout.clone()).collect();
    run.play_table(Stage::ChallengeGen, CURRICULUM, &questions);
    run.play_table(Stage::SolveSample, CURRICULUM, &rollouts);
    let output = told(&run.command(Stage::VoteLabel, VOTE));
    assert!(output.starts_with("exit 0\n"), "{output}");
    let expected = plain_labels(&questions, &answers);
    let labels = run.open(Stage::VoteLabel, CURRICULUM);
    assert!(labels.read::<Label>().unwrap() == expected);
    let mean = |figure: fn(&Label) -> f64| expected.iter().map(figure).sum::<f64>() / expected.len() as f64;
    let metrics = &labels.manifests()[0].metrics;
    assert_eq!(metrics["vote_share_mean"], mean(|label| label.vote_share));
    assert_eq!(metrics["parsed_share"], mean(|label| f64::from(label.num_parsed) / f64::from(label.num_samples)));

    let output = told(&run.command(Stage::Filter, "--iteration 1"));
    assert!(output.starts_with("exit 0\n"), "{output}");
    let filtered = run.open(Stage::Filter, CURRICULUM);
    let (kept, dropped) = (filtered.read::<CurriculumRow>().unwrap(), filtered.read::<DroppedRow>().unwrap());
    let manifest = &filtered.manifests()[0];
    let profile = manifest.profile.as_ref().unwrap();
    let band = profile.band(1);
    let gates = Gate {
        version: profile.curriculum.gate_version,
        low: band.low,
        high: band.high,
        min_margin: profile.curriculum.min_margin,
    };
    let (mut seen, mut label_of) = (BTreeSet::new(), expected.iter().peekable());
    let (mut kept, mut dropped) = (kept.iter(), dropped.iter());
    for challenge in &questions {
        let label = label_of.next_if(|label| label.row == challenge.row);
        let is_repeated = challenge.question.as_ref().is_some_and(|question| !seen.insert(question));
        let figure = |figure: fn(&Label) -> f64| label.map_or(0.0, figure);
        let has_label = label.is_some_and(|label| label.pseudo_label.is_some());
        let reason = gate(
            label.is_some(),
            is_repeated,
            has_label,
            false,
            figure(|label| label.vote_share),
            figure(|label| label.margin),
            &gates,
        );
        match reason {
            None => {
                let (row, label) = (kept.next().unwrap(), label.unwrap());
                assert_eq!((row.row, &row.challenge_id, &row.question), (label.row, &label.challenge_id, &label.question));
                assert_eq!((Some(&row.pseudo_label), row.vote_share), (label.pseudo_label.as_ref(), label.vote_share));
            }
            Some(reason) => {
                let row = dropped.next().unwrap();
                assert_eq!(
                    (row.row, row.drop_reason.as_str(), &row.question),
                    (challenge.row, reason.as_str(), &challenge.question)
                );
                assert_eq!((row.vote_share, row.margin), (label.map(|label| label.vote_share), label.map(|label| label.margin)));
                assert_eq!(row.pseudo_label.as_ref(), label.and_then(|label| label.pseudo_label.as_ref()));
            }
        }
    }
    assert!(kept.next().is_none() && dropped.next().is_none());
    // One Solver answered: it disagrees with nobody.
    let mut reasons = DropReason::ALL.iter().filter(|reason| **reason != DropReason::Disagreement).take(5);
    assert!(reasons.all(|reason| manifest.counts[reason.as_str()] > 0), "{:?}", manifest.counts);
}

#[test]
fn bytes_do_not_depend_on_threads_nor_rows_on_shards() {
    let questions = questions(9_000);
    let rollouts: Vec<Rollout> = answers(&questions).into_iter().map(|(rollout, _)| rollout).collect();
    let mut found = Vec::new();
    for (threads, num_shards) in [(1, 1), (2, 1), (5, 1), (2, 3)] {
        let run = Run::new();
        run.play_table(Stage::ChallengeGen, CURRICULUM, &questions);
        run.play_table(Stage::SolveSample, CURRICULUM, &rollouts);
        for index in 0..num_shards {
            let shard = format!("{VOTE} --num-shards {num_shards} --shard-index {index}");
            let output = told(&run.command_with(Stage::VoteLabel, &shard, &[("RZERO_THREADS", &threads.to_string())]));
            assert!(output.starts_with("exit 0\n"), "{output}");
        }
        let output = told(&run.command_with(Stage::Filter, "--iteration 1", &[("RZERO_THREADS", &threads.to_string())]));
        assert!(output.starts_with("exit 0\n"), "{output}");
        let filtered = run.open(Stage::Filter, CURRICULUM);
        let files: Vec<Vec<u8>> = [filtered.parts::<CurriculumRow>().unwrap(), filtered.parts::<DroppedRow>().unwrap()]
            .concat()
            .iter()
            .map(|path| fs::read(path).unwrap())
            .collect();
        found.push((run.open(Stage::VoteLabel, CURRICULUM).read::<Label>().unwrap(), files));
    }
    let (first, others) = found.split_first().unwrap();
    assert!(others.iter().all(|other| other == first));
}

/// Runs vote-label on made-up tables; what it says.
fn vote_on(challenges: &[Challenge], rollouts: &[Rollout]) -> String {
    let run = Run::new();
    run.play_table(Stage::ChallengeGen, CURRICULUM, challenges);
    run.play_table(Stage::SolveSample, CURRICULUM, rollouts);
    told(&run.command(Stage::VoteLabel, VOTE))
}

#[test]
fn rollouts_that_are_not_exactly_the_answers_in_their_order_stop_the_vote() {
    let refused = format!("exit {}\n", StageExit::Input as u8);
    let challenges: Vec<Challenge> = (0..3).map(|row| challenge(CURRICULUM, row, Some(format!("{row}+1")).as_deref())).collect();
    let whole: Vec<Rollout> =
        (0..3).flat_map(|row| (0..NUM_SAMPLES).map(move |sample| rollout(CURRICULUM, row, sample, "\\boxed{1}"))).collect();
    assert!(vote_on(&challenges, &whole).starts_with("exit 0\n"));
    let changed = |change: &dyn Fn(&mut Vec<Rollout>)| {
        let mut rollouts = whole.clone();
        change(&mut rollouts);
        rollouts
    };
    let cases: [(Vec<Rollout>, &str); 9] = [
        (
            changed(&|rollouts| rollouts.swap(1, 2)),
            "not in the order of row and sample: row 0, sample 1 stands behind row 0, sample 2",
        ),
        (changed(&|rollouts| rollouts.rotate_left(4)), "row 0, sample 0 stands behind row 2, sample 3"),
        (changed(&|rollouts| rollouts.insert(2, whole[1].clone())), "question 001/curriculum/00/00000 has sample 1 twice"),
        (
            changed(&|rollouts| rollouts.push(rollout(CURRICULUM, 2, 4, "x"))),
            "has answers [0, 1, 2, 3, 4], expected samples 0 to 3",
        ),
        (
            changed(&|rollouts| drop(rollouts.drain(4..8))),
            "question 001/curriculum/00/00001 has answers [], expected samples 0 to 3",
        ),
        (changed(&|rollouts| rollouts.clear()), "question 001/curriculum/00/00000 has answers [], expected samples 0 to 3"),
        (
            changed(&|rollouts| rollouts[5].challenge_id = "other".to_owned()),
            "a rollout answers other, row 1, which is no question of this place",
        ),
        (
            changed(&|rollouts| rollouts.push(rollout(CURRICULUM, 3, 0, "x"))),
            "a rollout answers 001/curriculum/00/00003, row 3, which is no question of this place",
        ),
        (
            changed(&|rollouts| rollouts[5].finish_reason = "tired".to_owned()),
            "sample 1 of question 001/curriculum/00/00001: unknown",
        ),
    ];
    for (rollouts, expected) in cases {
        let output = vote_on(&challenges, &rollouts);
        assert!(output.starts_with(&refused) && output.contains(expected), "{expected}: {output}");
    }
    let mut gap = challenges.clone();
    gap[1].row = 2;
    let mut worded = challenges;
    worded[1].challenge_status = "truncated".to_owned();
    for challenges in [gap, worded] {
        let output = vote_on(&challenges, &whole);
        assert!(output.starts_with(&refused) && output.contains("stands in row 1 of its table"), "{output}");
        assert!(output.contains("hint: rerun challenge-gen"), "{output}");
    }
}

#[test]
fn labels_that_are_not_exactly_those_of_the_questions_stop_the_filter() {
    let refused = format!("exit {}\n", StageExit::Input as u8);
    let mut challenges: Vec<Challenge> =
        (0..4).map(|row| challenge(CURRICULUM, row, Some(format!("{row}+1")).as_deref())).collect();
    challenges[1] = challenge(CURRICULUM, 1, None);
    let answers: Vec<(Rollout, Result<String, AnswerStatus>)> = [0, 2, 3]
        .iter()
        .flat_map(|row| (0..NUM_SAMPLES).map(|sample| (rollout(CURRICULUM, *row, sample, "\\boxed{1}"), Ok("1".to_owned()))))
        .collect();
    let whole = plain_labels(&challenges, &answers);
    let filter = |challenges: &[Challenge], labels: &[Label]| {
        let run = Run::new();
        run.play_table(Stage::ChallengeGen, CURRICULUM, challenges);
        run.play_table(Stage::VoteLabel, CURRICULUM, labels);
        told(&run.command(Stage::Filter, "--iteration 1"))
    };
    assert!(filter(&challenges, &whole).starts_with("exit 0\n"));
    let label = |row: u64| Label { row, challenge_id: CURRICULUM.challenge_id(row).to_string(), ..whole[0].clone() };
    let renamed = |row: u64| Label { challenge_id: "other".to_owned(), ..label(row) };
    let cases: [(Vec<Label>, &str); 7] = [
        (vec![label(0), label(2), label(2), label(3)], "question 001/curriculum/00/00002 has two labels"),
        (vec![label(2), label(0), label(3)], "the labels are not in row order: row 0 stands behind row 2"),
        (vec![label(0), label(3)], "question 001/curriculum/00/00002 has no label"),
        (vec![label(0), renamed(2), label(3)], "question 001/curriculum/00/00002 has no label"),
        (vec![label(0), label(1), label(2), label(3)], "question 001/curriculum/00/00001 has a label but is malformed"),
        (vec![label(0), renamed(1), label(2), label(3)], "1 labels belong to no question of this place"),
        (vec![label(0), label(2), label(3), label(4), label(9)], "2 labels belong to no question of this place"),
    ];
    for (labels, expected) in cases {
        let output = filter(&challenges, &labels);
        assert!(output.starts_with(&refused) && output.contains(expected), "{expected}: {output}");
        assert!(output.contains("hint: rerun vote-label"), "{output}");
    }
    challenges[2].row = 7;
    let output = filter(&challenges, &whole);
    assert!(output.starts_with(&refused) && output.contains("stands in row 2 of its table with row number 7"), "{output}");
}
