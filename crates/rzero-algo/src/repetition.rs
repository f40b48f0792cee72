//! How much a batch of questions repeats itself: pairwise BLEU, clusters of alike questions, and each cluster's share.
//!
//! `d(i, j) = 1 - BLEU(hypothesis i, reference j)` for i < j, where BLEU is sentence BLEU-4 with uniform weights and NLTK's smoothing
//! method 1; clusters by agglomerative average linkage, merging while the distance is **strictly** below the threshold; the penalty
//! of a question rests on `|C_k| / B`, the share of the batch that its cluster holds (R-Zero, arXiv 2508.05004, section 3.2).
//!
//! Departure from the released code: it runs NLTK on one thread, minutes a step for 2,048 questions. Here tokens and n-grams are
//! numbers, an index from each n-gram to the questions that hold it finds the overlaps, and rows are scored in parallel. The fast
//! path and [`sentence_bleu`] share their last formula, and a test holds them to equal bits.

pub mod memory;

use kodama::Method;
use rayon::prelude::*;
use rzero_schema::vocab::BleuTokens;
use std::collections::HashMap;

/// Longest n-gram.
const MAX_ORDER: usize = 4;
/// What smoothing method 1 puts in the place of a match count of zero.
const SMOOTHING_EPSILON: f64 = 0.1;
/// Cluster of a malformed question.
pub const NO_CLUSTER: u32 = u32::MAX;

/// Clusters of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Repetition {
    /// Cluster of each question, numbered from 0 by first occurrence; [`NO_CLUSTER`] where it is malformed.
    pub cluster: Vec<u32>,
    /// `|C_k| / B` of each question's cluster; 0 where it is malformed.
    pub share: Vec<f64>,
}

/// Clusters the questions of a step. Malformed ones (`None`) belong to no cluster, and still count in `batch_size`.
///
/// Memory: 4 n^2 bytes for n questions.
#[must_use]
pub fn repetition(questions: &[Option<&str>], tokens: BleuTokens, threshold: f64, batch_size: usize) -> Repetition {
    let rows: Vec<usize> = (0..questions.len()).filter(|&row| questions[row].is_some()).collect();
    let tokenized: Vec<Vec<&str>> = questions.iter().flatten().map(|question| tokenize(question, tokens)).collect();
    let mut distances = bleu_distance_matrix(&intern_tokens(&tokenized));
    let labels = average_linkage_clusters(&mut distances, rows.len(), threshold);

    let mut sizes = vec![0_usize; rows.len()];
    for &label in &labels {
        sizes[label as usize] += 1;
    }
    let mut cluster = vec![NO_CLUSTER; questions.len()];
    let mut share = vec![0.0; questions.len()];
    for (&row, &label) in rows.iter().zip(&labels) {
        cluster[row] = label;
        share[row] = sizes[label as usize] as f64 / batch_size.max(1) as f64;
    }
    Repetition { cluster, share }
}

/// Cuts a question into BLEU tokens.
///
/// Words are what Python's `str.split()` yields: Unicode white space separates, and so do the four information separators
/// U+001C to U+001F, which Unicode's White_Space property leaves out. Characters are all those that are not white space, so
/// spacing cannot dodge the penalty.
#[must_use]
pub fn tokenize(question: &str, tokens: BleuTokens) -> Vec<&str> {
    match tokens {
        BleuTokens::Whitespace => question.split(is_separator).filter(|word| !word.is_empty()).collect(),
        BleuTokens::Characters => question
            .char_indices()
            .filter(|(_, character)| !is_separator(*character))
            .map(|(at, character)| &question[at..at + character.len_utf8()])
            .collect(),
    }
}

