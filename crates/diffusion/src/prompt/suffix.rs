//! Compel's weights: `word++`, `word--`, `(some words)++`, `(some words)1.3`.
//!
//! A suffix counts when a blank, punctuation, a bracket or the end follows it, so that `(red)-haired` and `1990s-style` are words.

use super::Piece;

/// Weight of each sign.
const PLUS: f64 = 1.1;
const MINUS: f64 = 0.9;

/// The weight right behind a group's bracket, and its length.
pub(super) fn group_suffix(rest: &str) -> Option<(f64, usize)> {
    signs(rest).or_else(|| number(rest))
}

/// A text's words that have signs, each a piece of its own, and what is between them.
pub(super) fn weighted_words(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find(['+', '-']).map(|offset| at + offset) {
        let run = text[found..].chars().take_while(|&c| c == '+' || c == '-').count();
        at = found + run;
        let before = &text[start..found];
        let Some((weight, _)) = signs(&text[found..]) else { continue };
        if !before.ends_with(char::is_alphanumeric) {
            continue;
        }
        let word = before.rfind(|c: char| c.is_whitespace() || c == ',');
        let word = word.map_or(0, |i| i + before[i..].chars().next().map_or(0, char::len_utf8));
        pieces.push(Piece { text: before[..word].to_owned(), weight: 1.0 });
        pieces.push(Piece { text: before[word..].to_owned(), weight });
        start = at;
    }
    pieces.push(Piece { text: text[start..].to_owned(), weight: 1.0 });
    pieces.retain(|piece| !piece.text.is_empty());
    pieces
}

/// A run of one sign: its weight and its length.
fn signs(text: &str) -> Option<(f64, usize)> {
    let (sign, weight) = match text.chars().next()? {
        '+' => ('+', PLUS),
        '-' => ('-', MINUS),
        _ => return None,
    };
    let length = text.chars().take_while(|&c| c == sign).count();
    ends(&text[length..]).then(|| (weight.powi(length as i32), length))
}

/// A number without a sign: its value and its length.
fn number(text: &str) -> Option<(f64, usize)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    let fraction = text[whole..].strip_prefix('.').map_or(0, digits);
    let length = if fraction > 0 { whole + 1 + fraction } else { whole };
    ends(&text[length..]).then_some(())?;
    Some((text[..length].parse().ok()?, length))
}

/// Whether a suffix may end before this.
fn ends(rest: &str) -> bool {
    rest.chars().next().is_none_or(|c| !(c.is_alphanumeric() || "+-_".contains(c)))
}
