//! Many completions of many prompts: the engine behind every sampling stage. It knows token ids only.
//!
//! A team of threads keeps a batch of sequences and feeds it one token at a time; a finished sequence leaves and the next waiting one enters.
//! For a large model all threads are one team, so that each weight comes from memory once a token; a small one, which the caches hold, is
//! decoded by teams of one. A prompt is prefilled once, by the first team that needs it, and its cache shared by all its completions; what
//! all prompts begin with (worked examples, say) is prefilled once for all of them.
//! A completion depends on the weights, its prompt, the settings and its own random stream, and on nothing else: not on the
//! batch, the thread or the order. Deliberately absent: servers, beams.

use crate::config::ModelConfig;
use crate::decoder::{Decoder, Prefix, Scratch, Sequence};
use crate::error::ModelError;
use crate::kv_cache::KvCache;
use crate::sampler::{Drawn, Sampler};
use crate::team::{Team, with_team};
use rzero_algo::seed::RandomStream;
use rzero_schema::profile::SamplingSettings;
use rzero_schema::vocab::FinishReason;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// One prompt and the random streams of its completions, one each.
#[derive(Debug, Clone)]
pub struct Request {
    /// Prompt tokens; at least one.
    pub prompt: Vec<u32>,
    /// One stream a completion.
    pub streams: Vec<RandomStream>,
}

/// One finished completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Tokens written, the stop token included where there is one.
    pub tokens: Vec<u32>,
    /// Log-probability of each under the untruncated policy at temperature 1.
    pub policy_logprobs: Vec<f32>,
    /// Log-probability of each under the distribution it was drawn from.
    pub sampler_logprobs: Vec<f32>,
    /// Mean entropy of the policy over the positions of the tokens; none where it is not known.
    pub entropy: Option<f32>,
    /// Mean self-certainty over them; none where it is not known.
    pub self_certainty: Option<f32>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// How a batch of requests is worked through, without influence on the results.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Threads.
    pub threads: usize,
    /// Sequences side by side for each of them.
    pub batch_size: usize,
    /// Set from outside to stop early.
    pub interrupt: &'a AtomicBool,
}

/// Told of every finished completion: its number of tokens.
pub type OnCompletion<'a> = &'a (dyn Fn(usize) + Sync);

/// Numbers up to which a model is decoded by every thread for itself: the steps of a token would be too short to share.
const SMALL_MODEL: usize = 1 << 23;

/// Completes every prompt once for each of its streams; results stand in the order of requests and streams.
///
/// # Errors
/// When a prompt is empty, too long for the model or holds unknown tokens, or when the interrupt is set.
pub fn generate(
    decoder: &Decoder,
    requests: &[Request],
    sampling: &SamplingSettings,
    work: Work<'_>,
    on_completion: OnCompletion<'_>,
) -> Result<Vec<Vec<Completion>>, ModelError> {
    let team_size = if decoder.num_weights() <= SMALL_MODEL { 1 } else { work.threads };
    generate_in_teams(decoder, requests, sampling, work, team_size, on_completion)
}

/// As [`generate`], by teams of a given size.
///
/// # Errors
/// As there.
pub fn generate_in_teams(
    decoder: &Decoder,
    requests: &[Request],
    sampling: &SamplingSettings,
    work: Work<'_>,
    team_size: usize,
    on_completion: OnCompletion<'_>,
) -> Result<Vec<Vec<Completion>>, ModelError> {
    check(decoder.config(), requests)?;
    let items = all_items(requests);
    let queue = Queue {
        decoder,
        requests,
        items: &items,
        next: AtomicUsize::new(0),
        num_shared: common_beginning(requests),
        shared: OnceLock::new(),
        prefixes: Mutex::default(),
    };
    let team_size = team_size.clamp(1, work.threads.max(1));
    let num_teams = (work.threads / team_size).clamp(1, items.len().max(1));
    // Few sequences are spread over the teams rather than left to the first one.
    let batch_size = (work.batch_size * team_size).min(items.len().div_ceil(num_teams)).max(1);
    let finished: Vec<Vec<(usize, Completion)>> = std::thread::scope(|scope| {
        let lead = || with_team(team_size, |team| run_team(&queue, sampling, batch_size, work.interrupt, on_completion, team));
        let others: Vec<_> = (1..num_teams).map(|_| scope.spawn(lead)).collect();
        let own = lead();
        let join =
            |other: std::thread::ScopedJoinHandle<'_, _>| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        std::iter::once(own).chain(others.into_iter().map(join)).collect()
    });
    if work.interrupt.load(Ordering::Relaxed) {
        return Err(ModelError::Interrupted);
    }
    Ok(by_request(requests, finished.into_iter().flatten()))
}

