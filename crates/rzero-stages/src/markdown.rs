//! Tables and texts for people. Tables are Markdown, so that they can be pasted into a document as they are.

use crate::scores::Figure;
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

/// What stands where there is no figure.
pub const ABSENT: &str = "-";

/// A table with a header; all columns but the first are set to the right.
#[must_use]
pub fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    table.column_iter_mut().skip(1).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    table
}

/// A share with its interval, such as `75.1 [72.6, 77.4]`.
#[must_use]
pub fn figure(figure: Figure) -> String {
    format!("{:.1} [{:.1}, {:.1}]", figure.value, figure.low, figure.high)
}

/// The same where there may be none.
#[must_use]
pub fn optional_figure(share: Option<Figure>) -> String {
    share.map_or_else(|| ABSENT.to_owned(), figure)
}

/// A difference of shares with its interval, such as `+9.3 [+2.9, +15.0]`, where there is one.
#[must_use]
pub fn optional_gain(gain: Option<Figure>) -> String {
    gain.map_or_else(|| ABSENT.to_owned(), |gain| format!("{:+.1} [{:+.1}, {:+.1}]", gain.value, gain.low, gain.high))
}

/// A share without an interval, where there is one.
#[must_use]
pub fn optional_share(share: Option<f64>) -> String {
    share.map_or_else(|| ABSENT.to_owned(), |share| format!("{share:.1}"))
}

/// A share as whole per cent.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{share:.0} %")
}

/// Text of a model as people can be shown it: hostile, so control characters, and those that turn the direction of reading, are escapes.
#[must_use]
pub fn legible(text: &str) -> String {
    let is_plain =
        |c: &char| !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().flat_map(|c| if is_plain(&c) { vec![c] } else { c.escape_default().collect() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_or_a_reader_would_obey_is_shown_instead() {
        assert_eq!(legible("2+3\n\u{1b}[2J\u{202e}cba\0 é 数"), "2+3\\n\\u{1b}[2J\\u{202e}cba\\u{0} é 数");
    }
}
