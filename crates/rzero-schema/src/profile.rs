//! The profile: every number and choice of a run, in one TOML file. Hyper-parameters live here and nowhere else.
//!
//! There are no defaults: every key stands in the file, unknown keys are errors, and `--set a.b.c=value` replaces one key before
//! the file is read into these types, so an override is checked like the file itself. [`Profile::check`] refuses numbers without sense.

pub use crate::cluster_profile::{ClusterSettings, TaskResources};
use crate::domain_profile::with_domain;
pub use crate::evaluation_profile::{BenchmarkSettings, EvalSettings, GroupSettings, JudgeSettings, ProbeSettings};
pub use crate::stability_profile::StabilitySettings;
pub use crate::verifier_profile::VerifierSettings;
use crate::vocab::{
    AnswerForm, BleuTokens, Evaluator, FloatType, LabelSolver, Labeller, LoraTarget, LossNormalization, Objective, QuestionKind,
    RewardVariant, Role, SolverReward, StartFrom, WeightFormat,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a profile is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The text is not TOML, or a key is missing, unknown or of another type.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// An override that is not `key=value`, or whose key does not stand in the file.
    #[error("override `{setting}` {problem}")]
    Override {
        /// The override as typed.
        setting: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A number outside its range.
    #[error("`{key}` is {value}, expected {expected}")]
    Range {
        /// Dotted key.
        key: &'static str,
        /// Value found.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// The folder of a domain that cannot be used.
    #[error("domain {folder}: {problem}")]
    Domain {
        /// The folder as the profile names it.
        folder: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A whole run's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name of the profile.
    pub name: String,
    /// Seed of every random stream of the run.
    pub seed: u64,
    /// 2: Challenger and Solver, the paper's; 3: a Verifier as well.
    pub roles: u32,
    /// The base model.
    pub model: ModelSettings,
    /// What counts as a question and how answers are read.
    pub domain: DomainSettings,
    /// Generation engine.
    pub engine: EngineSettings,
    /// Challenger phase.
    pub challenger: ChallengerSettings,
    /// Curriculum phase.
    pub curriculum: CurriculumSettings,
    /// Solver phase.
    pub solver: SolverSettings,
    /// Verifier phase; may be left out with two roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<VerifierSettings>,
    /// What is to keep the loop from collapsing.
    pub stability: StabilitySettings,
    /// How many pseudo-labels are held against the truth, and when the loop stops.
    pub probe: ProbeSettings,
    /// Held-out evaluation.
    pub eval: EvalSettings,
    /// A second opinion on grades.
    pub judge: JudgeSettings,
    /// What stages ask of a batch scheduler.
    pub cluster: ClusterSettings,
}

/// The base model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// Folder with config.json, tokenizer.json and the weights, relative to the project's root.
    pub path: String,
    /// How the numbers of checkpoints are stored. Training keeps and moves 32-bit ones in any case; with bf16 its passes compute with the
    /// rounded ones, as the stages that sample do.
    pub float: FloatType,
}

/// Low-rank adapters (Hu et al. 2021): W + alpha / rank * B A with A and B trained and everything else left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraSettings {
    /// Rank of the adapters; 0 trains all weights instead.
    pub rank: usize,
    /// Scale, before the division by the rank.
    pub alpha: f64,
    /// Matrices that get adapters, in every layer.
    pub targets: Vec<LoraTarget>,
}

/// What counts as a question and how answers are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DomainSettings {
    /// Folder of the domain, relative to the project's root: its `domain.toml` says what this section does not, and paths of prompts there
    /// are relative to it. Empty: this section says all.
    pub folder: String,
    /// What counts as a question.
    pub questions: QuestionKind,
    /// What counts as an answer.
    pub answers: AnswerForm,
    /// What knows the true answers.
    pub evaluator: Evaluator,
    /// Longest question, in characters.
    pub max_question_chars: usize,
    /// Least number of operators of a question (of expressions only).
    pub min_operators: u32,
    /// Longest answer that is read, in characters.
    pub max_answer_chars: usize,
    /// Prompt template of the Challenger, relative to the project's root.
    pub challenger_prompt: String,
    /// Prompt template of the Solver.
    pub solver_prompt: String,
    /// Prompt template of the Verifier, of `question` and `response`: the rubric.
    pub verifier_prompt: String,
    /// Questions with answers from outside, a Parquet file of `eval_items`; empty: none, as in the paper (R-Few: a few anchors).
    pub anchors: String,
    /// Text with which a completion that works in steps begins; empty where there is no such sign.
    pub worked_prefix: String,
}