/// (request, sample) of every completion that is asked for, in order.
pub(crate) fn all_items(requests: &[Request]) -> Vec<(usize, usize)> {
    let samples = |(request, content): (usize, &Request)| (0..content.streams.len()).map(move |sample| (request, sample));
    requests.iter().enumerate().flat_map(samples).collect()
}

/// Puts all completions, each with its number among [`all_items`], into the order of requests and streams.
pub(crate) fn by_request(requests: &[Request], finished: impl IntoIterator<Item = (usize, Completion)>) -> Vec<Vec<Completion>> {
    let mut finished: Vec<(usize, Completion)> = finished.into_iter().collect();
    finished.sort_unstable_by_key(|(item, _)| *item);
    let mut completions = finished.into_iter().map(|(_, completion)| completion);
    requests.iter().map(|request| completions.by_ref().take(request.streams.len()).collect()).collect()
}

/// Refuses prompts that the model cannot take.
pub(crate) fn check(config: &ModelConfig, requests: &[Request]) -> Result<(), ModelError> {
    for (index, request) in requests.iter().enumerate() {
        let refuse = |problem: String| Err(ModelError::Request(format!("prompt {index} {problem}")));
        if request.prompt.is_empty() {
            return refuse("is empty".to_owned());
        }
        if request.prompt.len() >= config.max_positions {
            return refuse(format!("has {} tokens, the model has {} positions", request.prompt.len(), config.max_positions));
        }
        if let Some(token) = request.prompt.iter().find(|token| **token as usize >= config.vocab_size) {
            return refuse(format!("holds token {token}, the vocabulary has {}", config.vocab_size));
        }
    }
    Ok(())
}

/// Least number of tokens worth a prefill of their own.
const MIN_SHARED: usize = 16;

/// How many tokens all prompts begin with; at least one of each is left, whose logits are wanted.
fn common_beginning(requests: &[Request]) -> usize {
    let [first, others @ ..] = requests else { return 0 };
    let common = |request: &Request| first.prompt.iter().zip(&request.prompt).take_while(|(left, right)| left == right).count();
    let shortest = requests.iter().map(|request| request.prompt.len() - 1).min().unwrap_or(0);
    let length = others.iter().map(common).min().unwrap_or(0).min(shortest);
    if length < MIN_SHARED { 0 } else { length }
}

type SharedPrefix = Arc<OnceLock<Arc<Prefix>>>;

/// The waiting completions, and the prompts that are in use.
struct Queue<'a> {
    decoder: &'a Decoder,
    requests: &'a [Request],
    items: &'a [(usize, usize)],
    next: AtomicUsize,
    /// Tokens that all prompts begin with, and their way through the model.
    num_shared: usize,
    shared: OnceLock<Arc<Prefix>>,
    /// By request: its prefix and how many completions have yet to take it.
    prefixes: Mutex<BTreeMap<usize, (SharedPrefix, usize)>>,
}

impl Queue<'_> {
    fn take(&self) -> Option<(usize, usize, usize)> {
        let item = self.next.fetch_add(1, Ordering::Relaxed);
        self.items.get(item).map(|(request, sample)| (item, *request, *sample))
    }

    /// The prompt's prefix, made by whoever comes first and forgotten by the queue once every completion has taken it.
    fn prefix(&self, request: usize, team: &mut Team<'_>, scratch: &mut Scratch) -> Arc<Prefix> {
        let shared = {
            let mut prefixes = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
            let (shared, waiting) =
                prefixes.entry(request).or_insert_with(|| (SharedPrefix::default(), self.requests[request].streams.len()));
            let shared = shared.clone();
            *waiting -= 1;
            if *waiting == 0 {
                prefixes.remove(&request);
            }
            shared
        };
        let own = shared.get_or_init(|| {
            let (beginning, rest) = self.requests[request].prompt.split_at(self.num_shared);
            let shared = (!beginning.is_empty())
                .then(|| self.shared.get_or_init(|| Arc::new(self.decoder.prefill(beginning, team, scratch))).clone());
            Arc::new(self.decoder.prefill_after(shared, rest, team, scratch))
        });
        own.clone()
    }
}

/// A completion that is being written.
pub(crate) struct Draft {
    /// Its number among [`all_items`].
    pub(crate) item: usize,
    /// Where its random numbers come from.
    pub(crate) stream: RandomStream,
    limit: usize,
    /// What is written so far.
    pub(crate) completion: Completion,
}

