//! From the text of an answer to tokens: LaTeX, plain notation and Unicode symbols become one alphabet.
//!
//! What only says how something is set (`\left`, `\displaystyle`, spacing, dollar signs) leaves no token. Text that is no mathematics is no
//! error here; where a character has no meaning at all there are no tokens, and the answer is text.

use crate::normalize::symbols::{CHARACTERS, FACES, FRACTIONS, RAISED, SILENT, SYNONYMS, TEXTUAL};
use unicode_normalization::UnicodeNormalization;
use winnow::ascii::{digit1, multispace1};
use winnow::combinator::{alt, opt, preceded};
use winnow::error::ContextError;
use winnow::prelude::*;
use winnow::token::{any, take_while};

type Lexed<T> = Result<T, ContextError>;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// An unsigned decimal as written.
    Number(String),
    /// A run of letters.
    Word(String),
    /// A command without its backslash.
    Command(String),
    /// Words set as text.
    Text(String),
    /// An ASCII character with a meaning, or `°`.
    Symbol(char),
    /// `\{` and `\}`.
    SetOpen,
    SetClose,
    /// `\\` between rows.
    RowEnd,
    /// `\begin{...}` and `\end{...}`.
    Begin(String),
    End(String),
}

/// A token and whether white space stands before it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lexeme {
    pub(crate) token: Token,
    pub(crate) is_spaced: bool,
}

impl Lexeme {
    pub(crate) fn is_symbol(&self, symbol: char) -> bool {
        self.token == Token::Symbol(symbol)
    }
}

/// Most tokens of an answer.
const MAX_TOKENS: usize = 400;
/// The tokens of an answer; nothing where it holds a character without meaning, or too much.
pub(crate) fn tokens(text: &str) -> Option<Vec<Lexeme>> {
    let mut lexer = Lexer {
        lexemes: Vec::new(),
        is_spaced: false,
        depth: 0,
        rows: 0,
        has_spaced_comma: text.contains(", ") || text.contains(",\\ "),
    };
    lexer.read(text, 0)?;
    Some(lexer.lexemes)
}

struct Lexer {
    lexemes: Vec<Lexeme>,
    is_spaced: bool,
    /// Brackets that are open.
    depth: usize,
    /// Environments with rows that are open.
    rows: usize,
    has_spaced_comma: bool,
}

impl Lexer {
    fn push(&mut self, token: Token) {
        self.lexemes.push(Lexeme { token, is_spaced: self.is_spaced });
        self.is_spaced = false;
    }

