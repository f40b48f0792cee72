//! The exact domain: integer expressions of `+`, `-`, `*` and parentheses, whose answers can be computed.
//!
//! Nothing here labels training data; self-play does not see these answers. They serve the synthetic corpus of the base model, the
//! held-out ladder, the rule that a question must parse, and the measure of how true the pseudo-labels are.

mod corpus;
mod expression;
mod words;

pub use corpus::{is_held_out, random_expression, with_slip, worked_lines, worked_text};
pub use expression::{Expression, MAX_DEPTH, MAX_DIGITS, MAX_LENGTH, MAX_MAGNITUDE, Operator, parse, reduction_steps};
pub use words::true_answer;
