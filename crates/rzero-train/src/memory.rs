//! How much memory a GRPO step will take, told before it runs.
//!
//! The parts that are as large as the model, and what the passes of the largest micro-batch hold ([`rzero_model::training::pass_bytes`]). What a
//! process needs besides (rollouts, tables, the program) is small and left out.

use crate::gradient::side_by_side;
use crate::lora::Lora;
use rzero_model::ModelConfig;
use rzero_model::training::{Keep, pass_bytes};
use rzero_model::weights::Layout;
use rzero_schema::profile::GrpoSettings;
use rzero_schema::vocab::FloatType;

/// Bytes of a step, by what holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Numbers in the model.
    pub num_parameters: usize,
    /// Numbers that are trained: all of them, or those of the adapters.
    pub num_trained: usize,
    /// The weights that passes compute with.
    pub weights: usize,
    /// What is trained where it is not those: unrounded weights, or the base and its adapters.
    pub trained: usize,
    /// AdamW's two moments, and the averaged weights where they are kept.
    pub optimizer: usize,
    /// The sum of the gradient, that of a part where there are several, and one a micro-batch where several run side by side.
    pub gradient: usize,
    /// Activations, logits and what a pass holds for a moment.
    pub passes: usize,
}

/// What the rollouts of a step look like, or the most that the profile allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSize {
    /// Rollouts of a step.
    pub num_rollouts: usize,
    /// Longest prompt and completion together, in tokens.
    pub longest: usize,
    /// Longest completion.
    pub longest_completion: usize,
}

impl MemoryPlan {
    /// Plans a step.
    #[must_use]
    pub fn new(config: &ModelConfig, settings: &GrpoSettings, float: FloatType, step: StepSize, threads: usize) -> Self {
        let layout = Layout::new(config);
        let num_parameters = layout.num_parameters();
        let has_adapters = settings.lora.rank > 0;
        let num_trained = if has_adapters { Lora::new(&layout, &settings.lora).num_parameters() } else { num_parameters };
        let at_once = side_by_side(num_parameters, threads);
        let keep = if settings.recompute_activations { Keep::Inputs } else { Keep::Activations };
        // A micro-batch holds its budget of rows, or one sequence, and no more than there is.
        let rows = settings.micro_batch_tokens.min(step.num_rollouts * step.longest).max(step.longest);
        let asked = rows.min(step.num_rollouts * step.longest_completion);
        let copies = |numbers: usize| 4 * numbers;
        let num_moments = 2 + usize::from(settings.weight_ema > 0.0);
        Self {
            num_parameters,
            num_trained,
            weights: copies(num_parameters),
            trained: match (has_adapters, float) {
                (true, _) => copies(num_parameters + num_trained),
                (false, FloatType::F32) => 0,
                (false, _) => copies(num_parameters),
            },
            optimizer: copies(num_moments * num_trained),
            gradient: copies(
                num_trained * (1 + usize::from(settings.gradient_parts > 1)) + at_once.unwrap_or(0) * num_parameters,
            ),
            passes: at_once.unwrap_or(1) * pass_bytes(config, rows, asked, step.longest, keep, at_once.map_or(threads, |_| 1)),
        }
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> usize {
        self.weights + self.trained + self.optimizer + self.gradient + self.passes
    }
}

/// Most memory this process has held so far, in bytes; nothing where the system does not tell.
#[must_use]
pub fn peak_bytes(proc_status: &str) -> Option<u64> {
    let line = proc_status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
}
