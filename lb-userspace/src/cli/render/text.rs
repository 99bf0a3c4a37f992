//! Numbers, spans and sentences as people read them.

use lb_core::time::{self, Millis};

pub(super) use crate::printable::printable;

pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

/// Not wider than `most`; an ellipsis says that something is missing.
pub(super) fn truncated(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let start: String = text.chars().take(most.saturating_sub(1)).collect();
    start + "…"
}

/// Words in lines of at most `most` columns, the first after `lead`, the others below its end.
pub(super) fn wrap(text: &str, lead: &str, most: usize) -> Vec<String> {
    let indent = " ".repeat(width(lead));
    let mut lines = Vec::new();
    let mut line = lead.to_owned();
    let mut words = 0;
    for word in text.split(' ') {
        if words > 0 && width(&line) + 1 + width(word) > most {
            lines.push(std::mem::replace(&mut line, indent.clone()));
            words = 0;
        }
        if words > 0 {
            line.push(' ');
        }
        line += word;
        words += 1;
    }
    lines.push(line);
    lines
}

/// In five characters, up to a quadrillion: `9999`, `12.3k`, `456k`, `7.8M`. Truncated, not rounded.
pub(super) fn short(number: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    if number < 10_000 {
        return number.to_string();
    }
    let (size, unit) =
        UNITS.into_iter().find(|(size, _)| number >= *size).expect("ten thousand is above the smallest unit");
    let (whole, tenths) = (number / size, number % size * 10 / size);
    if whole < 100 { format!("{whole}.{tenths}{unit}") } else { format!("{whole}{unit}") }
}

/// From hundredths of a percent. Only all is 100 %, only nothing is 0 %.
pub(super) fn share(share: u32) -> String {
    match share {
        1..=99 => "<1%".to_owned(),
        10_000 => "100%".to_owned(),
        _ => format!("{}%", ((share + 50) / 100).min(99)),
    }
}

pub(super) fn exact_share(share: u32) -> String {
    format!("{}.{:02}%", share / 100, share % 100)
}

/// A span of milliseconds.
pub(super) fn span(ms: u64) -> String {
    time::span(Millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        for (number, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (99_999, "99.9k"),
            (100_000, "100k"),
            (999_999, "999k"),
            (1_000_000, "1.0M"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn shares_do_not_round_to_all_or_nothing() {
        let shares = [(0, "0%"), (1, "<1%"), (100, "1%"), (3_333, "33%"), (6_667, "67%"), (9_999, "99%")];
        for (hundredths, text) in shares.into_iter().chain([(10_000, "100%")]) {
            assert_eq!(share(hundredths), text);
        }
        assert_eq!(exact_share(3_305), "33.05%");
    }

    #[test]
    fn sentences_wrap_below_their_lead() {
        assert_eq!(wrap("one two three", "-> ", 11), ["-> one two", "   three"]);
        assert_eq!(wrap("unbreakable x", "-> ", 5), ["-> unbreakable", "   x"]);
        assert_eq!(truncated("unbreakable", 6), "unbre…");
    }
}
