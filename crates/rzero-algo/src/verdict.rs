//! Verdicts: what a Verifier's completion says of an answer, how several of them add up, and what a verdict is rewarded with.
//!
//! A verdict is a whole number from 0 (wrong, poor) to the highest score of the profile (right, excellent); divided by that score it lies in
//! 0..=1 and reads as the probability that the answer is right.
//!
//! ```text
//! s    = the mean of the verdicts on an answer
//! r(s) = 1 - (s - t)^2      towards a target t: 1 for an answer that agrees with the consensus, 0 for one that does not
//!      or 1 - |s - t|
//! ```
//!
//! A Verifier that answers by itself gives each answer to the question a verdict of 1 where it came to the same, and of 0 where it did not. Of a pair it
//! earns 1 for the consensus, 0 for the other answer, and 1/2 for any third: it is right about one of the two.
//!
//! The first is the quadratic scoring rule (Brier, 1950): its expectation is largest where the score is the probability of the target, so a
//! Verifier gains nothing by being surer than it can know. One that cannot tell right from wrong yet is drawn to the mean of the targets, though, and once
//! all its verdicts are the same nothing is learned any more. The linear rule has no such middle: without knowledge every score earns the same, and what
//! little is known pays at once; its best reply is 0 or 1, no probability. Where there is no consensus the target of a verdict is the mean of the
//! verdicts on the same answer: self-consistency.

use rzero_schema::vocab::ScoringRule;

/// Reads a verdict: the whole number in the last box; without a box, the completion up to the first closing brace, so that a prompt may
/// open the box itself. Returns its share of the highest score; nothing where there is no such number.
#[must_use]
pub fn read_verdict(completion: &str, max_score: u32) -> Option<f64> {
    let behind = completion.rsplit_once("\\boxed{").map_or(completion, |(_, behind)| behind);
    let number = behind.split('}').next().unwrap_or_default().trim();
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let score: u32 = is_number.then(|| number.parse().ok()).flatten()?;
    (score <= max_score && max_score > 0).then(|| f64::from(score) / f64::from(max_score))
}

/// What several verdicts on one answer come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// Their mean.
    pub score: f64,
    /// Share of them on the side of one half that most are on; one of exactly one half is on both.
    pub agreement: f64,
}

/// Adds up the verdicts on one answer; nothing where none could be read.
#[must_use]
pub fn judge(scores: &[f64]) -> Option<Judged> {
    let number = scores.len() as f64;
    let share = |is_it: fn(f64) -> bool| scores.iter().filter(|score| is_it(**score)).count() as f64 / number;
    (!scores.is_empty()).then(|| Judged {
        score: scores.iter().sum::<f64>() / number,
        agreement: share(|score| score >= 0.5).max(share(|score| score <= 0.5)),
    })
}

/// The reward of a verdict towards a target, in 0..=1. One that cannot be read gets what the surest wrong one gets, 0.
#[must_use]
pub fn verifier_reward(score: Option<f64>, target: f64, rule: ScoringRule) -> f64 {
    let distance = score.map_or(1.0, |score| (score - target).abs());
    match rule {
        ScoringRule::Quadratic => 1.0 - distance.powi(2),
        ScoringRule::Linear => 1.0 - distance,
    }
}

/// What the Solver earns for an answer by the Verifier's mean verdict on it; 0 where there is none.
///
/// ```text
/// r = s - a |y| / L - b c(y)      |y| tokens of L, c(y) the share of the answer that is copied from the question
/// ```
#[must_use]
pub fn verdict_reward(score: Option<f64>, length_share: f64, copied: f64, length_penalty: f64, copy_penalty: f64) -> f64 {
    score.map_or(0.0, |score| score - length_penalty * length_share - copy_penalty * copied)
}

/// Characters of a piece that counts as copied.
const COPIED: usize = 12;

/// The share of an answer's pieces of twelve characters that stand in the question as well.
#[must_use]
pub fn copied_share(question: &str, answer: &str) -> f64 {
    let pieces = |text: &str| -> Vec<String> {
        let characters: Vec<char> = text.chars().collect();
        characters.windows(COPIED).map(|piece| piece.iter().collect()).collect()
    };
    let of_question: std::collections::HashSet<String> = pieces(question).into_iter().collect();
    let of_answer = pieces(answer);
    let copied = of_answer.iter().filter(|piece| of_question.contains(*piece)).count();
    copied as f64 / of_answer.len().max(1) as f64
}

