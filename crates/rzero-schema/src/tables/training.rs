//! `rewards`, `gradient_sums`, `train_metrics`, `step_timings`, `pretrain_metrics`: what an update was made of and what it did.
//!
//! Clock readings stand in `step_timings` alone, so that every other table of two equal runs is equal byte for byte.

use crate::table;

table! {
    /// The reward and advantage of one rollout in one update, with the parts they follow from.
    RewardRow = "rewards", version 3, key ["challenge_id", "sample"] {
        /// Question of the rollout; the verdicts it belongs to, of the Verifier.
        challenge_id: String,
        /// Row of the question within its set.
        row: u64,
        /// Sample of the rollout.
        sample: u32,
        /// `challenger`, `solver` or `verifier`.
        role: String,
        /// Group whose mean and deviation the advantage is taken against.
        group: u64,
        /// The reward.
        reward: f64,
        /// (reward - group mean) / (group deviation + 1e-6); 0 in a group of zero variance. Solver: times the vote share
        /// where the profile says `stability.weigh_by_votes`.
        advantage: f64,
        /// Challenger: 1 - 2|p - 1/2| (or the variant's form).
        uncertainty: Option<f64>,
        /// Challenger: weight times the share of the batch in the question's cluster.
        repetition: Option<f64>,
        /// Challenger: weight times the share of all earlier questions that the question is like; null where nothing is remembered.
        memory: Option<f64>,
        /// Challenger: number of the question's BLEU cluster, by first occurrence.
        cluster: Option<u32>,
        /// Vote share of the question.
        vote_share: Option<f64>,
        /// Solver: canonical form of the rollout's answer. Verifier: what the verdict says.
        answer: Option<String>,
        /// Solver: the pseudo-label it is compared with. Verifier: what it should say.
        pseudo_label: Option<String>,
        /// Solver: the mean verdict that it is rewarded by, where the profile says `solver.reward = "verdict"`.
        verdict: Option<f64>,
        /// Challenger: the challenge status. Solver and Verifier: the answer status.
        status: String,
    }
}

table! {
    /// One part of the gradient of an update: what its tokens add to the figures of the step.
    GradientSum = "gradient_sums", version 1, key ["update", "part"] {
        /// Update within the step, from 1.
        update: u32,
        /// Part within the update, from 0; its numbers stand in `part-{part}-of-{num_parts}.safetensors`.
        part: u32,
        /// Parts of an update; those without a micro-batch are left out.
        num_parts: u32,
        /// First micro-batch of the part.
        first_micro_batch: u32,
        /// Micro-batches of the part.
        num_micro_batches: u32,
        /// Completion tokens that were trained on.
        num_tokens: u64,
        /// Sum of the tokens' weighted losses.
        loss: f64,
        /// Its clipped surrogate part.
        surrogate_loss: f64,
        /// Sum of the k3 estimates of the divergence from the reference policy, in nats.
        kl_reference: f64,
        /// Sum of old minus new log-probabilities, in nats.
        kl_old: f64,
        /// Sum of the policy's entropies, in nats.
        entropy: f64,
        /// Tokens held by the lower (or dual) clip.
        num_clipped_low: u64,
        /// Tokens held by the upper clip.
        num_clipped_high: u64,
        /// Sum of the magnitudes of old minus new log-probabilities, in nats.
        logprob_difference: f64,
        /// The largest of these magnitudes.
        logprob_difference_max: f64,
    }
}

table! {
    /// One GRPO update.
    TrainMetrics = "train_metrics", version 1, key ["iteration", "phase", "step"] {
        /// Iteration.
        iteration: u32,
        /// `challenger`, `solver` or `verifier`.
        phase: String,
        /// Step within the phase, from 1.
        step: u32,
        /// Rollouts in the update.
        num_rollouts: u32,
        /// Completion tokens in the update.
        num_completion_tokens: u64,
        /// Mean reward.
        reward_mean: f64,
        /// Standard deviation of the reward over all rollouts (n - 1).
        reward_std: f64,
        /// Challenger: mean uncertainty over well-formed questions.
        uncertainty_mean: Option<f64>,
        /// Challenger: mean repetition over well-formed questions.
        repetition_mean: Option<f64>,
        /// Challenger: share of well-formed questions. Solver: share of parsed answers.
        format_mean: f64,
        /// Groups in the update.
        num_groups: u32,
        /// Share of groups whose rewards do not vary, which give no gradient.
        zero_variance_share: f64,
        /// The objective that was minimised.
        loss: f64,
        /// Its clipped surrogate part.
        surrogate_loss: f64,
        /// Mean k3 estimate of the divergence from the reference policy, in nats a token.
        kl_reference: f64,
        /// Mean of old minus new log-probability: divergence from the sampling policy, in nats a token.
        kl_old: f64,
        /// Mean entropy of the policy over completion positions, in nats.
        entropy: f64,
        /// Share of tokens held by the lower clip.
        clip_low_share: f64,
        /// Share of tokens held by the upper clip.
        clip_high_share: f64,
        /// Global gradient norm before clipping.
        gradient_norm: f64,
        /// Learning rate of this step.
        learning_rate: f64,
        /// Mean completion length in tokens.
        completion_length_mean: f64,
        /// Shortest completion.
        completion_length_min: u32,
        /// Longest completion.
        completion_length_max: u32,
        /// Share of completions that hit the length limit.
        truncated_share: f64,
        /// Largest absolute difference between the sampler's and the trainer's log-probability of a token.
        sampler_trainer_logprob_max: f64,
        /// Mean absolute difference between the two.
        sampler_trainer_logprob_mean: f64,
    }
}

table! {
    /// Clock readings of one update. The only table that differs between two equal runs.
    StepTiming = "step_timings", version 1, key ["iteration", "phase", "step"] {
        /// Iteration.
        iteration: u32,
        /// `challenger`, `solver` or `verifier`.
        phase: String,
        /// Step within the phase, from 1.
        step: u32,
        /// Reading inputs and computing rewards.
        reward_seconds: f64,
        /// Log-probabilities under the reference policy.
        reference_seconds: f64,
        /// Forward and backward passes.
        gradient_seconds: f64,
        /// Clipping and the optimiser.
        optimizer_seconds: f64,
        /// Writing tables and the checkpoint.
        write_seconds: f64,
        /// Completion tokens a second over the whole step.
        tokens_per_second: f64,
    }
}

table! {
    /// One logged step of next-token training.
    PretrainMetrics = "pretrain_metrics", version 1, key ["step"] {
        /// Step, from 1.
        step: u32,
        /// Mean loss over completion tokens since the row before, in nats.
        loss: f64,
        /// Learning rate.
        learning_rate: f64,
        /// Global gradient norm before clipping.
        gradient_norm: f64,
        /// Tokens trained on so far, padding apart.
        num_tokens: u64,
    }
}
