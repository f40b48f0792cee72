//! How much an answer weighs in the vote, by what is known of it besides what it says.
//!
//! ```text
//! majority            w_i = 1
//! self_certainty      w_i = n - r_i + 1,   r_i the rank of the answer's self-certainty, the highest first
//! entropy             the same, by the lowest mean entropy first
//! verifier_weighted   w_i = the Verifier's mean verdict on the answer
//! ```
//!
//! Ranks are taken among the answers that vote (Borda voting with p = 1, arXiv 2502.18581); equal figures share the mean of their ranks, so
//! that the order of answers decides nothing. An answer of which the figure is not known ranks last.

use rzero_schema::vocab::Labeller;

/// The weights of a question's answers; nothing where all weigh the same. `figures` holds of each answer what the labeller asks for, and `None`
/// where it is not known; `votes` says which answers vote.
#[must_use]
pub fn weights(labeller: Labeller, figures: &[Option<f64>], votes: &[bool]) -> Option<Vec<f64>> {
    match labeller {
        Labeller::Majority | Labeller::Executor => None,
        Labeller::SelfCertainty => Some(by_rank(figures, votes)),
        Labeller::Entropy => Some(by_rank(&figures.iter().map(|figure| figure.map(|figure| -figure)).collect::<Vec<_>>(), votes)),
        Labeller::VerifierWeighted => {
            // Where the Verifier said nothing of any, all weigh the same; beside others, an answer it said nothing of weighs nothing.
            let is_judged = figures.iter().zip(votes).any(|(figure, votes)| *votes && figure.is_some());
            is_judged.then(|| figures.iter().map(|figure| figure.unwrap_or(0.0)).collect())
        }
    }
}

/// n for the highest figure, 1 for the lowest.
fn by_rank(figures: &[Option<f64>], votes: &[bool]) -> Vec<f64> {
    let figure = |at: usize| figures[at].filter(|figure| !figure.is_nan()).unwrap_or(f64::NEG_INFINITY);
    let voting: Vec<usize> = (0..figures.len()).filter(|at| votes[*at]).collect();
    let weight = |at: usize| {
        let lower = voting.iter().filter(|other| figure(**other) < figure(at)).count();
        let equal = voting.iter().filter(|other| figure(**other) == figure(at)).count();
        // Ranks lower + 1 to lower + equal, of which the mean.
        lower as f64 + (equal as f64 + 1.0) / 2.0
    };
    (0..figures.len()).map(|at| if votes[at] { weight(at) } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_weighs_by_its_rank_among_those_that_vote() {
        let figures = [Some(2.0), Some(5.0), None, Some(2.0), Some(9.0)];
        let votes = [true, true, true, true, false];
        assert_eq!(weights(Labeller::Majority, &figures, &votes), None);
        assert_eq!(weights(Labeller::SelfCertainty, &figures, &votes), Some(vec![2.5, 4.0, 1.0, 2.5, 0.0]));
        assert_eq!(weights(Labeller::Entropy, &figures, &votes), Some(vec![3.5, 2.0, 1.0, 3.5, 0.0]));
    }

    #[test]
    fn the_verifier_weighs_by_its_verdict_where_it_gave_any() {
        assert_eq!(weights(Labeller::VerifierWeighted, &[Some(0.5), None], &[true, true]), Some(vec![0.5, 0.0]));
        assert_eq!(weights(Labeller::VerifierWeighted, &[None, None], &[true, true]), None);
        assert_eq!(weights(Labeller::VerifierWeighted, &[Some(0.5), None], &[false, true]), None);
    }
}
