//! What the questions of an iteration are like: how hard, how varied, how long, and how the votes on them fell out.

use rzero_algo::diversity::{MAX_ORDER, distinct_ngrams};
use rzero_algo::repetition::{intern_tokens, repetition, tokenize};
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::profile::Profile;
use rzero_schema::tables::{Challenge, CurriculumRow, Label};
use rzero_schema::vocab::{Phase, Stage};
use std::collections::HashSet;

/// Bins of the histogram of vote shares.
pub(super) const NUM_BINS: usize = 10;
/// Questions that are compared with one another. Shares of distinct n-grams and of clusters fall with their number: it is one for all.
pub(super) const MAX_COMPARED: usize = 1_000;
const BATCH_ROWS: usize = 16_384;

/// The questions of one iteration's curriculum phase.
#[derive(Debug)]
pub(super) struct Questions {
    /// Well-formed candidates.
    pub(super) num: usize,
    /// Different ones among them.
    pub(super) num_distinct: usize,
    /// Questions that were compared: all, or so many evenly spread ones.
    pub(super) num_compared: usize,
    /// BLEU clusters among the compared.
    pub(super) num_clusters: usize,
    /// Members of the largest.
    pub(super) largest_cluster: usize,
    /// distinct-1 to distinct-4 of the compared.
    pub(super) distinct: [f64; MAX_ORDER],
    /// Length in the tokens that BLEU counts: mean, lower and upper tenth.
    pub(super) length: (f64, f64, f64),
    /// Vote share over the questions with a label: mean, lower and upper tenth; none where there is no label.
    pub(super) vote_share: Option<(f64, f64, f64)>,
    /// Questions by vote share: kept, and not.
    pub(super) kept_by_share: [u64; NUM_BINS],
    pub(super) other_by_share: [u64; NUM_BINS],
}

/// Reads the questions of an iteration; none where they have not been written yet.
pub(super) fn read(layout: &RunLayout, profile: &Profile, iteration: u32) -> anyhow::Result<Option<Questions>> {
    let place = Place::new(iteration, Phase::Curriculum, 0);
    let open = |stage| StageOutput::open_finished(layout, stage, place);
    let Some(challenges) = open(Stage::ChallengeGen)? else { return Ok(None) };
    let mut questions: Vec<String> = Vec::new();
    for rows in challenges.stream::<Challenge>(BATCH_ROWS)? {
        questions.extend(rows?.into_iter().filter_map(|row| row.question));
    }
    if questions.is_empty() {
        return Ok(None);
    }
    let rule = &profile.challenger;
    let mut lengths: Vec<f64> = questions.iter().map(|question| tokenize(question, rule.bleu_tokens).len() as f64).collect();
    let num_compared = questions.len().min(MAX_COMPARED);
    let compared: Vec<&str> = (0..num_compared).map(|index| questions[index * questions.len() / num_compared].as_str()).collect();
    let tokens: Vec<Vec<&str>> = compared.iter().map(|question| tokenize(question, rule.bleu_tokens)).collect();
    let asked: Vec<Option<&str>> = compared.iter().map(|question| Some(*question)).collect();
    let clusters = repetition(&asked, rule.bleu_tokens, rule.cluster_threshold, num_compared).cluster;
    let mut sizes = vec![0_usize; clusters.iter().max().map_or(0, |last| *last as usize + 1)];
    clusters.iter().for_each(|cluster| sizes[*cluster as usize] += 1);

    let mut kept: HashSet<String> = HashSet::new();
    if let Some(filter) = open(Stage::Filter)? {
        for rows in filter.stream::<CurriculumRow>(BATCH_ROWS)? {
            kept.extend(rows?.into_iter().map(|row| row.challenge_id));
        }
    }
    let (mut kept_by_share, mut other_by_share) = ([0; NUM_BINS], [0; NUM_BINS]);
    let mut shares: Vec<f64> = Vec::new();
    if let Some(labels) = open(Stage::VoteLabel)? {
        for rows in labels.stream::<Label>(BATCH_ROWS)? {
            for label in rows?.into_iter().filter(|label| label.pseudo_label.is_some()) {
                shares.push(label.vote_share);
                let bins = if kept.contains(&label.challenge_id) { &mut kept_by_share } else { &mut other_by_share };
                bins[bin(label.vote_share)] += 1;
            }
        }
    }
    Ok(Some(Questions {
        num: questions.len(),
        num_distinct: questions.iter().collect::<HashSet<_>>().len(),
        num_compared,
        num_clusters: sizes.len(),
        largest_cluster: sizes.into_iter().max().unwrap_or(0),
        distinct: distinct_ngrams(&intern_tokens(&tokens)),
        length: spread(&mut lengths),
        vote_share: (!shares.is_empty()).then(|| spread(&mut shares)),
        kept_by_share,
        other_by_share,
    }))
}

/// The bin of a share from 0 to 1; the last one holds 1 as well. A share on an edge belongs above it, however its digits were rounded.
fn bin(share: f64) -> usize {
    ((share * NUM_BINS as f64 + 1e-9) as usize).min(NUM_BINS - 1)
}

/// Mean, lower and upper tenth of some values.
fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (values.iter().sum::<f64>() / values.len() as f64, at(0.1), at(0.9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_share_has_a_bin_and_edges_belong_above() {
        let shares = [0.0, 0.05, 0.1, 0.3, 0.7, 0.8, 0.99, 1.0];
        assert_eq!(shares.map(bin), [0, 0, 1, 3, 7, 8, 9, 9]);
        // Every share of a vote of thirty-two answers falls where whole numbers say.
        assert!((0..=32_usize).all(|votes| bin(votes as f64 / 32.0) == (votes * NUM_BINS / 32).min(NUM_BINS - 1)));
    }

    #[test]
    fn a_spread_is_the_mean_and_the_tenths() {
        let mut values: Vec<f64> = (0..=10).rev().map(f64::from).collect();
        assert_eq!(spread(&mut values), (5.0, 1.0, 9.0));
        assert_eq!(spread(&mut [3.0]), (3.0, 3.0, 3.0));
    }
}
