//! Programs as questions: what a small program returns is the answer, and an interpreter knows it (Absolute Zero, arXiv 2505.03335).
//!
//! The language is Rhai. A program is hostile text: it has no files, no clock, no other modules and no `eval`, and it is stopped at fixed bounds of
//! work, depth and size, so that every run ends soon and equal programs return equal values. What it prints is thrown away.

use rhai::{Dynamic, Engine};

/// Operations that a program may take: about a millisecond.
const MAX_OPERATIONS: u64 = 20_000;
/// Depth of calls.
const MAX_CALLS: usize = 16;
/// Depth of expressions, outside and inside functions.
const MAX_DEPTH: usize = 32;
/// Characters of a text, and items of a list or map.
const MAX_SIZE: usize = 256;
/// Variables and functions.
const MAX_NAMES: usize = 32;
/// Longest program, in bytes.
const MAX_LENGTH: usize = 4096;
/// Longest text that is an answer, in characters.
const MAX_ANSWER: usize = 64;

/// Why a program gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// It is longer than any program may be.
    #[error("longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// It is no program, fails, or passes a bound.
    #[error("{0}")]
    Failed(String),
    /// It returns nothing that can stand in a box.
    #[error("returns {0}, which is no answer")]
    NoAnswer(String),
}

/// Runs a program and tells what it returns: an integer, a finite decimal, a truth value or a short line of text.
///
/// # Errors
/// Why there is no answer.
pub fn run(program: &str) -> Result<String, ProgramError> {
    if program.len() > MAX_LENGTH {
        return Err(ProgramError::TooLong);
    }
    let value: Dynamic = engine().eval(program).map_err(|error| ProgramError::Failed(error.to_string()))?;
    answer(&value)
}

fn engine() -> Engine {
    let mut engine = Engine::new();
    engine.set_max_operations(MAX_OPERATIONS);
    engine.set_max_call_levels(MAX_CALLS);
    engine.set_max_expr_depths(MAX_DEPTH, MAX_DEPTH);
    engine.set_max_string_size(MAX_SIZE);
    engine.set_max_array_size(MAX_SIZE);
    engine.set_max_map_size(MAX_SIZE);
    engine.set_max_variables(MAX_NAMES);
    engine.set_max_functions(MAX_NAMES);
    engine.disable_symbol("eval");
    engine.on_print(|_| {});
    engine.on_debug(|_, _, _| {});
    engine
}

fn answer(value: &Dynamic) -> Result<String, ProgramError> {
    let refuse = || ProgramError::NoAnswer(value.type_name().to_owned());
    if let Ok(number) = value.as_float() {
        return if number.is_finite() { Ok(number.to_string()) } else { Err(refuse()) };
    }
    if value.is_int() || value.is_bool() {
        return Ok(value.to_string());
    }
    let is_text = value.is_string() || value.is_char();
    let text = value.to_string();
    let is_line = !text.trim().is_empty() && !text.contains(['\n', '\r', '{', '}', '\\']) && text.chars().count() <= MAX_ANSWER;
    if is_text && is_line { Ok(text) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_program_is_its_value() {
        for (program, value) in [
            ("let x = 3; x * x + 1", "10"),
            ("let sum = 0; for i in 1..=10 { sum += i; } sum", "55"),
            ("fn twice(x) { x * 2 } twice(twice(5))", "20"),
            ("7 / 2", "3"),
            ("7.0 / 2.0", "3.5"),
            ("[3, 1, 2].len() > 2", "true"),
            (r#"let s = "ab"; s + "c""#, "abc"),
            (r#"print("seen by nobody"); 4"#, "4"),
        ] {
            assert_eq!(run(program).as_deref(), Ok(value), "{program}");
        }
    }

    #[test]
    fn what_does_not_end_fails_or_reaches_out_is_no_question() {
        for program in [
            "loop { }",
            "let x = 1; while true { x += 1; }",
            "fn f(x) { f(x + 1) } f(0)",
            r#"let s = "a"; for i in 0..100 { s += s; } s"#,
            "let a = []; for i in 0..100000 { a.push(i); } a.len()",
            r#"eval("1 + 1")"#,
            r#"import "std" as s; 1"#,
            "open_file(\"/etc/passwd\")",
            "timestamp()",
            "1 / 0",
            "9223372036854775807 + 1",
            "let x = 1;",
            "[1, 2]",
            "\"\"",
            "0.0 / 0.0",
            "1 +",
            "",
        ] {
            assert!(run(program).is_err(), "{program} gave {:?}", run(program));
        }
        assert_eq!(run(&" ".repeat(MAX_LENGTH + 1)), Err(ProgramError::TooLong));
        let deep = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
        assert!(run(&deep).is_err());
    }

    proptest! {
        #[test]
        fn any_text_ends_in_a_value_or_an_error(text in "[a-z0-9 +*/;(){}\\[\\]\"=.,<>!&|-]{0,80}") {
            prop_assert_eq!(run(&text), run(&text));
        }
    }
}