/// Generation engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineSettings {
    /// Sequences that decode side by side, for each thread; without influence on what is generated.
    pub batch_size: usize,
    /// How the weights are held that sample. Anything but f32 makes another policy than the one that is trained, unless checkpoints are stored so
    /// too: rollouts carry its log-probabilities, and the loss the ratio to them.
    pub weights: WeightFormat,
    /// Rows of a work unit: shards are sets of whole units.
    pub unit_rows: u64,
}

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplingSettings {
    /// Temperature; 0 is greedy.
    pub temperature: f64,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens whose probabilities reach this; 1 keeps all.
    pub top_p: f64,
    /// Length limit of a completion, in tokens.
    pub max_tokens: usize,
}

/// One GRPO optimiser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpoSettings {
    /// Learning rate in iteration 1.
    pub learning_rate: f64,
    /// Factor on the learning rate from each iteration to the next.
    pub learning_rate_decay: f64,
    /// AdamW's first moment decay.
    pub adam_beta1: f64,
    /// AdamW's second moment decay.
    pub adam_beta2: f64,
    /// AdamW's denominator constant.
    pub adam_epsilon: f64,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
    /// Global gradient-norm clip.
    pub max_gradient_norm: f64,
    /// Weight of the k3 divergence from the reference.
    pub kl_coef: f64,
    /// The k3 estimate is clamped to this in magnitude; 0 leaves it free.
    pub kl_clamp: f64,
    /// Lower clip: ratios under 1 - clip_low give no gradient to a negative advantage.
    pub clip_low: f64,
    /// Upper clip.
    pub clip_high: f64,
    /// Dual clip for negative advantages.
    pub clip_dual: f64,
    /// How token losses are averaged.
    pub loss_normalization: LossNormalization,
    /// Whether truncated completions are left out of the loss.
    pub mask_truncated: bool,
    /// Rollouts of an optimiser update; the rollouts of a step are cut into updates of this size, 0 takes them all at once.
    pub update_batch: usize,
    /// Tokens of a micro-batch, prompts included. Changes memory and speed, not results beyond rounding.
    pub micro_batch_tokens: usize,
    /// Parts that the gradient of an update is added up from: each is the sum of some of its micro-batches in order, and a process of
    /// `grpo-gradient` makes whole parts, so no more than that many share an update. Changes rounding; more than one needs memory for
    /// one more gradient.
    pub gradient_parts: usize,
    /// Whether the backward pass computes the inside of each layer again instead of keeping it: a third more work, a tenth of the
    /// activations. Does not change a bit.
    pub recompute_activations: bool,
    /// Adapters instead of all weights.
    pub lora: LoraSettings,
    /// Decay of the exponential moving average of the weights over steps; 0 publishes the last step's weights.
    pub weight_ema: f64,
}

/// Challenger phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChallengerSettings {
    /// GRPO steps an iteration; 0 leaves the Challenger untrained.
    pub steps: u32,
    /// Questions a step.
    pub num_questions: u64,
    /// Rollouts that form a group; 0 makes all questions of the step one group (they share one prompt).
    pub group_size: u64,
    /// Solver answers to each question.
    pub num_samples: u32,
    /// Where the Challenger starts each iteration from.
    pub start_from: StartFrom,
    /// How questions are drawn.
    pub question_sampling: SamplingSettings,
    /// How the frozen Solver's answers are drawn.
    pub answer_sampling: SamplingSettings,
    /// Reward formula.
    pub reward: RewardVariant,
    /// Weight of the repetition penalty; 0 switches it off.
    pub repetition_weight: f64,
    /// Clusters merge while the average of 1 - BLEU is below this.
    pub cluster_threshold: f64,
    /// What counts as a token for BLEU.
    pub bleu_tokens: BleuTokens,
    /// Its optimiser.
    pub grpo: GrpoSettings,
}

