//! From a prompt to pieces: brackets, weights and escapes.

use super::error::{alternating, refuse_keywords, scheduling};
use super::suffix::{group_suffix, weighted_words};
use super::{Piece, PromptSyntaxError};

/// Factor of round brackets without a number; square ones divide by it.
const BRACKET: f64 = 1.1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Round,
    Square,
}

/// An open bracket.
struct Open {
    bracket: Bracket,
    /// Where it is in the prompt.
    at: usize,
    /// The first piece in it.
    first: usize,
}

struct Parser<'a> {
    prompt: &'a str,
    /// How much of the prompt is read.
    at: usize,
    pieces: Vec<Piece>,
    open: Vec<Open>,
}

/// Pieces of a prompt, which may be empty, and equal in weight to their neighbours.
pub(super) fn pieces(prompt: &str) -> Result<Vec<Piece>, PromptSyntaxError> {
    let mut parser = Parser { prompt, at: 0, pieces: Vec::new(), open: Vec::new() };
    while let Some(next) = parser.rest().chars().next() {
        match next {
            '\\' => parser.escape(),
            '(' => parser.open(Bracket::Round),
            '[' => parser.open(Bracket::Square),
            ')' => parser.close_round(),
            ']' => parser.close_square(),
            ':' => parser.colon()?,
            _ => parser.text()?,
        }
    }
    // A bracket that is never closed reaches to the end.
    while let Some(open) = parser.open.pop() {
        parser.multiply(open.first, factor(open.bracket));
    }
    Ok(parser.pieces)
}

fn factor(bracket: Bracket) -> f64 {
    match bracket {
        Bracket::Round => BRACKET,
        Bracket::Square => 1.0 / BRACKET,
    }
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.prompt[self.at..]
    }

    fn push(&mut self, text: &str) {
        self.pieces.push(Piece { text: text.to_owned(), weight: 1.0 });
    }

    /// A backslash goes; the character after it is only itself.
    fn escape(&mut self) {
        let escaped = self.rest().chars().nth(1).map(String::from).unwrap_or_default();
        self.push(&escaped);
        self.at += 1 + escaped.len();
    }

    fn open(&mut self, bracket: Bracket) {
        self.open.push(Open { bracket, at: self.at, first: self.pieces.len() });
        self.at += 1;
    }

    /// The innermost open bracket of a kind, which is not open any more.
    fn take(&mut self, bracket: Bracket) -> Option<Open> {
        let at = self.open.iter().rposition(|open| open.bracket == bracket)?;
        Some(self.open.remove(at))
    }

    fn multiply(&mut self, first: usize, factor: f64) {
        self.pieces[first..].iter_mut().for_each(|piece| piece.weight *= factor);
    }

    /// `)`, perhaps with compel's weight behind it.
    fn close_round(&mut self) {
        self.at += 1;
        let Some(open) = self.take(Bracket::Round) else { return self.push(")") };
        let (weight, length) = group_suffix(self.rest()).unwrap_or((BRACKET, 0));
        self.at += length;
        self.multiply(open.first, weight);
    }

    fn close_square(&mut self) {
        self.at += 1;
        match self.take(Bracket::Square) {
            Some(open) => self.multiply(open.first, 1.0 / BRACKET),
            None => self.push("]"),
        }
    }

    /// A colon: with a number and a bracket behind it a weight or a time, else text.
    fn colon(&mut self) -> Result<(), PromptSyntaxError> {
        let within = self.open.last().map(|open| (open.bracket, open.at));
        match number_and_bracket(&self.rest()[1..]) {
            Some((_, ']', length)) if matches!(within, Some((Bracket::Square, _))) => {
                let start = within.map_or(self.at, |(_, at)| at);
                return Err(scheduling(self.prompt[start..self.at + 1 + length].to_owned()));
            }
            Some((number, ')', length)) => {
                if let Some(open) = self.take(Bracket::Round) {
                    self.multiply(open.first, parsed(number)?);
                    self.at += 1 + length;
                    return Ok(());
                }
            }
            _ => {}
        }
        self.push(":");
        self.at += 1;
        Ok(())
    }

    /// Text up to the next character that means something.
    fn text(&mut self) -> Result<(), PromptSyntaxError> {
        let rest = self.rest();
        let text = &rest[..rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len())];
        let within = self.open.last().filter(|open| open.bracket == Bracket::Square);
        if let (Some(open), Some(bar)) = (within, text.find('|')) {
            return Err(alternating(self.prompt[open.at..=self.at + bar].to_owned()));
        }
        refuse_keywords(text)?;
        self.pieces.extend(weighted_words(text));
        self.at += text.len();
        Ok(())
    }
}

/// What looks like a number, the bracket right behind it, and the length of both with the blanks around them.
fn number_and_bracket(text: &str) -> Option<(&str, char, usize)> {
    let end = text.find([')', ']'])?;
    let number = text[..end].trim();
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let looks = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.chars().all(|c| c.is_ascii_digit() || ".,".contains(c));
    looks.then(|| (number, char::from(text.as_bytes()[end]), end + 1))
}

fn parsed(number: &str) -> Result<f64, PromptSyntaxError> {
    number.parse().map_err(|_| PromptSyntaxError::Number { found: number.to_owned() })
}
