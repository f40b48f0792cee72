//! Where in a text its answer stands.
//!
//! **Box.** The last balanced box counts. A `\boxed{` or `\fbox{` opens one, and braces pair up as brackets do; `\{` and `\}` are
//! printed braces and pair with nothing. Of the boxes that are closed, the one that closes last is read; a box inside it is part
//! of its content. A box that is never closed does not hide an earlier one that is. Only where every box stays open is the
//! answer unbalanced. Nothing in the text besides braces matters: a question or an answer may hold the letters "box" or "text".
//!
//! **Phrase**, where that is allowed. Boxes with nothing between them but commas and the word "and" are one answer, a list. Without a box: what
//! follows the last "answer is" or "answer:" up to the end of its sentence.
//!
//! **Last**, where that is allowed. `\boxed 5`, and a box that is never closed. Without any: the text itself where it is a formula, the last
//! formula between dollar signs or their like, the last number. An empty box is an answer that is missing, and ends the search.

use memchr::memchr3;
use rzero_schema::vocab::{AnswerStatus, Extraction};
use std::borrow::Cow;
use std::ops::Range;

/// How a boxed answer begins.
pub const BOX_OPEN: &str = "\\boxed{";
/// The other way to draw a box.
const FBOX_OPEN: &str = "\\fbox{";
/// What announces an answer, in lower case.
const ANNOUNCEMENTS: [&str; 3] = ["answer is", "answer:", "answers are"];
/// Words between an announcement and the answer.
const FILLERS: [&str; 8] = [":", "**", "therefore", "simply", "then", "indeed", "thus", "="];
/// Longest text that is searched beyond its boxes, from the end, in bytes.
const MAX_SEARCHED: usize = 1 << 16;

/// Content of the last balanced box, without the white space around it. One pass, linear time, whatever the text.
///
/// # Errors
/// [`AnswerStatus::NoBox`] where no box opens, [`AnswerStatus::UnbalancedBox`] where boxes open and none is closed,
/// [`AnswerStatus::EmptyBox`] where the box holds nothing but white space.
pub fn extract_boxed(text: &str) -> Result<&str, AnswerStatus> {
    let mut last = None;
    let has_box = find_boxes(text, |content| last = Some(content));
    match last.map(|last| text[last].trim()) {
        Some("") => Err(AnswerStatus::EmptyBox),
        Some(content) => Ok(content),
        None if has_box => Err(AnswerStatus::UnbalancedBox),
        None => Err(AnswerStatus::NoBox),
    }
}

/// Contents of the balanced boxes, by where they close.
fn balanced_boxes(text: &str) -> Vec<Range<usize>> {
    let mut closed = Vec::new();
    find_boxes(text, |content| closed.push(content));
    closed
}

/// Tells the content of each balanced box as it closes; returns whether any box opens.
fn find_boxes(text: &str, mut found: impl FnMut(Range<usize>)) -> bool {
    let bytes = text.as_bytes();
    // One entry for each brace that is still open: where its content starts, if it is a box.
    let mut open_braces: Vec<Option<usize>> = Vec::new();
    let mut has_box = false;
    let mut at = 0;
    while let Some(ahead) = memchr3(b'\\', b'{', b'}', &bytes[at..]) {
        at += ahead;
        match bytes[at] {
            b'\\' => {
                if let Some(open) = [BOX_OPEN, FBOX_OPEN].into_iter().find(|open| bytes[at..].starts_with(open.as_bytes())) {
                    at += open.len();
                    open_braces.push(Some(at));
                    has_box = true;
                    continue;
                }
                at += usize::from(matches!(bytes.get(at + 1), Some(b'{' | b'}')));
            }
            b'{' => open_braces.push(None),
            _ => {
                if let Some(Some(start)) = open_braces.pop() {
                    // The bounds lie beside ASCII braces, hence on character boundaries.
                    found(start..at);
                }
            }
        }
        at += 1;
    }
    has_box
}

