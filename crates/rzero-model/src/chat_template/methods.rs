//! Methods of Python's strings, lists and dicts that chat templates call.
//!
//! Most come from `minijinja-contrib`. Here stand those that it lacks, and those that depend on what counts as white space or as the
//! end of a line, where Python and Rust differ.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// What `str.isspace` says of a character: white space as Unicode has it, and the four separators of ASCII.
pub(super) fn is_python_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

/// The filter `trim`: `str.strip`.
pub(super) fn trim(text: &str, characters: Option<&str>) -> String {
    text.trim_matches(one_of(characters)).to_owned()
}

/// A method that a value itself does not have.
pub(super) fn python_method(state: &mut State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let own = match value.as_str() {
        Some(text) if value.kind() == ValueKind::String => string_method(text, method, arguments)?,
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => unknown_method_callback(state, value, method, arguments),
    }
}

fn string_method(text: &str, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let result = match method {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<&str>,) = from_args(arguments)?;
            let is_stripped = one_of(characters);
            let start = if method == "rstrip" { text } else { text.trim_start_matches(&is_stripped) };
            Value::from(if method == "lstrip" { start } else { start.trim_end_matches(&is_stripped) })
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "split" | "rsplit" => {
            let (separator, most, named): (Option<&str>, Option<i64>, Kwargs) = from_args(arguments)?;
            let separator = if separator.is_some() { separator } else { named.get("sep")? };
            let most = if most.is_some() { most } else { named.get("maxsplit")? };
            named.assert_all_used()?;
            let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            split(text, separator, most, method == "rsplit")?.into_iter().map(Value::from).collect()
        }
        "splitlines" => {
            let (keepends, named): (Option<bool>, Kwargs) = from_args(arguments)?;
            let keepends = if keepends.is_some() { keepends } else { named.get("keepends")? };
            named.assert_all_used()?;
            lines(text, keepends.unwrap_or(false)).into_iter().map(Value::from).collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let separator = not_empty(separator)?;
            let parts = match (method, text.split_once(separator), text.rsplit_once(separator)) {
                ("partition", Some((before, after)), _) | ("rpartition", _, Some((before, after))) => [before, separator, after],
                ("partition", ..) => [text, "", ""],
                _ => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(arguments)?;
            let at = if method == "index" { text.find(part) } else { text.rfind(part) };
            let at = at.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))?;
            Value::from(text[..at].chars().count())
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

/// Whether a character is stripped: one of those given, or white space.
fn one_of(characters: Option<&str>) -> impl Fn(char) -> bool + '_ {
    move |character| characters.map_or_else(|| is_python_space(character), |characters| characters.contains(character))
}

fn not_empty(separator: &str) -> Result<&str, Error> {
    if separator.is_empty() { Err(Error::new(ErrorKind::InvalidOperation, "empty separator")) } else { Ok(separator) }
}

/// `str.split` and, from the end, `str.rsplit`; without a separator at runs of white space.
fn split<'a>(text: &'a str, separator: Option<&str>, most: usize, is_from_end: bool) -> Result<Vec<&'a str>, Error> {
    let pieces = most.saturating_add(1);
    let mut parts: Vec<&str> = match separator {
        Some(separator) if is_from_end => text.rsplitn(pieces, not_empty(separator)?).collect(),
        Some(separator) => text.splitn(pieces, not_empty(separator)?).collect(),
        None => words(text, most, is_from_end),
    };
    if is_from_end {
        parts.reverse();
    }
    Ok(parts)
}

/// At most `most` words and what is left, from the beginning or, in that order, from the end.
fn words(text: &str, most: usize, is_from_end: bool) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = if is_from_end { rest.trim_end_matches(is_python_space) } else { rest.trim_start_matches(is_python_space) };
        if rest.is_empty() {
            return words;
        }
        let cut = if is_from_end { rest.rfind(is_python_space) } else { rest.find(is_python_space) };
        let Some(cut) = cut.filter(|_| words.len() < most) else {
            words.push(rest);
            return words;
        };
        let width = rest[cut..].chars().next().map_or(0, char::len_utf8);
        let (before, after) = (&rest[..cut], &rest[cut + width..]);
        words.push(if is_from_end { after } else { before });
        rest = if is_from_end { before } else { after };
    }
}

/// `str.splitlines`: lines end at `\n`, `\r`, `\r\n` and at the rarer marks that Python knows.
fn lines(text: &str, keepends: bool) -> Vec<&str> {
    const ENDS: [char; 10] = ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(ENDS) {
        let width = if rest[end..].starts_with("\r\n") { 2 } else { rest[end..].chars().next().map_or(0, char::len_utf8) };
        lines.push(&rest[..if keepends { end + width } else { end }]);
        rest = &rest[end + width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    /// Expected values are what CPython answers.
    #[test]
    fn strings_are_split_as_python_splits_them() {
        let forward = |text, separator, most| split(text, separator, most, false).unwrap();
        let backward = |text, separator, most| split(text, separator, most, true).unwrap();
        assert_eq!(forward(" a  b c ", None, usize::MAX), ["a", "b", "c"]);
        assert_eq!(forward(" a  b c ", None, 1), ["a", "b c "]);
        assert_eq!(forward(" a  b c ", None, 0), ["a  b c "]);
        assert_eq!(backward(" a  b c ", None, usize::MAX), ["a", "b", "c"]);
        assert_eq!(backward(" a  b c ", None, 1), [" a  b", "c"]);
        assert_eq!(forward("  ", None, usize::MAX), [""; 0]);
        assert_eq!(forward("", Some(","), usize::MAX), [""]);
        assert_eq!(forward("x</think>y</think>z", Some("</think>"), 1), ["x", "y</think>z"]);
        assert_eq!(backward("x</think>y</think>z", Some("</think>"), 1), ["x</think>y", "z"]);
        assert!(split("a", Some(""), 1, false).is_err());
        assert_eq!(lines("a\r\nb\rc\u{2028}\nd", false), ["a", "b", "c", "", "d"]);
        assert_eq!(lines("a\r\nb\n", true), ["a\r\n", "b\n"]);
        assert_eq!(trim("\u{1f} a b\u{a0}\n", None), "a b");
        assert_eq!(trim("xyaxy", Some("yx")), "a");
    }
}