/// One band of the curriculum filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BandSettings {
    /// First iteration the band holds for.
    pub from_iteration: u32,
    /// Least vote share kept.
    pub low: f64,
    /// Greatest vote share kept.
    pub high: f64,
}

/// Curriculum phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CurriculumSettings {
    /// Candidate questions an iteration.
    pub num_candidates: u64,
    /// Answers to each.
    pub num_samples: u32,
    /// How much answers weigh in the vote.
    pub labeller: Labeller,
    /// How candidates are drawn.
    pub question_sampling: SamplingSettings,
    /// How answers are drawn.
    pub answer_sampling: SamplingSettings,
    /// Version of the gates, recorded with every row.
    pub gate_version: u32,
    /// Bands by iteration; the last one whose `from_iteration` has come holds.
    pub bands: Vec<BandSettings>,
    /// Least margin kept.
    pub min_margin: f64,
    /// Whether repeated questions are dropped.
    pub drop_duplicates: bool,
}

/// Solver phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SolverSettings {
    /// What it is trained towards. `sft` needs `stability.anchor_share = 1`: it shows every anchor's answer in a box, once, and is the policy
    /// gradient with an advantage of 1, so that the loss is that of the next token, the prompt left out.
    pub objective: Objective,
    /// What an answer earns.
    pub reward: SolverReward,
    /// GRPO steps an iteration.
    pub steps: u32,
    /// Questions a step.
    pub num_questions: u64,
    /// Rollouts a question.
    pub group_size: u32,
    /// Where the Solver starts each iteration from.
    pub start_from: StartFrom,
    /// How rollouts are drawn.
    pub sampling: SamplingSettings,
    /// Its optimiser.
    pub grpo: GrpoSettings,
}

impl Profile {
    /// Reads a profile, applying overrides of the form `solver.grpo.kl_coef=0` first. `domain` reads the `domain.toml` of a folder, and is asked where
    /// the profile names one and leaves something to it.
    ///
    /// # Errors
    /// When the text is no profile, the domain cannot be read, an override names a key that is not there, or a number is out of range.
    pub fn from_toml(
        text: &str,
        overrides: &[String],
        domain: impl FnOnce(&str) -> Result<String, String>,
    ) -> Result<Self, ProfileError> {
        let merged = with_domain(text, overrides, domain)?;
        // What is read first is what was written, so that an error in it shows its own line, or, beside what a domain says, its section.
        let mut profile: Self = match &merged {
            None => toml::from_str(text)?,
            Some(table) => table.clone().try_into()?,
        };
        if !overrides.is_empty() {
            let mut table: toml::Table = merged.map_or_else(|| text.parse(), Ok)?;
            for setting in overrides {
                apply_override(&mut table, setting)?;
            }
            profile = table.try_into()?;
        }
        profile.check()?;
        Ok(profile)
    }

    /// What makes two runs the same experiment, as JSON: everything but the sections that only look at a run.
    ///
    /// `judge`, `probe` and `cluster` decide no row that a run is made from, so they may be changed while it goes on: another judge, a lower floor,
    /// another cluster.
    /// What of them decides the rows of their own stages enters the fingerprint there.
    #[must_use]
    pub fn experiment(&self) -> serde_json::Value {
        let mut sections = serde_json::json!(self);
        if let Some(sections) = sections.as_object_mut() {
            sections.retain(|section, _| is_of_experiment(section));
        }
        sections
    }

