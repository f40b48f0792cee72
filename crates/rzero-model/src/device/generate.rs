//! Many completions of many prompts on a device: [`crate::engine::generate`] with the same contract but for bits.
//!
//! One batch of `batch_size` sequences goes through the model a token at a time. A finished sequence leaves, the last row of the cache
//! takes its place, and the next waiting one enters; a prompt goes through the model once and is copied to the rows of its
//! completions. Tokens are drawn on the host, from each completion's own random stream, so that only the rounding of logits can make
//! a completion differ from the CPU's. Logits come to the host as f32, (batch x vocabulary) numbers a token. Deliberately absent:
//! prompts of several requests in one prefill, paging of the cache, graphs of kernels.

use super::cache::DeviceCache;
use super::layer::{attend, causal_mask};
use super::{DeviceModel, Rotation};
use crate::engine::{Completion, Draft, OnCompletion, Request, Work, all_items, by_request, check};
use crate::error::ModelError;
use crate::sampler::{Drawn, Sampler};
use candle_core::{Result, Tensor};
use rzero_schema::profile::SamplingSettings;
use std::sync::atomic::Ordering;

/// Rows of a prefill that go through the layers together: bounds the (rows x past) scores.
const PREFILL_ROWS: usize = 512;

/// Numbers of a batch's logits from which on drawing is spread over threads.
const THREADED_NUMBERS: usize = 1 << 18;

/// A prompt that has gone through the model: its keys and values on the device, and the logits of the token after it.
#[derive(Debug)]
pub struct DevicePrefix {
    cache: DeviceCache,
    length: usize,
    /// Logits after its last token. // (V)
    pub logits: Vec<f32>,
}

impl DeviceModel {
    /// Runs a prompt through the model. The prompt is not empty, and no longer than the model was made for.
    ///
    /// # Errors
    /// When the device fails.
    pub fn prefill(&self, prompt: &[u32]) -> std::result::Result<DevicePrefix, ModelError> {
        if prompt.is_empty() || prompt.len() > self.rotary.num_positions() {
            let problem = format!("prompt has {} tokens, expected 1 to {}", prompt.len(), self.rotary.num_positions());
            return Err(ModelError::Request(problem));
        }
        let cache = DeviceCache::new(self, 1, prompt.len())?;
        let mut start = 0;
        let mut last = None;
        for tokens in prompt.chunks(PREFILL_ROWS) {
            last = Some(self.prefill_chunk(tokens, start, &cache)?);
            start += tokens.len();
        }
        let last = last.expect("the prompt is not empty"); // (1, D)
        let logits = self.logits(&last)?.flatten_all()?.to_vec1()?;
        Ok(DevicePrefix { cache, length: prompt.len(), logits })
    }

    /// Returns the last row. // (1, D)
    fn prefill_chunk(&self, tokens: &[u32], start: usize, cache: &DeviceCache) -> Result<Tensor> {
        let (config, rows, past) = (&self.config, tokens.len(), start + tokens.len());
        let positions: Vec<u32> = (start as u32..past as u32).collect();
        let rotation = self.rotary.rows(&self.indices(&positions)?)?;
        let mask = causal_mask(rows, past, self.device())?;
        let heads_first = |y: &Tensor| y.transpose(0, 1)?.unsqueeze(0)?.contiguous(); // (1, heads, T, head_dim)
        let mut x = self.embed(tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let projected = layer.project(config, &x, &rotation)?;
            cache.write_block(index, start, &heads_first(&projected.key)?, &heads_first(&projected.value)?)?;
            let [key, value] = cache.past(index, 1, past)?;
            let attended = attend(config, &heads_first(&projected.query)?, &key, &value, &mask)?;
            let attended = attended.squeeze(0)?.transpose(0, 1)?.reshape((rows, config.query_width()))?;
            x = layer.finish(config, &x, &attended)?;
        }
        x.narrow(0, rows - 1, 1)
    }

    /// Feeds each of the first rows of a cache its token, at its position; logits in row order. // (n, V), f32
    fn step(&self, cache: &DeviceCache, tokens: &[u32], positions: &[u32]) -> Result<Tensor> {
        let (config, rows) = (&self.config, tokens.len());
        let length = positions.iter().max().map_or(0, |last| *last as usize + 1);
        let mask: Vec<f32> = positions
            .iter()
            .flat_map(|last| (0..length).map(move |at| if at > *last as usize { f32::NEG_INFINITY } else { 0.0 }))
            .collect();
        let mask = Tensor::from_vec(mask, (rows, 1, 1, length), self.device())?;
        let positions = self.indices(positions)?;
        let rotation: Rotation = self.rotary.rows(&positions)?;
        let positions = positions.reshape((rows, 1, 1, 1))?;
        let positions = positions.broadcast_as((rows, config.num_kv_heads, 1, config.head_dim))?.contiguous()?;
        let mut x = self.embed(tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let projected = layer.project(config, &x, &rotation)?;
            cache.write_rows(index, &positions, &projected.key.unsqueeze(2)?, &projected.value.unsqueeze(2)?)?;
            let [key, value] = cache.past(index, rows, length)?;
            let attended = attend(config, &projected.query.unsqueeze(2)?, &key, &value, &mask)?;
            x = layer.finish(config, &x, &attended.reshape((rows, config.query_width()))?)?;
        }
        self.logits(&x)
    }
}