/// The answer in a response: in its last balanced box, and beyond that where `extraction` says.
///
/// # Errors
/// As [`extract_boxed`] where nothing is found.
pub fn extract_answer(text: &str, extraction: Extraction) -> Result<Cow<'_, str>, AnswerStatus> {
    let boxed = extract_boxed(text);
    if extraction == Extraction::Box {
        return boxed.map(Cow::Borrowed);
    }
    match boxed {
        Ok(last) => Ok(neighbours(text).unwrap_or(Cow::Borrowed(last))),
        Err(status @ (AnswerStatus::NoBox | AnswerStatus::UnbalancedBox)) => {
            beyond_boxes(text, extraction).map(Cow::Borrowed).ok_or(status)
        }
        Err(status) => Err(status),
    }
}

/// The last box and those before it that only commas and "and" part from it, as one list.
fn neighbours(text: &str) -> Option<Cow<'_, str>> {
    let boxes = balanced_boxes(text);
    let mut parts: Vec<&str> = Vec::new();
    let mut next_start = None;
    for content in boxes.iter().rev() {
        let open = [BOX_OPEN, FBOX_OPEN].into_iter().find(|open| text[..content.start].ends_with(open))?;
        if next_start.is_some_and(|next: usize| content.end + 1 > next || !is_joint(&text[content.end + 1..next])) {
            break;
        }
        parts.push(text[content.clone()].trim());
        next_start = Some(content.start - open.len());
    }
    parts.reverse();
    if parts.len() > 1 && parts.iter().all(|part| !part.is_empty()) { Some(Cow::Owned(parts.join(", "))) } else { None }
}

/// Whether what stands between two answers only joins them.
fn is_joint(between: &str) -> bool {
    let mut words = between.replace(['$', ',', ';', '{', '}', '.', '~'], " ");
    for command in ["\\(", "\\)", "\\text", "\\quad", "\\qquad", "\\ ", "\\,"] {
        words = words.replace(command, " ");
    }
    words.len() < 64 && words.split_whitespace().all(|word| matches!(word, "and" | "or" | "for" | "part" | "(a)" | "(b)" | "(c)"))
}

fn beyond_boxes(text: &str, extraction: Extraction) -> Option<&str> {
    let start = text.len().saturating_sub(MAX_SEARCHED);
    let text = (start..text.len()).find_map(|start| text.get(start..))?;
    if let Some(answer) = announced(text) {
        // "The answer is: the largest n is 34" announces a sentence, whose own end it is.
        let is_sentence = answer.split_whitespace().filter(|word| word.chars().all(char::is_alphabetic)).count() > 2;
        let inner = if is_sentence && extraction == Extraction::Last { last_formula_or_number(answer) } else { None };
        return Some(inner.unwrap_or(answer));
    }
    if extraction != Extraction::Last {
        return None;
    }
    // A box without braces, or without its end.
    if let Some(at) = text.rfind("\\boxed") {
        let rest = text[at + "\\boxed".len()..].trim_start();
        let content = match rest.strip_prefix('{') {
            Some(open) => open.trim_end_matches(|last: char| last.is_whitespace() || matches!(last, '$' | '.')),
            None => rest.split(|c: char| c.is_whitespace() || c == '$').next().unwrap_or_default(),
        };
        return Some(content.trim()).filter(|content| !content.is_empty());
    }
    if is_formula(text) {
        return Some(text.trim());
    }
    last_formula_or_number(text).or_else(|| last_letter(text))
}

/// The formula or the number that stands nearer to the end.
fn last_formula_or_number(text: &str) -> Option<&str> {
    let end = |part: &str| part.as_ptr() as usize + part.len();
    match (last_formula(text), last_number(text)) {
        (Some(formula), Some(number)) if end(number) > end(formula) => Some(number),
        (None, Some(number)) => Some(number),
        (formula, _) => formula,
    }
}

