//! The part of a profile that says how results are measured: held-out evaluation, the judge, the label probe.
//!
//! Averages are checked here for order: what a group is made of stands before it.

use crate::profile::{ProfileError, SamplingSettings, range};
use crate::vocab::{Extraction, TruthSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Held-out evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalSettings {
    /// Parquet file of problems, relative to the project's root.
    pub items: String,
    /// Problems used: the first ones of every level of every subject of every benchmark, in equal parts; 0 takes all.
    pub max_items: u64,
    /// Sampled completions of each problem.
    pub num_samples: u32,
    /// How they are drawn; greedy decoding uses the same length limit.
    pub sampling: SamplingSettings,
    /// Where a completion's answer is looked for.
    pub extraction: Extraction,
    /// Whether the base model is also evaluated when made to work in steps.
    pub base_worked: bool,
    /// Bootstrap resamples of an interval.
    pub bootstrap_resamples: u32,
    /// Benchmarks that are asked or graded in a way of their own.
    pub benchmarks: Vec<BenchmarkSettings>,
    /// Averages over benchmarks, each with the same weight.
    pub groups: Vec<GroupSettings>,
}

/// What is special about one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkSettings {
    /// The benchmark, as the problem set names it.
    pub name: String,
    /// Its prompt, relative to the project's root.
    pub solver_prompt: String,
    /// Where a completion's answer is looked for.
    pub extraction: Extraction,
    /// Whether a gold answer that is a decimal is rounded, so that a prediction which rounds to it is equal.
    pub is_gold_rounded: bool,
}

/// A named average.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSettings {
    /// Name of the average.
    pub name: String,
    /// Benchmarks, or groups that stand before this one.
    pub members: Vec<String>,
}

/// A model behind an OpenAI-compatible endpoint that is asked whether an answer equals the gold one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeSettings {
    /// Base address, such as `http://localhost:8000/v1`; empty where there is none.
    pub endpoint: String,
    /// Name of the model there.
    pub model: String,
    /// Prompt with the problem, the gold answer and the prediction, relative to the project's root.
    pub prompt: String,
    /// Share of the rows that the grader calls equal which the judge is asked about as well; drawn by the seed.
    pub equal_share: f64,
    /// Longest reply, in tokens.
    pub max_tokens: u32,
    /// How long one reply may take.
    pub timeout_s: u64,
    /// Requests at the same time.
    pub num_parallel: u32,
}

/// The label probe: how many of the pseudo-labels are true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeSettings {
    /// Kept questions that are checked, drawn by the seed; 0 checks none.
    pub sample_size: u64,
    /// Who says what is true.
    pub truth: TruthSource,
    /// Prompt with the question alone, for a judge that says what is true; relative to the project's root.
    pub prompt: String,
    /// The loop stops where the lower end of the 95 % interval of the true share lies under this; 0 never stops it.
    pub floor: f64,
}

impl EvalSettings {
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        let at_least_one = "at least 1";
        range("eval.num_samples", self.num_samples, |v| v >= 1, at_least_one)?;
        range("eval.bootstrap_resamples", self.bootstrap_resamples, |v| v >= 1, at_least_one)?;
        for (at, benchmark) in self.benchmarks.iter().enumerate() {
            let is_first = |name: &str| self.benchmarks[..at].iter().all(|earlier| earlier.name != name);
            range("eval.benchmarks.name", benchmark.name.as_str(), is_first, "each benchmark once")?;
        }
        for (at, group) in self.groups.iter().enumerate() {
            let is_new = |name: &str| !name.is_empty() && self.groups[..at].iter().all(|earlier| earlier.name != name);
            range("eval.groups.name", group.name.as_str(), is_new, "a name that no group before it has")?;
            range("eval.groups.members (number of)", group.members.len(), |v| v >= 1, at_least_one)?;
            for (place, member) in group.members.iter().enumerate() {
                let is_no_later_group = |name: &str| self.groups[at..].iter().all(|later| later.name != name);
                range("eval.groups.members", member.as_str(), is_no_later_group, "benchmarks, or groups that stand before it")?;
                let is_first = |name: &str| group.members[..place].iter().all(|earlier| earlier != name);
                range("eval.groups.members", member.as_str(), is_first, "each member once")?;
            }
        }
        self.sampling.check()
    }
}

impl JudgeSettings {
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        range("judge.equal_share", self.equal_share, |v| (0.0..=1.0).contains(&v), "a number from 0 to 1")?;
        range("judge.max_tokens", self.max_tokens, |v| v >= 1, "at least 1")?;
        range("judge.timeout_s", self.timeout_s, |v| v >= 1, "at least 1")?;
        range("judge.num_parallel", self.num_parallel, |v| (1..=256).contains(&v), "from 1 to 256")
    }
}

impl ProbeSettings {
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        range("probe.floor", self.floor, |v| (0.0..1.0).contains(&v), "at least 0 and less than 1")
    }
}
