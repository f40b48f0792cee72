//! Taking off what surrounds an answer without being part of it: dollar signs, boxes, text commands, full stops, "the answer is".

use crate::normalize::literal::split_group;

/// How many layers are taken off.
const MAX_LAYERS: usize = 24;
/// LaTeX commands that only say how their content is set.
const COMMANDS: [&str; 17] = [
    "\\text{",
    "\\textbf{",
    "\\textit{",
    "\\textrm{",
    "\\mathrm{",
    "\\mathbf{",
    "\\mbox{",
    "\\boxed{",
    "\\fbox{",
    "\\mathit{",
    "\\mathsf{",
    "\\emph{",
    "\\underline{",
    "\\textnormal{",
    "\\ensuremath{",
    "\\displaystyle{",
    "{",
];
/// Pairs of delimiters around a formula or a text.
const PAIRS: [(&str, &str); 6] = [("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("`", "`"), ("**", "**"), ("\"", "\"")];
/// Words before an answer, in lower case.
const LEADS: [&str; 9] = [
    "the final answer is",
    "the answer is",
    "final answer:",
    "final answer is",
    "answer:",
    "answer is",
    "\\displaystyle",
    "\\textstyle",
    "=",
];
/// Signs of money before a number.
const CURRENCIES: [(&str, &str); 9] = [
    ("\\$", "dollar"),
    ("$", ""),
    ("€", "euro"),
    ("£", "pound"),
    ("₹", "rupee"),
    ("¥", "yen"),
    ("\\pounds", "pound"),
    ("Rs.", "rupee"),
    ("USD", "dollar"),
];

/// The answer itself.
pub(crate) fn without_wrappers(raw: &str) -> &str {
    let mut answer = raw.trim();
    for _ in 0..MAX_LAYERS {
        let inner = one_layer(answer);
        if inner.len() == answer.len() {
            break;
        }
        answer = inner;
    }
    answer
}

fn one_layer(answer: &str) -> &str {
    let mut inner = answer.trim().trim_matches('$').trim();
    // A backslash that stands alone at the end, and the end of a sentence.
    inner = inner.trim_end_matches(['.', ',', ';', ':']).trim_end();
    while let Some(rest) = inner.strip_suffix("\\\\").or_else(|| inner.strip_suffix("\\,")).or_else(|| inner.strip_suffix("\\;"))
    {
        inner = rest.trim_end();
    }
    inner = inner.strip_prefix("\\!").or_else(|| inner.strip_prefix("\\,")).unwrap_or(inner).trim_start();
    for (open, close) in PAIRS {
        if let Some(content) = inner.strip_prefix(open).and_then(|rest| rest.strip_suffix(close))
            && !content.contains(open)
        {
            return content.trim();
        }
    }
    for command in COMMANDS {
        if let Some((content, after)) = inner.strip_prefix(command).and_then(split_group) {
            if after.is_empty() {
                return content.trim();
            }
            // A unit or the end of a sentence set as text behind the rest is no wrapper.
            break;
        }
    }
    if let Some(rest) = inner.strip_prefix("\\color")
        && let Some((_, after)) = rest.strip_prefix('{').and_then(split_group)
    {
        return after.trim();
    }
    if let Some(rest) = inner.strip_suffix("\\text{.}") {
        return rest.trim();
    }
    let is_ascii_start = |lead: &str| inner.is_char_boundary(lead.len().min(inner.len()));
    for lead in LEADS {
        if inner.len() > lead.len() && is_ascii_start(lead) && inner[..lead.len()].eq_ignore_ascii_case(lead) {
            let rest = inner[lead.len()..].trim_start();
            let is_whole_word = !lead.ends_with(|last: char| last.is_alphabetic())
                || inner[lead.len()..].starts_with(|next: char| !next.is_alphanumeric());
            if is_whole_word && !rest.starts_with('=') {
                return rest;
            }
        }
    }
    without_parentheses(inner)
}

/// `(((5)))`: parentheses around parentheses.
fn without_parentheses(text: &str) -> &str {
    let num_open = text.bytes().take_while(|byte| *byte == b'(').count();
    let num_closed = text.bytes().rev().take_while(|byte| *byte == b')').count();
    let num_pairs = num_open.min(num_closed);
    if num_pairs < 2 || 2 * num_pairs >= text.len() {
        return text;
    }
    let inside = &text[num_pairs..text.len() - num_pairs];
    let depths = inside.bytes().scan(0_i64, |depth, byte| {
        *depth += i64::from(byte == b'(') - i64::from(byte == b')');
        Some(*depth)
    });
    let (least, last) = depths.fold((0, 0), |(least, _), depth| (least.min(depth), depth));
    if least < 0 || last != 0 { text } else { &text[num_pairs - 1..text.len() - (num_pairs - 1)] }
}

/// A sign of money before a number, and the number.
pub(crate) fn split_currency(answer: &str) -> Option<(&'static str, &str)> {
    CURRENCIES.iter().find_map(|(sign, name)| {
        let rest = answer.strip_prefix(sign)?.trim_start();
        rest.starts_with(|first: char| first.is_ascii_digit() || first == '.').then_some((*name, rest))
    })
}
