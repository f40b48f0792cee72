//! The Solver's answers, by the few columns of its rollouts that a Verifier needs.

use crate::answers::{ANSWER_COLUMNS, answered, may_answer};
use crate::questions::BATCH_ROWS;
use rzero_algo::answer::AnswerRule;
use rzero_io::set::StageOutput;
use rzero_schema::tables::Rollout;
use std::ops::Range;

/// What was given as an answer.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) row: u64,
    pub(super) challenge_id: String,
    pub(super) sample: u32,
    pub(super) text: String,
}

/// The answers to questions of these rows, in the order of row and sample; by a rule, only those in which an answer can be read.
pub(super) fn given(output: &StageOutput, rows: &Range<u64>, rule: Option<&AnswerRule>) -> anyhow::Result<Vec<Given>> {
    let mut all = Vec::new();
    for piece in output.scan_where::<Rollout>(&ANSWER_COLUMNS, |piece| may_answer(piece, rows))? {
        for columns in piece.open(BATCH_ROWS)? {
            for answer in answered(&columns?)?.filter(|answer| rows.contains(&answer.row)) {
                let is_readable = rule.map_or(Ok(true), |rule| anyhow::Ok(answer.form(rule)?.is_ok()))?;
                if is_readable {
                    all.push(Given {
                        row: answer.row,
                        challenge_id: answer.challenge_id.to_owned(),
                        sample: answer.sample,
                        text: answer.text.to_owned(),
                    });
                }
            }
        }
    }
    Ok(all)
}
