//! Text on a terminal: lines of at most 100 columns.

/// Most columns of a line.
pub const COLUMNS: usize = 100;

/// Text whose lines are broken between words, so that they have at most [`COLUMNS`] where words allow it; what goes on is indented two
/// columns more than its line. Lines that fit stay as they are.
pub fn fold(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(fold_line).collect();
    let end = if text.ends_with('\n') { "\n" } else { "" };
    lines.join("\n") + end
}

fn fold_line(line: &str) -> String {
    if width(line) <= COLUMNS {
        return line.to_owned();
    }
    let margin = line.len() - line.trim_start().len();
    let (mut text, mut column) = (line[..margin].to_owned(), margin);
    let mut empty = true;
    for word in line[margin..].split(' ') {
        let wide = width(word);
        if !empty && column + 1 + wide > COLUMNS {
            text += "\n";
            text += &" ".repeat(margin + 2);
            column = margin + 2;
        } else if !empty {
            text += " ";
            column += 1;
        }
        text += word;
        column += wide;
        empty = false;
    }
    text
}

/// Columns that a text takes; sequences that colour it take none.
fn width(text: &str) -> usize {
    let mut letters = text.chars();
    let mut columns = 0;
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            letters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            columns += 1;
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_lose_none() {
        let words = "to be or not to be that is the question ".repeat(8);
        for margin in ["", "    "] {
            let folded = fold(&format!("{margin}{words}\nshort,  spaced\n"));
            let lines: Vec<&str> = folded.lines().collect();
            assert!(lines.iter().all(|l| width(l) <= COLUMNS), "{folded}");
            let next = lines[1].strip_prefix(&format!("{margin}  ")).unwrap();
            assert!(next.starts_with(|c: char| c.is_ascii_alphabetic()), "{folded}");
            assert!(folded.ends_with("\nshort,  spaced\n"));
            let read = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(read(&folded), read(&format!("{words} short, spaced")));
        }
    }

    #[test]
    fn a_word_without_room_stays_whole_and_colours_take_none() {
        let path = "p".repeat(150);
        assert_eq!(fold(&format!("wrote {path} today")), format!("wrote\n  {path}\n  today"));
        let coloured = format!("\u{1b}[33m{}\u{1b}[0m end", "w".repeat(96));
        assert_eq!(fold(&coloured), coloured);
    }
}
