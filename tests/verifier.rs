//! The third role on runs of the `smoke` profile: what it is shown, what it says, what it learns from and what its verdicts decide; and how votes
//! are weighed by it or by the Solver's own confidence. The audit derives all of it again.

use crate::stability::run;
use rzero_algo::domain::true_answer;
use rzero_algo::verdict::{read_verdict, verifier_reward};
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::table::Table;
use rzero_schema::tables::{CurriculumRow, DroppedRow, JudgedAnswer, Label, RewardRow, Rollout};
use rzero_schema::vocab::{Evaluator, Phase, ScoringRule, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const CURRICULUM: Place = Place::new(2, Phase::Curriculum, 0);

/// The rows of a table of a finished stage.
pub(crate) fn rows<T: Table>(layout: &RunLayout, stage: Stage, place: Place) -> Vec<T> {
    StageOutput::open(layout, stage, place).unwrap().read().unwrap()
}

#[test]
fn three_roles_evolve_in_one_loop() {
    let folder = tempfile::tempdir().unwrap();
    let layout = run(
        &folder.path().join("run"),
        "roles=3;curriculum.labeller=verifier_weighted;verifier.scoring=linear;verifier.planted_share=0.75",
    );
    // A step's batch: pairs to one question, one answer with the consensus and one against it, then what was spoilt.
    let place = Place::new(1, Phase::Verifier, 1);
    let judged: Vec<JudgedAnswer> = rows(&layout, Stage::Verify, place);
    let labels: BTreeMap<String, Label> = rows::<Label>(&layout, Stage::VoteLabel, Place::new(1, Phase::Curriculum, 0))
        .into_iter()
        .map(|label| (label.challenge_id.clone(), label))
        .collect();
    let answers: Vec<Rollout> = rows(&layout, Stage::SolveSample, Place::new(1, Phase::Curriculum, 0));
    let kinds: Vec<&str> = judged.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, ["answer", "answer", "answer", "shuffled", "answer", "exchanged", "answer", "truncated"]);
    for pair in judged.chunks(2) {
        assert_eq!(pair[0].challenge_id, pair[1].challenge_id);
        let class = |row: &JudgedAnswer| labels[&row.challenge_id].sample_classes[row.sample as usize];
        let targets = pair.iter().map(|row| row.target).collect::<Vec<_>>();
        assert_eq!((targets, class(&pair[0]) == 0), (vec![Some(1.0), Some(0.0)], true));
        // The other of a pair differs from the consensus, or is the same answer spoilt.
        assert_eq!(pair[1].kind == "answer", class(&pair[1]) != 0);
        assert_eq!(pair[1].kind != "answer", pair[0].sample == pair[1].sample);
        let is_exchanged = pair[1].kind == "exchanged";
        let is_of_others = |row: &JudgedAnswer| {
            answers.iter().any(|given| given.completion == row.response && given.challenge_id != row.challenge_id)
        };
        assert!(!is_exchanged || is_of_others(&pair[1]), "{}", pair[1].response);
    }
    let rewards: Vec<RewardRow> = rows(&layout, Stage::GrpoStep, place);
    let by_row: BTreeMap<u64, &JudgedAnswer> = judged.iter().map(|row| (row.row, row)).collect();
    assert_eq!(rewards.len(), 8 * 4);
    for reward in &rewards {
        let target = by_row[&reward.row].target.unwrap();
        let score = reward.answer.as_ref().map(|score| score.parse().unwrap());
        assert_eq!((reward.reward, reward.role.as_str()), (verifier_reward(score, target, ScoringRule::Linear), "verifier"));
    }
    // In iteration 1 it has learned nothing, so all votes weigh the same; then an answer weighs as much as its verdicts.
    assert!(!layout.stage_folder(Stage::Verify, Place::new(1, Phase::Curriculum, 0)).exists());
    assert!(labels.values().all(|label| label.class_weights.iter().zip(&label.class_counts).all(|(w, c)| *w == f64::from(*c))));
    let weighed: Vec<Label> = rows(&layout, Stage::VoteLabel, CURRICULUM);
    let scores: BTreeMap<(String, u32), f64> = rows::<JudgedAnswer>(&layout, Stage::Verify, CURRICULUM)
        .iter()
        .flat_map(|row| row.equal_samples.iter().filter_map(|sample| Some(((row.challenge_id.clone(), *sample), row.score?))))
        .collect();
    let mut num_weighed = 0;
    for label in &weighed {
        let score = |sample: usize| scores.get(&(label.challenge_id.clone(), sample as u32)).copied();
        let all: f64 = (0..label.sample_classes.len()).filter(|at| label.sample_classes[*at] >= 0).filter_map(score).sum();
        for (class, weight) in label.class_weights.iter().enumerate() {
            let of_class = (0..label.sample_classes.len()).filter(|at| label.sample_classes[*at] == class as i32);
            let sum: f64 = of_class.filter_map(score).sum();
            let expected = if all > 0.0 { f64::from(label.num_parsed) * sum / all } else { f64::from(label.class_counts[class]) };
            assert!((weight - expected).abs() < 1e-9, "{label:?}");
            num_weighed += usize::from((weight - f64::from(label.class_counts[class])).abs() > 1e-9);
        }
    }
    assert!(num_weighed > 0);
    let probe = StageOutput::open(&layout, Stage::LabelProbe, CURRICULUM).unwrap().manifests()[0].metrics.clone();
    for figure in ["verdict_accuracy", "vote_accuracy"] {
        assert!((0.0..=1.0).contains(&probe[figure]), "{probe:?}");
    }
    assert!(probe["num_judged"] > 0.0);
    // The fixed probes are the same in every iteration.
    let probes = |iteration| -> Vec<(String, String, Option<f64>)> {
        let rows = rows::<JudgedAnswer>(&layout, Stage::Verify, Place::new(iteration, Phase::Eval, 0));
        rows.into_iter().map(|row| (row.verdict_id, row.response, row.target)).collect()
    };
    assert!(!probes(0).is_empty() && probes(0) == probes(1) && probes(1) == probes(2));
    let summary = Command::new(env!("CARGO_BIN_EXE_summary")).arg(layout.root()).output().unwrap();
    let text = String::from_utf8(summary.stdout).unwrap();
    assert!(text.contains("verdicts right") && text.contains("Verifier: mean scores") && text.contains("shuffled"), "{text}");
}

