//! What an adapter asks of a row: texts, lists and levels under the names that a benchmark gives them.

use super::read::Row;
use rzero_algo::answer::extract_boxed;
use serde_json::Value;

/// The first of these fields that holds a text or a number.
pub(super) fn text(row: &Row, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| value_text(row.get(*name)?))
}

/// A text or number as text, without space around it; nothing where that is empty.
pub(super) fn value_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        // A number has no spelling of its own: 51.0 is 51.
        Value::Number(number) => without_zero_decimals(&number.to_string()).to_owned(),
        Value::Bool(truth) => truth.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// A whole number that was stored as a decimal, without its zeros.
pub(super) fn without_zero_decimals(text: &str) -> &str {
    match text.split_once('.') {
        Some((whole, zeros)) if !whole.is_empty() && !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => whole,
        _ => text,
    }
}

/// A list, also one that a table without lists holds as JSON text.
pub(super) fn list(row: &Row, name: &str) -> Option<Vec<Value>> {
    match row.get(name)? {
        Value::Array(values) => Some(values.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// An entry of an object, also of one that is held as JSON text.
pub(super) fn entry(row: &Row, name: &str, key: &str) -> Option<Value> {
    match row.get(name)? {
        Value::Object(object) => object.get(key).cloned(),
        Value::String(text) => serde_json::from_str::<Row>(text).ok()?.remove(key),
        _ => None,
    }
}

/// What stands in the last box of a worked solution.
pub(super) fn last_boxed(solution: &str) -> Option<String> {
    let boxed = extract_boxed(solution).ok()?.trim();
    (!boxed.is_empty()).then(|| boxed.to_owned())
}

/// A level: a number, a number within words such as `Level 5`, or one of three words.
pub(super) fn level(row: &Row, names: &[&str]) -> Option<u32> {
    let text = text(row, names)?;
    match text.as_str() {
        "easy" => Some(1),
        "middle" | "medium" => Some(2),
        "hard" => Some(3),
        _ => text.split_ascii_whitespace().next_back()?.parse().ok(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_read_in_every_spelling_that_tables_give_them() {
        let row = json!({
            "empty": "  ", "number": 51.0, "half": 0.50, "text": " 51.0 ", "flag": true, "level": "Level 5", "word": "middle", "odd": "Level ?",
            "list": ["a", 2], "list as text": "[\"a\", 2]", "no list": "a, b", "object": {"k": 1}, "object as text": "{\"k\": 1}"
        });
        let Value::Object(row) = row else { unreachable!() };
        let of = |names: &[&str]| text(&row, names);
        assert_eq!(of(&["absent", "empty", "number"]).as_deref(), Some("51"));
        assert_eq!((of(&["half"]).as_deref(), of(&["text"]).as_deref()), (Some("0.5"), Some("51.0")));
        assert_eq!((of(&["list"]), of(&["flag"]).as_deref()), (None, Some("true")));
        assert_eq!(list(&row, "list"), list(&row, "list as text"));
        assert_eq!((list(&row, "no list"), list(&row, "list").unwrap().len()), (None, 2));
        assert_eq!((entry(&row, "object", "k"), entry(&row, "object as text", "k")), (Some(json!(1)), Some(json!(1))));
        assert_eq!([level(&row, &["level"]), level(&row, &["word"]), level(&row, &["odd"])], [Some(5), Some(2), None]);
        assert_eq!(last_boxed(r"so \boxed{1}, or \boxed{ \frac{1}{2} }.").as_deref(), Some(r"\frac{1}{2}"));
        assert_eq!((last_boxed("none"), last_boxed(r"\boxed{ }")), (None, None));
        assert_eq!(["7.00", "7.", ".0", "7.01"].map(without_zero_decimals), ["7", "7.", ".0", "7.01"]);
    }
}
