//! Sequences laid end to end, a beginning that several share laid down once.
//!
//! A segment is a run of rows that follow one another. It may continue other segments: what it attends to is their rows and then its own. So
//! the answers to one question share the rows of its prompt, and prompts that begin alike (worked examples, say) share those of the beginning:
//!
//! ```text
//! root: what all prompts begin with -> rest of one prompt -> its completions, a segment each
//! ```
//!
//! The loss and its gradient are those of the sequences laid out one by one, but for rounding. Beginnings of fewer than
//! [`MIN_SHARED`] tokens are not shared: there the smaller products cost more than the rows.

use std::ops::Range;

/// Least number of tokens worth sharing.
pub const MIN_SHARED: usize = 32;

/// Rows that follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its rows within the packed tokens.
    pub rows: Range<usize>,
    /// Rows that precede them, outermost first.
    pub past: Vec<Range<usize>>,
}

impl Segment {
    /// Position of its first row within the whole sequence.
    #[must_use]
    pub fn first_position(&self) -> usize {
        self.past.iter().map(ExactSizeIterator::len).sum()
    }

    /// Positions from the beginning of the sequence to the end of this segment.
    #[must_use]
    pub fn end_position(&self) -> usize {
        self.first_position() + self.rows.len()
    }
}

/// Sequences laid end to end, and which next tokens are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedSequences {
    /// All tokens. // (N)
    pub tokens: Vec<u32>,
    /// Segments in the order of their rows, without gaps; a segment lies behind those it continues.
    pub segments: Vec<Segment>,
    /// Rows whose next token is asked for; the last row of a shared prompt stands here once a completion. // (M)
    pub rows: Vec<u32>,
    /// The token that follows each of them. // (M)
    pub targets: Vec<u32>,
}

impl PackedSequences {
    /// Appends a prompt and its completion, asking for every completion token, and shares nothing.
    pub fn push(&mut self, prompt: &[u32], completion: &[u32]) {
        self.push_segment(&[], prompt, completion);
    }

    /// Lays out sequences of (prompt, completion) in order, beginnings shared.
    #[must_use]
    pub fn shared(sequences: &[(&[u32], &[u32])]) -> Self {
        let mut packed = Self::default();
        let root = SharedSize::of(sequences).root;
        let past: Vec<Range<usize>> = match sequences.first() {
            Some((prompt, _)) if root > 0 => vec![packed.push_rows(&[], &prompt[..root])],
            _ => Vec::new(),
        };
        for group in sequences.chunk_by(|(left, _), (right, _)| left == right) {
            let prompt = group[0].0;
            let rest = &prompt[root..];
            let mut past = past.clone();
            let is_shared = group.len() > 1 && prompt.len() >= MIN_SHARED;
            if is_shared && !rest.is_empty() {
                past.push(packed.push_rows(&past, rest));
            }
            for (_, completion) in group {
                packed.push_segment(&past, if is_shared { &[] } else { rest }, completion);
            }
        }
        packed
    }

    /// Positions of the longest sequence.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.segments.iter().map(Segment::end_position).max().unwrap_or(0)
    }

    fn push_rows(&mut self, past: &[Range<usize>], tokens: &[u32]) -> Range<usize> {
        let rows = self.tokens.len()..self.tokens.len() + tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.segments.push(Segment { rows: rows.clone(), past: past.to_vec() });
        rows
    }

    fn push_segment(&mut self, past: &[Range<usize>], prompt: &[u32], completion: &[u32]) {
        let start = self.tokens.len();
        let mut previous = match prompt {
            [] => past.last().map(|rows| rows.end - 1),
            _ => Some(start + prompt.len() - 1),
        };
        self.push_rows(past, &[prompt, completion].concat());
        for (index, token) in completion.iter().enumerate() {
            // Without a prompt the first token follows nothing and cannot be asked for.
            if let Some(row) = previous {
                self.rows.push(row as u32);
                self.targets.push(*token);
            }
            previous = Some(start + prompt.len() + index);
        }
    }
}

/// How many rows sequences take when beginnings are shared, kept up to date one sequence at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharedSize {
    /// Tokens of the beginning that all share.
    root: usize,
    /// Different prompts in a row.
    num_groups: usize,
    /// Rows of prompts and completions, the root counted in every group.
    rows: usize,
}