    fn read(&mut self, text: &str, nesting: usize) -> Option<()> {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if self.lexemes.len() > MAX_TOKENS {
                return None;
            }
            match first {
                '0'..='9' | '.' => {
                    let has_separators = self.depth == 0 || self.has_spaced_comma;
                    match number(&mut rest, has_separators) {
                        Ok(number) => self.push(Token::Number(number)),
                        Err(_) => return None,
                    }
                }
                'a'..='z' | 'A'..='Z' => {
                    let word = letters(&mut rest).ok()?;
                    // `np.arcsin`: the name of a library says nothing.
                    match rest.strip_prefix('.').filter(|_| matches!(word, "np" | "numpy" | "math" | "sympy")) {
                        Some(after) => rest = after,
                        None => self.words(word),
                    }
                }
                '\\' => self.command(&mut rest, nesting)?,
                '$' => {
                    // A dollar sign before a number may be money; between formulas it is nothing. It counts for neither.
                    rest = &rest[1..];
                    self.is_spaced = true;
                }
                '~' => {
                    rest = &rest[1..];
                    self.is_spaced = true;
                }
                first if first.is_whitespace() => {
                    rest = rest.trim_start();
                    self.is_spaced = true;
                }
                first if first.is_ascii() => {
                    rest = &rest[1..];
                    self.symbol(first)?;
                }
                first => {
                    rest = &rest[first.len_utf8()..];
                    self.character(first, nesting)?;
                }
            }
        }
        Some(())
    }

    /// A run of letters; `1orW` has lost its spaces.
    fn words(&mut self, word: &str) {
        let is_glued = |rest: &str| rest.starts_with(|next: char| next.is_ascii_uppercase());
        match ["or", "and"].iter().find_map(|joint| Some((*joint, word.strip_prefix(joint).filter(|rest| is_glued(rest))?))) {
            Some((joint, rest)) => {
                self.push(Token::Word(joint.to_owned()));
                self.push(Token::Word(rest.to_owned()));
            }
            None => self.push(Token::Word(word.to_owned())),
        }
    }

    fn symbol(&mut self, symbol: char) -> Option<()> {
        match symbol {
            '(' | '[' => self.depth += 1,
            ')' | ']' => self.depth = self.depth.saturating_sub(1),
            '+' | '-' | '*' | '/' | '^' | '_' | '{' | '}' | '|' | ',' | ';' | ':' | '!' | '\'' | '%' | '=' | '<' | '>' | '&'
            | '?' => {}
            _ => return None,
        }
        // `>=`, `<=`, `!=`, `**`.
        if !self.is_spaced
            && let Some(last) = self.lexemes.last_mut()
        {
            let joined = match (&last.token, symbol) {
                (Token::Symbol('>'), '=') => Some(Token::Command("ge".to_owned())),
                (Token::Symbol('<'), '=') => Some(Token::Command("le".to_owned())),
                (Token::Symbol('!'), '=') => Some(Token::Command("ne".to_owned())),
                (Token::Symbol('*'), '*') => Some(Token::Symbol('^')),
                (Token::Symbol('='), '=') => Some(Token::Symbol('=')),
                _ => None,
            };
            if let Some(token) = joined {
                last.token = token;
                return Some(());
            }
        }
        self.push(Token::Symbol(symbol));
        Some(())
    }

    fn character(&mut self, character: char, nesting: usize) -> Option<()> {
        if let Some((_, meaning)) = CHARACTERS.iter().find(|(known, _)| *known == character) {
            match meaning.strip_prefix('\\') {
                Some(name) => self.push(Token::Command(name.to_owned())),
                None => self.push(Token::Symbol(meaning.chars().next()?)),
            }
            return Some(());
        }
        if let Some(digit) = RAISED.chars().position(|raised| raised == character) {
            self.push(Token::Symbol('^'));
            self.push(Token::Number(digit.to_string()));
            return Some(());
        }
        if let Some((_, digits)) = FRACTIONS.iter().find(|(known, _)| *known == character) {
            self.push(Token::Command("frac".to_owned()));
            for digit in digits.chars() {
                self.push(Token::Number(digit.to_string()));
            }
            return Some(());
        }
        // Full-width digits and letters and their like.
        let plain: String = character.nfkc().collect();
        if nesting == 0 && plain.len() == 1 && plain.is_ascii() { self.read(&plain, 1) } else { None }
    }

    fn command(&mut self, rest: &mut &str, nesting: usize) -> Option<()> {
        let name = command_name(rest).ok()?;
        match name {
            "," | "!" | ";" | ":" | " " | ">" | "/" => {
                self.is_spaced |= name != "!";
                return Some(());
            }
            "(" | ")" | "[" | "]" => {
                self.is_spaced = true;
                return Some(());
            }
            // `\\frac`: a backslash that was escaped once too often. Between rows letters do not follow directly.
            "\\" if self.rows == 0 && rest.starts_with(|next: char| next.is_ascii_alphabetic() || "({[)}],;!".contains(next)) => {
                let name = if rest.starts_with(|next: char| next.is_ascii_alphabetic()) { letters(rest).ok()? } else { "," };
                return if name == "," { Some(()) } else { self.named(name, rest, nesting) };
            }
            "\\" => {
                self.push(Token::RowEnd);
                return Some(());
            }
            "$" => {
                self.is_spaced = true;
                return Some(());
            }
            _ => {}
        }
        self.named(name, rest, nesting)
    }

    fn named(&mut self, name: &str, rest: &mut &str, nesting: usize) -> Option<()> {
        let name = SYNONYMS.iter().find(|(other, _)| *other == name).map_or(name, |(_, name)| name);
        match name {
            "{" => {
                self.depth += 1;
                self.push(Token::SetOpen);
            }
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                self.push(Token::SetClose);
            }
            "°" | "#" => self.push(Token::Symbol(name.chars().next()?)),
            _ if name.chars().all(|first| !first.is_alphabetic()) => self.symbol(name.chars().next()?)?,
            "begin" | "end" => {
                let group = group(rest)?;
                let group = group.trim_end_matches('*').to_owned();
                if name == "begin" {
                    self.rows += 1;
                } else {
                    self.rows = self.rows.saturating_sub(1);
                }
                if name == "begin" && group == "array" {
                    self::group(rest)?;
                }
                self.push(if name == "begin" { Token::Begin(group) } else { Token::End(group) });
            }
            "color" | "textcolor" | "hphantom" | "vphantom" | "label" | "tag" => {
                group(rest)?;
            }
            "mathbb" => {
                let content = group(rest)?;
                let name = match content.trim() {
                    "R" => "reals",
                    "Z" => "integers",
                    "N" => "naturals",
                    "Q" => "rationals",
                    "C" => "complexes",
                    _ => return None,
                };
                self.push(Token::Command(name.to_owned()));
            }
            _ if FACES.contains(&name) => {
                let content = argument(rest)?;
                self.read(content, nesting + 1)?;
            }
            _ if TEXTUAL.contains(&name) => {
                let content = argument(rest)?;
                self.textual(content, nesting)?;
            }
            _ if SILENT.contains(&name) => {
                self.is_spaced |= name.ends_with("quad") || name.ends_with("space");
                if let ("left" | "right", Some(after)) = (name, rest.strip_prefix('.')) {
                    *rest = after;
                }
            }
            _ => self.push(Token::Command(name.to_owned())),
        }
        Some(())
    }

    /// Words are text; a single letter, and whatever holds mathematics, is read as if it stood there bare.
    fn textual(&mut self, content: &str, nesting: usize) -> Option<()> {
        let words = content.replace(['~', '$'], " ").replace("\\ ", " ").replace("\\,", " ");
        let words = words.trim();
        let is_words = words.chars().all(|character| character.is_alphabetic() || " -'’/.".contains(character))
            && words.chars().any(char::is_alphabetic);
        if is_words && (words.len() > 1) {
            self.is_spaced |= content.starts_with([' ', '~', '\\']);
            self.push(Token::Text(words.to_owned()));
            return Some(());
        }
        if nesting > 4 { None } else { self.read(content, nesting + 1) }
    }
}