/// The first half of a response, by characters: it has lost its answer.
#[must_use]
pub fn truncated(response: &str) -> String {
    response.chars().take(response.chars().count() / 2).collect()
}

/// A response with its characters in another order, which `order` gives: it says nothing any more.
#[must_use]
pub fn shuffled(response: &str, order: impl FnOnce(usize) -> Vec<usize>) -> String {
    let characters: Vec<char> = response.chars().collect();
    order(characters.len()).into_iter().filter_map(|at| characters.get(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_verdict_is_a_number_in_a_box_or_what_stands_before_its_end() {
        for (text, score) in [
            ("\\boxed{9}", Some(1.0)),
            ("It is good: \\boxed{0} no, \\boxed{ 3 }.", Some(1.0 / 3.0)),
            ("0}", Some(0.0)),
            ("9", Some(1.0)),
            ("10", None),
            ("", None),
            ("}", None),
            ("-3", None),
            ("4.5", None),
            ("99999999999999999999", None),
            ("nine", None),
        ] {
            assert_eq!(read_verdict(text, 9), score, "{text}");
        }
        assert_eq!(read_verdict("0", 0), None);
    }

    #[test]
    fn what_is_long_or_copied_earns_less() {
        assert_eq!(verdict_reward(Some(0.75), 0.5, 1.0, 0.5, 0.25), 0.25);
        assert_eq!(verdict_reward(None, 0.5, 1.0, 0.5, 0.25), 0.0);
        assert_eq!(copied_share("a lamp of brass, 30 cm high", "a lamp of brass, 30 cm high"), 1.0);
        assert_eq!(copied_share("a lamp of brass, 30 cm high", "Warm light for every desk"), 0.0);
        assert_eq!(copied_share("short", "short"), 0.0);
        let half = copied_share("abcdefghijklmnop", "abcdefghijklmnopABCDEFGHIJKLMNOP");
        assert!(half > 0.2 && half < 0.3, "{half}");
    }

    #[test]
    fn verdicts_add_up() {
        assert_eq!(judge(&[]), None);
        assert_eq!(judge(&[1.0, 1.0, 0.0, 1.0]), Some(Judged { score: 0.75, agreement: 0.75 }));
        assert_eq!(judge(&[0.5, 0.5]), Some(Judged { score: 0.5, agreement: 1.0 }));
    }

    #[test]
    fn the_quadratic_reward_is_largest_at_the_probability_of_the_target_and_the_linear_one_at_an_end() {
        for rule in ScoringRule::ALL.iter().copied() {
            let earned = [Some(1.0), Some(0.0), None].map(|score| verifier_reward(score, 1.0, rule));
            assert_eq!(earned, [1.0, 0.0, 0.0], "{rule}");
        }
        let expected = |score: f64, share: f64, rule| {
            share * verifier_reward(Some(score), 1.0, rule) + (1.0 - share) * verifier_reward(Some(score), 0.0, rule)
        };
        let scores = || (0..=10).map(|tenths| f64::from(tenths) / 10.0);
        let best = |rule| scores().max_by(|a, b| expected(*a, 0.7, rule).total_cmp(&expected(*b, 0.7, rule)));
        assert_eq!([ScoringRule::Quadratic, ScoringRule::Linear].map(best), [Some(0.7), Some(1.0)]);
        // Where nothing is known, the linear rule draws nowhere.
        assert!(scores().all(|score| (expected(score, 0.5, ScoringRule::Linear) - 0.5).abs() < 1e-12));
    }

    proptest! {
        #[test]
        fn hostile_text_is_read_without_panic(text: String, max_score: u32) {
            if let Some(score) = read_verdict(&text, max_score) {
                prop_assert!((0.0..=1.0).contains(&score));
            }
        }

        #[test]
        fn corrupted_responses_keep_their_characters(text: String) {
            let reversed = shuffled(&text, |count| (0..count).rev().collect());
            prop_assert_eq!(reversed.chars().rev().collect::<String>(), text.clone());
            prop_assert!(text.starts_with(&truncated(&text)));
        }
    }
}
