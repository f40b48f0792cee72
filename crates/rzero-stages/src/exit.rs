//! How a stage ends: the exit codes, which are an interface, and the one `main` that all binaries share.

use crate::console;
use crate::interrupt::Interrupted;
use rzero_io::error::{Blame, IoError};
#[cfg(feature = "model")]
use rzero_model::ModelError;
use rzero_schema::profile::ProfileError;
#[cfg(feature = "model")]
use rzero_train::TrainError;
use std::process::ExitCode;

/// The exit codes of every binary of this project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StageExit {
    /// Done, or already complete.
    Done = 0,
    /// The system failed, or the program has a defect.
    Internal = 1,
    /// Flags, environment or profile are wrong.
    Usage = 2,
    /// An input breaks its schema or is incomplete.
    Input = 3,
    /// Output exists that was made from other inputs or another profile.
    Conflict = 4,
    /// The stop rule of the profile holds: what was written stays, and the loop goes no further.
    Stopped = 5,
    /// An audit found what cannot be believed.
    Broken = 6,
    /// An audit found what does not belong, and nothing worse.
    Doubtful = 7,
    /// Stopped by SIGTERM, SIGINT or SIGUSR1, or by a server that may come back; nothing half-written remains, run it again.
    Interrupted = 75,
}

impl From<StageExit> for ExitCode {
    fn from(exit: StageExit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure that a stage itself finds, with its exit code and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StageFailure {
    exit: StageExit,
    message: String,
    hint: Option<String>,
}

impl StageFailure {
    /// Flags, environment or profile are wrong: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: StageExit::Usage, message: message.into(), hint: None }
    }

    /// An input breaks its schema or is incomplete: exit code 3.
    pub fn input(message: impl Into<String>) -> Self {
        Self { exit: StageExit::Input, message: message.into(), hint: None }
    }

    /// Output exists that was made from something else: exit code 4.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { exit: StageExit::Conflict, message: message.into(), hint: None }
    }

    /// The stop rule of the profile holds: exit code 5.
    pub fn stopped(message: impl Into<String>) -> Self {
        Self { exit: StageExit::Stopped, message: message.into(), hint: None }
    }

    /// An audit found what cannot be believed: exit code 6.
    pub fn broken(message: impl Into<String>) -> Self {
        Self { exit: StageExit::Broken, message: message.into(), hint: None }
    }

    /// An audit found what does not belong, and nothing worse: exit code 7.
    pub fn doubtful(message: impl Into<String>) -> Self {
        Self { exit: StageExit::Doubtful, message: message.into(), hint: None }
    }

    /// Something outside failed that may pass, such as a server that is not there: exit code 75.
    pub fn temporary(message: impl Into<String>) -> Self {
        Self { exit: StageExit::Interrupted, message: message.into(), hint: None }
    }

    /// The program contradicts itself: exit code 1.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { exit: StageExit::Internal, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Runs a binary: reads its flags, runs it, prints what went wrong with every cause and hint, and chooses the exit code.
pub fn main_with<A: clap::Parser>(run: impl FnOnce(&A) -> anyhow::Result<()>) -> ExitCode {
    std::panic::set_hook(Box::new(console::print_panic));
    let args = match A::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to do when the terminal is gone.
            error.print().ok();
            return if error.use_stderr() { StageExit::Usage.into() } else { StageExit::Done.into() };
        }
    };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&args))) {
        Ok(Ok(())) => StageExit::Done.into(),
        Ok(Err(error)) => {
            console::print_error(&error, &hints(&error));
            exit_of(&error).into()
        }
        Err(_panic) => StageExit::Internal.into(),
    }
}

/// The exit code of an error: that of the first cause which has one.
#[must_use]
pub fn exit_of(error: &anyhow::Error) -> StageExit {
    let known = error.chain().find_map(|cause| {
        if let Some(failure) = cause.downcast_ref::<StageFailure>() {
            Some(failure.exit)
        } else if let Some(error) = cause.downcast_ref::<IoError>() {
            Some(match error.blame() {
                Blame::Internal => StageExit::Internal,
                Blame::Input => StageExit::Input,
                Blame::Conflict => StageExit::Conflict,
                Blame::Usage => StageExit::Usage,
                Blame::Passing => StageExit::Interrupted,
            })
        } else if cause.is::<ProfileError>() {
            Some(StageExit::Usage)
        } else if cause.is::<Interrupted>() {
            Some(StageExit::Interrupted)
        } else {
            exit_of_model(cause)
        }
    });
    known.unwrap_or(StageExit::Internal)
}

const PROFILE_HINT: &str = "a profile holds every key once, as pipelines/profiles/tiny.toml does; an override is KEY=VALUE with a key of the \
                            profile (schemas/profile.json says what each means)";

