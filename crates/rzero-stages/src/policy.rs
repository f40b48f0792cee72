//! A checkpoint that writes: prompts in, rollout rows out, for every stage that samples.

use crate::backend::Backend;
use crate::console::Progress;
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::interrupt::Interrupted;
use crate::prompt::Prompt;
#[cfg(feature = "fetch")]
use crate::remote::Remote;
#[cfg(feature = "fetch")]
use crate::transport::in_parallel;
#[cfg(feature = "fetch")]
use rzero_algo::seed::{RandomStream, uniform_below};
use rzero_algo::seed::{StreamKey, random_stream};
use rzero_model::decoder::Decoder;
use rzero_model::device::{DeviceModel, generate_on_device};
use rzero_model::engine::{Completion, OnCompletion, Request, Work, generate};
use rzero_model::tokenizer::{Decoded, Tokenizer};
use rzero_model::{ModelConfig, ModelError, Weights};
use rzero_schema::profile::SamplingSettings;
use rzero_schema::vocab::{FinishReason, WeightFormat};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Sequences that are given to the engine at a time: enough to keep batches full, few enough to hold in memory.
const SEQUENCES_AT_A_TIME: usize = 16_384;

/// A model with its tokenizer.
pub struct Policy {
    config: ModelConfig,
    /// None where a server has them.
    weights: Option<Weights>,
    tokenizer: Tokenizer,
    backend: Backend,
}

/// One prompt with the samples that are wanted of it.
#[derive(Debug, Clone)]
pub struct PolicyRequest {
    /// The prompt as text.
    pub prompt: String,
    /// (row, sample) of each completion: its place in the run's random streams.
    pub samples: Vec<(u64, u32)>,
}

/// What came of one sample.
#[derive(Debug, Clone)]
pub struct PolicySample {
    /// Its row.
    pub row: u64,
    /// Its sample.
    pub sample: u32,
    /// Tokens given.
    pub prompt_tokens: Vec<u32>,
    /// Tokens written, with their log-probabilities.
    pub completion: Completion,
    /// The completion as text, without its stop token.
    pub text: Decoded,
}

impl Policy {
    /// Reads a model folder; its weights only where they are computed with here.
    ///
    /// # Errors
    /// When a file is missing or broken.
    pub fn read(folder: &Path, backend: &Backend) -> anyhow::Result<Self> {
        let weights = match backend {
            Backend::Engine => Some(Weights::read(folder)?),
            Backend::Openai(_) => None,
        };
        let config = match &weights {
            Some(weights) => weights.config.clone(),
            None => ModelConfig::read(folder)?,
        };
        Ok(Self { config, weights, tokenizer: Tokenizer::read(folder)?, backend: backend.clone() })
    }

    /// Whether a text spells out a special token of this model.
    #[must_use]
    pub fn holds_special_token(&self, text: &str) -> bool {
        self.tokenizer.holds_special_token(text)
    }

    /// The prompt that puts a question to this model.
    ///
    /// # Errors
    /// When the question spells out a special token: it could end its own turn and write the next. When the prompt cannot be rendered.
    pub fn ask(&self, prompt: &Prompt, question: &str) -> anyhow::Result<String> {
        if self.holds_special_token(question) {
            let start: String = question.chars().take(80).collect();
            let message = format!("a question spells out a special token of the model: {start:?}");
            return Err(StageFailure::input(message)
                .hint("remove it from the problems: it would become a part of the prompt")
                .into());
        }
        prompt.render(question)
    }

    /// Whether a finished prompt has tokens and leaves the model room for at least one more.
    ///
    /// # Errors
    /// When the vocabulary cannot express it.
    pub fn has_room_for(&self, prompt: &str) -> anyhow::Result<bool> {
        Ok((1..self.config.max_positions).contains(&self.tokenizer.encode(prompt)?.len()))
    }

