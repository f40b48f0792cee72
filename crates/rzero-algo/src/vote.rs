//! The majority vote over the Solver's answers to one question: pseudo-label, vote share and everything the label follows from.
//!
//! Departures from the released code (R-Zero at 5699329); the paper (arXiv 2508.05004, section 3) leaves these points open:
//!
//! 1. An answer that could not be read does not vote. It stays in the denominator of the vote share. The released code lets such
//!    answers vote together as the text "None", so that "None" can win.
//! 2. Classes are classes of an equivalence relation, hence independent of the order of the answers. The released code compares
//!    greedily with whichever class it meets first.
//! 3. Ties have a rule: more votes, then the shorter canonical form (bytes), then the smaller one in byte order. The released code
//!    takes whichever answer came first, so the label depends on row order.
//! 4. One denominator everywhere, `num_samples`: the reward and the label of a question cannot disagree about its share. The
//!    released code takes 10 answers for the reward and 9 for the label.
//! 5. No special cases: an answer may have one character, be 0, or hold any word, and it votes.
//! 6. Beyond the label: margin, entropy, parse failures, truncations and every class with its count are kept.

use crate::equivalence::{classes, equivalent};
use rzero_schema::vocab::AnswerStatus;
use std::collections::BTreeMap;

/// One sample's answer as the vote sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ballot<'a> {
    /// What became of the answer. Only [`AnswerStatus::Parsed`] votes.
    pub status: AnswerStatus,
    /// Canonical form; a ballot without one does not vote.
    pub answer: Option<&'a str>,
}

/// Equal answers and how many gave them.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerClass {
    /// Canonical form that stands for the class: the first of its members by the tie rule.
    pub answer: String,
    /// Votes.
    pub count: u32,
    /// What they weigh; as much as there are where all weigh the same.
    pub weight: f64,
}

/// Outcome of a vote.
#[derive(Clone, Debug, PartialEq)]
pub struct VoteOutcome {
    /// The majority answer; nothing where no answer could be read.
    pub pseudo_label: Option<String>,
    /// Ballots.
    pub num_samples: u32,
    /// Ballots that voted.
    pub num_parsed: u32,
    /// Ballots whose completion hit the length limit.
    pub num_truncated: u32,
    /// `p = first / num_samples`, of the classes' weights; 0 without ballots.
    pub vote_share: f64,
    /// `(first - second) / num_samples`; `second` is 0 where there is one class.
    pub margin: f64,
    /// `-sum_c q_c ln q_c` in nats, `q_c` the share of class c in the weight of the ballots that voted; 0 where none did.
    pub vote_entropy: f64,
    /// Every class, by the tie rule: the first is the majority.
    pub classes: Vec<AnswerClass>,
    /// Index into `classes` of each ballot, in ballot order; nothing where it did not vote.
    pub class_of_sample: Vec<Option<u32>>,
}

impl VoteOutcome {
    /// Whether the majority's class has the most votes, shared or not, among the first `num_first` ballots and among the others: two Solvers,
    /// one answer. Never where nothing could be read, or where a part has no vote.
    #[must_use]
    pub fn is_agreed(&self, num_first: usize) -> bool {
        let (first, others) = self.class_of_sample.split_at(num_first.min(self.class_of_sample.len()));
        [first, others].iter().all(|part| {
            let mut counts = vec![0_u32; self.classes.len()];
            part.iter().flatten().for_each(|class| counts[*class as usize] += 1);
            counts.first().is_some_and(|most| *most > 0 && counts.iter().all(|count| count <= most))
        })
    }
}

impl VoteOutcome {
    /// The same answers under a label that is known from elsewhere, as a canonical form: its class comes first, with no vote where nobody gave it;
    /// vote share and margin are its own, so that a margin may be negative. Without a form there is no label.
    #[must_use]
    pub fn with_label(mut self, form: Option<&str>) -> Self {
        let Some(form) = form else {
            let classes = std::mem::take(&mut self.classes);
            return Self { pseudo_label: None, vote_share: 0.0, margin: 0.0, classes, ..self };
        };
        let at = self.classes.iter().position(|class| equivalent(&class.answer, form)).unwrap_or_else(|| {
            self.classes.push(AnswerClass { answer: form.to_owned(), count: 0, weight: 0.0 });
            self.classes.len() - 1
        });
        self.classes[..=at].rotate_right(1);
        for class in self.class_of_sample.iter_mut().flatten() {
            *class = match (*class as usize).cmp(&at) {
                std::cmp::Ordering::Less => *class + 1,
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Greater => *class,
            };
        }
        let others = self.classes[1..].iter().map(|class| class.weight).fold(0.0, f64::max);
        let share = |weight: f64| if self.num_samples == 0 { 0.0 } else { weight / f64::from(self.num_samples) };
        self.vote_share = share(self.classes[0].weight);
        self.margin = share(self.classes[0].weight - others);
        self.pseudo_label = Some(self.classes[0].answer.clone());
        self
    }
}