/// One sequence of the batch; its place among them is its row of the cache.
struct Row {
    draft: Draft,
    /// Positions of the cache that are written.
    length: usize,
    /// The token that goes in next.
    token: u32,
}

/// Completes every prompt once for each of its streams; results stand in the order of requests and streams.
///
/// `work.batch_size` sequences lie side by side, each with (longest prompt + `max_tokens`) positions of keys and values on the device;
/// `work.threads` draw tokens.
///
/// # Errors
/// When a prompt is empty, too long for the model or holds unknown tokens, when the device fails, or when the interrupt is set.
pub fn generate_on_device(
    model: &DeviceModel,
    requests: &[Request],
    sampling: &SamplingSettings,
    work: Work<'_>,
    on_completion: OnCompletion<'_>,
) -> std::result::Result<Vec<Vec<Completion>>, ModelError> {
    let config = &model.config;
    check(config, requests)?;
    let items = all_items(requests);
    let longest = requests.iter().map(|request| request.prompt.len()).max().unwrap_or(0);
    let capacity = longest.saturating_add(sampling.max_tokens).min(config.max_positions);
    if !items.is_empty() && capacity > model.rotary.num_positions() {
        let problem =
            format!("sequences reach {capacity} positions, the device was prepared for {}", model.rotary.num_positions());
        return Err(ModelError::Request(problem));
    }
    let num_rows = work.batch_size.clamp(1, items.len().max(1));
    let cache = DeviceCache::new(model, num_rows, capacity.max(1))?;
    let mut samplers: Vec<Sampler> = (0..work.threads.clamp(1, num_rows)).map(|_| Sampler::new(sampling)).collect();
    let mut rows: Vec<Row> = Vec::with_capacity(num_rows);
    let mut finished = Vec::with_capacity(items.len());
    let mut finish = |draft: Draft| {
        on_completion(draft.completion.tokens.len());
        finished.push((draft.item, draft.completion));
    };
    let mut waiting = items.iter().copied().enumerate();
    // Completions of one prompt wait side by side, so one prompt at a time is kept.
    let mut prefix: Option<(usize, DevicePrefix)> = None;
    loop {
        while rows.len() < num_rows {
            if work.interrupt.load(Ordering::Relaxed) {
                return Err(ModelError::Interrupted);
            }
            let Some((item, (request, sample))) = waiting.next() else { break };
            let prompt = match prefix.take() {
                Some((of, prompt)) if of == request => prompt,
                _ => model.prefill(&requests[request].prompt)?,
            };
            let limit = sampling.max_tokens.min(config.max_positions - prompt.length);
            let mut draft = Draft::new(item, requests[request].streams[sample].clone(), limit);
            let drawn = samplers[0].draw(&prompt.logits, &mut draft.stream);
            if draft.accept(drawn, &config.eos_tokens) {
                finish(draft);
            } else {
                cache.copy_row(rows.len(), &prompt.cache, 0, prompt.length)?;
                rows.push(Row { draft, length: prompt.length, token: drawn.token });
            }
            prefix = Some((request, prompt));
        }
        if rows.is_empty() {
            break;
        }
        if work.interrupt.load(Ordering::Relaxed) {
            return Err(ModelError::Interrupted);
        }
        let tokens: Vec<u32> = rows.iter().map(|row| row.token).collect();
        let positions: Vec<u32> = rows.iter().map(|row| row.length as u32).collect();
        let logits: Vec<f32> = model.step(&cache, &tokens, &positions)?.flatten_all()?.to_vec1()?;
        let drawn = draw(&mut samplers, &logits, config.vocab_size, &mut rows);
        // From the last row to the first, so that the row that is moved has been seen.
        for (index, drawn) in drawn.into_iter().enumerate().rev() {
            rows[index].length += 1;
            rows[index].token = drawn.token;
            if rows[index].draft.accept(drawn, &config.eos_tokens) {
                let last = rows.len() - 1;
                if index < last {
                    cache.copy_row(index, &cache, last, rows[last].length)?;
                }
                finish(rows.swap_remove(index).draft);
            }
        }
    }
    if work.interrupt.load(Ordering::Relaxed) {
        return Err(ModelError::Interrupted);
    }
    Ok(by_request(requests, finished))
}

/// Draws a token for every row; rows are independent, so threads do not change what is drawn. // logits: (n, V)
fn draw(samplers: &mut [Sampler], logits: &[f32], vocab: usize, rows: &mut [Row]) -> Vec<Drawn> {
    let draw_some = |sampler: &mut Sampler, logits: &[f32], rows: &mut [Row]| -> Vec<Drawn> {
        logits.chunks_exact(vocab).zip(rows).map(|(logits, row)| sampler.draw(logits, &mut row.draft.stream)).collect()
    };
    if samplers.len() == 1 || logits.len() < THREADED_NUMBERS {
        return draw_some(&mut samplers[0], logits, rows);
    }
    let share = rows.len().div_ceil(samplers.len());
    std::thread::scope(|scope| {
        let parts = samplers.iter_mut().zip(logits.chunks(share * vocab)).zip(rows.chunks_mut(share));
        let threads: Vec<_> =
            parts.map(|((sampler, logits), rows)| scope.spawn(move || draw_some(sampler, logits, rows))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
