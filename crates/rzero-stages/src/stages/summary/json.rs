//! One iteration as one JSON object. Every key is always there; what is not known is null.

use super::benchmarks::Line;
use super::collect::{Curriculum, Example, IterationSummary, Scores, Training};
use super::judge;
use crate::scores::{Evaluation, Figure, Measure, Part};
use rzero_schema::vocab::EvalMode;
use serde_json::{Map, Value, json};

/// The iteration as one line of JSON. Accuracies, shares and gains are percent points from 0 to 100. Keys of measures hold the number of
/// sampled completions; `num_samples` is that of the profile.
pub(super) fn object(iteration: &IterationSummary, num_samples: u32) -> Value {
    let mut object = Map::new();
    object.insert("iteration".to_owned(), json!(iteration.iteration));
    let num_samples = iteration.scores.as_ref().map_or(num_samples, |scores| scores.evaluation.num_samples);
    add_scores(&mut object, iteration.scores.as_ref(), num_samples);
    add_curriculum(&mut object, iteration.curriculum.as_ref());
    object.insert("judge".to_owned(), judge::object(iteration.judged.as_ref()));
    object.insert("challenger".to_owned(), training(iteration.challenger.as_ref()));
    object.insert("solver".to_owned(), training(iteration.solver.as_ref()));
    object.insert("verifier".to_owned(), training(iteration.verifier.as_ref()));
    object.insert("probes".to_owned(), json!(iteration.probes.as_ref().map(|probes| &probes.figures)));
    let seconds: f64 = iteration.seconds_by_stage.values().sum();
    object.insert("seconds".to_owned(), json!(seconds));
    object.insert("seconds_by_stage".to_owned(), json!(iteration.seconds_by_stage));
    object.insert("missing".to_owned(), json!(iteration.missing));
    Value::Object(object)
}

fn add_scores(object: &mut Map<String, Value>, scores: Option<&Scores>, num_samples: u32) {
    for (index, measure) in Measure::MAIN.into_iter().enumerate() {
        let key = measure.key(num_samples);
        add_figure(object, &key, scores.map(|scores| scores.accuracy[index]));
        add_figure(object, &gain_key(measure, num_samples), scores.and_then(|scores| scores.gain[index]));
        let gain_over_worked = scores.and_then(|scores| scores.gain_over_worked[index]);
        add_figure(object, &format!("gain_over_worked_{key}"), gain_over_worked);
        let worked = scores.and_then(|scores| scores.worked.as_ref());
        add_figure(object, &format!("worked_{key}"), worked.map(|(_, accuracy)| accuracy[index]));
    }
    for (index, measure) in Measure::passes(num_samples).enumerate() {
        let pass = scores.and_then(|scores| scores.passes.get(index));
        add_figure(object, &measure.key(num_samples), pass.map(|(_, figure)| *figure));
    }
    let evaluation = scores.map(|scores| &scores.evaluation);
    let worked = scores.and_then(|scores| scores.worked.as_ref()).map(|(evaluation, _)| evaluation);
    object.insert("num_items".to_owned(), json!(evaluation.map(|evaluation| evaluation.items().len())));
    object.insert("num_samples".to_owned(), json!(evaluation.map(|evaluation| evaluation.num_samples)));
    for (name, mode) in UNPARSED {
        object.insert(name.to_owned(), json!(evaluation.map(|evaluation| evaluation.unparsed_share(mode))));
    }
    object.insert("worked_share".to_owned(), json!(evaluation.map(Evaluation::worked_share)));
    object.insert("accuracy_when_worked".to_owned(), json!(evaluation.and_then(Evaluation::worked_accuracy)));
    object.insert("accuracy_when_direct".to_owned(), json!(evaluation.and_then(Evaluation::direct_accuracy)));
    object.insert("by_level".to_owned(), json!(evaluation.map(|evaluation| parts(&evaluation.by_subject_or_level()))));
    object.insert("worked_by_level".to_owned(), json!(worked.map(|evaluation| parts(&evaluation.by_subject_or_level()))));
    let lines = |is_wanted: fn(&Line) -> bool| {
        json!(scores.map(|scores| scores.benchmarks.iter().filter(|line| is_wanted(line)).map(line).collect::<Vec<_>>()))
    };
    object.insert("benchmarks".to_owned(), lines(|line| line.members.is_empty()));
    object.insert("averages".to_owned(), lines(|line| !line.members.is_empty()));
}

/// Shares of the completions of each mode whose answer could not be read.
const UNPARSED: [(&str, EvalMode); 2] = [("unparsed_greedy", EvalMode::Greedy), ("unparsed_sampled", EvalMode::Sampled)];

/// `gain` alone is the gain in greedy accuracy.
fn gain_key(measure: Measure, num_samples: u32) -> String {
    match measure {
        Measure::Greedy => "gain".to_owned(),
        other => format!("gain_{}", other.key(num_samples)),
    }
}

/// Subjects or levels, without intervals.
fn parts(parts: &[Part]) -> Value {
    let part = |part: &Part| {
        let mut object = Map::new();
        object.insert("benchmark".to_owned(), json!(part.benchmark));
        object.insert("subject".to_owned(), json!(part.subject));
        object.insert("level".to_owned(), json!(part.level));
        object.insert("num_items".to_owned(), json!(part.evaluation.items().len()));
        for measure in Measure::MAIN {
            object.insert(measure.key(part.evaluation.num_samples), json!(part.evaluation.share(measure)));
        }
        Value::Object(object)
    };
    parts.iter().map(part).collect()
}

/// A benchmark, with its subjects and levels; or an average, with its members and those that are missing.
fn line(line: &Line) -> Value {
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(line.name));
    object.insert("num_items".to_owned(), json!(line.num_items));
    for (index, measure) in Measure::MAIN.into_iter().enumerate() {
        add_figure(&mut object, &measure.key(line.num_samples), line.accuracy[index]);
        add_figure(&mut object, &gain_key(measure, line.num_samples), line.gain[index]);
    }
    for (measure, figure) in &line.passes {
        add_figure(&mut object, &measure.key(line.num_samples), *figure);
    }
    match &line.evaluation {
        Some(evaluation) => {
            for (name, mode) in UNPARSED {
                object.insert(name.to_owned(), json!(evaluation.unparsed_share(mode)));
            }
            object.insert("by_subject".to_owned(), parts(&evaluation.by_subject()));
            object.insert("by_level".to_owned(), parts(&evaluation.by_level()));
        }
        None => {
            object.insert("members".to_owned(), json!(line.members));
            object.insert("missing".to_owned(), json!(line.missing));
        }
    }
    Value::Object(object)
}

fn add_curriculum(object: &mut Map<String, Value>, curriculum: Option<&Curriculum>) {
    let labels = curriculum.and_then(|curriculum| curriculum.labels);
    let figure = labels.and_then(|labels| labels.figure);
    object.insert("label_accuracy".to_owned(), json!(figure.map(|figure| figure.value)));
    object.insert("label_low".to_owned(), json!(figure.map(|figure| figure.low)));
    object.insert("label_high".to_owned(), json!(figure.map(|figure| figure.high)));
    object.insert("num_labels_checked".to_owned(), json!(labels.map(|labels| labels.num_checked)));
    object.insert("num_labels_drawn".to_owned(), json!(labels.map(|labels| labels.num_drawn)));
    object.insert("voted".to_owned(), json!(curriculum.and_then(|curriculum| curriculum.voted.as_ref())));
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
