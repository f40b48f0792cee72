//! What the decoder writes in a second, through the engine that every sampling stage uses. `just bench` runs it beside llama.cpp.
//!
//! ```sh
//! decode peak     --threads 2                                   GF/s of the gemm crate, f32, 2048 x 2048 x 2048
//! decode batches  --model DIR --threads 2 --weights f32 --batches 1,8,32,64,128 --prompt 64 --tokens 64 --prompts shared|own
//! decode greedy   --model DIR --file PROMPTS --tokens 32        the tokens themselves, to hold against another engine's
//! decode render   --model DIR --file CONVERSATION               chat turns and questions -> PROMPTS, on stdout
//! decode workload --model DIR --threads 2 --weights f32 --file PROMPTS --samples 10 --tokens 96 --batch 64 --temperature 0.6 --top-k 40
//! ```
//!
//! Each prints lines of JSON. `batches` counts the time of decoding alone. With a shared prompt it is that of a run of the engine which writes one
//! token more than asked, less that of a run which writes one; with own prompts, whose prefill is as long as all the rest, the engine's steps
//! are taken one by one. `workload` counts everything from the first prompt to the last answer. PROMPTS is a list of lists of token
//! ids, CONVERSATION `{"messages": [[role, content], ...], "questions": [...]}`; the last message holds `{question}`.

#![allow(clippy::print_stdout, reason = "what is measured is the product of this program")]

use rzero_algo::seed::{RandomStream, StreamKey, random_stream};
use rzero_model::chat_template::{ChatTemplate, Message, RenderOptions, Role};
use rzero_model::decoder::{Decoder, Scratch, Sequence};
use rzero_model::engine::{Completion, Request, Work, generate};
use rzero_model::kv_cache::KvCache;
use rzero_model::matmul::{Matrix, Store, multiply};
use rzero_model::sampler::Sampler;
use rzero_model::team::with_team;
use rzero_model::tokenizer::Tokenizer;
use rzero_model::weights::Weights;
use rzero_schema::profile::SamplingSettings;
use rzero_schema::vocab::Phase;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// As in the binaries.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let Some(mode) = words.next() else {
        println!("decode peak|batches|greedy|render|workload ...: see the head of crates/rzero-model/benches/decode.rs");
        return Ok(());
    };
    let flags = Flags::read(words)?;
    match mode.as_str() {
        "peak" => peak(&flags),
        "batches" => batches(&flags),
        "greedy" => greedy(&flags),
        "render" => render(&flags),
        "workload" => workload(&flags),
        other => Err(format!("there is no `{other}`").into()),
    }
}

/// `--name value`, as typed.
struct Flags(BTreeMap<String, String>);

impl Flags {
    fn read(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut flags = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("`{word}` is no flag"))?.to_owned();
            let value = words.next().ok_or_else(|| format!("`--{name}` needs a value"))?;
            flags.insert(name, value);
        }
        Ok(Self(flags))
    }

    fn text(&self, name: &str) -> Outcome<&str> {
        self.0.get(name).map(String::as_str).ok_or_else(|| format!("`--{name}` is missing").into())
    }

    fn number<T: FromStr>(&self, name: &str) -> Outcome<T> {
        let text = self.text(name)?;
        text.parse().map_err(|_| format!("`--{name} {text}` is no number that fits").into())
    }

    fn number_or<T: FromStr>(&self, name: &str, otherwise: T) -> Outcome<T> {
        if self.0.contains_key(name) { self.number(name) } else { Ok(otherwise) }
    }

    fn json(&self, name: &str) -> Outcome<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(self.text(name)?)?)?)
    }
}

/// Everything that knows how the engine is called stands in this type.
struct Engine {
    decoder: Decoder,
    threads: usize,
    weights: String,
    /// Numbers of all matrices that a token goes through, the head included: two operations each.
    parameters_a_token: usize,
}

impl Engine {
    /// `longest`: positions of the longest sequence.
    fn new(flags: &Flags, longest: usize, stops: Stops) -> Outcome<Self> {
        let mut weights = Weights::read(Path::new(flags.text("model")?))?;
        if stops == Stops::Ignored {
            weights.config.eos_tokens.clear();
        }
        let embedding = weights.layout.embedding.clone();
        let in_matrices: usize =
            weights.layout.parameters.iter().filter(|part| part.is_matrix()).map(|part| part.range.len()).sum::<usize>();
        // The embedding is looked up; where it is tied it is the head as well and counts once.
        let parameters_a_token = if weights.config.is_tied { in_matrices } else { in_matrices - embedding.len() };
        let format = flags.text("weights")?.to_owned();
        Ok(Self {
            decoder: Decoder::new(&weights, longest, format.parse()?),
            threads: flags.number("threads")?,
            weights: format,
            parameters_a_token,
        })
    }

