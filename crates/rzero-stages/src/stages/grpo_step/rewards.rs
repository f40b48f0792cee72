//! The rewards and advantages of a step's rollouts, row by row, with the parts they follow from.

use super::mismatch;
use crate::answers::{answer_rule, read_rollout_answer};
use crate::context::StageContext;
use crate::curricula::{Curricula, curriculum_place};
use crate::inputs::StageInputs;
use crate::judged::question_row;
use crate::stages::verify::{Reader, settings_of};
use rzero_algo::advantage::{Advantages, group_advantages};
use rzero_algo::repetition::memory::recall;
use rzero_algo::repetition::{NO_CLUSTER, repetition};
use rzero_algo::reward::{challenger_reward, solver_reward};
use rzero_algo::verdict::{copied_share, verdict_reward, verifier_reward};
use rzero_schema::profile::VerifierSettings;
use rzero_schema::tables::{Challenge, CurriculumRow, JudgedAnswer, Label, MemoryRow, RewardRow, Rollout};
use rzero_schema::vocab::{AnswerStatus, ChallengeStatus, Objective, Phase, Stage};
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
    let is_judged = context.profile.is_judged(context.place.iteration, Phase::Challenger);
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

    let memory = remembers(context).then(|| memory(context, inputs, &questions)).transpose()?;
    let mut rows = Vec::with_capacity(rollouts.len());
    for (index, (rollout, challenge)) in rollouts.iter().zip(&challenges).enumerate() {
        let id = &challenge.challenge_id;
        let label = labels.get(id.as_str());
        if *id != rollout.challenge_id || label.is_some() != challenge.question.is_some() {
            return Err(mismatch(format!("question {id} and its label do not fit one another"), "vote-label"));
        }
        let vote_share = label.map(|label| label.vote_share);
        // Where verdicts take the place of votes, a question that nobody judged earns as one that all agree on: nothing.
        let share = if is_judged { label.map(|label| label.score.unwrap_or(0.0)) } else { vote_share };
        let memory = memory.as_ref().map(|memory| memory[index]);
        let repetition = settings.repetition_weight * clusters.share[index] + memory.unwrap_or(0.0);
        let reward = challenger_reward(settings.reward, share, repetition);
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
            memory: memory.filter(|_| is_ok),
            cluster: Some(clusters.cluster[index]).filter(|cluster| *cluster != NO_CLUSTER),
            vote_share,
            answer: None,
            pseudo_label: None,
            verdict: None,
            status: challenge.challenge_status.clone(),
        });
    }
    Ok((rollouts, with_advantages(rows, ChallengeStatus::Ok.as_str())))
}

/// Whether the Challenger is held against what was asked in earlier iterations.
pub(super) fn remembers(context: &StageContext) -> bool {
    context.profile.stability.memory_weight > 0.0 && context.place.iteration > 1
}

/// Weight times the share of all earlier questions in the cluster that each question would belong to; 0 where it is like none.
fn memory(context: &StageContext, inputs: &StageInputs<'_>, questions: &[Option<&str>]) -> anyhow::Result<Vec<f64>> {
    let settings = &context.profile.challenger;
    let place = curriculum_place(context.place.iteration.saturating_sub(1));
    let remembered = inputs.output_at(Stage::Remember, place)?.read::<MemoryRow>()?;
    let leaders: Vec<&MemoryRow> = remembered.iter().filter(|row| row.is_leader).collect();
    let mut sizes: BTreeMap<u32, u64> = BTreeMap::new();
    remembered.iter().for_each(|row| *sizes.entry(row.cluster).or_default() += 1);
    let texts: Vec<&str> = leaders.iter().map(|row| row.question.as_str()).collect();
    let asked: Vec<&str> = questions.iter().map(|question| question.unwrap_or_default()).collect();
    let clusters = recall(&texts, &asked, settings.bleu_tokens, settings.cluster_threshold);
    let share = |leader: usize| sizes[&leaders[leader].cluster] as f64 / remembered.len() as f64;
    let weight = context.profile.stability.memory_weight;
    Ok(clusters.into_iter().map(|leader| leader.map_or(0.0, |leader| weight * share(leader))).collect())
}

