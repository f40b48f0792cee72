//! The part of a profile that says what a stage asks of a batch scheduler. It decides no row: a run may be moved between clusters.

use crate::profile::{ProfileError, range};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How stages are submitted to a batch scheduler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSettings {
    /// Seconds before its time limit at which a task is told to stop; it then waits to be started again.
    pub warning_s: u32,
    /// Times a task may be started again before it counts as failed.
    pub max_restarts: u32,
    /// Stages that read or train a model: challenge-gen, solve-sample, eval, grpo-gradient, grpo-step.
    pub model: TaskResources,
    /// Stages that only move tables: vote-label, filter, label-probe, judge.
    pub data: TaskResources,
}

/// What one task of a class of stages asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskResources {
    /// Queue, on Slurm a partition; empty for the cluster's own choice.
    pub queue: String,
    /// Cores, and threads of the stage.
    pub cpus: u32,
    /// Memory in GB.
    pub memory_gb: u32,
    /// GPUs; with one, `--device cuda` is given to the stage.
    pub gpus: u32,
    /// Time limit in minutes.
    pub minutes: u32,
    /// Tasks of an array at a time; 0 for as many as there is room for.
    pub throttle: u32,
}

impl ClusterSettings {
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        range("cluster.max_restarts", self.max_restarts, |v| v <= 1000, "at most 1000")?;
        for class in [&self.model, &self.data] {
            range("cluster.*.cpus", class.cpus, |v| v >= 1, "at least 1")?;
            range("cluster.*.memory_gb", class.memory_gb, |v| v >= 1, "at least 1")?;
            range("cluster.*.gpus", class.gpus, |v| v <= 1, "0 or 1: a process uses one")?;
            range("cluster.*.minutes", class.minutes, |v| v >= 1, "at least 1")?;
            range("cluster.warning_s", self.warning_s, |v| v < 60 * class.minutes, "less than the time limit")?;
        }
        Ok(())
    }
}
