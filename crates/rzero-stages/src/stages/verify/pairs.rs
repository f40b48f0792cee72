//! What the Verifier is trained on in a step: answers to candidates of the curriculum, in pairs to the same question, one that agrees with the
//! consensus and one that does not, so that the question alone tells nothing; and answers beside their spoilt forms. Where no two answers are the same there
//! is no consensus: any two answers to a question, without a target, and the Verifier is held to its own mean.

use super::given::{Given, given};
use super::{Item, compares, settings_of};
use crate::context::StageContext;
use crate::curricula::curriculum_place;
use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use rzero_algo::curriculum::step_batch;
use rzero_algo::seed::{StreamKey, permutation, random_stream, uniform_below};
use rzero_algo::verdict::{shuffled, truncated};
use rzero_schema::ids::Place;
use rzero_schema::tables::Label;
use rzero_schema::vocab::{AnswerForm, AnswerKind, Stage};
use std::collections::BTreeSet;

pub(super) fn declare<'a>(inputs: StageInputs<'a>, context: &StageContext) -> StageInputs<'a> {
    let place = curriculum_place(context.place.iteration);
    inputs.with_stage_at(Stage::SolveSample, place).with_stage_at(Stage::VoteLabel, place)
}

/// A question on which the answers differ, and what was answered.
struct Contest<'a> {
    label: &'a Label,
    group: &'a [Given],
}

impl Contest<'_> {
    /// Places in the group of the texts that voted for such a class, each once.
    fn texts(&self, is_class: impl Fn(i32) -> bool) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        let classes = self.label.sample_classes.iter().zip(self.group).enumerate();
        classes.filter(|(_, (class, given))| is_class(**class) && seen.insert(&given.text)).map(|(at, _)| at).collect()
    }
}

impl<'a> Contest<'a> {
    /// An answer that is good: of the majority, or, where there is none, the first that counts.
    fn answer(&self) -> &'a str {
        let place = self.label.sample_classes.iter().position(|class| *class == 0);
        self.group[place.unwrap_or(0)].text.as_str()
    }
}

pub(super) fn items(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<Vec<Item>> {
    let settings = settings_of(context)?;
    let Place { iteration, step, phase, .. } = context.place;
    let place = curriculum_place(iteration);
    let labels = inputs.output_at(Stage::VoteLabel, place)?.read::<Label>()?;
    let given = given(inputs.output_at(Stage::SolveSample, place)?, &(0..u64::MAX), None)?;
    let has_consensus = context.profile.domain.answers != AnswerForm::Rubric;
    let contests = contests(&labels, &given, has_consensus.then_some(settings.consensus));
    if contests.is_empty() {
        let message = format!(
            "on no question of iteration {iteration} do the answers differ and have a majority: there is nothing to judge"
        );
        return Err(StageFailure::input(message)
            .hint("more samples, or harder questions, differ more (curriculum.num_samples)")
            .into());
    }
    let (num_answers, num_planted) = (settings.num_answers, settings.num_planted());
    let key = StreamKey { run_seed: context.profile.seed, iteration, phase, step: 0, row: 0, sample: 0 };
    // One draw a pair, and one for each two that are spoilt.
    let drawn = step_batch(contests.len(), (num_answers / 2) as usize, step, &key);
    let mut items = Vec::new();
    for (index, at) in drawn.iter().copied().enumerate() {
        let contest = &contests[at];
        // What was drawn next answers another question, unless there is only one.
        let other = drawn.iter().cycle().skip(index + 1).take(drawn.len()).map(|at| &contests[*at]);
        let other = other.into_iter().find(|other| other.label.row != contest.label.row);
        let row = 2 * index as u64;
        let mut stream = random_stream("answer to judge", &StreamKey { step, row, ..key });
        let mut pick = |places: &[usize]| places[uniform_below(&mut stream, places.len() as u64) as usize];
        let (agreeing, differing) = if has_consensus {
            (pick(&contest.texts(|class| class == 0)), pick(&contest.texts(|class| class > 0)))
        } else {
            let texts = contest.texts(|class| class >= 0);
            (pick(&texts), pick(&texts))
        };
        if row < num_answers - num_planted {
            for (row, at, target) in [(row, agreeing, 1.0), (row + 1, differing, 0.0)] {
                let target = has_consensus.then_some(target);
                items.push(item(row, contest, at, AnswerKind::Answer, contest.group[at].text.clone(), target));
            }
        } else {
            // An answer against its spoilt form, in turn: whoever says the same of everything is wrong about one of the two.
            let text = &contest.group[agreeing].text;
            let (kind, spoilt) = match (index % 3, other) {
                (1, _) => (AnswerKind::Shuffled, shuffled(text, |count| permutation(count, &mut stream))),
                (2, Some(other)) => (AnswerKind::Exchanged, other.answer().to_owned()),
                _ => (AnswerKind::Truncated, truncated(text)),
            };
            items.push(item(row, contest, agreeing, AnswerKind::Answer, text.clone(), Some(1.0)));
            items.push(item(row + 1, contest, agreeing, kind, spoilt, Some(0.0)));
        }
    }
    if compares(context)? {
        hold_against_each_other(&mut items);
    }
    // Both of a pair go to one shard.
    let pairs = context.shard_rows(num_answers / 2);
    items.retain(|item| pairs.contains(&(item.row / 2)));
    Ok(items)
}

/// Each of a pair is compared with the other.
fn hold_against_each_other(items: &mut [Item]) {
    for pair in items.chunks_mut(2) {
        if let [one, other] = pair {
            (one.other, other.other) = (Some(other.response.clone()), Some(one.response.clone()));
        }
    }
}

fn item(row: u64, contest: &Contest<'_>, at: usize, kind: AnswerKind, response: String, target: Option<f64>) -> Item {
    Item {
        row,
        challenge_id: contest.label.challenge_id.clone(),
        samples: vec![contest.group[at].sample],
        kind,
        question: contest.label.question.clone(),
        response,
        other: None,
        target,
    }
}

/// The questions whose votes say that there is something to tell apart: where there is a consensus, answers for it and against it; else any answer.
fn contests<'a>(labels: &'a [Label], given: &'a [Given], consensus: Option<f64>) -> Vec<Contest<'a>> {
    let mut groups = given.chunk_by(|one, other| one.row == other.row).peekable();
    let mut contests = Vec::new();
    for label in labels {
        while groups.next_if(|group| group[0].row < label.row).is_some() {}
        let Some(group) = groups.next_if(|group| group[0].row == label.row) else { continue };
        let voted = |is_class: fn(&i32) -> bool| label.sample_classes.iter().any(is_class);
        let is_open = match consensus {
            Some(share) => label.vote_share >= share && voted(|class| *class == 0) && voted(|class| *class > 0),
            None => voted(|class| *class >= 0),
        };
        if is_open && group.len() == label.sample_classes.len() {
            contests.push(Contest { label, group });
        }
    }
    contests
}
