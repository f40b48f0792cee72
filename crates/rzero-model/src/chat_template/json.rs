//! `tojson` of chat templates: values as Python's `json.dumps(ensure_ascii=False)` writes them, and JSON as values.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// Deepest nesting that is written.
const MAX_DEPTH: usize = 64;

/// Widest indentation.
const MAX_INDENT: usize = 32;

/// The filter: `tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(super) fn to_json(
    state: &State,
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let either = |given: Option<Value>, name: &str| -> Result<Option<Value>, Error> {
        let given = if given.is_some() { given } else { named.get::<Option<Value>>(name)? };
        Ok(given.filter(|value| !value.is_none()))
    };
    let is_ascii = either(ensure_ascii, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = either(indent, "indent")?.map(|value| indentation(&value)).transpose()?;
    let separators = either(None, "separators")?;
    let is_sorted = either(None, "sort_keys")?.is_some_and(|value| value.is_true());
    named.assert_all_used()?;
    let (item_separator, key_separator) = match separators {
        Some(pair) => (separator(&pair, 0)?, separator(&pair, 1)?),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let mut writer = Writer { state, text: String::new(), indent, item_separator, key_separator, is_ascii, is_sorted };
    writer.value(value, 0)?;
    Ok(Value::from(writer.text))
}

/// A JSON value as one of a template.
pub(super) fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(from_json).collect(),
        serde_json::Value::Object(pairs) => Value::from_pairs(pairs.iter().map(|(key, value)| (key.as_str(), from_json(value)))),
    }
}

/// Spaces by their number, or the text itself.
fn indentation(value: &Value) -> Result<String, Error> {
    let indent = match value.as_str() {
        Some(text) => text.to_owned(),
        // Python counts `true` as 1 and takes what is below 0 for 0.
        None if value.kind() == ValueKind::Bool => " ".repeat(usize::from(value.is_true())),
        None => {
            let width = i64::try_from(value.clone())?.clamp(0, MAX_INDENT as i64 + 1);
            " ".repeat(width as usize)
        }
    };
    if indent.len() > MAX_INDENT {
        return Err(refused(format!("tojson indents by at most {MAX_INDENT} characters")));
    }
    Ok(indent)
}

fn separator(pair: &Value, index: usize) -> Result<String, Error> {
    let separator = pair.get_item_by_index(index)?;
    separator.as_str().map(str::to_owned).ok_or_else(|| refused("the separators of tojson are two texts"))
}

fn refused(problem: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    text: String,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    is_ascii: bool,
    is_sorted: bool,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        // Paid as it is written: a list that holds another twice, which holds another twice, is small until it is written out.
        self.state.consume_fuel(1)?;
        if depth > MAX_DEPTH {
            return Err(refused(format!("tojson writes at most {MAX_DEPTH} levels")));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&number(value)?),
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                self.text.push('[');
                let mut is_empty = true;
                for item in value.try_iter()?.checked() {
                    self.next_item(is_empty, depth + 1)?;
                    is_empty = false;
                    self.value(&item?, depth + 1)?;
                }
                self.close(']', is_empty, depth);
            }
            ValueKind::Map => {
                self.text.push('{');
                let mut keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
                self.state.consume_fuel(keys.len() as u64)?;
                if self.is_sorted {
                    keys.sort_by_cached_key(Value::to_string);
                }
                for (index, key) in keys.iter().enumerate() {
                    self.next_item(index == 0, depth + 1)?;
                    self.key(key)?;
                    self.text.push_str(&self.key_separator);
                    self.value(&value.get_item(key)?, depth + 1)?;
                }
                self.close('}', keys.is_empty(), depth);
            }
            other => return Err(refused(format!("tojson cannot write a value of kind {other}"))),
        }
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            ValueKind::None => self.string("null"),
            ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.string(&number(key)?),
            other => Err(refused(format!("tojson cannot write a key of kind {other}"))),
        }
    }

    fn next_item(&mut self, is_first: bool, depth: usize) -> Result<(), Error> {
        if !is_first {
            self.text.push_str(&self.item_separator);
        }
        self.state.consume_fuel(((self.item_separator.len() + self.key_separator.len()) / 64) as u64)?;
        self.new_line(depth);
        Ok(())
    }

    fn close(&mut self, bracket: char, is_empty: bool, depth: usize) {
        if !is_empty {
            self.new_line(depth);
        }
        self.text.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.text.push('\n');
            for _ in 0..depth {
                self.text.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.state.consume_fuel((text.len() / 64) as u64)?;
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\0'..='\u{1f}' => self.escape(character),
                '\u{7f}'.. if self.is_ascii && !character.is_ascii() => self.escape(character),
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
        Ok(())
    }

    /// `\u` and four digits, for each half of a character beyond the first plane.
    fn escape(&mut self, character: char) {
        let mut halves = [0; 2];
        for half in character.encode_utf16(&mut halves) {
            self.text.push_str(&format!("\\u{half:04x}"));
        }
    }
}

fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() {
        return Ok(value.to_string());
    }
    Ok(python_float(f64::try_from(value.clone())?))
}

/// The shortest digits that read back as the number, in Python's choice of notation: with an exponent below 1e-4 and from 1e16 on.
fn python_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let positional = number.to_string();
    if positional.contains('.') { positional } else { positional + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_as_python_writes_them() {
        let pairs = [
            (0.1, "0.1"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (1.25e300, "1.25e+300"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (number, expected) in pairs {
            assert_eq!(python_float(number), expected);
        }
    }
}
