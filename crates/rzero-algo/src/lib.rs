//! The pure mathematics of self-play: reading answers, voting, rewards, advantages, the curriculum, scores, and the exact
//! arithmetic domain.
//!
//! Functions take slices and return values. Nothing here opens a file, reads a clock, or knows what a table or a tensor is.
//! Text comes from a language model and is treated as hostile: every function returns on every input, in time linear in the
//! text (quadratic in the number of questions where questions are compared pairwise), and never panics. Equal inputs and equal
//! seeds give equal results, whatever the number of threads.

pub mod advantage;
mod algebra;
pub mod answer;
pub mod arithmetic;
pub mod choice;
pub mod curriculum;
pub mod diversity;
pub mod domain;
pub mod equivalence;
pub mod labeller;
pub mod normalize;
pub mod program;
pub mod repetition;
pub mod reward;
pub mod score;
pub mod seed;
pub mod verdict;
pub mod vote;