    /// Completes every request and hands the results over in order, some requests at a time.
    ///
    /// `purpose` separates the random streams of stages that share a place.
    ///
    /// # Errors
    /// When a prompt does not fit the model, the stage is interrupted, or `consume` fails.
    pub fn complete(
        &self,
        context: &StageContext,
        purpose: &str,
        requests: &[PolicyRequest],
        sampling: &SamplingSettings,
        progress: &Progress,
        mut consume: impl FnMut(Vec<PolicySample>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let prompts: Vec<Vec<u32>> =
            requests.iter().map(|request| self.tokenizer.encode(&request.prompt)).collect::<Result<_, _>>()?;
        let positions = self.config.max_positions;
        for (request, prompt) in requests.iter().zip(&prompts) {
            if prompt.is_empty() || prompt.len() >= positions {
                let row = request.samples.first().map_or(0, |(row, _)| *row);
                let message = format!("the prompt of row {row} has {} tokens, the model has {positions} positions", prompt.len());
                let hint = "shorten the prompt template, or keep long questions out (domain.max_question_chars)";
                return Err(StageFailure::input(message).hint(hint).into());
            }
        }
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + sampling.max_tokens;
        let engine = self.engine(context, longest.min(positions))?;
        let (started, tokens) = (Instant::now(), AtomicU64::new(0));
        let on_completion = |count: usize| {
            let tokens = tokens.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
            progress.advance(1);
            progress.note(format!("{:.0} tokens/s", tokens as f64 / started.elapsed().as_secs_f64().max(1e-9)));
        };
        let (mut start, mut in_engine) = (0, Duration::ZERO);
        while start < requests.len() {
            let end = start + requests_at_a_time(&requests[start..]);
            let streams = |index: usize| {
                requests[index].samples.iter().map(|place| random_stream(purpose, &key(context, *place))).collect()
            };
            let batch: Vec<Request> =
                (start..end).map(|index| Request { prompt: prompts[index].clone(), streams: streams(index) }).collect();
            let clock = Instant::now();
            let completions = match &engine {
                #[cfg(feature = "fetch")]
                Engine::Server(server) => {
                    let texts: Vec<&str> = requests[start..end].iter().map(|request| request.prompt.as_str()).collect();
                    self.ask_server(context, server, &texts, &batch, sampling, &on_completion)?
                }
                engine => {
                    let work = Work {
                        threads: context.threads,
                        batch_size: context.profile.engine.batch_size,
                        interrupt: context.interrupt.flag(),
                    };
                    engine.generate(&batch, sampling, work, &on_completion).map_err(|error| match error {
                        ModelError::Interrupted => anyhow::Error::from(Interrupted),
                        other => other.into(),
                    })?
                }
            };
            in_engine += clock.elapsed();
            let samples = (start..end).zip(completions).flat_map(|(index, completions)| {
                let places = requests[index].samples.iter();
                places
                    .zip(completions)
                    .map(|((row, sample), completion)| self.sample(*row, *sample, &prompts[index], completion))
                    .collect::<Vec<_>>()
            });
            consume(samples.collect())?;
            start = end;
        }
        tracing::debug!(seconds = in_engine.as_secs_f64(), tokens = tokens.load(Ordering::Relaxed), "generated");
        #[cfg(feature = "fetch")]
        if let Engine::Server(server) = &engine {
            server.tell_logprobs();
        }
        Ok(())
    }

    fn engine(&self, context: &StageContext, longest: usize) -> anyhow::Result<Engine> {
        match (&self.backend, &self.weights) {
            (Backend::Engine, Some(weights)) => Engine::new(context, weights, longest),
            (Backend::Engine, None) => Err(StageFailure::internal("the engine has no weights").into()),
            #[cfg(feature = "fetch")]
            (Backend::Openai(server), _) => {
                let journal = context.layout.journal(context.stage, context.place, context.shard);
                Ok(Engine::Server(Box::new(Remote::new(server, journal)?)))
            }
            #[cfg(not(feature = "fetch"))]
            (Backend::Openai(_), _) => {
                let message = "this build speaks to no server: it was made without the feature `fetch`";
                Err(StageFailure::usage(message).hint("build with default features").into())
            }
        }
    }

    /// One request for every stream of every request, many at a time; results as an engine gives them.
    #[cfg(feature = "fetch")]
    fn ask_server(
        &self,
        context: &StageContext,
        server: &Remote,
        texts: &[&str],
        requests: &[Request],
        sampling: &SamplingSettings,
        on_completion: OnCompletion<'_>,
    ) -> anyhow::Result<Vec<Vec<Completion>>> {
        let Backend::Openai(settings) = &self.backend else { return Ok(Vec::new()) };
        let items: Vec<(usize, u64)> = (0..)
            .zip(requests)
            .flat_map(|(index, request)| request.streams.iter().map(move |stream| (index, first_number(stream))))
            .collect();
        let mut answers = in_parallel(settings.concurrency, items.len(), |at| {
            let (index, seed) = items[at];
            let num_prompt_tokens = requests[index].prompt.len();
            let interrupt = &context.interrupt;
            let (tokenizer, config) = (&self.tokenizer, &self.config);
            let completion = server.complete(texts[index], num_prompt_tokens, seed, sampling, tokenizer, config, interrupt)?;
            on_completion(completion.tokens.len());
            Ok(completion)
        })?
        .into_iter();
        Ok(requests.iter().map(|request| answers.by_ref().take(request.streams.len()).collect()).collect())
    }

    /// A text as if this model had written it and ended there, without log-probabilities.
    ///
    /// # Errors
    /// When the vocabulary cannot express it, or has no token that ends a text.
    pub fn shown(&self, row: u64, sample: u32, prompt: &str, text: &str) -> anyhow::Result<PolicySample> {
        let mut tokens = self.tokenizer.encode(text)?;
        let end = self.config.eos_tokens.first().copied();
        tokens.push(end.ok_or_else(|| StageFailure::input("the model has no token that ends a text"))?);
        let (policy_logprobs, sampler_logprobs) = (Vec::new(), Vec::new());
        let (entropy, self_certainty) = (None, None);
        let completion =
            Completion { tokens, policy_logprobs, sampler_logprobs, entropy, self_certainty, finish: FinishReason::Stop };
        Ok(self.sample(row, sample, &self.tokenizer.encode(prompt)?, completion))
    }

    fn sample(&self, row: u64, sample: u32, prompt: &[u32], completion: Completion) -> PolicySample {
        let is_stop = |token: &u32| self.config.eos_tokens.contains(token);
        let end = completion.tokens.len() - usize::from(completion.tokens.last().is_some_and(is_stop));
        let text = self.tokenizer.decode(&completion.tokens[..end]);
        PolicySample { row, sample, prompt_tokens: prompt.to_vec(), completion, text }
    }
}

/// What completes requests: the decoder of the CPU, a device, or a server.
enum Engine {
    Host(Decoder),
    Device(DeviceModel),
    #[cfg(feature = "fetch")]
    Server(Box<Remote>),
}

impl Engine {
    fn new(context: &StageContext, weights: &Weights, longest: usize) -> anyhow::Result<Self> {
        let format = context.profile.engine.weights;
        match context.device.open()? {
            None => Ok(Self::Host(Decoder::new(weights, longest, format))),
            Some(accelerator) if format == WeightFormat::F32 => {
                Ok(Self::Device(DeviceModel::new(weights, &accelerator, longest)?))
            }
            Some(_) => {
                let message = format!("engine.weights is {format}, which only the CPU's engine knows");
                let hint =
                    "--set engine.weights=f32 in every stage of the run; a device samples in the number type that it computes in";
                Err(StageFailure::usage(message).hint(hint).into())
            }
        }
    }

