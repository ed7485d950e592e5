//! An answer that ends before one of some texts.

/// What was said so far. What could be the beginning of a text that ends it is held back.
pub struct Stopping<'a> {
    stops: &'a [String],
    said: String,
    /// Bytes of it that were given on.
    given: usize,
    over: bool,
}

impl<'a> Stopping<'a> {
    /// Nothing said yet.
    pub fn new(stops: &'a [String]) -> Self {
        Stopping { stops, said: String::new(), given: 0, over: false }
    }

    /// More was said: what can be given on, and whether the answer ends here.
    pub fn hear(&mut self, words: &str) -> (&str, bool) {
        let from = self.given;
        if !self.over {
            self.said += words;
            let ends = self.stops.iter().filter_map(|stop| self.said.find(stop.as_str()));
            if let Some(end) = ends.min() {
                self.said.truncate(end);
                self.over = true;
            }
            self.given = if self.over { self.said.len() } else { self.said.len() - self.held() };
        }
        (self.said.get(from..self.given).unwrap_or_default(), self.over)
    }

    /// Whether one of the texts was said.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// All that was said, and what of it was not given on yet.
    pub fn finish(self) -> (String, String) {
        let rest = self.said.get(self.given..).unwrap_or_default().to_owned();
        (self.said, rest)
    }

    /// Bytes at the end with which one of the texts could begin.
    fn held(&self) -> usize {
        let begins = |stop: &String| {
            let lengths = stop.char_indices().map(|(at, _)| at).filter(|&at| at > 0);
            lengths.filter(|&at| self.said.ends_with(&stop[..at])).max()
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pieces: &[&str], stops: &[&str]) -> (String, String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let (mut stopping, mut given) = (Stopping::new(&stops), String::new());
        for piece in pieces {
            given += stopping.hear(piece).0;
        }
        let over = stopping.is_over();
        let (text, rest) = stopping.finish();
        (text, given + &rest, over)
    }

    #[test]
    fn answers_end_before_the_texts_and_nothing_of_them_is_given_on() {
        for (pieces, stops, text, over) in [
            (&["a red", " circle"][..], &[][..], "a red circle", false),
            (&["a red", " circle"], &["circle"], "a red ", true),
            (&["a red ci", "rcle on"], &["circle"], "a red ", true),
            (&["a red ci", "nema"], &["circle"], "a red cinema", false),
            (&["a red ci"], &["circle"], "a red ci", false),
            (&["one two three"], &["three", "two"], "one ", true),
            (&["\u{e4}\u{f6}", "\u{fc}!"], &["\u{f6}\u{fc}"], "\u{e4}", true),
        ] {
            let found = said(pieces, stops);
            assert_eq!(found, (text.to_owned(), text.to_owned(), over), "{pieces:?} {stops:?}");
        }
    }
}
