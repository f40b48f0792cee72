//! Pairs a second of the grader, and votes.
//!
//! `cargo bench --bench grader`. "Ordinary pairs" are the answers of this crate's pairs of known verdict, one in four, and the plain numbers that most
//! benchmarks have, three in four; they are graded on all threads, as `grade` and `eval` do. `just bench grading` times
//! math-verify on the same pairs.

#![allow(missing_docs, reason = "criterion's macros make the functions public")]
#![allow(clippy::unwrap_used, reason = "a benchmark stops where it cannot go on")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use rzero_algo::equivalence::{GradeOptions, verdict};
use rzero_algo::vote::{Ballot, vote};
use rzero_schema::vocab::AnswerStatus;
use std::hint::black_box;

/// As in the binaries.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gold answers and predictions: one pair of the fixture for three of plain numbers.
fn pairs() -> Vec<(String, String)> {
    let path = format!("{}/tests/fixtures/grader_pairs.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut pairs = Vec::new();
    for (at, row) in rows.filter(|row| row["kind"] == "answer").enumerate() {
        let number = (at * 7_919) % 10_000;
        pairs.push((row["gold"].as_str().unwrap().to_owned(), row["pred"].as_str().unwrap().to_owned()));
        pairs.push((number.to_string(), format!("{}", number + at % 2)));
        pairs.push((number.to_string(), format!("{number}.0")));
        pairs.push((format!("{}", number + 1_000), format!("\\${},{:03}", (number + 1_000) / 1_000, number % 1_000)));
    }
    pairs
}

fn grader(criterion: &mut Criterion) {
    let pairs = pairs();
    let mut group = criterion.benchmark_group("grader");
    group.throughput(Throughput::Elements(pairs.len() as u64));
    let options = GradeOptions::default();
    group.bench_function("ordinary pairs, all threads", |bencher| {
        bencher.iter(|| {
            let graded = pairs.par_iter().with_min_len(64).map(|(gold, pred)| verdict(gold, pred, &options).0 as usize);
            black_box(graded.sum::<usize>())
        });
    });
    let fixture: Vec<&(String, String)> = pairs.iter().step_by(4).collect();
    group.throughput(Throughput::Elements(fixture.len() as u64));
    group.bench_function("pairs of the fixture, one thread", |bencher| {
        bencher.iter(|| black_box(fixture.iter().map(|(gold, pred)| verdict(gold, pred, &options).0 as usize).sum::<usize>()));
    });
    group.finish();
}

fn votes(criterion: &mut Criterion) {
    let answers = ["1/2", "sqrt(2)", "2*sqrt(2)", "x^2 + 2*x + 1", "text:blue whale", "(1, 2)", "50%", "12", "7", "-3"];
    let mut group = criterion.benchmark_group("vote");
    group.throughput(Throughput::Elements(2_000));
    group.bench_function("2,000 questions of 10 answers", |bencher| {
        let questions = || -> Vec<Vec<Ballot<'_>>> {
            let ballot = |at: usize| Ballot { status: AnswerStatus::Parsed, answer: Some(answers[at % answers.len()]) };
            (0..2_000).map(|question| (0..10).map(|sample| ballot(question * sample + sample / 3)).collect()).collect()
        };
        bencher.iter_batched(
            questions,
            |questions| questions.par_iter().map(|ballots| vote(ballots).num_parsed).sum::<u32>(),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, grader, votes);
criterion_main!(benches);