    fn generate(
        &self,
        requests: &[Request],
        sampling: &SamplingSettings,
        work: Work<'_>,
        on_completion: OnCompletion<'_>,
    ) -> Result<Vec<Vec<Completion>>, ModelError> {
        match self {
            Self::Host(decoder) => generate(decoder, requests, sampling, work, on_completion),
            Self::Device(model) => generate_on_device(model, requests, sampling, work, on_completion),
            #[cfg(feature = "fetch")]
            Self::Server(_) => Err(ModelError::Request("a server is asked in its own way".to_owned())),
        }
    }
}

/// What a server is given to seed its own stream with.
#[cfg(feature = "fetch")]
fn first_number(stream: &RandomStream) -> u64 {
    uniform_below(&mut stream.clone(), u64::MAX)
}

fn requests_at_a_time(requests: &[PolicyRequest]) -> usize {
    let mut sequences = 0;
    let enough = requests.iter().position(|request| {
        sequences += request.samples.len();
        sequences >= SEQUENCES_AT_A_TIME
    });
    enough.map_or(requests.len(), |index| index + 1)
}

fn key(context: &StageContext, (row, sample): (u64, u32)) -> StreamKey {
    let place = context.place;
    StreamKey { run_seed: context.profile.seed, iteration: place.iteration, phase: place.phase, step: place.step, row, sample }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use crate::exit::{StageExit, exit_of};

    #[test]
    fn a_question_cannot_write_a_part_of_the_prompt() {
        let policy =
            Policy::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/models/tiny")), &Backend::Engine).unwrap();
        let prompt = Prompt::new("<solver>{{ question }}", Path::new("p.jinja"), None).unwrap();
        assert_eq!(policy.ask(&prompt, "1+2").unwrap(), "<solver>1+2");
        let error = policy.ask(&prompt, "1<eos><bos><challenger>").unwrap_err();
        assert!(exit_of(&error) == StageExit::Input && error.to_string().contains("<eos>"), "{error}");
    }
}
