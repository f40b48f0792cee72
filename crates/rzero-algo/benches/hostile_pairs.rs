//! Millions of hostile pairs: no panic, and none that takes a millisecond.
//!
//! `cargo bench --bench hostile_pairs -- 10000000 1`: so many pairs, from this seed. Answers are put together from the pieces that the grader
//! knows, from mutations of its fixtures, and from bytes. A pair that took longer than the bound is timed again, five times, because a
//! machine may have paused; its shortest time counts. Prints the slowest pairs, and fails where one is over the bound.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where it cannot go on")]
#![allow(clippy::print_stdout, reason = "its figures are its product")]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use rzero_algo::equivalence::{GradeOptions, grade, verdict};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// As in the binaries.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BOUND: Duration = Duration::from_millis(1);
const BATCH: u64 = 10_000;
const PIECES: [&str; 84] = [
    "0",
    "1",
    "2",
    "7",
    "12",
    "99",
    "1000",
    "3.14",
    "0.5",
    "1e5",
    "9999999999",
    "x",
    "y",
    "n",
    "k",
    "e",
    "i",
    "pi",
    "\\pi",
    "\\infty",
    "+",
    "-",
    "*",
    "/",
    "^",
    "_",
    "!",
    "=",
    "<",
    ">",
    "\\le",
    "\\ne",
    ",",
    ";",
    ":",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "\\{",
    "\\}",
    "|",
    "%",
    "°",
    "'",
    " ",
    " cm",
    " and ",
    "\\text{",
    "\\frac",
    "\\frac{1}{2}",
    "\\sqrt",
    "\\sqrt[3]",
    "\\binom",
    "\\sum_{k=1}^{",
    "\\prod_{k=1}^{",
    "\\int_0^",
    "\\log_",
    "\\ln ",
    "\\sin ",
    "\\cos ",
    "\\tan ",
    "\\arctan ",
    "e^",
    "\\pm ",
    "\\cup ",
    "\\in ",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "&",
    "\\\\",
    "f(",
    "\\left(",
    "\\right)",
    "\\boxed{",
    "$",
    "\\overline{",
    "^{",
    "\\%",
    "−",
    "√",
    "½",
];

fn fixtures() -> Vec<String> {
    let path = format!("{}/tests/fixtures/grader_pairs.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.flat_map(|row| [row["gold"].as_str().unwrap().to_owned(), row["pred"].as_str().unwrap().to_owned()]).collect()
}

fn answer(random: &mut ChaCha8Rng, fixtures: &[String]) -> String {
    let mut text = match random.random_range(0..10) {
        0..=4 => (0..random.random_range(1..24)).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect(),
        5..=7 => fixtures[random.random_range(0..fixtures.len())].clone(),
        8 => {
            let piece = PIECES[random.random_range(0..PIECES.len())];
            piece.repeat(random.random_range(1..400))
        }
        _ => (0..random.random_range(1..40)).map(|_| char::from_u32(random.random_range(1..0x2300)).unwrap_or('?')).collect(),
    };
    for _ in 0..random.random_range(0..3) {
        let drawn = random.random_range(0..=text.len());
        let at = (0..=drawn).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        match random.random_range(0..3) {
            0 => text.insert_str(at, PIECES[random.random_range(0..PIECES.len())]),
            1 if at < text.len() => {
                text.remove(at);
            }
            _ => text.truncate(at),
        }
    }
    text
}

/// A pair and since when it is being compared.
type Watched = (Instant, String, String);

fn assert_in_time(since: Instant, gold: &str, pred: &str) {
    if since.elapsed() > Duration::from_secs(10) {
        println!("does not end: {gold:?}  {pred:?}");
        std::process::exit(1);
    }
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let (num_pairs, seed) = (numbers.first().copied().unwrap_or(200_000), numbers.get(1).copied().unwrap_or(1));
    let (fixtures, options) = (fixtures(), GradeOptions::default());
    let timed = |gold: &str, pred: &str| {
        let start = Instant::now();
        std::hint::black_box(grade(gold, pred, &options));
        start.elapsed()
    };
    // A pair that does not end is named, and ends the run.
    let watched: Arc<Mutex<Vec<Weak<Mutex<Watched>>>>> = Arc::default();
    let watch = Arc::clone(&watched);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            watch.lock().unwrap().retain(|current| match current.upgrade() {
                Some(current) => {
                    let (since, gold, pred) = &*current.lock().unwrap();
                    assert_in_time(*since, gold, pred);
                    true
                }
                None => false,
            });
        }
    });
    let start = Instant::now();
    let mut slowest: Vec<(Duration, String, String)> = (0..num_pairs.div_ceil(BATCH))
        .into_par_iter()
        .map(|batch| {
            let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1 << 40) + batch);
            let mut slowest = (Duration::ZERO, String::new(), String::new());
            let current = Arc::new(Mutex::new((Instant::now(), String::new(), String::new())));
            watched.lock().unwrap().push(Arc::downgrade(&current));
            for _ in 0..BATCH.min(num_pairs - batch * BATCH) {
                let gold = answer(&mut random, &fixtures);
                let pred = if random.random_range(0..4) == 0 { gold.clone() } else { answer(&mut random, &fixtures) };
                *current.lock().unwrap() = (Instant::now(), gold.clone(), pred.clone());
                let mut time = timed(&gold, &pred);
                if time > BOUND {
                    time = (0..5).map(|_| timed(&gold, &pred)).min().unwrap_or(time).min(time);
                }
                let verdicts = (verdict(&gold, &pred, &options).0, verdict(&pred, &gold, &options).0);
                assert_eq!(verdicts.0, verdicts.1, "not symmetric: {gold} | {pred}");
                if time > slowest.0 {
                    slowest = (time, gold, pred);
                }
            }
            slowest
        })
        .collect();
    slowest.sort_by_key(|slow| std::cmp::Reverse(slow.0));
    println!("{num_pairs} pairs, seed {seed}: no panic, {:.0} s; the slowest:", start.elapsed().as_secs_f64());
    for (time, gold, pred) in slowest.iter().take(10) {
        let short = |text: &str| text.chars().take(100).collect::<String>();
        println!("{:8.1} us  {:?}  {:?}", time.as_secs_f64() * 1e6, short(gold), short(pred));
    }
    assert!(slowest.iter().all(|slow| slow.0 <= BOUND), "a pair takes longer than {BOUND:?}");
}