/// Counts the ballots of one question.
#[must_use]
pub fn vote(ballots: &[Ballot]) -> VoteOutcome {
    weighted_vote(ballots, None)
}

/// Counts the ballots of one question, each by a weight of its own where there are any.
///
/// Weights are scaled so that those of the ballots that vote are 1 on average: an unreadable answer keeps its part in the denominator, and weights
/// that are all the same change nothing. Negative weights count as 0, and so does a missing one; where all are 0, all count the same.
#[must_use]
pub fn weighted_vote(ballots: &[Ballot], weights: Option<&[f64]>) -> VoteOutcome {
    let votes: Vec<Option<&str>> =
        ballots.iter().map(|ballot| if ballot.status == AnswerStatus::Parsed { ballot.answer } else { None }).collect();

    let answers: Vec<&str> = votes.iter().flatten().copied().collect();
    let mut class_of_answer = classes(&answers).into_iter();
    let class_of_vote: Vec<Option<usize>> = votes.iter().map(|vote| vote.and_then(|_| class_of_answer.next())).collect();

    let given = |at: usize| weights.and_then(|weights| weights.get(at)).map_or(0.0, |weight| weight.max(0.0));
    let sum: f64 = (0..votes.len()).filter(|at| votes[*at].is_some()).map(given).sum();
    let scale = if sum > 0.0 && sum.is_finite() { Some(answers.len() as f64 / sum) } else { None };
    let weight_of = |at: usize| scale.map_or(1.0, |scale| scale * given(at));

    // Each class with the answer to show for it, its votes and their weight.
    let mut counted: BTreeMap<usize, (&str, u32, f64)> = BTreeMap::new();
    for (at, (answer, class)) in votes.iter().zip(&class_of_vote).enumerate() {
        let (Some(answer), Some(class)) = (*answer, *class) else { continue };
        let class = counted.entry(class).or_insert((answer, 0, 0.0));
        class.1 += 1;
        class.2 += weight_of(at);
        if (answer.len(), answer) < (class.0.len(), class.0) {
            class.0 = answer;
        }
    }

    let mut ranked: Vec<(usize, &str, u32, f64)> =
        counted.into_iter().map(|(class, (answer, count, weight))| (class, answer, count, weight)).collect();
    ranked.sort_by(|left, right| (right.3.total_cmp(&left.3)).then(left.1.len().cmp(&right.1.len())).then(left.1.cmp(right.1)));
    let rank_of: BTreeMap<usize, u32> = ranked.iter().zip(0_u32..).map(|(class, rank)| (class.0, rank)).collect();
    let class_of_sample = class_of_vote.iter().map(|class| class.and_then(|class| rank_of.get(&class).copied())).collect();

    let num_samples = count_u32(ballots.len());
    let num_parsed = count_u32(votes.iter().flatten().count());
    let num_truncated = count_u32(ballots.iter().filter(|ballot| ballot.status == AnswerStatus::Truncated).count());
    let first = ranked.first().map_or(0.0, |class| class.3);
    let second = ranked.get(1).map_or(0.0, |class| class.3);
    let share = |weight: f64| {
        if num_samples == 0 { 0.0 } else { weight / f64::from(num_samples) }
    };
    let vote_entropy = ranked
        .iter()
        .map(|class| {
            let part = class.3 / f64::from(num_parsed);
            if part > 0.0 { part * part.recip().ln() } else { 0.0 }
        })
        .sum::<f64>();

    VoteOutcome {
        pseudo_label: ranked.first().map(|class| class.1.to_owned()),
        num_samples,
        num_parsed,
        num_truncated,
        vote_share: share(first),
        margin: share(first - second),
        // Adding 0 turns the -0 of an empty sum into 0.
        vote_entropy: vote_entropy + 0.0,
        classes: ranked.iter().map(|class| AnswerClass { answer: class.1.to_owned(), count: class.2, weight: class.3 }).collect(),
        class_of_sample,
    }
}

