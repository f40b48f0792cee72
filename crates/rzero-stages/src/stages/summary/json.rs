//! One iteration as one JSON object. Every key is always there; what is not known is null.

use super::collect::{Curriculum, Example, IterationSummary, Scores, Training};
use super::judge;
use super::scores::{Evaluation, Figure, Measure};
use serde_json::{Map, Value, json};

/// The iteration as one line of JSON. Accuracies, shares and gains are percent points from 0 to 100.
pub(super) fn object(iteration: &IterationSummary) -> Value {
    let mut object = Map::new();
    object.insert("iteration".to_owned(), json!(iteration.iteration));
    add_scores(&mut object, iteration.scores.as_ref());
    add_curriculum(&mut object, iteration.curriculum.as_ref());
    object.insert("judge".to_owned(), judge::object(iteration.judged.as_ref()));
    object.insert("challenger".to_owned(), training(iteration.challenger.as_ref()));
    object.insert("solver".to_owned(), training(iteration.solver.as_ref()));
    let seconds: f64 = iteration.seconds_by_stage.values().sum();
    object.insert("seconds".to_owned(), json!(seconds));
    object.insert("seconds_by_stage".to_owned(), json!(iteration.seconds_by_stage));
    object.insert("missing".to_owned(), json!(iteration.missing));
    Value::Object(object)
}

const NAMES: [&str; 3] = ["greedy", "mean1", "maj10"];
/// `gain` alone is the gain in greedy accuracy.
const GAIN_NAMES: [&str; 3] = ["gain", "gain_mean1", "gain_maj10"];
const GAIN_OVER_WORKED_NAMES: [&str; 3] = ["gain_over_worked_greedy", "gain_over_worked_mean1", "gain_over_worked_maj10"];
const WORKED_NAMES: [&str; 3] = ["worked_greedy", "worked_mean1", "worked_maj10"];

fn add_scores(object: &mut Map<String, Value>, scores: Option<&Scores>) {
    for (index, _) in Measure::ALL.iter().enumerate() {
        add_figure(object, NAMES[index], scores.map(|scores| scores.accuracy[index]));
        add_figure(object, GAIN_NAMES[index], scores.and_then(|scores| scores.gain[index]));
        add_figure(object, GAIN_OVER_WORKED_NAMES[index], scores.and_then(|scores| scores.gain_over_worked[index]));
        let worked = scores.and_then(|scores| scores.worked.as_ref());
        add_figure(object, WORKED_NAMES[index], worked.map(|(_, accuracy)| accuracy[index]));
    }
    let evaluation = scores.map(|scores| &scores.evaluation);
    let worked = scores.and_then(|scores| scores.worked.as_ref()).map(|(evaluation, _)| evaluation);
    object.insert("num_items".to_owned(), json!(evaluation.map(Evaluation::num_items)));
    object.insert("num_samples".to_owned(), json!(evaluation.map(|evaluation| evaluation.num_samples)));
    object.insert("worked_share".to_owned(), json!(evaluation.map(|evaluation| evaluation.worked_share)));
    object.insert("accuracy_when_worked".to_owned(), json!(evaluation.and_then(|evaluation| evaluation.worked_accuracy)));
    object.insert("accuracy_when_direct".to_owned(), json!(evaluation.and_then(|evaluation| evaluation.direct_accuracy)));
    object.insert("by_level".to_owned(), groups(evaluation));
    object.insert("worked_by_level".to_owned(), groups(worked));
}

/// By level where there is one subject, else by subject.
fn groups(evaluation: Option<&Evaluation>) -> Value {
    let Some(evaluation) = evaluation else { return Value::Null };
    let group = |group: &super::scores::GroupScore| {
        let mut object = Map::new();
        object.insert("subject".to_owned(), json!(group.subject));
        object.insert("level".to_owned(), json!(group.level));
        object.insert("num_items".to_owned(), json!(group.num_items));
        for (name, share) in NAMES.iter().zip(group.shares) {
            object.insert((*name).to_owned(), json!(share));
        }
        Value::Object(object)
    };
    evaluation.by_group().iter().map(group).collect()
}

fn add_curriculum(object: &mut Map<String, Value>, curriculum: Option<&Curriculum>) {
    let labels = curriculum.and_then(|curriculum| curriculum.labels);
    let figure = labels.and_then(|labels| labels.figure);
    object.insert("label_accuracy".to_owned(), json!(figure.map(|figure| figure.value)));
    object.insert("label_low".to_owned(), json!(figure.map(|figure| figure.low)));
    object.insert("label_high".to_owned(), json!(figure.map(|figure| figure.high)));
    object.insert("num_labels_checked".to_owned(), json!(labels.map(|labels| labels.num_checked)));
    object.insert("num_labels_drawn".to_owned(), json!(labels.map(|labels| labels.num_drawn)));
    object.insert("num_kept".to_owned(), json!(curriculum.map(|curriculum| curriculum.num_kept)));
    object.insert("num_dropped".to_owned(), json!(curriculum.map(|curriculum| curriculum.num_dropped)));
    let kept_share = curriculum.and_then(Curriculum::kept_share);
    object.insert("kept_share".to_owned(), json!(kept_share));
    object.insert("drops".to_owned(), counts(curriculum.map(|curriculum| &curriculum.drops)));
    object.insert("malformed".to_owned(), counts(curriculum.map(|curriculum| &curriculum.malformed)));
    let examples: Option<Vec<Value>> = curriculum.map(|curriculum| curriculum.examples.iter().map(example).collect());
    object.insert("examples".to_owned(), json!(examples));
}

fn counts(counts: Option<&Vec<(String, u64)>>) -> Value {
    match counts {
        Some(counts) => Value::Object(counts.iter().map(|(name, count)| (name.clone(), json!(count))).collect()),
        None => Value::Null,
    }
}

fn example(example: &Example) -> Value {
    json!({
        "question": example.question,
        "pseudo_label": example.pseudo_label,
        "vote_share": example.vote_share,
        "is_true": example.is_true,
    })
}

fn training(training: Option<&Training>) -> Value {
    let Some(training) = training else { return Value::Null };
    json!({
        "num_steps": training.num_steps,
        "reward_first": training.reward_first,
        "reward_last": training.reward_last,
        "kl_last": training.kl_last,
        "format_last": training.format_last,
    })
}

fn add_figure(object: &mut Map<String, Value>, name: &str, figure: Option<Figure>) {
    object.insert(name.to_owned(), json!(figure.map(|figure| figure.value)));
    object.insert(format!("{name}_low"), json!(figure.map(|figure| figure.low)));
    object.insert(format!("{name}_high"), json!(figure.map(|figure| figure.high)));
}
