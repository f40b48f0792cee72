//! Likeness to everything that was asked before: leader clustering, which keeps clusters as they are when questions come.
//!
//! A question belongs to the leader that it is most like, by `d = 1 - BLEU(question, leader)`, if that lies **strictly** below the threshold; of
//! equals the first; else it leads a cluster of its own (Hartigan 1975). Average linkage, as within a batch, would change earlier clusters with
//! every new question.

use super::{MAX_ORDER, NgramCounts, NgramInterner, bleu_from_matches, intern_tokens, tokenize};
use rayon::prelude::*;
use rzero_schema::vocab::BleuTokens;

/// The cluster of a question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Remembered {
    /// Its leader, as a place among the leaders: the given ones, then those that came with the questions.
    pub leader: usize,
    /// BLEU to the leader; 1 of a leader itself.
    pub similarity: f64,
    /// Whether the question is a new leader.
    pub is_new: bool,
}

/// Gives each question its leader, in order; questions that are like none become leaders, and later ones may follow them.
#[must_use]
pub fn remember(leaders: &[&str], questions: &[&str], tokens: BleuTokens, threshold: f64) -> Vec<Remembered> {
    let index = Index::new(leaders.iter().chain(questions), tokens);
    let old = nearest(&index, leaders.len(), threshold);
    // Among the new ones each waits for those before it: which of them lead is known only then.
    let mut new_leaders: Vec<usize> = Vec::new();
    let mut found = Vec::with_capacity(questions.len());
    for (at, old) in old.into_iter().enumerate() {
        let place = leaders.len() + at;
        let among_new =
            new_leaders.iter().enumerate().map(|(number, leader)| (leaders.len() + number, index.bleu(place, *leader)));
        let best = old.into_iter().chain(among_new).fold(None, closer);
        found.push(match best.filter(|(_, similarity)| 1.0 - similarity < threshold) {
            Some((leader, similarity)) => Remembered { leader, similarity, is_new: false },
            None => {
                new_leaders.push(place);
                Remembered { leader: leaders.len() + new_leaders.len() - 1, similarity: 1.0, is_new: true }
            }
        });
    }
    found
}

/// The leader of each question among those that are given; nothing where it is like none.
#[must_use]
pub fn recall(leaders: &[&str], questions: &[&str], tokens: BleuTokens, threshold: f64) -> Vec<Option<usize>> {
    let index = Index::new(leaders.iter().chain(questions), tokens);
    nearest(&index, leaders.len(), threshold).into_iter().map(|best| best.map(|(leader, _)| leader)).collect()
}

/// The likelier of two leaders; of equals the first.
fn closer(best: Option<(usize, f64)>, next: (usize, f64)) -> Option<(usize, f64)> {
    if best.is_none_or(|(_, similarity)| next.1 > similarity) { Some(next) } else { best }
}

fn nearest(index: &Index, num_leaders: usize, threshold: f64) -> Vec<Option<(usize, f64)>> {
    (num_leaders..index.counts.len())
        .into_par_iter()
        .map(|question| {
            let best = (0..num_leaders).map(|leader| (leader, index.bleu(question, leader))).fold(None, closer);
            best.filter(|(_, similarity)| 1.0 - similarity < threshold)
        })
        .collect()
}

/// Texts with their n-grams counted.
struct Index {
    counts: Vec<NgramCounts>,
    lengths: Vec<usize>,
}

impl Index {
    fn new<'a>(texts: impl Iterator<Item = &'a &'a str>, tokens: BleuTokens) -> Self {
        let tokenized: Vec<Vec<&str>> = texts.map(|text| tokenize(text, tokens)).collect();
        let interned = intern_tokens(&tokenized);
        let mut interner = NgramInterner::default();
        Self {
            counts: interned.iter().map(|text| interner.count(text)).collect(),
            lengths: interned.iter().map(Vec::len).collect(),
        }
    }

    /// BLEU of one text as the hypothesis and another as the reference.
    fn bleu(&self, hypothesis: usize, reference: usize) -> f64 {
        let mut matches = [0_u32; MAX_ORDER];
        for (order, found) in matches.iter_mut().enumerate() {
            let (own, held) = (&self.counts[hypothesis][order], &self.counts[reference][order]);
            // Both in the order of their n-grams' numbers: one walk along the two.
            let mut rest = held.iter().peekable();
            for (ngram, count) in own {
                while rest.next_if(|(other, _)| other < ngram).is_some() {}
                if let Some((_, held)) = rest.next_if(|(other, _)| other == ngram) {
                    *found += count.min(held);
                }
            }
            // Without a common n-gram there is no longer one either.
            if *found == 0 {
                break;
            }
        }
        bleu_from_matches(&matches, self.lengths[hypothesis], self.lengths[reference])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repetition::{intern_tokens, sentence_bleu};
    use proptest::prelude::*;

    const TOKENS: BleuTokens = BleuTokens::Whitespace;

    #[test]
    fn a_question_follows_the_leader_it_is_most_like_or_leads() {
        let leaders = ["what is two plus two", "name a river that flows north"];
        let questions = [
            "what is two plus three",
            "how many days has a leap year",
            "how many days has a year",
            "name a river that flows north",
        ];
        let found = remember(&leaders, &questions, TOKENS, 0.5);
        let clusters: Vec<(usize, bool)> = found.iter().map(|found| (found.leader, found.is_new)).collect();
        assert_eq!(clusters, [(0, false), (2, true), (2, false), (1, false)]);
        assert_eq!(found[3].similarity, 1.0);
        assert_eq!(recall(&leaders, &questions, TOKENS, 0.5), [Some(0), None, None, Some(1)]);
        assert!(remember(&[], &[], TOKENS, 0.5).is_empty());
    }

    proptest! {
        #[test]
        fn likeness_is_bleu_to_the_bit(one in "[ab ]{0,12}", other in "[ab ]{0,12}") {
            let index = Index::new([one.as_str(), other.as_str()].iter(), TOKENS);
            let interned = intern_tokens(&[tokenize(&one, TOKENS), tokenize(&other, TOKENS)]);
            prop_assert_eq!(index.bleu(0, 1).to_bits(), sentence_bleu(&interned[0], &interned[1]).to_bits());
        }

        #[test]
        fn what_comes_in_two_parts_is_remembered_as_in_one(questions in prop::collection::vec("[ab ]{1,8}", 0..12), cut in 0_usize..12) {
            let texts: Vec<&str> = questions.iter().map(String::as_str).collect();
            let (first, second) = texts.split_at(cut.min(texts.len()));
            let whole = remember(&[], &texts, TOKENS, 0.5);
            let before = remember(&[], first, TOKENS, 0.5);
            let leaders: Vec<&str> = first.iter().zip(&before).filter(|(_, found)| found.is_new).map(|(text, _)| *text).collect();
            let after = remember(&leaders, second, TOKENS, 0.5);
            prop_assert_eq!(whole, [before, after].concat());
        }
    }
}