fn count_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(answer: &str) -> Ballot<'_> {
        Ballot { status: AnswerStatus::Parsed, answer: Some(answer) }
    }

    const TRUNCATED: Ballot<'static> = Ballot { status: AnswerStatus::Truncated, answer: None };
    const NO_BOX: Ballot<'static> = Ballot { status: AnswerStatus::NoBox, answer: None };

    #[test]
    fn the_majority_labels_and_all_samples_divide() {
        let outcome = vote(&[parsed("7"), NO_BOX, parsed("8"), parsed("7"), TRUNCATED, parsed("9"), parsed("7"), NO_BOX]);
        assert_eq!(outcome.pseudo_label.as_deref(), Some("7"));
        assert_eq!((outcome.num_samples, outcome.num_parsed, outcome.num_truncated), (8, 5, 1));
        assert_eq!(outcome.vote_share, 3.0 / 8.0);
        assert_eq!(outcome.margin, 2.0 / 8.0);
        let expected_entropy = -(0.6_f64 * 0.6_f64.ln() + 2.0 * 0.2 * 0.2_f64.ln());
        assert!((outcome.vote_entropy - expected_entropy).abs() < 1e-15);
        let classes: Vec<(&str, u32)> = outcome.classes.iter().map(|class| (class.answer.as_str(), class.count)).collect();
        assert_eq!(classes, [("7", 3), ("8", 1), ("9", 1)]);
        assert_eq!(outcome.class_of_sample, [Some(0), None, Some(1), Some(0), None, Some(2), Some(0), None]);
    }

    #[test]
    fn weights_decide_and_unreadable_answers_keep_their_part() {
        let ballots = [parsed("7"), parsed("7"), parsed("8"), NO_BOX];
        let outcome = weighted_vote(&ballots, Some(&[0.1, 0.2, 0.6, 9.0]));
        assert_eq!(outcome.pseudo_label.as_deref(), Some("8"));
        // 0.9 in all, scaled to the three that vote.
        assert!((outcome.vote_share - 2.0 / 4.0).abs() < 1e-12 && (outcome.margin - 1.0 / 4.0).abs() < 1e-12);
        assert_eq!(outcome.class_of_sample, [Some(1), Some(1), Some(0), None]);
        for equal in [[0.3; 4], [0.0; 4], [-1.0; 4], [f64::NAN; 4]] {
            let outcome = weighted_vote(&ballots, Some(&equal));
            assert_eq!((outcome.pseudo_label.as_deref(), outcome.vote_share), (Some("7"), 0.5), "{equal:?}");
        }
    }

    #[test]
    fn a_label_from_elsewhere_comes_first_and_has_its_own_share() {
        let outcome = || vote(&[parsed("7"), parsed("8"), parsed("8"), NO_BOX, parsed("9")]);
        let known = outcome().with_label(Some("9"));
        let classes: Vec<(&str, u32)> = known.classes.iter().map(|class| (class.answer.as_str(), class.count)).collect();
        assert_eq!(classes, [("9", 1), ("8", 2), ("7", 1)]);
        assert_eq!(known.class_of_sample, [Some(2), Some(1), Some(1), None, Some(0)]);
        assert_eq!((known.pseudo_label.as_deref(), known.vote_share, known.margin), (Some("9"), 0.2, -0.2));
        let nobody = outcome().with_label(Some("5"));
        assert_eq!((nobody.pseudo_label.as_deref(), nobody.vote_share, nobody.classes.len()), (Some("5"), 0.0, 4));
        assert_eq!(nobody.class_of_sample[1], Some(1));
        assert_eq!(outcome().with_label(None).pseudo_label, None);
        assert_eq!(outcome().with_label(Some("8")), outcome());
    }

    #[test]
    fn missing_answers_never_win() {
        let outcome = vote(&[NO_BOX, NO_BOX, NO_BOX, NO_BOX, parsed("text:none")]);
        assert_eq!(outcome.pseudo_label.as_deref(), Some("text:none"));
        assert_eq!(outcome.vote_share, 0.2);
    }

    #[test]
    fn two_solvers_agree_where_the_majority_leads_in_the_answers_of_each() {
        let agreed = |answers: &[&str], num_first| {
            let ballot = |answer: &&'static str| Ballot { status: AnswerStatus::Parsed, answer: Some(*answer) };
            let answers: Vec<&'static str> =
                answers.iter().map(|answer| -> &'static str { Box::leak((*answer).to_owned().into()) }).collect();
            vote(&answers.iter().map(ballot).collect::<Vec<_>>()).is_agreed(num_first)
        };
        assert!(agreed(&["7", "7", "8", "7", "7", "9"], 3));
        // The majority is 7 by the first Solver alone.
        assert!(!agreed(&["7", "7", "7", "8", "8", "7"], 3));
        // A shared lead is a lead.
        assert!(agreed(&["7", "7", "7", "8", "7", "8", "7"], 3));
        // A part without a vote agrees to nothing.
        assert!(!agreed(&["7", "7", "7"], 3));
        assert!(!vote(&[]).is_agreed(0));
    }

    #[test]
    fn without_a_readable_answer_there_is_no_label() {
        let outcome = vote(&[NO_BOX, TRUNCATED]);
        assert_eq!(outcome.pseudo_label, None);
        assert_eq!((outcome.vote_share, outcome.margin), (0.0, 0.0));
        assert!(outcome.classes.is_empty());
        let empty = vote(&[]);
        assert_eq!((empty.num_samples, empty.vote_share), (0, 0.0));
        assert!(empty.vote_entropy.is_sign_positive() && empty.vote_entropy == 0.0);
    }

    #[test]
    fn a_form_beside_a_failed_status_does_not_vote() {
        let torn = Ballot { status: AnswerStatus::Truncated, answer: Some("3") };
        let missing = Ballot { status: AnswerStatus::Parsed, answer: None };
        let outcome = vote(&[torn, missing, parsed("4")]);
        assert_eq!((outcome.pseudo_label.as_deref(), outcome.num_parsed), (Some("4"), 1));
    }

    #[test]
    fn ties_go_to_the_shorter_then_the_smaller_form() {
        let label = |answers: &[&str]| vote(&answers.iter().map(|a| parsed(a)).collect::<Vec<_>>()).pseudo_label;
        assert_eq!(label(&["12", "9"]).as_deref(), Some("9"));
        assert_eq!(label(&["9", "8"]).as_deref(), Some("8"));
        assert_eq!(label(&["8", "12", "9", "12"]).as_deref(), Some("12"));
    }

    proptest! {
        #[test]
        fn row_order_changes_nothing_but_the_row_order(
            answers in prop::collection::vec((0_u8..6, "[0-3]{1,2}"), 0..24),
            seed: u64,
        ) {
            let ballots: Vec<Ballot> = answers
                .iter()
                .map(|(kind, answer)| match kind {
                    0 => NO_BOX,
                    1 => TRUNCATED,
                    _ => parsed(answer),
                })
                .collect();
            let key = crate::seed::StreamKey {
                run_seed: seed, iteration: 1, phase: rzero_schema::vocab::Phase::Solver, step: 1, row: 0, sample: 0,
            };
            let order = crate::seed::permutation(ballots.len(), &mut crate::seed::random_stream("shuffle", &key));
            let shuffled: Vec<Ballot> = order.iter().map(|&row| ballots[row]).collect();
            let (before, after) = (vote(&ballots), vote(&shuffled));
            let classes_after: Vec<_> = order.iter().map(|&row| before.class_of_sample[row]).collect();
            prop_assert_eq!(&after.class_of_sample, &classes_after);
            prop_assert_eq!(VoteOutcome { class_of_sample: Vec::new(), ..before }, VoteOutcome { class_of_sample: Vec::new(), ..after });
        }

        #[test]
        fn counts_add_up(answers in prop::collection::vec("[0-3]{1,2}", 1..30)) {
            let ballots: Vec<Ballot> = answers.iter().map(|answer| parsed(answer)).collect();
            let outcome = vote(&ballots);
            prop_assert_eq!(outcome.classes.iter().map(|class| class.count).sum::<u32>(), outcome.num_parsed);
            prop_assert!(outcome.margin <= outcome.vote_share && outcome.vote_share <= 1.0);
            prop_assert!(outcome.vote_entropy >= 0.0);
            prop_assert_eq!(outcome.pseudo_label, outcome.classes.first().map(|class| class.answer.clone()));
        }
    }
}