/// What follows the last announcement, up to the end of its sentence.
fn announced(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let (at, announcement) =
        ANNOUNCEMENTS.iter().filter_map(|announcement| lower.rfind(announcement).map(|at| (at, announcement))).max()?;
    let mut rest = text[at + announcement.len()..].trim_start();
    while let Some(filler) =
        FILLERS.iter().find(|filler| rest.get(..filler.len()).is_some_and(|head| head.eq_ignore_ascii_case(filler)))
    {
        rest = rest[filler.len()..].trim_start();
    }
    if let Some(formula) = first_formula(rest) {
        return Some(formula);
    }
    let end = rest
        .char_indices()
        .find(|(at, character)| {
            let after = rest[at + character.len_utf8()..].chars().next();
            matches!(character, '\n') || (*character == '.' && after.is_none_or(char::is_whitespace))
        })
        .map_or(rest.len(), |(at, _)| at);
    let answer = rest[..end].trim().trim_end_matches("**").trim();
    (!answer.is_empty() && answer.len() <= 200).then_some(answer)
}

/// Pairs of signs around a formula.
const FORMULA_SIGNS: [(&str, &str); 4] = [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")];

/// The formula that a text begins with.
fn first_formula(text: &str) -> Option<&str> {
    FORMULA_SIGNS.iter().find_map(|(open, close)| {
        let rest = text.strip_prefix(open)?;
        let end = find_close(rest, close)?;
        let content = rest[..end].trim();
        (!content.is_empty()).then_some(content)
    })
}

/// Where a formula ends; `\$` is a printed dollar sign and ends none.
fn find_close(text: &str, close: &str) -> Option<usize> {
    text.match_indices(close).map(|(at, _)| at).find(|at| close.starts_with('\\') || !text[..*at].ends_with('\\'))
}

/// The formula that a text ends with, but for words; those that only "and" parts from it belong to it.
fn last_formula(text: &str) -> Option<&str> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("\\$") {
            at += 2;
            continue;
        }
        let formula = FORMULA_SIGNS.iter().find_map(|(open, close)| {
            let inner = rest.strip_prefix(open)?;
            let end = find_close(inner, close)?;
            Some((at..at + open.len() + end + close.len(), inner[..end].trim().is_empty()))
        });
        match formula {
            Some((range, is_empty)) => {
                at = range.end;
                if !is_empty {
                    found.push(range);
                }
            }
            None => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    let last = found.pop()?;
    let mut start = last.start;
    while let Some(before) = found.pop() {
        if !is_joint(&text[before.end..start]) || text[before.end..start].trim().is_empty() {
            break;
        }
        start = before.start;
    }
    // A sum of money is no formula: "9 * 2 = $18 every day, $4 more".
    let content = text[start..last.end].trim();
    let num_words = content.split_whitespace().filter(|word| word.len() > 3 && word.chars().all(char::is_alphabetic)).count();
    (num_words <= 3).then_some(content)
}

/// The last number, with its sign, separators, and what it is divided by.
fn last_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let is_part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b',' | b'.' | b'/');
    let last_digit = bytes.iter().rposition(u8::is_ascii_digit)?;
    let mut start = last_digit;
    while start > 0 && is_part(bytes[start - 1]) {
        start -= 1;
    }
    // Punctuation before the number is not its own.
    while start < last_digit && matches!(bytes[start], b',' | b'/') {
        start += 1;
    }
    if start > 0 && bytes[start - 1] == b'-' && (start == 1 || !bytes[start - 2].is_ascii_alphanumeric()) {
        start -= 1;
    }
    Some(&text[start..=last_digit])
}

/// The last capital letter that stands alone and is no "I".
fn last_letter(text: &str) -> Option<&str> {
    text.split(|c: char| !c.is_alphanumeric())
        .rfind(|word| word.len() == 1 && word.bytes().all(|letter| letter != b'I' && (b'A'..=b'J').contains(&letter)))
}