    /// Completes all requests, `batch` sequences side by side; also the seconds that it took.
    fn complete(&self, requests: &[Request], sampling: &SamplingSettings, batch: usize) -> Outcome<(Vec<Vec<Completion>>, f64)> {
        let interrupt = AtomicBool::new(false);
        let work = Work { threads: self.threads, batch_size: batch.div_ceil(self.threads), interrupt: &interrupt };
        let start = Instant::now();
        let completions = generate(&self.decoder, requests, sampling, work, &|_| ())?;
        Ok((completions, start.elapsed().as_secs_f64()))
    }
}

/// Whether sequences end before they are as long as they may be.
#[derive(PartialEq)]
enum Stops {
    Heeded,
    Ignored,
}

fn stream(row: usize, sample: usize) -> RandomStream {
    let key = StreamKey { run_seed: 7, iteration: 1, phase: Phase::Solver, step: 1, row: row as u64, sample: sample as u32 };
    random_stream("decode bench", &key)
}

fn request(prompt: Vec<u32>, row: usize, samples: usize) -> Request {
    Request { prompt, streams: (0..samples).map(|sample| stream(row, sample)).collect() }
}

/// A prompt without meaning, another one for each number, no two of which begin alike.
fn made_up_prompt(number: usize, length: usize, vocabulary: usize) -> Vec<u32> {
    let low = 100.min(vocabulary / 2);
    (0..length).map(|at| (low + (number * 7_919 + at * 104_729 + number * at * 31) % (vocabulary - low)) as u32).collect()
}

fn peak(flags: &Flags) -> Outcome {
    const SIZE: usize = 2048;
    let threads: usize = flags.number("threads")?;
    let left = vec![0.5f32; SIZE * SIZE];
    let right = vec![0.25f32; SIZE * SIZE];
    let mut target = vec![0f32; SIZE * SIZE];
    let rows = SIZE.div_ceil(threads);
    let mut best = 0f64;
    for _ in 0..flags.number_or("repeats", 5)? {
        let start = Instant::now();
        // The crate's own product, one block of rows a thread: nothing but the ends of the threads is waited for.
        std::thread::scope(|scope| {
            for (block, target) in target.chunks_mut(rows * SIZE).enumerate() {
                let (left, right) = (&left[block * rows * SIZE..], &right);
                scope.spawn(move || {
                    let left = Matrix::new(left, target.len() / SIZE, SIZE);
                    multiply(target, SIZE, Store::Overwrite, 1.0, left, Matrix::new(right, SIZE, SIZE));
                });
            }
        });
        best = best.max(2.0 * (SIZE as f64).powi(3) / start.elapsed().as_secs_f64() / 1e9);
    }
    println!("{}", json!({"case": "peak", "setting": "gemm f32 2048", "value": best, "unit": "GF/s", "threads": threads}));
    Ok(())
}

fn batches(flags: &Flags) -> Outcome {
    let (prompt, tokens): (usize, usize) = (flags.number("prompt")?, flags.number("tokens")?);
    let kind = flags.text("prompts")?;
    let engine = Engine::new(flags, prompt + tokens + 1, Stops::Ignored)?;
    for batch in flags.text("batches")?.split(',') {
        let batch: usize = batch.parse()?;
        let seconds = match kind {
            "shared" => shared_prompt_seconds(&engine, batch, prompt, tokens)?,
            "own" => own_prompts_seconds(&engine, batch, prompt, tokens),
            other => return Err(format!("prompts are shared or own, not {other}").into()),
        };
        let line = json!({
            "case": format!("decode-{kind}/{batch}"), "setting": engine.weights, "value": (batch * tokens) as f64 / seconds,
            "unit": "tokens/s", "threads": engine.threads, "batch": batch, "prompt": prompt, "tokens": tokens,
            "seconds": seconds, "flops_per_token": 2 * engine.parameters_a_token,
        });
        println!("{line}");
    }
    Ok(())
}

/// As the models of a run are sampled from.
fn plain_sampling(max_tokens: usize) -> SamplingSettings {
    SamplingSettings { temperature: 1.0, top_k: 0, top_p: 1.0, max_tokens }
}

fn shared_prompt_seconds(engine: &Engine, batch: usize, prompt: usize, tokens: usize) -> Outcome<f64> {
    let requests = vec![request(made_up_prompt(1, prompt, engine.decoder.config().vocab_size), 0, batch)];
    let seconds = |max_tokens: usize| -> Outcome<f64> {
        let (completions, seconds) = engine.complete(&requests, &plain_sampling(max_tokens), batch)?;
        let is_whole = completions.iter().flatten().all(|completion| completion.tokens.len() == max_tokens);
        if is_whole { Ok(seconds) } else { Err("a completion ended early".into()) }
    };
    let prefill = seconds(1)?.min(seconds(1)?);
    Ok(seconds(tokens + 1)? - prefill)
}

