//! Words as numbers, times and places, and notes about them.

use lb_core::time::Millis;

use super::words::{Line, Word};
use crate::import::{
    draft::Origin,
    note::{NoteCode, Notes},
};

pub(super) fn origin(line: &Line) -> Origin {
    let path: Vec<_> = line.iter().take(2).map(|word| word.text.as_str()).collect();
    Origin::Field { path: path.join(" "), place: line[0].place.clone() }
}

pub(super) fn note(notes: &Notes, code: NoteCode, word: &Word, message: impl Into<String>) {
    notes.add(code, Some(&word.place), &word.text, message, "");
}

pub(super) fn number(word: &Word, range: std::ops::RangeInclusive<u32>, notes: &Notes) -> Option<u32> {
    let number = word.text.parse().ok().filter(|number| range.contains(number));
    if number.is_none() {
        let message = format!("{:?} is not a number from {} to {}", word.text, range.start(), range.end());
        note(notes, NoteCode::WrongValue, word, message);
    }
    number
}

pub(super) fn at_time(word: &Word, notes: &Notes) -> Option<Millis> {
    let time = time(&word.text);
    if time.is_none() {
        let message = format!("{:?} is not a time such as 5s or 500ms", word.text);
        note(notes, NoteCode::WrongValue, word, message);
    }
    time
}

/// A number with a unit, milliseconds if it has none.
pub(super) fn time(text: &str) -> Option<Millis> {
    const LONGEST: u64 = 365 * 24 * 3_600_000;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let ms = match &text[digits..] {
        "us" => number.div_ceil(1000),
        "" | "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        "d" => number.checked_mul(24 * 3_600_000)?,
        _ => return None,
    };
    (ms <= LONGEST).then_some(Millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_haproxy() {
        for (text, ms) in
            [("5s", 5000), ("500", 500), ("10ms", 10), ("1m", 60_000), ("1d", 86_400_000), ("1us", 1)]
        {
            assert_eq!(time(text), Some(Millis(ms)), "{text}");
        }
        for text in ["", "s", "5 s", "1.5s", "5x", "99999d", "99999999999999999999"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
