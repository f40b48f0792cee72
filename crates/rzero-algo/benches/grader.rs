//! Pairs a second of the grader.

fn main() {}
