//! SmolLM2-135M-Instruct, a model that others trained: tokens, greedy texts and logits are those of Hugging Face transformers.
//!
//! The model (half a gigabyte) is not in the repository: the test runs where `data/models/smollm2` or the folder that
//! `RZERO_SMOLLM2` names is there, and says so where it is not. `fixtures/transformers/smollm2.py` makes the expected numbers.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use rzero_model::Weights;
use rzero_model::decoder::Decoder;
use rzero_model::tokenizer::Tokenizer;
use rzero_model::training::{PackedSequences, TrainingModel};
use rzero_schema::vocab::WeightFormat;
use std::path::PathBuf;
use support::{Golden, fixtures, greedy, workspace};

mod support;

/// Of a logit; they lie between -20 and 30.
const LOGIT_TOLERANCE: f32 = 2e-3;
/// Of a log-probability, on the average of a text.
const LOGPROB_TOLERANCE: f64 = 2e-4;

fn model_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("RZERO_SMOLLM2").map_or_else(|| workspace().join("data/models/smollm2"), PathBuf::from);
    if folder.join("config.json").is_file() {
        return Some(folder);
    }
    #[expect(clippy::print_stderr, reason = "a test that did nothing must say so")]
    {
        eprintln!("skipped: there is no model in {}; `just model-smollm2` fetches it, or set RZERO_SMOLLM2", folder.display());
    }
    None
}

#[test]
fn it_reads_and_writes_as_it_does_in_transformers() {
    let Some(folder) = model_folder() else { return };
    let cases = Golden::read(&fixtures().join("smollm2.json")).cases();
    assert_eq!(cases.len(), 20);
    let tokenizer = Tokenizer::read(&folder).unwrap();
    for case in &cases {
        let text = case.text("text");
        assert_eq!(tokenizer.encode(&text).unwrap(), case.tokens("prompt"), "{text}");
    }

    let mut weights = Weights::read(&folder).unwrap();
    // The expected texts go on past a stop token, so that each is as long as the others.
    weights.config.eos_tokens.clear();
    let decoder = Decoder::new(&weights, 256, WeightFormat::F32);
    let mut num_logits = 0;
    for case in &cases {
        let Some(largest) = case.within("largest") else { continue };
        let logits = decoder.logits_after(&case.tokens("prompt"));
        let tokens = largest.tokens("tokens");
        for (token, expected) in tokens.iter().zip(largest.floats("logits")) {
            let difference = (logits[*token as usize] - expected).abs();
            assert!(difference < LOGIT_TOLERANCE, "{}: logit of token {token} differs by {difference:e}", case.text("text"));
        }
        // No token beside those listed lies clearly above the last of them.
        let last = logits[tokens[tokens.len() - 1] as usize] + LOGIT_TOLERANCE;
        let num_above = logits.iter().filter(|logit| **logit > last).count();
        assert!(num_above < tokens.len(), "{}: {num_above} tokens above the last of {}", case.text("text"), tokens.len());
        num_logits += 1;

        let (prompt, written) = (case.tokens("prompt"), case.tokens("greedy"));
        let mut batch = PackedSequences::default();
        batch.push(&prompt[..1], &[&prompt[1..], &written].concat());
        let logprobs = TrainingModel::new(&weights.config, batch.longest()).logprobs(&weights, &batch).logprobs;
        let (of_prompt, of_written) = logprobs.split_at(prompt.len() - 1);
        for (part, key) in [(of_prompt, "prompt_logprob"), (of_written, "greedy_logprob")] {
            let sum: f64 = part.iter().map(|value| f64::from(*value)).sum();
            let difference = (sum - case.number(key)).abs() / part.len() as f64;
            assert!(difference < LOGPROB_TOLERANCE, "{}: {key} is {sum}, expected {}", case.text("text"), case.number(key));
        }
    }
    assert_eq!(num_logits, 3);

    let prompts: Vec<Vec<u32>> = cases.iter().map(|case| case.tokens("prompt")).collect();
    for (case, completion) in cases.iter().zip(greedy(&decoder, &prompts, 64)) {
        assert_eq!(completion.tokens, case.tokens("greedy"), "{}: another text", case.text("text"));
    }
}
