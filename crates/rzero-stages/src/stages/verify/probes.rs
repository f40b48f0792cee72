//! The fixed probes: answers of the base model to held-out problems, a right and a wrong one each, and a right one spoilt. Where nothing is right or
//! wrong, any answer, and the same spoilt.
//!
//! They are drawn from iteration 0's evaluation alone, so that every iteration's Verifier sees the same. The truth of them measures the
//! Verifier; it trains nothing.

use super::{Item, compares, settings_of};
use crate::context::StageContext;
use crate::inputs::StageInputs;
use crate::stages::eval::read_items_of;
use rzero_algo::seed::{StreamKey, permutation, random_stream};
use rzero_algo::verdict::{shuffled, truncated};
use rzero_schema::ids::Place;
use rzero_schema::tables::EvalResult;
use rzero_schema::vocab::{AnswerForm, AnswerKind, AnswerStatus, EvalMode, EvalStyle, FinishReason, Phase, Stage};
use std::collections::BTreeMap;

/// Answers that a problem gives: a right one, a wrong one, and the right one cut off, shuffled and exchanged for that to the next problem.
const ANSWERS: u64 = 5;

fn evaluated() -> Place {
    Place::new(0, Phase::Eval, 0)
}

pub(super) fn declare<'a>(inputs: StageInputs<'a>, context: &StageContext) -> anyhow::Result<StageInputs<'a>> {
    let items = context.project_path(&context.profile.eval.items)?;
    Ok(inputs.with_stage_at(Stage::Eval, evaluated()).with_file("items", &items))
}

pub(super) fn items(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<Vec<Item>> {
    let questions: BTreeMap<String, String> =
        read_items_of(inputs.path("items")?)?.into_iter().map(|item| (item.item_id, item.question)).collect();
    let results = inputs.output_at(Stage::Eval, evaluated())?.read::<EvalResult>()?;
    let has_truth = context.profile.domain.answers != AnswerForm::Rubric;
    // Right and wrong answers of each problem that has both; where there is no truth, the first that is whole.
    let mut problems: BTreeMap<u64, [Option<&EvalResult>; 2]> = BTreeMap::new();
    for result in &results {
        let is_sample = result.eval_mode == EvalMode::Sampled.as_str() && result.eval_style == EvalStyle::Free.as_str();
        let is_whole = if has_truth {
            result.answer_status == AnswerStatus::Parsed.as_str()
        } else {
            result.finish_reason == FinishReason::Stop.as_str()
        };
        if is_sample && is_whole {
            problems.entry(result.row).or_default()[usize::from(has_truth && !result.is_correct)].get_or_insert(result);
        }
    }
    let pairs: Vec<(&EvalResult, Option<&EvalResult>)> = problems
        .into_values()
        .filter_map(|[right, wrong]| Some((right?, wrong)))
        .filter(|(_, wrong)| wrong.is_some() || !has_truth)
        .collect();
    let (answers, compares) = (if has_truth { ANSWERS } else { ANSWERS - 1 }, compares(context)?);
    let num_wanted = settings_of(context)?.num_probes.div_ceil(answers).min(pairs.len() as u64);
    let mut items = Vec::new();
    for index in 0..num_wanted {
        // Spread over the problems, which stand in the order of their levels.
        let (right, wrong) = pairs[(index * pairs.len() as u64 / num_wanted) as usize];
        let key = StreamKey { run_seed: context.profile.seed, iteration: 0, phase: Phase::Eval, step: 0, row: index, sample: 0 };
        let spoilt = shuffled(&right.completion, |count| permutation(count, &mut random_stream("probe", &key)));
        let mut forms = vec![(right, AnswerKind::Answer, right.completion.clone(), has_truth.then_some(1.0))];
        forms.extend(wrong.map(|wrong| (wrong, AnswerKind::Answer, wrong.completion.clone(), Some(0.0))));
        forms.push((right, AnswerKind::Truncated, truncated(&right.completion), Some(0.0)));
        forms.push((right, AnswerKind::Shuffled, spoilt, Some(0.0)));
        let next = pairs[((index + 1) % num_wanted * pairs.len() as u64 / num_wanted) as usize].0;
        // A single problem has no other.
        if next.item_id != right.item_id {
            forms.push((right, AnswerKind::Exchanged, next.completion.clone(), Some(0.0)));
        }
        // Each is compared with the right one, and that with the first of the others.
        let compared = [forms[1].2.clone(), forms[0].2.clone()];
        for (row, (result, kind, response, target)) in (answers * index..).zip(forms) {
            items.push(Item {
                row,
                challenge_id: result.item_id.clone(),
                samples: vec![result.sample],
                kind,
                question: questions.get(&result.item_id).cloned().unwrap_or_default(),
                response,
                other: compares.then(|| compared[usize::from(row % answers != 0)].clone()),
                target,
            });
        }
    }
    // All answers to a problem go to one shard.
    let problems = context.shard_rows(num_wanted);
    items.retain(|item| problems.contains(&(item.row / answers)));
    Ok(items)
}
