//! How much of what is written is new: the share of distinct n-grams.
//!
//! distinct-n = (different n-grams of all texts) / (n-grams of all texts), Li et al. 2016 (arXiv 1510.03055), section 4. It falls as
//! texts are added, because n-grams are finite: compare samples of one size.

use std::collections::HashSet;

/// Longest n-gram.
pub const MAX_ORDER: usize = 4;

/// distinct-1 to distinct-4 of texts given as token numbers; 0 where there is no n-gram of a length.
#[must_use]
pub fn distinct_ngrams(texts: &[Vec<u32>]) -> [f64; MAX_ORDER] {
    std::array::from_fn(|order| {
        let mut different: HashSet<&[u32]> = HashSet::new();
        let mut num = 0_usize;
        for ngram in texts.iter().flat_map(|tokens| tokens.windows(order + 1)) {
            different.insert(ngram);
            num += 1;
        }
        if num == 0 { 0.0 } else { different.len() as f64 / num as f64 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_ngrams_count_once() {
        // 1 2 3 | 1 2: unigrams 3 of 5, bigrams (1 2)(2 3)(1 2) 2 of 3, trigrams 1 of 1, none of four.
        assert_eq!(distinct_ngrams(&[vec![1, 2, 3], vec![1, 2]]), [0.6, 2.0 / 3.0, 1.0, 0.0]);
        assert_eq!(distinct_ngrams(&[]), [0.0; MAX_ORDER]);
    }

    #[test]
    fn texts_may_come_in_any_order_and_ngrams_do_not_cross_them() {
        let texts = [vec![1, 2], vec![2, 1], vec![1, 1]];
        let turned = [vec![1, 1], vec![1, 2], vec![2, 1]];
        assert_eq!(distinct_ngrams(&texts), distinct_ngrams(&turned));
        assert_eq!(distinct_ngrams(&texts)[2], 0.0);
    }
}
