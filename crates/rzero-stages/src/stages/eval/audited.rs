//! Results as they follow from the completions that were written, for who holds them against those that were written.

use super::grading::{Graded, GradingRule};
use super::{Counts, Pass, chosen_items, graded_result, is_worked, passes, read_items_of};
use crate::context::StageContext;
use crate::exit::StageFailure;
use rzero_schema::tables::{EvalItem, EvalResult};
use rzero_schema::vocab::{AnswerStatus, FinishReason};
use std::collections::BTreeMap;
use std::path::Path;

/// The problems of an evaluation, with how each is graded.
pub(crate) struct Graders<'a> {
    context: &'a StageContext,
    items: BTreeMap<String, (EvalItem, GradingRule)>,
    passes: Vec<Pass>,
}

impl<'a> Graders<'a> {
    /// Those of a context, by the file that its problems came from.
    pub(crate) fn new(context: &'a StageContext, items: &Path) -> anyhow::Result<Self> {
        let chosen = chosen_items(read_items_of(items)?, context.profile.eval.max_items);
        let with_rule = |item: EvalItem| {
            let rule = GradingRule::new(&context.profile, &item.benchmark);
            (item.item_id.clone(), (item, rule))
        };
        Ok(Self { context, items: chosen.into_iter().map(with_rule).collect(), passes: passes(context) })
    }

    /// Results that an evaluation has.
    pub(crate) fn num_results(&self) -> u64 {
        let num_each: u64 = self.passes.iter().map(|pass| u64::from(pass.num_samples)).sum();
        num_each * self.items.len() as u64
    }

    /// The row as it follows from its problem and its completion.
    pub(crate) fn regrade(&self, row: &EvalResult) -> anyhow::Result<EvalResult> {
        let odd = |what: String| StageFailure::input(format!("a result is of {what}"));
        let (item, rule) =
            self.items.get(&row.item_id).ok_or_else(|| odd(format!("problem {}, which was not asked", row.item_id)))?;
        let is_of = |pass: &&Pass| {
            pass.style.as_str() == row.eval_style && pass.mode.as_str() == row.eval_mode && row.sample < pass.num_samples
        };
        let pass = self.passes.iter().find(is_of).ok_or_else(|| {
            odd(format!("sample {} of {} {}, which the profile does not ask for", row.sample, row.eval_style, row.eval_mode))
        })?;
        if row.answer_status == AnswerStatus::NotAsked.as_str() {
            return Ok(graded_result(item, pass, row.sample, Graded::unread(AnswerStatus::NotAsked)));
        }
        let finish: FinishReason = row.finish_reason.parse().map_err(|error| odd(format!("an odd kind: {error}")))?;
        let graded = match row.completion.contains(char::REPLACEMENT_CHARACTER) {
            false => rule.grade(item, &row.completion, finish),
            true => Graded::unread(AnswerStatus::InvalidUtf8),
        };
        Ok(EvalResult {
            num_tokens: row.num_tokens,
            finish_reason: row.finish_reason.clone(),
            is_worked: is_worked(self.context, pass, &row.completion),
            completion: row.completion.clone(),
            ..graded_result(item, pass, row.sample, graded)
        })
    }

    /// The counts of a shard's manifest.
    pub(crate) fn counts(results: &[EvalResult]) -> BTreeMap<String, u64> {
        let mut counts = Counts::default();
        counts.add(results);
        counts.0
    }
}