    /// blake3 of [`Profile::experiment`], hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        blake3::hash(self.experiment().to_string().as_bytes()).to_hex().to_string()
    }

    /// The band that holds in an iteration.
    #[must_use]
    pub fn band(&self, iteration: u32) -> &BandSettings {
        let bands = &self.curriculum.bands;
        bands.iter().rev().find(|band| band.from_iteration <= iteration).unwrap_or(&bands[0])
    }

    /// Optimiser updates of a step of a role's training, of as many rollouts as the profile asks for.
    #[must_use]
    pub fn num_updates(&self, role: Role) -> u32 {
        let (num_rollouts, grpo) = match role {
            Role::Challenger => (self.challenger.num_questions, &self.challenger.grpo),
            Role::Solver => (self.solver.num_questions * u64::from(self.solver.group_size), &self.solver.grpo),
            Role::Verifier => match &self.verifier {
                Some(verifier) => (verifier.num_answers * u64::from(verifier.group_size), &verifier.grpo),
                None => return 0,
            },
        };
        let num_updates = if grpo.update_batch == 0 { 1 } else { num_rollouts.div_ceil(grpo.update_batch as u64) };
        u32::try_from(num_updates).unwrap_or(u32::MAX)
    }

    /// Checks every number against the range in which it has a meaning.
    ///
    /// # Errors
    /// Names the first key that is out of range.
    pub fn check(&self) -> Result<(), ProfileError> {
        let at_least_one = "at least 1";
        let share = "a number from 0 to 1";
        range("engine.batch_size", self.engine.batch_size, |v| (1..=65_536).contains(&v), "from 1 to 65536")?;
        range("engine.unit_rows", self.engine.unit_rows, |v| v >= 1, at_least_one)?;
        range("domain.max_question_chars", self.domain.max_question_chars, |v| v >= 1, at_least_one)?;
        range("domain.max_answer_chars", self.domain.max_answer_chars, |v| v >= 1, at_least_one)?;
        range("challenger.num_questions", self.challenger.num_questions, |v| v >= 2, "at least 2")?;
        range("challenger.num_samples", self.challenger.num_samples, |v| v >= 1, at_least_one)?;
        range("challenger.group_size", self.challenger.group_size, |v| v != 1, "0 or at least 2")?;
        range("challenger.repetition_weight", self.challenger.repetition_weight, |v| v >= 0.0, "0 or more")?;
        range("challenger.cluster_threshold", self.challenger.cluster_threshold, |v| (0.0..=1.0).contains(&v), share)?;
        range("curriculum.num_candidates", self.curriculum.num_candidates, |v| v >= 1, at_least_one)?;
        range("curriculum.num_samples", self.curriculum.num_samples, |v| v >= 1, at_least_one)?;
        range("curriculum.min_margin", self.curriculum.min_margin, |v| (0.0..=1.0).contains(&v), share)?;
        range("curriculum.bands (number of)", self.curriculum.bands.len(), |v| v >= 1, at_least_one)?;
        for band in &self.curriculum.bands {
            range("curriculum.bands.low", band.low, |v| (0.0..=band.high).contains(&v), "from 0 to the band's high")?;
            range("curriculum.bands.high", band.high, |v| (0.0..=1.0).contains(&v), share)?;
        }
        range("solver.num_questions", self.solver.num_questions, |v| v >= 1, at_least_one)?;
        range("solver.group_size", self.solver.group_size, |v| v >= 2, "at least 2")?;
        self.challenger.question_sampling.check()?;
        self.challenger.answer_sampling.check()?;
        self.curriculum.question_sampling.check()?;
        self.curriculum.answer_sampling.check()?;
        self.solver.sampling.check()?;
        self.stability.check()?;
        self.check_verifier()?;
        self.domain.check(self)?;
        let is_fed = self.solver.objective == Objective::Grpo || self.stability.is_labelled();
        range("solver.objective", self.solver.objective, |_| is_fed, "grpo, or stability.anchor_share = 1")?;
        let is_split = self.stability.label_solver == LabelSolver::Both;
        let least = if is_split { 2 } else { 1 };
        range("curriculum.num_samples", self.curriculum.num_samples, |v| v >= least, "at least 2, one of each Solver")?;
        self.eval.check()?;
        self.probe.check()?;
        self.judge.check()?;
        self.cluster.check()?;
        self.challenger.grpo.check()?;
        self.solver.grpo.check()
    }
}

impl SamplingSettings {
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        range("sampling.temperature", self.temperature, |v| v == 0.0 || (1e-3..=100.0).contains(&v), "0, or from 0.001 to 100")?;
        range("sampling.top_p", self.top_p, |v| v > 0.0 && v <= 1.0, "more than 0 and at most 1")?;
        range("sampling.max_tokens", self.max_tokens, |v| (1..=1_000_000).contains(&v), "from 1 to 1000000")
    }
}