fn own_prompts_seconds(engine: &Engine, batch: usize, prompt: usize, tokens: usize) -> f64 {
    let (decoder, vocabulary) = (&engine.decoder, engine.decoder.config().vocab_size);
    with_team(engine.threads, |team| {
        let samplers: Vec<Mutex<Sampler>> = (0..team.size()).map(|_| Mutex::new(Sampler::new(&plain_sampling(tokens)))).collect();
        let sampler_of = |member: usize| samplers[member].lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = Scratch::default();
        let mut all: Vec<(Sequence, RandomStream)> = (0..batch)
            .map(|row| {
                let prefix = Arc::new(decoder.prefill(&made_up_prompt(row, prompt, vocabulary), team, &mut scratch));
                let mut stream = stream(row, 0);
                let token = sampler_of(0).draw(&prefix.logits, &mut stream).token;
                (Sequence { prefix, own: KvCache::new(decoder.config()), token }, stream)
            })
            .collect();
        let start = Instant::now();
        for _ in 0..tokens {
            let mut sequences: Vec<&mut Sequence> = all.iter_mut().map(|(sequence, _)| sequence).collect();
            decoder.step(&mut sequences, team, &mut scratch);
            let logits = scratch.logits();
            team.split(&mut all, 1, |member, row, one| {
                let (sequence, stream) = &mut one[0];
                sequence.token = sampler_of(member).draw_from(logits.row(row), logits.largest(row), stream).token;
            });
        }
        start.elapsed().as_secs_f64()
    })
}

fn prompts_of(value: &Value) -> Outcome<Vec<Vec<u32>>> {
    Ok(serde_json::from_value(value.clone())?)
}

fn greedy(flags: &Flags) -> Outcome {
    let prompts = prompts_of(&flags.json("file")?)?;
    let tokens: usize = flags.number("tokens")?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + tokens;
    let engine = Engine::new(flags, longest, Stops::Heeded)?;
    let requests: Vec<Request> = prompts.into_iter().enumerate().map(|(row, prompt)| request(prompt, row, 1)).collect();
    let sampling = SamplingSettings { temperature: 0.0, top_k: 0, top_p: 1.0, max_tokens: tokens };
    for completion in engine.complete(&requests, &sampling, requests.len())?.0.into_iter().flatten() {
        println!("{}", json!(completion.tokens));
    }
    Ok(())
}

fn render(flags: &Flags) -> Outcome {
    let folder = Path::new(flags.text("model")?);
    let template = ChatTemplate::read(folder)?.ok_or("the model has no chat template")?;
    let tokenizer = Tokenizer::read(folder)?;
    let conversation = flags.json("file")?;
    let turns: Vec<(String, String)> = serde_json::from_value(conversation["messages"].clone())?;
    let questions: Vec<String> = serde_json::from_value(conversation["questions"].clone())?;
    let prompt = |question: &String| -> Outcome<Vec<u32>> {
        let message = |(role, content): &(String, String)| {
            let role = match role.as_str() {
                "system" => Role::System,
                "user" => Role::User,
                _ => Role::Assistant,
            };
            Message::new(role, content.replace("{question}", question))
        };
        let messages: Vec<Message> = turns.iter().map(message).collect();
        Ok(tokenizer.encode(&template.render(&messages, &RenderOptions::default())?)?)
    };
    let prompts: Vec<Vec<u32>> = questions.iter().map(prompt).collect::<Outcome<_>>()?;
    println!("{}", json!(prompts));
    Ok(())
}

fn workload(flags: &Flags) -> Outcome {
    let prompts = prompts_of(&flags.json("file")?)?;
    let (samples, tokens): (usize, usize) = (flags.number("samples")?, flags.number("tokens")?);
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + tokens;
    let engine = Engine::new(flags, longest, Stops::Heeded)?;
    let requests: Vec<Request> = prompts.into_iter().enumerate().map(|(row, prompt)| request(prompt, row, samples)).collect();
    let sampling = SamplingSettings {
        temperature: flags.number("temperature")?,
        top_k: flags.number("top-k")?,
        top_p: 1.0,
        max_tokens: tokens,
    };
    let batch: usize = flags.number("batch")?;
    let (completions, seconds) = engine.complete(&requests, &sampling, batch)?;
    let lengths: Vec<usize> = completions.iter().flatten().map(|completion| completion.tokens.len()).collect();
    let written: usize = lengths.iter().sum();
    let line = |case: &str, value: f64, unit: &str| {
        json!({
            "case": case, "setting": format!("{}, {batch} side by side", engine.weights), "value": value, "unit": unit,
            "threads": engine.threads, "completions": lengths.len(), "tokens": written,
            "mean_tokens": written as f64 / lengths.len().max(1) as f64,
        })
    };
    println!("{}", line("workload", seconds, "s"));
    println!("{}", line("workload-tokens", written as f64 / seconds, "tokens/s"));
    Ok(())
}
