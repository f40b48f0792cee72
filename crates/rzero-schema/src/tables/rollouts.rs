//! `rollouts`: what a policy was asked and what it wrote, token by token. One table serves both roles.

use crate::table;

table! {
    /// One completion of one prompt, by either role, with everything that training needs of it.
    Rollout = "rollouts", version 3, key ["challenge_id", "sample"] {
        /// Question this completion answers (Solver) or was read as (Challenger); the verdicts it belongs to (Verifier).
        challenge_id: String,
        /// Row of the question within its set; rows are ordered by (row, sample).
        row: u64,
        /// Number of this completion among those of the same question, from 0.
        sample: u32,
        /// `challenger`, `solver` or `verifier`.
        role: String,
        /// Tokens the policy was given.
        prompt_tokens: Vec<u32>,
        /// Tokens it wrote, the stop token included where there is one.
        completion_tokens: Vec<u32>,
        /// Log-probability of each completion token under the untruncated policy at temperature 1, in nats. Where a server wrote the completion, as
        /// many as it told, from the first; `grpo-step` computes the rest.
        policy_logprobs: Vec<f32>,
        /// Log-probability of each completion token under the distribution it was drawn from (temperature, top-k, top-p), in nats. As many as are
        /// known.
        sampler_logprobs: Vec<f32>,
        /// Mean entropy of the untruncated policy over the completion's positions, in nats; null where it is not known.
        entropy: Option<f32>,
        /// Mean divergence of the uniform distribution from the policy's, KL(U || p), over the same positions, in nats (self-certainty,
        /// arXiv 2502.18581); null where it is not known.
        self_certainty: Option<f32>,
        /// `stop` or `length`.
        finish_reason: String,
        /// The completion as text without the stop token; bytes that are no UTF-8 stand as U+FFFD.
        completion: String,
        /// Whether the token bytes were valid UTF-8.
        is_valid_utf8: bool,
    }
}