/// A decimal with its separators, and an exponent as in `1.5e3`.
fn number(rest: &mut &str, has_separators: bool) -> Lexed<String> {
    let mut text = String::new();
    if let Some(digits) = opt(digit1::<_, ContextError>).parse_next(rest)? {
        text.push_str(digits);
        let may_group = has_separators && digits.len() <= 3 && !digits.starts_with('0');
        if may_group {
            let start = *rest;
            let mut groups = String::new();
            while let Ok(group) = thousands(rest) {
                groups.push(',');
                groups.push_str(group);
            }
            // `1,2345` has no thousands.
            if rest.starts_with(|next: char| next.is_ascii_digit()) {
                *rest = start;
            } else {
                text.push_str(&groups);
            }
        }
    }
    if rest.starts_with('.') && !rest.starts_with("..") {
        let decimals = rest[1..].len() - rest[1..].trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
        if decimals > 0 || (!text.is_empty() && rest[1..].starts_with("\\overline")) {
            text.push_str(&rest[..=decimals]);
            *rest = &rest[1 + decimals..];
        }
    }
    if text.is_empty() {
        return Err(ContextError::new());
    }
    // `1./3`: a point with nothing behind it.
    if !text.contains('.') && rest.starts_with('.') && rest[1..].starts_with(|next: char| "/*+-)^ ".contains(next)) {
        *rest = &rest[1..];
    }
    if let Ok(exponent) = exponent(rest) {
        text.push('e');
        text.push_str(&exponent);
    }
    Ok(text)
}

/// A separator and three digits.
fn thousands<'a>(rest: &mut &'a str) -> Lexed<&'a str> {
    let start = *rest;
    let found =
        preceded(alt((",\\!", "{,}", "{, }", " {,}", " {, }", ",{}", "\\,", ",")), digit1::<_, ContextError>).parse_next(rest);
    match found {
        Ok(digits) if digits.len() == 3 => Ok(digits),
        Ok(_) => {
            *rest = start;
            Err(ContextError::new())
        }
        Err(error) => {
            *rest = start;
            Err(error)
        }
    }
}

/// `e3`, `E-3`: only where digits follow.
fn exponent(rest: &mut &str) -> Lexed<String> {
    let start = *rest;
    let read = (alt(("e", "E")), opt(alt(("-", "+", "−"))), digit1::<_, ContextError>).parse_next(rest);
    match read {
        Ok((_, sign, digits)) if !rest.starts_with(|next: char| next.is_ascii_alphabetic()) => {
            Ok(format!("{}{digits}", if matches!(sign, Some("-" | "−")) { "-" } else { "" }))
        }
        _ => {
            *rest = start;
            Err(ContextError::new())
        }
    }
}

fn letters<'a>(rest: &mut &'a str) -> Lexed<&'a str> {
    take_while(1.., |letter: char| letter.is_ascii_alphabetic()).parse_next(rest)
}

/// A backslash and letters, or one other character.
fn command_name<'a>(rest: &mut &'a str) -> Lexed<&'a str> {
    preceded("\\", alt((letters, any.take()))).parse_next(rest)
}

/// The content of the brace group that comes next.
fn group<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let _ = opt(multispace1::<_, ContextError>).parse_next(rest);
    let (content, after) = super::literal::split_group(rest.strip_prefix('{')?)?;
    *rest = after;
    Some(content)
}

/// The same, or a single character.
fn argument<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let start = rest.trim_start();
    if start.starts_with('{') {
        return group(rest);
    }
    let length = start.chars().next()?.len_utf8();
    let (content, after) = start.split_at(length);
    *rest = after;
    Some(content)
}
