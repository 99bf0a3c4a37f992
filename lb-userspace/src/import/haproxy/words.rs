//! Lines of a configuration of HAProxy as words: quotes, escapes and comments.

use std::rc::Rc;

use crate::import::note::{NoteCode, Notes, Place};

/// The longest line that HAProxy itself reads has 2048 bytes by default.
const LONGEST: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) place: Place,
}

/// The words of a line that has some.
pub(super) type Line = Vec<Word>;

/// All lines. Errors are noted.
pub(super) fn lines(file: &Rc<str>, text: &str, notes: &Notes) -> Option<Vec<Line>> {
    let mut all = Vec::new();
    let mut is_whole = true;
    for (at, line) in text.lines().enumerate() {
        let place =
            |column: usize| Place { file: Rc::clone(file), line: at as u64 + 1, column: column as u64 + 1 };
        match words(line, place) {
            Ok(words) if words.is_empty() => {}
            Ok(words) => all.push(words),
            Err((column, message)) => {
                notes.add(NoteCode::Syntax, Some(&place(column)), "", message, "");
                is_whole = false;
            }
        }
    }
    is_whole.then_some(all)
}

/// The words of a line, or what is wrong with it, and at which column from 0.
fn words(line: &str, place: impl Fn(usize) -> Place) -> Result<Line, (usize, String)> {
    if line.len() > LONGEST {
        return Err((0, format!("the line is longer than {LONGEST} bytes")));
    }
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<(usize, char)> = None;
    let mut chars = line.chars().enumerate();
    while let Some((column, c)) = chars.next() {
        if c == '\0' {
            return Err((column, "the line has a zero byte".to_owned()));
        }
        let mut push = |text: Option<char>| {
            let word = word.get_or_insert_with(|| Word { text: String::new(), place: place(column) });
            word.text.extend(text);
        };
        match (c, quote) {
            ('\'', Some((_, '\''))) | ('"', Some((_, '"'))) => quote = None,
            (_, Some((_, '\''))) => push(Some(c)),
            ('\\', _) => match chars.next() {
                Some((_, 'n')) => push(Some('\n')),
                Some((_, 't')) => push(Some('\t')),
                Some((_, 'r')) => push(Some('\r')),
                Some((_, next)) => push(Some(next)),
                None => return Err((column, "nothing follows the backslash".to_owned())),
            },
            ('$', Some((_, '"'))) => {
                return Err((
                    column,
                    "a variable of the environment has no value here; write it out".to_owned(),
                ));
            }
            (_, Some(_)) => push(Some(c)),
            ('\'' | '"', None) => {
                push(None);
                quote = Some((column, c));
            }
            ('#', None) => break,
            (' ' | '\t' | '\r', None) => words.extend(word.take()),
            (_, None) => push(Some(c)),
        }
    }
    match quote {
        Some((column, _)) => Err((column, "the quote has no end".to_owned())),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Vec<(String, u64)>, String> {
        let file: Rc<str> = "h.cfg".into();
        let place = |column: usize| Place { file: file.clone(), line: 1, column: column as u64 + 1 };
        let line = words(line, place).map_err(|(column, message)| format!("{column}: {message}"))?;
        Ok(line.into_iter().map(|word| (word.text, word.place.column)).collect())
    }

    #[test]
    fn words_are_those_of_haproxy() {
        let word = |text: &str, column| (text.to_owned(), column);
        assert_eq!(
            read("  server a 10.0.0.1:80 # one"),
            Ok(vec![word("server", 3), word("a", 10), word("10.0.0.1:80", 12)])
        );
        assert_eq!(read("\"a b\"'c # d'e"), Ok(vec![word("a bc # de", 1)]));
        assert_eq!(read(r#"a\ b "\"" ''"#), Ok(vec![word("a b", 1), word("\"", 6), word("", 11)]));
        assert_eq!(read("   # nothing"), Ok(vec![]));
        read("a \"b").expect_err("a quote without end");
        read("a \\").expect_err("an escape of nothing");
        read("a \"$HOME\"").expect_err("a variable");
    }
}
