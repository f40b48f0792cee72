//! What tests against transformers share: the fixtures' JSON, greedy texts of the engine, the worst difference of two rows.

#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part of it; a test stops where it cannot go on")]

use rzero_algo::seed::{StreamKey, random_stream};
use rzero_model::decoder::Decoder;
use rzero_model::engine::{Completion, Request, Work, generate};
use rzero_schema::profile::SamplingSettings;
use rzero_schema::vocab::Phase;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// The folder of what transformers computed.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/transformers")
}

/// The folder that holds `crates` and `data`.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An object of expected values.
#[derive(Debug)]
pub(crate) struct Golden(Value);

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// The objects of its key `cases`.
    pub(crate) fn cases(&self) -> Vec<Self> {
        self.at("cases").as_array().unwrap().iter().cloned().map(Self).collect()
    }

    /// The object under a key, where there is one.
    pub(crate) fn within(&self, key: &str) -> Option<Self> {
        self.0.get(key).cloned().map(Self)
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.at(key).as_str().unwrap().to_owned()
    }

    pub(crate) fn number(&self, key: &str) -> f64 {
        self.at(key).as_f64().unwrap()
    }

    pub(crate) fn tokens(&self, key: &str) -> Vec<u32> {
        self.at(key).as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
    }

    pub(crate) fn floats(&self, key: &str) -> Vec<f32> {
        floats(self.at(key))
    }

    pub(crate) fn rows(&self, key: &str) -> Vec<Vec<f32>> {
        self.at(key).as_array().unwrap().iter().map(floats).collect()
    }

    /// Sum and L2 norm of each parameter's gradient, by its Hugging Face name.
    pub(crate) fn gradients(&self) -> BTreeMap<String, (f64, f64)> {
        let gradients = self.at("gradients").as_object().unwrap().iter();
        gradients.map(|(name, pair)| (name.clone(), (pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap()))).collect()
    }

    fn at(&self, key: &str) -> &Value {
        self.0.get(key).unwrap_or_else(|| panic!("the fixture has no `{key}`"))
    }
}

fn floats(row: &Value) -> Vec<f32> {
    row.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

/// The largest difference of two rows of equal length.
pub(crate) fn worst(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len(), "rows of different length");
    // `f32::max` would pass over a difference that is not a number.
    left.iter()
        .zip(right)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, next| if next > worst || next.is_nan() { next } else { worst })
}

/// What the engine writes after each prompt when it always takes the best token.
pub(crate) fn greedy(decoder: &Decoder, prompts: &[Vec<u32>], max_tokens: usize) -> Vec<Completion> {
    let key = StreamKey { run_seed: 1, iteration: 1, phase: Phase::Solver, step: 1, row: 0, sample: 0 };
    let request = |prompt: &Vec<u32>| Request { prompt: prompt.clone(), streams: vec![random_stream("sample", &key)] };
    let requests: Vec<Request> = prompts.iter().map(request).collect();
    let sampling = SamplingSettings { temperature: 0.0, top_k: 0, top_p: 1.0, max_tokens };
    let work = Work { threads: 2, batch_size: 8, interrupt: &AtomicBool::new(false) };
    generate(decoder, &requests, &sampling, work, &|_| ())
        .unwrap()
        .into_iter()
        .map(|mut completions| completions.remove(0))
        .collect()
}