impl Draft {
    /// An empty one, of `limit` tokens at most.
    pub(crate) fn new(item: usize, stream: RandomStream, limit: usize) -> Self {
        let completion = Completion {
            tokens: Vec::new(),
            policy_logprobs: Vec::new(),
            sampler_logprobs: Vec::new(),
            entropy: None,
            self_certainty: None,
            finish: FinishReason::Length,
        };
        Self { item, stream, limit, completion }
    }

    /// Takes a drawn token; true when the completion is finished.
    pub(crate) fn accept(&mut self, drawn: Drawn, stop_tokens: &[u32]) -> bool {
        self.completion.tokens.push(drawn.token);
        self.completion.policy_logprobs.push(drawn.policy_logprob);
        self.completion.sampler_logprobs.push(drawn.sampler_logprob);
        let number = self.completion.tokens.len() as f32;
        // The mean so far moves by its part of the new difference.
        let mean = |before: Option<f32>, value: f32| before.map_or(value, |before| before + (value - before) / number);
        self.completion.entropy = Some(mean(self.completion.entropy, drawn.entropy));
        self.completion.self_certainty = Some(mean(self.completion.self_certainty, drawn.self_certainty));
        let is_stopped = stop_tokens.contains(&drawn.token);
        self.completion.finish = if is_stopped { FinishReason::Stop } else { FinishReason::Length };
        is_stopped || self.completion.tokens.len() >= self.limit
    }
}

/// One sequence of a batch.
struct Slot {
    draft: Draft,
    sequence: Sequence,
    is_finished: bool,
}

impl Slot {
    fn accept(&mut self, drawn: Drawn, stop_tokens: &[u32]) {
        self.sequence.token = drawn.token;
        self.is_finished = self.draft.accept(drawn, stop_tokens);
    }
}

fn run_team(
    queue: &Queue<'_>,
    sampling: &SamplingSettings,
    batch_size: usize,
    interrupt: &AtomicBool,
    on_completion: OnCompletion<'_>,
    team: &mut Team<'_>,
) -> Vec<(usize, Completion)> {
    let decoder = queue.decoder;
    let stop_tokens = &decoder.config().eos_tokens;
    let samplers: Vec<Mutex<Sampler>> = (0..team.size()).map(|_| Mutex::new(Sampler::new(sampling))).collect();
    let sampler_of = |member: usize| samplers[member].lock().unwrap_or_else(PoisonError::into_inner);
    let mut scratch = Scratch::default();
    let mut slots: Vec<Slot> = Vec::with_capacity(batch_size);
    let mut finished = Vec::new();
    let mut is_drained = false;
    while !interrupt.load(Ordering::Relaxed) {
        while slots.len() < batch_size && !is_drained {
            let Some((item, request, sample)) = queue.take() else {
                is_drained = true;
                break;
            };
            let prefix = queue.prefix(request, team, &mut scratch);
            let room = decoder.config().max_positions - prefix.num_positions();
            let stream = queue.requests[request].streams[sample].clone();
            let mut draft = Draft::new(item, stream, sampling.max_tokens.min(room));
            let drawn = sampler_of(0).draw(&prefix.logits, &mut draft.stream);
            let sequence = Sequence { prefix, own: KvCache::new(decoder.config()), token: drawn.token };
            let mut slot = Slot { draft, sequence, is_finished: false };
            slot.accept(drawn, stop_tokens);
            slots.push(slot);
            retire(&mut slots, &mut finished, &mut scratch, on_completion);
        }
        if slots.is_empty() {
            break;
        }
        let mut sequences: Vec<&mut Sequence> = slots.iter_mut().map(|slot| &mut slot.sequence).collect();
        decoder.step(&mut sequences, team, &mut scratch);
        let logits = scratch.logits();
        team.split(&mut slots, 1, |member, row, slot| {
            let slot = &mut slot[0];
            let drawn = sampler_of(member).draw_from(logits.row(row), logits.largest(row), &mut slot.draft.stream);
            slot.accept(drawn, stop_tokens);
        });
        retire(&mut slots, &mut finished, &mut scratch, on_completion);
    }
    finished
}

/// Takes finished sequences out of a batch; the others keep their order, so that completions of one prompt stay neighbours and find its
/// keys and values in the cache.
fn retire(
    slots: &mut Vec<Slot>,
    finished: &mut Vec<(usize, Completion)>,
    scratch: &mut Scratch,
    on_completion: OnCompletion<'_>,
) {
    for mut slot in slots.extract_if(.., |slot| slot.is_finished) {
        on_completion(slot.draft.completion.tokens.len());
        slot.sequence.own.clear(scratch.pool());
        finished.push((slot.draft.item, slot.draft.completion));
    }
}
