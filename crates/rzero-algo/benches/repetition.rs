//! The repetition penalty of a step: seconds, and the clusters for a peer to compare. One line of JSON.
//!
//! `cargo bench --bench repetition -- --questions 2048 --write FILE`. `pipelines/bench/repetition_peer.py` reads the file and clusters the same
//! questions with NLTK and scikit-learn. Questions have 60 words; most are variations on a template, some stand alone.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where it cannot go on")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use rzero_algo::repetition::{NO_CLUSTER, repetition};
use rzero_schema::vocab::BleuTokens;
use std::hint::black_box;
use std::time::Instant;

/// As in the binaries.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NUM_WORDS: usize = 60;
const VOCABULARY: u64 = 2_000;
/// Questions to a template.
const PER_TEMPLATE: u64 = 10;
const THRESHOLD: f64 = 0.5;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |flag: &str| arguments.iter().position(|argument| argument == flag).and_then(|at| arguments.get(at + 1));
    let num_questions: usize = value("--questions").map_or(2_048, |number| number.parse().unwrap());
    let repeat: usize = value("--repeat").map_or(5, |number| number.parse().unwrap());
    if let Some(threads) = value("--threads") {
        rayon::ThreadPoolBuilder::new().num_threads(threads.parse().unwrap()).build_global().unwrap();
    }
    let questions: Vec<String> =
        (0..num_questions as u64).map(|row| question(row, num_questions as u64 / PER_TEMPLATE)).collect();
    let asked: Vec<Option<&str>> = questions.iter().map(|question| Some(question.as_str())).collect();
    let cluster = || repetition(black_box(&asked), BleuTokens::Whitespace, THRESHOLD, num_questions).cluster;

    let mut clusters = cluster();
    let mut seconds: Vec<f64> = (0..repeat)
        .map(|_| {
            let started = Instant::now();
            clusters = cluster();
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let num_clusters = clusters.iter().filter(|cluster| **cluster != NO_CLUSTER).max().map_or(0, |last| last + 1);
    let line = serde_json::json!({
        "case": format!("repetition {num_questions} x {NUM_WORDS} words"),
        "name": "rzero",
        "seconds": seconds[seconds.len() / 2],
        "runs": seconds,
        "rows": num_questions,
        "clusters": num_clusters,
        "threads": rayon::current_num_threads(),
    });
    println!("{line}");
    if let Some(path) = value("--write") {
        let record = serde_json::json!({ "questions": questions, "clusters": clusters, "threshold": THRESHOLD, "result": line });
        std::fs::write(path, record.to_string()).unwrap();
    }
}

/// Numbers that look random and follow from two others.
fn mixed(one: u64, other: u64) -> u64 {
    let mut state = one.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ other.wrapping_mul(0xD1B5_4A32_D192_ED03);
    for factor in [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB] {
        state = (state ^ (state >> 30)).wrapping_mul(factor);
    }
    state ^ (state >> 31)
}

/// Words with a few frequent ones, as in a language.
fn word(seed: u64) -> String {
    let draw = seed % (VOCABULARY * VOCABULARY);
    // The square root of an even draw, turned round: small numbers are frequent.
    format!("w{}", VOCABULARY - 1 - draw.isqrt())
}

/// One question in five follows no template.
fn question(row: u64, num_templates: u64) -> String {
    let template = mixed(row, 1) % (num_templates + num_templates / 4).max(1);
    // From 1 to 30 words in a hundred are the question's own.
    let own_share = 1 + mixed(row, 2) % 30;
    let words: Vec<String> = (0..NUM_WORDS as u64)
        .map(|at| {
            let is_own = template >= num_templates || mixed(row, 100 + at) % 100 < own_share;
            word(if is_own { mixed(row, 1_000 + at) } else { mixed(template, 2_000 + at) })
        })
        .collect();
    words.join(" ")
}
