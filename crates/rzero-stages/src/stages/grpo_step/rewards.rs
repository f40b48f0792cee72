//! The rewards and advantages of a step's rollouts, row by row, with the parts they follow from.

use super::mismatch;
use crate::answers::{answer_rule, read_rollout_answer};
use crate::context::StageContext;
use crate::curricula::Curricula;
use crate::inputs::StageInputs;
use rzero_algo::advantage::{Advantages, group_advantages};
use rzero_algo::repetition::{NO_CLUSTER, repetition};
use rzero_algo::reward::{challenger_reward, solver_reward};
use rzero_schema::tables::{Challenge, CurriculumRow, Label, RewardRow, Rollout};
use rzero_schema::vocab::{AnswerStatus, ChallengeStatus, Objective, Stage};
use std::collections::BTreeMap;

/// Scored rollouts, in the order of the rollouts.
pub(crate) struct Scored {
    pub(crate) rows: Vec<RewardRow>,
    pub(crate) num_groups: u32,
    pub(crate) num_zero_variance_groups: u32,
    /// The status of a rollout that kept the format.
    pub(crate) good_status: &'static str,
}

/// Challenger: uncertainty of the vote, less the share of the batch that asks much the same; 0 for a malformed question.
pub(crate) fn challenger(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<(Vec<Rollout>, Scored)> {
    let settings = &context.profile.challenger;
    let rollouts = inputs.output(Stage::ChallengeGen)?.read::<Rollout>()?;
    let challenges = inputs.output(Stage::ChallengeGen)?.read::<Challenge>()?;
    let labels = inputs.output(Stage::VoteLabel)?.read::<Label>()?;
    let labels: BTreeMap<&str, &Label> = labels.iter().map(|label| (label.challenge_id.as_str(), label)).collect();
    if rollouts.len() != challenges.len() {
        let message = format!("{} rollouts were read as {} challenges", rollouts.len(), challenges.len());
        return Err(mismatch(message, "challenge-gen"));
    }
    let questions: Vec<Option<&str>> = challenges.iter().map(|challenge| challenge.question.as_deref()).collect();
    let clusters = repetition(&questions, settings.bleu_tokens, settings.cluster_threshold, questions.len());

    let mut rows = Vec::with_capacity(rollouts.len());
    for (index, (rollout, challenge)) in rollouts.iter().zip(&challenges).enumerate() {
        let id = &challenge.challenge_id;
        let label = labels.get(id.as_str());
        if *id != rollout.challenge_id || label.is_some() != challenge.question.is_some() {
            return Err(mismatch(format!("question {id} and its label do not fit one another"), "vote-label"));
        }
        let vote_share = label.map(|label| label.vote_share);
        let reward = challenger_reward(settings.reward, vote_share, clusters.share[index], settings.repetition_weight);
        let is_ok = vote_share.is_some();
        rows.push(RewardRow {
            challenge_id: id.clone(),
            row: rollout.row,
            sample: rollout.sample,
            role: rollout.role.clone(),
            group: rollout.row.checked_div(settings.group_size).unwrap_or(0),
            reward: reward.reward,
            advantage: 0.0,
            uncertainty: is_ok.then_some(reward.uncertainty),
            repetition: is_ok.then_some(reward.repetition),
            cluster: Some(clusters.cluster[index]).filter(|cluster| *cluster != NO_CLUSTER),
            vote_share,
            answer: None,
            pseudo_label: None,
            status: challenge.challenge_status.clone(),
        });
    }
    Ok((rollouts, with_advantages(rows, ChallengeStatus::Ok.as_str())))
}

/// Solver: 1 where the rollout's answer equals the pseudo-label.
pub(crate) fn solver(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<(Vec<Rollout>, Scored)> {
    let rollouts = inputs.output(Stage::SolveSample)?.read::<Rollout>()?;
    let curricula = Curricula::read(context, inputs)?;
    let labels: BTreeMap<&str, &CurriculumRow> = curricula.rows.iter().map(|row| (row.challenge_id.as_str(), row)).collect();
    let rule = answer_rule(&context.profile);
    let mut rows = Vec::with_capacity(rollouts.len());
    for rollout in &rollouts {
        let id = &rollout.challenge_id;
        let Some(CurriculumRow { pseudo_label, vote_share, .. }) = labels.get(id.as_str()) else {
            return Err(mismatch(format!("rollouts answer question {id}, which is not in the curriculum"), "solve-sample"));
        };
        let read = read_rollout_answer(rollout, &rule)?;
        rows.push(RewardRow {
            challenge_id: id.clone(),
            row: rollout.row,
            sample: rollout.sample,
            role: rollout.role.clone(),
            group: rollout.row,
            reward: solver_reward(read.answer.as_deref(), pseudo_label),
            advantage: 0.0,
            uncertainty: None,
            repetition: None,
            cluster: None,
            vote_share: Some(*vote_share),
            answer: read.answer,
            pseudo_label: Some(pseudo_label.clone()),
            status: read.status.to_string(),
        });
    }
    let good_status = AnswerStatus::Parsed.as_str();
    if context.profile.solver.objective == Objective::Sft {
        // What is shown is to become more likely, token by token: the policy gradient with A = 1 is that of -log p.
        rows.iter_mut().for_each(|row| row.advantage = 1.0);
        return Ok((rollouts, Scored { num_groups: rows.len() as u32, rows, num_zero_variance_groups: 0, good_status }));
    }
    let mut scored = with_advantages(rows, good_status);
    if context.profile.stability.weigh_by_votes {
        // A label counts for as much as it was agreed on (Agent0): A' = A * vote share.
        scored.rows.iter_mut().for_each(|row| row.advantage *= row.vote_share.unwrap_or(0.0));
    }
    Ok((rollouts, scored))
}

fn with_advantages(mut rows: Vec<RewardRow>, good_status: &'static str) -> Scored {
    let rewards: Vec<f64> = rows.iter().map(|row| row.reward).collect();
    let groups: Vec<u64> = rows.iter().map(|row| row.group).collect();
    let Advantages { advantages, num_groups, num_zero_variance_groups } = group_advantages(&rewards, &groups);
    for (row, advantage) in rows.iter_mut().zip(advantages) {
        row.advantage = advantage;
    }
    Scored { rows, num_groups, num_zero_variance_groups, good_status }
}