fn is_separator(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Numbers the tokens of all questions by first occurrence, so that equal tokens have equal numbers.
#[must_use]
pub fn intern_tokens(questions: &[Vec<&str>]) -> Vec<Vec<u32>> {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    questions
        .iter()
        .map(|question| {
            question
                .iter()
                .map(|token| {
                    let next = numbers.len() as u32;
                    *numbers.entry(token).or_insert(next)
                })
                .collect()
        })
        .collect()
}

/// Sentence BLEU-4 of token numbers: `BP * exp(1/4 * sum_n ln p_n)`, n = 1..4.
///
/// `p_n` is the number of the hypothesis' n-grams that the reference holds (each at most as often as the reference holds it),
/// divided by their number, at least 1; a zero count is replaced by 0.1 (Chen and Cherry 2014, method 1, as in NLTK 3.9).
/// Without a common token it is 0. `BP = min(1, exp(1 - |reference| / |hypothesis|))`.
#[must_use]
pub fn sentence_bleu(hypothesis: &[u32], reference: &[u32]) -> f64 {
    let mut interner = NgramInterner::default();
    let hypothesis_counts = interner.count(hypothesis);
    let reference_counts = interner.count(reference);
    let mut matches = [0_u32; MAX_ORDER];
    for order in 0..MAX_ORDER {
        let held: HashMap<u32, u32> = reference_counts[order].iter().copied().collect();
        for (ngram, count) in &hypothesis_counts[order] {
            matches[order] += count.min(held.get(ngram).unwrap_or(&0));
        }
    }
    bleu_from_matches(&matches, hypothesis.len(), reference.len())
}

/// `1 - BLEU` of every pair i < j (hypothesis i, reference j) as a condensed upper triangle, row by row.
#[must_use]
pub fn bleu_distance_matrix(questions: &[Vec<u32>]) -> Vec<f64> {
    let num_questions = questions.len();
    let mut interner = NgramInterner::default();
    let counts: Vec<NgramCounts> = questions.iter().map(|question| interner.count(question)).collect();

    // For each order and n-gram: the questions that hold it, in ascending order, and how often.
    let mut holders: [Vec<Vec<(u32, u32)>>; MAX_ORDER] =
        std::array::from_fn(|order| vec![Vec::new(); interner.numbers[order].len()]);
    for (question, orders) in counts.iter().enumerate() {
        for (order, ngrams) in orders.iter().enumerate() {
            for &(ngram, count) in ngrams {
                holders[order][ngram as usize].push((question as u32, count));
            }
        }
    }

    let mut distances = vec![0.0; num_questions * num_questions.saturating_sub(1) / 2];
    let mut rows: Vec<&mut [f64]> = Vec::with_capacity(num_questions);
    let mut rest = distances.as_mut_slice();
    for row in 0..num_questions {
        let (head, tail) = rest.split_at_mut(num_questions - 1 - row);
        rows.push(head);
        rest = tail;
    }
    rows.into_par_iter().enumerate().for_each_init(
        || vec![[0_u32; MAX_ORDER]; num_questions],
        |matches, (hypothesis, row)| {
            for (order, ngrams) in counts[hypothesis].iter().enumerate() {
                for &(ngram, count) in ngrams {
                    let holding = &holders[order][ngram as usize];
                    let first = holding.partition_point(|(question, _)| *question as usize <= hypothesis);
                    for &(reference, held) in &holding[first..] {
                        matches[reference as usize][order] += count.min(held);
                    }
                }
            }
            for (offset, distance) in row.iter_mut().enumerate() {
                let reference = hypothesis + 1 + offset;
                let found = std::mem::take(&mut matches[reference]);
                *distance = 1.0 - bleu_from_matches(&found, questions[hypothesis].len(), questions[reference].len());
            }
        },
    );
    distances
}

/// Clusters of a condensed distance matrix: average linkage, merges strictly below the threshold, numbered by first occurrence.
fn average_linkage_clusters(distances: &mut [f64], num_points: usize, threshold: f64) -> Vec<u32> {
    // parent[c] of point or merge c: the merge that swallowed it below the threshold, or itself.
    let mut parent: Vec<usize> = (0..2 * num_points).collect();
    if num_points >= 2 {
        let dendrogram = kodama::linkage(distances, num_points, Method::Average);
        for (merge, step) in dendrogram.steps().iter().enumerate() {
            if step.dissimilarity < threshold {
                parent[step.cluster1] = num_points + merge;
                parent[step.cluster2] = num_points + merge;
            }
        }
    }
    // A merge has a larger number than its parts: from the top down, each finds its root in one look.
    for node in (0..parent.len()).rev() {
        parent[node] = parent[parent[node]];
    }
    let mut numbers: HashMap<usize, u32> = HashMap::new();
    (0..num_points)
        .map(|point| {
            let next = numbers.len() as u32;
            *numbers.entry(parent[point]).or_insert(next)
        })
        .collect()
}

/// Distinct n-grams of a question with their counts, for n = 1..4.
type NgramCounts = [Vec<(u32, u32)>; MAX_ORDER];

/// Numbers n-grams: an n-gram is the number of its first n - 1 tokens and its last token.
#[derive(Default)]
struct NgramInterner {
    numbers: [HashMap<(u32, u32), u32>; MAX_ORDER],
}

impl NgramInterner {
    fn count(&mut self, tokens: &[u32]) -> NgramCounts {
        // Number of the n-gram that starts at each token; orders grow on the one below.
        let mut prefixes = vec![0_u32; tokens.len()];
        std::array::from_fn(|order| {
            let num_ngrams = tokens.len().saturating_sub(order);
            prefixes.truncate(num_ngrams);
            for (start, prefix) in prefixes.iter_mut().enumerate() {
                let next = self.numbers[order].len() as u32;
                *prefix = *self.numbers[order].entry((*prefix, tokens[start + order])).or_insert(next);
            }
            let mut sorted = prefixes.clone();
            sorted.sort_unstable();
            sorted.chunk_by(|left, right| left == right).map(|run| (run[0], run.len() as u32)).collect()
        })
    }
}

/// The last formula of BLEU, in NLTK's order of operations.
fn bleu_from_matches(matches: &[u32; MAX_ORDER], hypothesis_length: usize, reference_length: usize) -> f64 {
    if matches[0] == 0 {
        return 0.0;
    }
    let mut log_sum = 0.0;
    for (order, &found) in matches.iter().enumerate() {
        let num_ngrams = hypothesis_length.saturating_sub(order).max(1) as f64;
        let numerator = if found == 0 { SMOOTHING_EPSILON } else { f64::from(found) };
        log_sum += 0.25 * (numerator / num_ngrams).ln();
    }
    let brevity_penalty =
        if hypothesis_length > reference_length { 1.0 } else { (1.0 - reference_length as f64 / hypothesis_length as f64).exp() };
    brevity_penalty * log_sum.exp()
}

#[cfg(test)]
mod tests;
