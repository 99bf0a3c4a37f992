//! Text from outside, made safe for a terminal, a log and one line.
//!
//! A backend, a client's operator or a file may have written it. A control character moves the cursor or begins a line
//! of its own. A format character (Unicode's Cf) such as U+202E lets the rest of the line read backwards. Both are
//! shown as their numbers.

use std::{borrow::Cow, fmt::Write as _};

/// One line without characters that act instead of being seen.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || acts_on_text(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The same for text that has lines.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// The first character that [`printable`] would replace.
pub fn unprintable(text: &str) -> Option<char> {
    text.chars().find(|c| c.is_control() || acts_on_text(*c))
}

/// The last net, for everything that goes to a terminal. Colours and ends of lines of our own pass; everything else that
/// acts becomes `\u202e`, which is also how JSON writes it.
pub fn shielded(text: &str) -> Cow<'_, str> {
    let passes = |c: char| matches!(c, '\n' | '\t' | '\x1b') || !(c.is_control() || acts_on_text(c));
    if text.chars().all(passes) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if passes(c) {
            safe.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(safe)
}

/// Format characters (Cf), and the separators of lines and paragraphs (Zl, Zp), of Unicode 16.
fn acts_on_text(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_acts_on_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc ä"), "a\\u{1b}[2Jb\\nc ä");
        assert_eq!(printable("ok \u{202e}tcejer"), "ok \\u{202e}tcejer");
        assert_eq!(printable_lines("a\nb\r\u{2028}c"), "a\nb\\r\\u{2028}c");
        // The first and the last of every block, and their neighbours where these are letters or signs.
        let acts = [
            0xad, 0x600, 0x605, 0x61c, 0x6dd, 0x70f, 0x890, 0x891, 0x8e2, 0x180e, 0x200b, 0x200f, 0x2028,
            0x2029, 0x202a, 0x202e, 0x2060, 0x2064, 0x2066, 0x2069, 0x206f, 0xfeff, 0xfff9, 0xfffb, 0x110bd,
            0x110cd, 0x13430, 0x1343f, 0x1bca0, 0x1bca3, 0x1d173, 0x1d17a, 0xe0001, 0xe0020, 0xe007f,
        ];
        for number in acts {
            let c = char::from_u32(number).expect("a character");
            assert_eq!(unprintable(&format!("a{c}b")), Some(c), "{number:x}");
        }
        for c in
            ['\u{ac}', '\u{ae}', '\u{606}', '\u{200a}', '\u{2027}', '\u{202f}', '\u{2070}', 'é', '界', '🙂']
        {
            assert_eq!(unprintable(&format!("a{c}b")), None, "{c}");
        }
    }

    #[test]
    fn the_net_lets_colours_pass_and_leaves_json_what_it_was() {
        assert!(matches!(shielded("\x1b[1mweb\x1b[0m\tup\n"), Cow::Borrowed(_)));
        let json = serde_json::json!({ "reason": "a\u{202e}b\u{e0020}c" });
        let shown = shielded(&json.to_string()).into_owned();
        assert_eq!(shown, r#"{"reason":"a\u202eb\udb40\udc20c"}"#);
        let again: serde_json::Value = serde_json::from_str(&shown).expect("still JSON");
        assert_eq!(again, json);
    }
}