#[test]
fn an_answer_of_its_own_judges_all_answers_to_a_question() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "roles=3;verifier.verdict=derivation;verifier.sampling.max_tokens=100;verifier.num_verdicts=4;verifier.min_score=0.5;\
                    verifier.consensus=0.25;verifier.num_answers=16;verifier.planted_share=0";
    let layout = run(&folder.path().join("run"), settings);
    // In training: near the consensus is 1, near the answer against it 0, anything else is right about one of the two.
    let place = Place::new(1, Phase::Verifier, 1);
    let judged: Vec<JudgedAnswer> = rows(&layout, Stage::Verify, place);
    let rollouts: Vec<Rollout> = rows(&layout, Stage::Verify, place);
    let rewards: Vec<RewardRow> = rows(&layout, Stage::GrpoStep, place);
    assert_eq!((judged.len(), rollouts.len(), rewards.len()), (16, 8 * 4, 8 * 4));
    let mut found = BTreeSet::new();
    for (pair, of_pair) in judged.chunks(2).zip(rewards.chunks(4)) {
        assert!(of_pair.iter().all(|reward| reward.row == pair[0].row && reward.challenge_id == pair[0].verdict_id));
        let said: Vec<&RewardRow> = of_pair.iter().filter(|reward| reward.answer.is_some()).collect();
        assert!(pair.iter().all(|row| row.scores.len() == said.len() && row.num_verdicts == 4));
        for (at, reward) in said.iter().enumerate() {
            let verdicts = (pair[0].scores[at], pair[1].scores[at]);
            assert_eq!(verdicts.0 == 1.0, reward.answer == reward.pseudo_label);
            let expected = if verdicts == (1.0, 0.0) {
                1.0
            } else if verdicts == (0.0, 1.0) {
                0.0
            } else {
                0.5
            };
            assert_eq!((reward.reward, verdicts != (1.0, 1.0)), (expected, true));
            found.insert((reward.reward * 2.0) as u32);
        }
        assert!(of_pair.iter().filter(|reward| reward.answer.is_none()).all(|reward| reward.reward == 0.0));
    }
    assert!(found.len() > 1, "{found:?}");
    // It is asked each question once, however many answers there are, and a label that it seldom comes to is dropped.
    let judged: Vec<JudgedAnswer> = rows(&layout, Stage::Verify, CURRICULUM);
    let asked: BTreeSet<u64> = rows::<Rollout>(&layout, Stage::Verify, CURRICULUM).iter().map(|rollout| rollout.row).collect();
    let questions: BTreeSet<&str> = judged.iter().map(|row| row.challenge_id.as_str()).collect();
    assert!(asked.len() == questions.len() && asked.len() < judged.len());
    let scores: BTreeMap<(&str, u32), f64> = judged
        .iter()
        .flat_map(|row| row.equal_samples.iter().filter_map(|sample| Some(((row.challenge_id.as_str(), *sample), row.score?))))
        .collect();
    let labels: Vec<Label> = rows(&layout, Stage::VoteLabel, CURRICULUM);
    for label in &labels {
        // All answers of a class are one answer, so the verdict on any is the label's.
        let of_label = label.sample_classes.iter().position(|class| *class == 0);
        let score = of_label.and_then(|at| scores.get(&(label.challenge_id.as_str(), at as u32)));
        assert_eq!(label.is_agreed, Some(score.is_some_and(|score| *score >= 0.5)), "{label:?}");
        assert!(label.class_weights.iter().zip(&label.class_counts).all(|(weight, count)| *weight == f64::from(*count)));
    }
    let agreed: BTreeMap<&str, bool> =
        labels.iter().map(|label| (label.challenge_id.as_str(), label.is_agreed.unwrap())).collect();
    let kept: Vec<CurriculumRow> = rows(&layout, Stage::Filter, CURRICULUM);
    assert!(!kept.is_empty() && kept.iter().all(|row| agreed[row.challenge_id.as_str()]));
    // What the votes alone would keep is counted apart, so that both can be told.
    let figures = StageOutput::open(&layout, Stage::LabelProbe, CURRICULUM).unwrap().manifests()[0].metrics.clone();
    let mut asked = BTreeSet::new();
    let by_votes: Vec<&Label> =
        labels.iter().filter(|label| asked.insert(label.question.as_str()) && label.vote_share >= 0.3).collect();
    let is_true = |label: &&&Label| true_answer(Evaluator::Expression, &label.question) == label.pseudo_label;
    let num_true = by_votes.iter().filter(is_true).count();
    assert_eq!(figures["num_voted"], by_votes.len() as f64);
    assert_eq!(figures["voted_label_share"], num_true as f64 / by_votes.len() as f64);
    let dropped: Vec<DroppedRow> = rows(&layout, Stage::Filter, CURRICULUM);
    let refused = dropped.iter().filter(|row| row.drop_reason == "disagreement");
    assert!(refused.clone().count() > 0 && refused.into_iter().all(|row| !agreed[row.challenge_id.as_str()]));
}