/// Solver: 1 where the rollout's answer equals the pseudo-label; or the Verifier's mean verdict on it, less penalties.
pub(crate) fn solver(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<(Vec<Rollout>, Scored)> {
    let rollouts = inputs.output(Stage::SolveSample)?.read::<Rollout>()?;
    let curricula = Curricula::read(context, inputs)?;
    let labels: BTreeMap<&str, &CurriculumRow> = curricula.rows.iter().map(|row| (row.challenge_id.as_str(), row)).collect();
    let rule = answer_rule(&context.profile);
    let verdicts =
        context.profile.is_judged(context.place.iteration, Phase::Solver).then(|| verdicts(context, inputs)).transpose()?;
    let mut rows = Vec::with_capacity(rollouts.len());
    for rollout in &rollouts {
        let id = &rollout.challenge_id;
        let Some(CurriculumRow { question, pseudo_label, vote_share, .. }) = labels.get(id.as_str()) else {
            return Err(mismatch(format!("rollouts answer question {id}, which is not in the curriculum"), "solve-sample"));
        };
        let read = read_rollout_answer(rollout, &rule)?;
        let verdict = verdicts.as_ref().and_then(|verdicts| verdicts.of(rollout));
        let reward = match &verdicts {
            None => solver_reward(read.answer.as_deref(), pseudo_label),
            Some(verdicts) => verdicts.reward(verdict, question, rollout),
        };
        rows.push(RewardRow {
            challenge_id: id.clone(),
            row: rollout.row,
            sample: rollout.sample,
            role: rollout.role.clone(),
            group: rollout.row,
            reward,
            advantage: 0.0,
            uncertainty: None,
            repetition: None,
            memory: None,
            cluster: None,
            vote_share: Some(*vote_share),
            answer: read.answer,
            pseudo_label: Some(pseudo_label.clone()),
            verdict,
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

/// The verdicts on a Solver step's answers, and what is taken off them.
struct Verdicts {
    /// By row of the question and sample.
    scores: BTreeMap<(u64, u32), f64>,
    max_tokens: usize,
    length_penalty: f64,
    copy_penalty: f64,
}

impl Verdicts {
    fn of(&self, rollout: &Rollout) -> Option<f64> {
        self.scores.get(&(rollout.row, rollout.sample)).copied()
    }

    fn reward(&self, verdict: Option<f64>, question: &str, rollout: &Rollout) -> f64 {
        let length_share = rollout.completion_tokens.len() as f64 / self.max_tokens as f64;
        let copied = copied_share(question, &rollout.completion);
        verdict_reward(verdict, length_share, copied, self.length_penalty, self.copy_penalty)
    }
}

fn verdicts(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<Verdicts> {
    let mut scores = BTreeMap::new();
    for judged in inputs.output(Stage::Verify)?.read::<JudgedAnswer>()? {
        let row = question_row(context, &judged);
        scores.extend(judged.equal_samples.iter().filter_map(|sample| Some(((row, *sample), judged.score?))));
    }
    let VerifierSettings { length_penalty, copy_penalty, .. } = *settings_of(context)?;
    Ok(Verdicts { scores, max_tokens: context.profile.solver.sampling.max_tokens, length_penalty, copy_penalty })
}

/// Verifier: how close each verdict is to the target; where there is none, to what the verdicts on the same answer say on average. A completion that
/// judges several answers earns the mean.
pub(crate) fn verifier(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<(Vec<Rollout>, Scored)> {
    let settings = settings_of(context)?;
    let reader = Reader::new(context, settings);
    let rollouts = inputs.output(Stage::Verify)?.read::<Rollout>()?;
    let judged = inputs.output(Stage::Verify)?.read::<JudgedAnswer>()?;
    // Of each group its answers, their canonical forms and what a verdict on each should say.
    let answers = |group: &[JudgedAnswer]| -> Vec<(Option<String>, Option<f64>)> {
        group.iter().map(|judged| (reader.form(&judged.response), judged.target.or(judged.score))).collect()
    };
    let groups: BTreeMap<u64, (&JudgedAnswer, Vec<_>)> =
        reader.groups(&judged, |row| &row.challenge_id).map(|group| (group[0].row, (&group[0], answers(group)))).collect();
    let mut rows = Vec::with_capacity(rollouts.len());
    for rollout in &rollouts {
        let Some((first, answers)) = groups.get(&rollout.row).filter(|(first, _)| first.verdict_id == rollout.challenge_id)
        else {
            return Err(mismatch(format!("a verdict is on {}, which was not judged", rollout.challenge_id), "verify"));
        };
        let said = reader.read(rollout)?;
        let reward = |(form, target): &(Option<String>, Option<f64>)| {
            target.map_or(0.0, |target| verifier_reward(said.verdict(form.as_deref()), target, settings.scoring))
        };
        rows.push(RewardRow {
            challenge_id: rollout.challenge_id.clone(),
            row: rollout.row,
            sample: rollout.sample,
            role: rollout.role.clone(),
            group: rollout.row,
            reward: answers.iter().map(reward).sum::<f64>() / answers.len() as f64,
            advantage: 0.0,
            uncertainty: None,
            repetition: None,
            memory: None,
            cluster: None,
            vote_share: None,
            answer: said.text(),
            pseudo_label: reader.form(&first.response).or(first.target.or(first.score).map(|target| target.to_string())),
            verdict: None,
            status: if said.text().is_some() { AnswerStatus::Parsed } else { AnswerStatus::NotReadable }.to_string(),
        });
    }
    Ok((rollouts, with_advantages(rows, AnswerStatus::Parsed.as_str())))
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