impl SharedSize {
    /// The size of these sequences.
    #[must_use]
    pub fn of(sequences: &[(&[u32], &[u32])]) -> Self {
        let mut size = Self::default();
        for (index, (prompt, completion)) in sequences.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| (sequences[0].0, sequences[before].0));
            size = size.with(before, prompt, completion.len());
        }
        size
    }

    /// The size with one more sequence; `before` holds the prompts of the first sequence and of the one before.
    #[must_use]
    pub fn with(self, before: Option<(&[u32], &[u32])>, prompt: &[u32], num_completion: usize) -> Self {
        let Some((first, last)) = before else {
            let root = if prompt.len() >= MIN_SHARED { prompt.len() } else { 0 };
            return Self { root, num_groups: 1, rows: prompt.len() + num_completion };
        };
        let common = first.iter().zip(prompt).take_while(|(left, right)| left == right).count();
        let root = if common >= MIN_SHARED { self.root.min(common) } else { 0 };
        if last == prompt && prompt.len() >= MIN_SHARED {
            return Self { root, rows: self.rows + num_completion, ..self };
        }
        Self { root, num_groups: self.num_groups + 1, rows: self.rows + prompt.len() + num_completion }
    }

    /// Rows in all.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.rows - self.root * self.num_groups.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tokens of every asked position's sequence up to it, and the target: what packing must not change.
    fn questions(packed: &PackedSequences) -> Vec<(Vec<u32>, u32)> {
        let path = |row: usize| {
            let segment = packed.segments.iter().find(|segment| segment.rows.contains(&row)).expect("every row has a segment");
            let past = segment.past.iter().flat_map(|rows| packed.tokens[rows.clone()].iter());
            past.chain(&packed.tokens[segment.rows.start..=row]).copied().collect::<Vec<u32>>()
        };
        packed.rows.iter().zip(&packed.targets).map(|(row, target)| (path(*row as usize), *target)).collect()
    }

    #[test]
    fn the_answers_to_a_question_share_its_rows_and_questions_share_their_beginning() {
        let examples: Vec<u32> = (0..40).collect();
        let prompt = |end: u32| [examples.as_slice(), &[50 + end, 60 + end]].concat();
        let (first, second) = (prompt(0), prompt(1));
        let completions: Vec<Vec<u32>> = (0..5).map(|at| vec![70 + at; 3]).collect();
        let sequences: Vec<(&[u32], &[u32])> = completions
            .iter()
            .enumerate()
            .map(|(at, completion)| (if at < 3 { first.as_slice() } else { second.as_slice() }, completion.as_slice()))
            .collect();
        let packed = PackedSequences::shared(&sequences);
        assert_eq!(packed.tokens.len(), 40 + 2 * 2 + 5 * 3);
        assert_eq!(SharedSize::of(&sequences).num_rows(), packed.tokens.len());
        assert_eq!(packed.longest(), 45);
        assert_eq!(packed.segments[2].past, vec![0..40, 40..42]);
    }

    proptest! {
        #[test]
        fn sharing_changes_no_question(groups in prop::collection::vec((0usize..90, 0u32..3, prop::collection::vec(1usize..4, 1..4)), 1..5)) {
            let prompts: Vec<Vec<u32>> =
                groups.iter().map(|(length, end, _)| (0..=*length as u32).chain([100 + end]).collect()).collect();
            let completions: Vec<Vec<Vec<u32>>> =
                groups.iter().map(|(_, end, lengths)| lengths.iter().map(|length| vec![200 + end; *length]).collect()).collect();
            let sequences: Vec<(&[u32], &[u32])> = prompts
                .iter()
                .zip(&completions)
                .flat_map(|(prompt, all)| all.iter().map(move |completion| (prompt.as_slice(), completion.as_slice())))
                .collect();
            let shared = PackedSequences::shared(&sequences);
            let mut plain = PackedSequences::default();
            sequences.iter().for_each(|(prompt, completion)| plain.push(prompt, completion));
            prop_assert_eq!(questions(&shared), questions(&plain));
            prop_assert_eq!(shared.longest(), plain.longest());
            prop_assert_eq!(SharedSize::of(&sequences).num_rows(), shared.tokens.len());
        }
    }
}
