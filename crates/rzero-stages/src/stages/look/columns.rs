//! The figures of one column, and its values as people read them.

use crate::markdown::legible;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, StringArray, UInt32Array, UInt64Array,
};
use rzero_model::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Distinct words that are counted; a column that has more has texts.
const MAX_WORDS: usize = 12;

/// Characters of a value that are shown.
const SHOWN: usize = 160;

/// Values of a list that are shown.
const SHOWN_ITEMS: usize = 8;

/// What a column holds. Lists are counted by their lengths.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    num_nulls: u64,
    /// Count, sum, least and largest of numbers, truths as 0 and 1, and lengths of lists.
    numbers: Option<(u64, f64, f64, f64)>,
    is_list: bool,
    /// Words with how often they stand there; none once there are too many.
    words: Option<BTreeMap<String, u64>>,
    is_text: bool,
    longest: usize,
}

impl Figures {
    /// Adds the values of an array.
    pub(super) fn add(&mut self, array: &ArrayRef) {
        self.num_nulls += array.null_count() as u64;
        if let Some(texts) = array.as_any().downcast_ref::<StringArray>() {
            if !self.is_text {
                (self.is_text, self.words) = (true, Some(BTreeMap::new()));
            }
            texts.iter().flatten().for_each(|text| self.add_text(text));
            return;
        }
        (0..array.len()).filter(|row| array.is_valid(*row)).for_each(|row| {
            if let Some(number) = number(array, row) {
                self.add_number(number);
            }
        });
        self.is_list |= array.as_list_opt::<i32>().is_some();
    }

    fn add_number(&mut self, number: f64) {
        let (count, sum, least, largest) = self.numbers.unwrap_or((0, 0.0, number, number));
        self.numbers = Some((count + 1, sum + number, least.min(number), largest.max(number)));
    }

    fn add_text(&mut self, text: &str) {
        self.longest = self.longest.max(text.chars().count());
        let Some(words) = &mut self.words else { return };
        if let Some(count) = words.get_mut(text) {
            *count += 1;
        } else if words.len() < MAX_WORDS {
            words.insert(text.to_owned(), 1);
        } else {
            self.words = None;
        }
    }

    pub(super) fn text(&self) -> String {
        let mut parts = Vec::new();
        if let Some((count, sum, least, largest)) = self.numbers {
            let what = if self.is_list { "items: " } else { "" };
            parts.push(format!("{what}{} to {}, mean {}", brief(least), brief(largest), brief(sum / count.max(1) as f64)));
        }
        match &self.words {
            Some(words) if !words.is_empty() => {
                parts.push(
                    words.iter().map(|(word, count)| format!("{} x {count}", clean(word, 24))).collect::<Vec<_>>().join(", "),
                );
            }
            None if self.is_text => parts.push(format!("texts of up to {} characters", self.longest)),
            _ => {}
        }
        if self.num_nulls > 0 {
            parts.push(format!("{} nulls", self.num_nulls));
        }
        parts.join("; ")
    }

    pub(super) fn json(&self) -> Value {
        let numbers = self.numbers.map(|(count, sum, least, largest)| {
            json!({ "of": if self.is_list { "lengths" } else { "values" }, "min": least, "max": largest, "mean": sum / count.max(1) as f64 })
        });
        json!({ "nulls": self.num_nulls, "numbers": numbers, "words": self.words.as_ref().filter(|_| self.is_text), "longest": self.longest })
    }
}

/// A number, a truth as 0 or 1, or the length of a list; none for a text.
fn number(array: &ArrayRef, row: usize) -> Option<f64> {
    let any = array.as_any();
    if let Some(list) = array.as_list_opt::<i32>() {
        return Some(list.value_length(row).into());
    }
    any.downcast_ref::<Float64Array>()
        .map(|array| array.value(row))
        .or_else(|| any.downcast_ref::<UInt64Array>().map(|array| array.value(row) as f64))
        .or_else(|| any.downcast_ref::<UInt32Array>().map(|array| array.value(row).into()))
        .or_else(|| any.downcast_ref::<Int32Array>().map(|array| array.value(row).into()))
        .or_else(|| any.downcast_ref::<Float32Array>().map(|array| array.value(row).into()))
        .or_else(|| any.downcast_ref::<BooleanArray>().map(|array| f64::from(u8::from(array.value(row)))))
}

/// One value. A list of tokens is the text that they spell, where a tokenizer can tell it.
pub(super) fn cell(name: &str, array: &ArrayRef, row: usize, tokenizer: Option<&Tokenizer>) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    if let Some(list) = array.as_list_opt::<i32>() {
        let items = list.value(row);
        if let (true, Some(tokenizer), Some(tokens)) =
            (name.ends_with("_tokens"), tokenizer, items.as_any().downcast_ref::<UInt32Array>())
        {
            return json!({ "tokens": tokens.len(), "text": tokenizer.decode(tokens.values()).text });
        }
        return (0..items.len()).map(|at| cell("", &items, at, None)).collect();
    }
    if let Some(texts) = array.as_any().downcast_ref::<StringArray>() {
        return json!(texts.value(row));
    }
    if let Some(truths) = array.as_any().downcast_ref::<BooleanArray>() {
        return json!(truths.value(row));
    }
    if let Some(floats) = array.as_any().downcast_ref::<Float32Array>() {
        return json!(floats.value(row));
    }
    match number(array, row) {
        Some(number) if array.data_type().is_integer() => json!(number as i64),
        number => json!(number),
    }
}

/// A value on one line.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text, SHOWN),
        Value::Object(decoded) => {
            let text = decoded.get("text").and_then(Value::as_str).unwrap_or_default();
            format!("{} ({} tokens)", clean(text, SHOWN), decoded.get("tokens").unwrap_or(&Value::Null))
        }
        Value::Array(items) => {
            let rest = items.len().saturating_sub(SHOWN_ITEMS);
            let items = items.iter().take(SHOWN_ITEMS).map(shown).collect::<Vec<_>>().join(", ");
            if rest > 0 { format!("[{items}, and {rest} more]") } else { format!("[{items}]") }
        }
        other => other.to_string(),
    }
}

fn clean(text: &str, max_chars: usize) -> String {
    let mut shown = legible(&text.chars().take(max_chars).collect::<String>());
    if text.chars().nth(max_chars).is_some() {
        shown.push_str("...");
    }
    shown
}

/// A number without digits that nobody reads.
fn brief(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 { format!("{number}") } else { format!("{number:.4}") }
}
