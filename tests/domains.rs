//! Domains as folders of text: one that nobody compiled anything for, whose programs an interpreter labels; and one where nothing is right or
//! wrong and the Verifier judges. On the embedded model, whose sums are programs as well.

use crate::just::just;
use crate::stability::{labelled, run};
use crate::verifier::rows;
use rzero_algo::arithmetic::true_answer;
use rzero_io::layout::RunLayout;
use rzero_schema::ids::Place;
use rzero_schema::tables::{Challenge, CurriculumRow, JudgedAnswer, Label, LabelCheck, RewardRow, Rollout};
use rzero_schema::vocab::{Phase, Stage};
use std::collections::BTreeMap;
use std::path::Path;

/// What two iterations under these settings say where they fail.
fn told_by_loop(run: &Path, settings: &str) -> (Option<i32>, String, String) {
    let mut command = just();
    command.arg("profile=smoke").arg(format!("run={}", run.display())).arg(format!("set={settings}")).args(["loop", "1"]);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A domain folder with the prompts of the embedded model.
fn domain(folder: &Path, keys: &str) -> String {
    let arithmetic = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/domains/arithmetic");
    std::fs::create_dir_all(folder).unwrap();
    for prompt in ["challenger.jinja", "solver.jinja", "verifier.jinja"] {
        std::fs::copy(arithmetic.join(prompt), folder.join(prompt)).unwrap();
    }
    let common = "min_operators = 0\nmax_question_chars = 40\nchallenger_prompt = \"challenger.jinja\"\nsolver_prompt = \"solver.jinja\"\n\
                  verifier_prompt = \"verifier.jinja\"\nworked_prefix = \"=\"\nanchors = \"\"\n";
    std::fs::write(folder.join("domain.toml"), format!("{keys}{common}")).unwrap();
    folder.display().to_string()
}

#[test]
fn a_domain_of_programs_is_a_folder_and_its_interpreter_labels() {
    let folder = tempfile::tempdir().unwrap();
    let keys = "questions = \"program\"\nanswers = \"number\"\nevaluator = \"program\"\nmax_answer_chars = 32\n";
    let domain = domain(&folder.path().join("programs"), keys);
    let layout = run(&folder.path().join("run"), &format!("domain.folder={domain};curriculum.labeller=executor"));
    let place = Place::new(2, Phase::Curriculum, 0);
    let labels: Vec<Label> = rows(&layout, Stage::VoteLabel, place);
    let mut num_wrong = 0;
    for label in &labels {
        // A sum is its own program, with the same value in either language.
        let truth = true_answer(&label.question).unwrap();
        assert_eq!(label.pseudo_label.as_ref(), Some(&truth), "{label:?}");
        assert_eq!(
            (label.class_answers[0].as_str(), label.vote_share),
            (truth.as_str(), label.class_weights[0] / f64::from(label.num_samples))
        );
        num_wrong += usize::from(label.class_counts.iter().skip(1).any(|count| *count > label.class_counts[0]));
    }
    // The vote alone would have labelled some of them wrongly.
    assert!(num_wrong > 0);
    let checks: Vec<LabelCheck> = rows(&layout, Stage::LabelProbe, place);
    assert!(checks.iter().all(|check| check.verdict == "equal"));
}

#[test]
fn where_nothing_is_right_or_wrong_the_verifier_judges() {
    let folder = tempfile::tempdir().unwrap();
    let keys = "questions = \"text\"\nanswers = \"rubric\"\nevaluator = \"none\"\nmax_answer_chars = 200\n";
    let domain = domain(&folder.path().join("texts"), keys);
    let settings = format!(
        "domain.folder={domain};roles=3;solver.reward=verdict;challenger.reward=verdicts;curriculum.labeller=verifier_weighted;\
         curriculum.bands=[{{ from_iteration = 1, low = 0.0, high = 1.0 }}]"
    );
    let layout = run(&folder.path().join("run"), &settings);
    for iteration in [1, 2] {
        let place = Place::new(iteration, Phase::Curriculum, 0);
        let judged: Vec<JudgedAnswer> = rows(&layout, Stage::Verify, place);
        let mut best: BTreeMap<&str, f64> = BTreeMap::new();
        for row in &judged {
            let known = best.entry(&row.challenge_id).or_default();
            *known = known.max(row.score.unwrap_or(0.0));
        }
        for label in rows::<Label>(&layout, Stage::VoteLabel, place).iter().filter(|label| label.pseudo_label.is_some()) {
            assert_eq!(Some(label.vote_share), label.score);
            assert!(label.margin >= -1e-9 && label.pseudo_label.as_ref().unwrap().starts_with("text:"));
            assert!((label.vote_share + label.margin - best[label.challenge_id.as_str()]).abs() < 1e-9);
        }
        assert!(!rows::<CurriculumRow>(&layout, Stage::Filter, place).is_empty());
        let questions: Vec<Challenge> = rows(&layout, Stage::ChallengeGen, place);
        assert!(questions.iter().any(|challenge| challenge.question.is_some()));
        // Without a consensus the Verifier is held to its own mean, and to what was spoilt on purpose.
        let trained: Vec<JudgedAnswer> = rows(&layout, Stage::Verify, Place::new(iteration, Phase::Verifier, 1));
        let targets: Vec<Option<f64>> = trained.iter().map(|row| row.target).collect();
        assert_eq!(targets, [None, None, None, None, None, None, Some(1.0), Some(0.0)]);
        let rewards: Vec<RewardRow> = rows(&layout, Stage::GrpoStep, Place::new(iteration, Phase::Verifier, 1));
        for reward in rewards.iter().filter(|reward| reward.answer.is_some()) {
            let of = trained.iter().find(|row| row.row == reward.row).unwrap();
            let (score, target): (f64, f64) = (reward.answer.as_ref().unwrap().parse().unwrap(), of.target.or(of.score).unwrap());
            assert!((reward.reward - (1.0 - (score - target).powi(2))).abs() < 1e-12);
        }
        let probes: Vec<JudgedAnswer> = rows(&layout, Stage::Verify, Place::new(iteration, Phase::Eval, 0));
        assert!(!probes.is_empty() && probes.iter().all(|row| row.kind != "answer" || row.target.is_none()));
    }
}

#[test]
fn anchors_are_shown_to_the_challenger_others_in_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let keys = "questions = \"expression\"\nanswers = \"number\"\nevaluator = \"expression\"\nmax_answer_chars = 32\n";
    let place = folder.path().join("anchored");
    let domain = domain(&place, keys);
    let anchors = labelled(folder.path());
    let settings = format!("domain.folder={domain};domain.anchors={anchors};stability.anchors_shown=2");
    // A prompt that does not show them is told of.
    let (code, _, text) = told_by_loop(&folder.path().join("blind"), &settings);
    assert!(code == Some(3) || code == Some(2), "{text}");
    assert!(text.contains("shows no anchors"), "{text}");
    let shown = "<bos><challenger>{% for anchor in anchors %}<question>{{ anchor.question }}</question>\\boxed{{ '{' }}{{ anchor.answer }}}{% endfor %}";
    std::fs::write(place.join("challenger.jinja"), shown).unwrap();
    // So many tokens before its turn put the embedded model off: nothing that it writes then is kept. What it was shown is there all the same.
    let run = folder.path().join("run");
    told_by_loop(&run, &settings);
    let layout = RunLayout::new(run);
    let prompt = |place| rows::<Rollout>(&layout, Stage::ChallengeGen, place)[0].prompt_tokens.clone();
    let (first, second) = (prompt(Place::new(1, Phase::Challenger, 1)), prompt(Place::new(1, Phase::Challenger, 2)));
    assert!(first.len() > 10 && first != second);
}