#[test]
fn answers_are_compared_in_both_orders() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "roles=3;verifier.verdict=comparison;domain.verifier_prompt=pipelines/domains/arithmetic/comparison.jinja;\
                    verifier.num_verdicts=4;curriculum.labeller=verifier_weighted";
    let layout = run(&folder.path().join("run"), settings);
    let judged: Vec<JudgedAnswer> = rows(&layout, Stage::Verify, CURRICULUM);
    let rollouts: Vec<Rollout> = rows(&layout, Stage::Verify, CURRICULUM);
    let of_question = |judged: &[JudgedAnswer]| -> Vec<Vec<JudgedAnswer>> {
        judged.chunk_by(|one, other| one.challenge_id == other.challenge_id).map(<[JudgedAnswer]>::to_vec).collect()
    };
    let mut num_compared = 0;
    for answers in of_question(&judged) {
        for (at, row) in answers.iter().enumerate() {
            let next = &answers[(at + 1) % answers.len()].response;
            assert_eq!(row.other.as_ref(), (answers.len() > 1).then_some(next));
            let verdicts: Vec<&Rollout> = rollouts.iter().filter(|rollout| rollout.row == row.row).collect();
            assert!(verdicts.is_empty() || (verdicts.len() == 4 && row.other.is_some()));
            // Two with the answer first, two with it second, and the score is the answer's own in either order.
            for pair in verdicts.chunks(2) {
                assert_eq!(pair[0].prompt_tokens, pair[1].prompt_tokens);
            }
            let scores: Vec<f64> = verdicts
                .iter()
                .filter_map(|rollout| {
                    let first = read_verdict(&rollout.completion, 9)?;
                    Some(if rollout.sample < 2 { first } else { 1.0 - first })
                })
                .collect();
            assert_eq!(scores, row.scores);
            if let [first, _, third, _] = verdicts.as_slice() {
                assert_ne!(first.prompt_tokens, third.prompt_tokens);
                assert_eq!(first.prompt_tokens.len(), third.prompt_tokens.len());
                num_compared += 1;
            }
        }
    }
    assert!(num_compared > 8, "{num_compared}");
    // In training the two of a pair are held against each other.
    for pair in rows::<JudgedAnswer>(&layout, Stage::Verify, Place::new(1, Phase::Verifier, 2)).chunks(2) {
        assert_eq!((pair[0].other.as_ref(), pair[1].other.as_ref()), (Some(&pair[1].response), Some(&pair[0].response)));
    }
}