/// Whether a text is a formula and no sentence.
fn is_formula(text: &str) -> bool {
    let text = text.trim();
    let is_between_signs = |(open, close): &(&str, &str)| text.starts_with(open) && text.ends_with(close);
    if FORMULA_SIGNS.iter().any(|signs| text.contains(signs.0)) && !FORMULA_SIGNS.iter().any(is_between_signs) {
        return false;
    }
    if text.is_empty() || text.len() > 400 || text.contains('\n') || text.contains(['?', '"']) {
        return false;
    }
    let mut num_words = 0;
    let mut before = ' ';
    for word in text.split_inclusive(|c: char| !c.is_alphabetic()) {
        let letters = word.trim_end_matches(|c: char| !c.is_alphabetic());
        // Commands, and the names of environments and texts behind them, are no words of a sentence.
        num_words += usize::from(letters.len() > 1 && !matches!(before, '\\' | '{'));
        before = word.chars().next_back().unwrap_or(' ');
    }
    let is_mathematical = text.bytes().any(|byte| byte.is_ascii_digit() || b"=+\\^(".contains(&byte));
    num_words <= 2 && (is_mathematical || text.split_whitespace().count() <= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_balanced_box_is_read() {
        for (text, expected) in [
            (r"\boxed{3}", Ok("3")),
            (r"so \boxed{ 3 } then \boxed{4}.", Ok("4")),
            (r"\boxed{\frac{1}{2}}", Ok(r"\frac{1}{2}")),
            (r"\boxed{\boxed{3}}", Ok(r"\boxed{3}")),
            (r"\boxed{1} \boxed{2 \boxed{3}}", Ok(r"2 \boxed{3}")),
            (r"\boxed{3} and \boxed{4", Ok("3")),
            (r"\boxed{4 and \boxed{3}", Ok("3")),
            (r"{ \boxed{3}", Ok("3")),
            (r"} } \boxed{3} } }", Ok("3")),
            (r"\boxed{\{1, 2\}}", Ok(r"\{1, 2\}")),
            (r"\boxed{\}}", Ok(r"\}")),
            (r"\\boxed{5}", Ok("5")),
            ("\\boxed{−5\u{3000}}", Ok("−5")),
            ("", Err(AnswerStatus::NoBox)),
            ("boxed{3}", Err(AnswerStatus::NoBox)),
            (r"\boxed 3", Err(AnswerStatus::NoBox)),
            (r"\boxed{", Err(AnswerStatus::UnbalancedBox)),
            (r"\boxed{{3}", Err(AnswerStatus::UnbalancedBox)),
            (r"\boxed{}", Err(AnswerStatus::EmptyBox)),
            ("\\boxed{3} \\boxed{ \n }", Err(AnswerStatus::EmptyBox)),
        ] {
            assert_eq!(extract_boxed(text), expected, "{text}");
        }
    }

    #[test]
    fn beyond_the_box_only_where_it_is_allowed() {
        let of = |text: &str, extraction| extract_answer(text, extraction).map(Cow::into_owned);
        for (text, phrase, last) in [
            ("The answer is 72.", Some("72"), Some("72")),
            ("The final answer is $5$. I hope it is correct.", Some("5"), Some("5")),
            ("**Final Answer:** 5", Some("5"), Some("5")),
            ("First 10, then 62, total 72", None, Some("72")),
            ("9 * 2 = $18 every day.", None, Some("18")),
            (r"so $\frac{1}{2}$ and $\frac{1}{3}$", None, Some(r"$\frac{1}{2}$ and $\frac{1}{3}$")),
            (r"\boxed 5", None, Some("5")),
            (r"\boxed{\frac{1}{2}", None, Some(r"\frac{1}{2}")),
            ("it must be -3.", None, Some("-3")),
            ("I do not know.", None, None),
            (r"\boxed{} 5", None, None),
            (r"\boxed{1} and \boxed{2}", Some("1, 2"), Some("1, 2")),
            (r"\boxed{71}, no, \boxed{72}", Some("72"), Some("72")),
        ] {
            assert_eq!(of(text, Extraction::Phrase).ok().as_deref(), phrase, "{text}");
            assert_eq!(of(text, Extraction::Last).ok().as_deref(), last, "{text}");
        }
        assert_eq!(of(r"\boxed{1} and \boxed{2}", Extraction::Box).as_deref(), Ok("2"));
        assert_eq!(of("The answer is 72.", Extraction::Box), Err(AnswerStatus::NoBox));
    }
}