/// What each cause of an error says to do, outermost first.
#[must_use]
pub fn hints(error: &anyhow::Error) -> Vec<String> {
    error
        .chain()
        .filter_map(|cause| match (cause.downcast_ref::<StageFailure>(), cause.downcast_ref::<IoError>()) {
            (Some(failure), _) => failure.hint.clone(),
            (None, Some(error)) => error.hint(),
            (None, None) if cause.is::<ProfileError>() => Some(PROFILE_HINT.to_owned()),
            (None, None) if cause.is::<Interrupted>() => Some("run the same command again".to_owned()),
            (None, None) => model_hint(cause),
        })
        .collect()
}

type Cause<'a> = &'a (dyn std::error::Error + 'static);

/// The model's error in a cause; training passes it on as its own.
#[cfg(feature = "model")]
fn model_error(cause: Cause<'_>) -> Option<&ModelError> {
    match cause.downcast_ref::<TrainError>() {
        Some(TrainError::Model(error)) => Some(error),
        _ => cause.downcast_ref::<ModelError>(),
    }
}

/// What a model, its tokenizer, rollouts or an optimiser's state are to blame for is an input's fault.
#[cfg(feature = "model")]
fn exit_of_model(cause: Cause<'_>) -> Option<StageExit> {
    match (model_error(cause), cause.downcast_ref::<TrainError>()) {
        (Some(ModelError::Interrupted), _) | (None, Some(TrainError::Interrupted)) => Some(StageExit::Interrupted),
        (Some(ModelError::Device(_)), _) => Some(StageExit::Internal),
        (Some(_), _) => Some(StageExit::Input),
        (None, Some(TrainError::State { .. } | TrainError::Rollout { .. } | TrainError::NoTokens)) => Some(StageExit::Input),
        (None, _) => None,
    }
}

#[cfg(not(feature = "model"))]
fn exit_of_model(_cause: Cause<'_>) -> Option<StageExit> {
    None
}

#[cfg(feature = "model")]
fn model_hint(cause: Cause<'_>) -> Option<String> {
    let hint = match (model_error(cause), cause.downcast_ref::<TrainError>()) {
        (Some(ModelError::Io { .. }), _) => "check that the file is there, whole and readable".to_owned(),
        (Some(ModelError::Config { .. } | ModelError::Weights { .. } | ModelError::Tokenizer { .. }), _) => {
            "the folder must hold config.json, tokenizer.json and the weights of one model, of a family that is supported: fetch it \
             again, or name another one with model.path in the profile"
                .to_owned()
        }
        (Some(ModelError::Device(_)), _) => {
            "where memory is short, lower engine.batch_size or grpo.micro_batch_tokens in the profile; --device cpu needs no device".to_owned()
        }
        (Some(ModelError::Gguf { .. }), _) => {
            "fetch the file again, or another GGUF file of a model of architecture llama, qwen2 or qwen3 with byte-level BPE".to_owned()
        }
        (Some(ModelError::ChatTemplate { .. }), _) => {
            "write another conversation in the prompt file, or give the prompt as a `.jinja` text, which needs no chat template".to_owned()
        }
        (Some(ModelError::Interrupted), _) | (None, Some(TrainError::Interrupted)) => "run the same command again".to_owned(),
        (Some(ModelError::Request(_)), _) => "shorten the prompt or max_tokens in the profile, or name a model with more room".to_owned(),
        (None, Some(TrainError::State { path, .. })) => {
            format!("remove {} and rerun the grpo-step that wrote it, which makes it anew", path.display())
        }
        (None, Some(TrainError::Rollout { .. })) => {
            "the rollouts and the policy do not belong together: remove the output of the stage that sampled them and rerun it".to_owned()
        }
        (None, Some(TrainError::NoTokens)) => "every completion of this step is empty: look at its rollouts, and at the model".to_owned(),
        _ => return None,
    };
    Some(hint)
}

#[cfg(not(feature = "model"))]
fn model_hint(_cause: Cause<'_>) -> Option<String> {
    None
}

#[cfg(all(test, feature = "model"))]
mod tests {
    use super::*;

    #[test]
    fn errors_of_model_and_training_are_those_of_an_input() {
        let weights = || ModelError::Weights { path: "model.safetensors".into(), problem: "is short".to_owned() };
        let state = TrainError::State { path: "optimizer.safetensors".into(), problem: "is short".to_owned() };
        let errors: [anyhow::Error; 4] =
            [weights().into(), TrainError::Model(weights()).into(), state.into(), TrainError::NoTokens.into()];
        for error in errors {
            let error = error.context("cannot train");
            assert_eq!(exit_of(&error), StageExit::Input);
            assert_eq!(hints(&error).len(), 1, "{error:?}");
        }
        for error in [ModelError::Interrupted.into(), anyhow::Error::from(TrainError::Model(ModelError::Interrupted))] {
            assert_eq!(exit_of(&error), StageExit::Interrupted);
        }
        let diverged = TrainError::NotFinite { what: "loss", update: 1 };
        assert_eq!(exit_of(&diverged.into()), StageExit::Internal);
    }
}