#[test]
fn verdicts_reward_the_solver_and_the_challenger() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        "roles=3;solver.reward=verdict;challenger.reward=verdicts;verifier.length_penalty=0.5;verifier.copy_penalty=0.25";
    let layout = run(&folder.path().join("run"), settings);
    let place = Place::new(1, Phase::Solver, 1);
    let scores: BTreeMap<(String, u32), Option<f64>> = rows::<JudgedAnswer>(&layout, Stage::Verify, place)
        .iter()
        .flat_map(|row| row.equal_samples.iter().map(|sample| ((row.challenge_id.clone(), *sample), row.score)))
        .collect();
    let rollouts: Vec<Rollout> = rows(&layout, Stage::SolveSample, place);
    let mut lengths = BTreeSet::new();
    for (row, rollout) in rows::<RewardRow>(&layout, Stage::GrpoStep, place).iter().zip(&rollouts) {
        let verdict = scores.get(&(row.challenge_id.clone(), row.sample)).copied().flatten();
        assert_eq!(row.verdict, verdict);
        // An answer that cannot be read is not judged and earns nothing; a long one earns less.
        let Some(verdict) = verdict else {
            assert_eq!(row.reward, 0.0);
            continue;
        };
        lengths.insert(rollout.completion_tokens.len());
        assert!(row.reward < verdict && row.reward >= verdict - 0.75, "{row:?}");
    }
    assert!(lengths.len() > 1);
    let challenged = Place::new(2, Phase::Challenger, 1);
    let labels: BTreeMap<String, Label> = rows::<Label>(&layout, Stage::VoteLabel, challenged)
        .into_iter()
        .map(|label| (label.challenge_id.clone(), label))
        .collect();
    let mut num_spread = 0;
    for row in rows::<RewardRow>(&layout, Stage::GrpoStep, challenged) {
        let Some(label) = labels.get(&row.challenge_id) else { continue };
        let uncertainty = 1.0 - 2.0 * (label.score.unwrap_or(0.0) - 0.5).abs();
        assert!((row.uncertainty.unwrap() - uncertainty).abs() < 1e-12);
        num_spread += usize::from(uncertainty > 0.0);
    }
    assert!(num_spread > 0);
}

#[test]
fn confidence_weighs_votes_by_rank() {
    let folder = tempfile::tempdir().unwrap();
    for labeller in ["self_certainty", "entropy"] {
        let layout = run(&folder.path().join(labeller), &format!("curriculum.labeller={labeller}"));
        let rollouts: Vec<Rollout> = rows(&layout, Stage::SolveSample, CURRICULUM);
        let labels: Vec<Label> = rows(&layout, Stage::VoteLabel, CURRICULUM);
        for label in &labels {
            let answers: Vec<&Rollout> = rollouts.iter().filter(|rollout| rollout.challenge_id == label.challenge_id).collect();
            let confidence = |at: usize| match labeller {
                "entropy" => -answers[at].entropy.unwrap(),
                _ => answers[at].self_certainty.unwrap(),
            };
            // Of two classes of one vote each, the surer answer's is the heavier.
            let lone = |class: usize| label.sample_classes.iter().position(|of| *of == class as i32).unwrap();
            let lone: Vec<usize> = (0..label.class_counts.len()).filter(|at| label.class_counts[*at] == 1).map(lone).collect();
            for pair in lone.windows(2) {
                assert!(confidence(pair[0]) >= confidence(pair[1]), "{label:?}");
            }
            let sum: f64 = label.class_weights.iter().sum();
            assert!((sum - f64::from(label.num_parsed)).abs() < 1e-9);
        }
        assert!(rollouts.iter().all(|rollout| rollout.entropy.unwrap() < 64f32.ln() && rollout.self_certainty.unwrap() > 0.0));
    }
}