impl GrpoSettings {
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        let not_negative = "0 or more";
        let decay = "at least 0 and less than 1";
        range("grpo.learning_rate", self.learning_rate, |v| v >= 0.0 && v.is_finite(), not_negative)?;
        range("grpo.learning_rate_decay", self.learning_rate_decay, |v| v > 0.0 && v <= 1.0, "more than 0 and at most 1")?;
        range("grpo.adam_beta1", self.adam_beta1, |v| (0.0..1.0).contains(&v), decay)?;
        range("grpo.adam_beta2", self.adam_beta2, |v| (0.0..1.0).contains(&v), decay)?;
        range("grpo.adam_epsilon", self.adam_epsilon, |v| v > 0.0, "more than 0")?;
        range("grpo.weight_decay", self.weight_decay, |v| v >= 0.0, not_negative)?;
        range("grpo.max_gradient_norm", self.max_gradient_norm, |v| v > 0.0, "more than 0")?;
        range("grpo.kl_coef", self.kl_coef, |v| v >= 0.0, not_negative)?;
        range("grpo.kl_clamp", self.kl_clamp, |v| v >= 0.0, not_negative)?;
        range("grpo.clip_low", self.clip_low, |v| (0.0..=1.0).contains(&v), "from 0 to 1")?;
        range("grpo.clip_high", self.clip_high, |v| v >= 0.0, not_negative)?;
        range("grpo.clip_dual", self.clip_dual, |v| v >= 1.0, "at least 1")?;
        range("grpo.micro_batch_tokens", self.micro_batch_tokens, |v| v >= 1, "at least 1")?;
        range("grpo.gradient_parts", self.gradient_parts, |v| (1..=4096).contains(&v), "from 1 to 4096")?;
        range("grpo.lora.rank", self.lora.rank, |v| v <= 4096, "0 to 4096")?;
        range("grpo.lora.alpha", self.lora.alpha, |v| v > 0.0 && v.is_finite(), "more than 0")?;
        let num_targets = if self.lora.rank == 0 { 1 } else { self.lora.targets.len() };
        range("grpo.lora.targets (number of)", num_targets, |v| v >= 1, "at least 1")?;
        range("grpo.weight_ema", self.weight_ema, |v| (0.0..1.0).contains(&v), decay)
    }
}

/// Whether a dotted key, or an override of one, belongs to [`Profile::experiment`].
#[must_use]
pub fn is_of_experiment(key: &str) -> bool {
    let section = key.split(['.', '=']).next().unwrap_or_default().trim();
    !["judge", "probe", "cluster"].contains(&section)
}

pub(crate) fn range<T: Copy + std::fmt::Display>(
    key: &'static str,
    value: T,
    is_allowed: impl Fn(T) -> bool,
    expected: &'static str,
) -> Result<(), ProfileError> {
    if is_allowed(value) { Ok(()) } else { Err(ProfileError::Range { key, value: value.to_string(), expected }) }
}

/// Replaces one existing key. The value is read as TOML, and as a bare word where it is none.
pub(crate) fn apply_override(table: &mut toml::Table, setting: &str) -> Result<(), ProfileError> {
    let refuse = |problem: String| ProfileError::Override { setting: setting.to_owned(), problem };
    let (path, value) = setting.split_once('=').ok_or_else(|| refuse("is not of the form key=value".to_owned()))?;
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut at = table;
    for key in keys {
        at = at
            .get_mut(key)
            .and_then(toml::Value::as_table_mut)
            .ok_or_else(|| refuse(format!("names no section `{key}` of the profile")))?;
    }
    let old = at.get(last).ok_or_else(|| refuse(format!("names no key `{last}` of the profile")))?;
    let mut new = format!("value = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut read| read.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.trim().to_owned()));
    if let (toml::Value::Float(_), toml::Value::Integer(whole)) = (old, &new) {
        new = toml::Value::Float(*whole as f64);
    }
    at.insert(last.to_owned(), new);
    Ok(())
}
