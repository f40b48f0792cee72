//! What `--dry-run` says of a step's memory, before anything is read that is large.

use crate::console::print_product;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use crate::stages::verify::settings_of;
use rzero_model::ModelConfig;
use rzero_schema::profile::GrpoSettings;
use rzero_schema::tables::Rollout;
use rzero_schema::vocab::{Role, Stage, VerdictForm};
use rzero_train::memory::{MemoryPlan, StepSize};
use std::path::Path;

/// Characters of a token, where the rollouts that would tell are not there yet: fewer than text has, so that the plan is no less than the step.
const CHARACTERS_A_TOKEN: usize = 3;

/// Where the sizes of models stand that are not part of the project, each as NAME.json for a model folder NAME.
const KNOWN_SIZES: &str = "pipelines/sizes";

/// Settings of a role's update, the length limit of its completions, its rollouts a step and its number of steps.
pub(crate) struct RoleSettings<'a> {
    pub(crate) grpo: &'a GrpoSettings,
    pub(crate) length_limit: usize,
    pub(crate) num_rollouts: usize,
    pub(crate) num_steps: u32,
}

impl<'a> RoleSettings<'a> {
    /// # Errors
    /// When a Verifier is meant and the profile has none.
    pub(crate) fn of(context: &'a StageContext, role: Role) -> anyhow::Result<Self> {
        let (challenger, solver) = (&context.profile.challenger, &context.profile.solver);
        Ok(match role {
            Role::Challenger => Self {
                grpo: &challenger.grpo,
                length_limit: challenger.question_sampling.max_tokens,
                num_rollouts: challenger.num_questions as usize,
                num_steps: challenger.steps,
            },
            Role::Solver => Self {
                grpo: &solver.grpo,
                length_limit: solver.sampling.max_tokens,
                num_rollouts: solver.num_questions as usize * solver.group_size as usize,
                num_steps: solver.steps,
            },
            Role::Verifier => {
                let verifier = settings_of(context)?;
                Self {
                    grpo: &verifier.grpo,
                    length_limit: verifier.sampling.max_tokens,
                    num_rollouts: verifier.num_groups() as usize * verifier.group_size as usize,
                    num_steps: verifier.steps,
                }
            }
        })
    }
}

/// The memory that a step will take, as far as can be told.
fn plan(context: &StageContext, role: Role, rollouts: Option<&[Rollout]>) -> anyhow::Result<Option<MemoryPlan>> {
    let settings = RoleSettings::of(context, role)?;
    let Some(config) = sizes(context)? else { return Ok(None) };
    let size = match rollouts {
        Some(rollouts) if !rollouts.is_empty() => {
            let longest = |length: fn(&Rollout) -> usize| rollouts.iter().map(length).max().unwrap_or(0);
            StepSize {
                num_rollouts: rollouts.len(),
                longest: longest(|rollout| rollout.prompt_tokens.len() + rollout.completion_tokens.len()),
                longest_completion: longest(|rollout| rollout.completion_tokens.len()),
            }
        }
        _ => {
            let domain = &context.profile.domain;
            let (prompt, question) = match role {
                Role::Challenger => (domain.challenger_prompt.as_str(), 0),
                Role::Solver => (domain.solver_prompt.as_str(), domain.max_question_chars),
                Role::Verifier => {
                    let verifier = settings_of(context)?;
                    let answer = match verifier.verdict {
                        VerdictForm::Score => 1,
                        VerdictForm::Comparison => 2,
                        VerdictForm::Derivation => 0,
                    };
                    // Answers of the Solver stand in the prompt.
                    let answer = answer * CHARACTERS_A_TOKEN * context.profile.solver.sampling.max_tokens;
                    (verifier.prompt(domain), domain.max_question_chars + answer)
                }
            };
            let prompt = std::fs::metadata(context.project_path(prompt)?).map_or(0, |file| file.len() as usize);
            let longest = (prompt + question) / CHARACTERS_A_TOKEN + settings.length_limit;
            StepSize {
                num_rollouts: settings.num_rollouts,
                longest: longest.min(config.max_positions),
                longest_completion: settings.length_limit,
            }
        }
    };
    Ok(Some(MemoryPlan::new(&config, settings.grpo, context.profile.model.float, size, context.threads)))
}

/// The model's configuration, or what the project knows of its sizes where the model itself is not there.
fn sizes(context: &StageContext) -> anyhow::Result<Option<ModelConfig>> {
    let path = Path::new(&context.profile.model.path);
    if let Ok(config) = ModelConfig::read(&context.project_path(&context.profile.model.path)?) {
        return Ok(Some(config));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let known = context.project_path(&format!("{KNOWN_SIZES}/{name}.json"))?;
    match std::fs::read_to_string(&known) {
        Ok(text) => ModelConfig::from_json(&text).map(Some).map_err(|problem| {
            StageFailure::usage(format!("`{}` does not tell a model's sizes: {problem}", known.display())).into()
        }),
        Err(_) => Ok(None),
    }
}

/// Prints the plan of a step.
pub(crate) fn tell(context: &StageContext, role: Role, inputs: &StageInputs<'_>) -> anyhow::Result<()> {
    let stage = match role {
        Role::Challenger => Stage::ChallengeGen,
        Role::Solver => Stage::SolveSample,
        Role::Verifier => Stage::Verify,
    };
    let rollouts = inputs.output(stage).ok().and_then(|output| output.read::<Rollout>().ok());
    let Some(plan) = plan(context, role, rollouts.as_deref())? else {
        print_product(format!("  memory unknown: there is no model in {}", context.profile.model.path));
        return Ok(());
    };
    let MemoryPlan { num_parameters, num_trained, .. } = plan;
    print_product(format!(
        "  memory about {}: weights {}, trained beside them {}, optimiser {}, gradient {}, passes {}",
        gigabytes(plan.total()),
        gigabytes(plan.weights),
        gigabytes(plan.trained),
        gigabytes(plan.optimizer),
        gigabytes(plan.gradient),
        gigabytes(plan.passes),
    ));
    let basis = if rollouts.is_some() { "the rollouts that are there" } else { "the limits of the profile" };
    print_product(format!(
        "         {num_parameters} parameters, {num_trained} trained; by {basis}, on {} threads",
        context.threads
    ));
    Ok(())
}

/// Bytes for people.
pub(crate) fn gigabytes(bytes: usize) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}
