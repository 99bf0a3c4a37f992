//! `[record]`.

use super::{
    Record, keys,
    reader::{Node, Table, quoted},
    value,
};

/// `PATH_MAX` without the suffix that rotation adds.
const LONGEST_PATH: usize = 4000;

/// Each file begins with the names of all backends.
const LEAST_SIZE: u64 = 1 << 20;
const MOST_SIZE: u64 = 1 << 40;

/// `Some(None)`: there is no such table.
#[expect(clippy::option_option, reason = "the outer one is the reader's: None is a problem that was noted")]
pub(super) fn read(root: &Table<'_>) -> Option<Option<Record>> {
    let Some(node) = root.node("record") else {
        return if root.is_misspelt("record") { None } else { Some(None) };
    };
    let example = "path = \"/var/lib/shunt/events.jsonl\"";
    let table = node.table(&keys::RECORD, "[record]")?;
    let default = Record::default();
    let path = table.required("path", example, |node| value::absolute_path(node, example, LONGEST_PATH));
    let max_size = table.or("max_size", default.max_size, size);
    let files = table.or("files", default.files, |node| node.integer(1..=100));
    Some(Some(Record { path: path?, max_size: max_size?.value, files: files?.value }))
}

/// A size: `"512KiB"`, `"64MiB"`, `"1GiB"`.
fn size(node: &Node<'_>) -> Option<u64> {
    let Some(text) = node.as_str() else {
        return node.expected("a size", &format!("{} = \"64MiB\"", node.key()));
    };
    match parse_size(text) {
        None => node.reject(
            format!("{} is not a size", quoted(text)),
            "write a whole number with `KiB`, `MiB` or `GiB`, for example `\"64MiB\"`",
        ),
        Some(size) if size < LEAST_SIZE => {
            node.reject(format!("{} is too small", quoted(text)), "write at least `\"1MiB\"`")
        }
        Some(size) if size > MOST_SIZE => {
            node.reject(format!("{} is too large", quoted(text)), "write at most `\"1024GiB\"`")
        }
        Some(size) => Some(size),
    }
}

/// Saturates.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let scale: u64 = match &text[digits..] {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let number: u64 = text[..digits].parse().ok()?;
    Some(number.saturating_mul(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two() {
        for (text, expected) in [
            ("512KiB", Some(512 << 10)),
            ("64MiB", Some(64 << 20)),
            ("2GiB", Some(2 << 30)),
            ("18446744073709551615GiB", Some(u64::MAX)),
            ("64MB", None),
            ("64", None),
            ("MiB", None),
            ("1.5MiB", None),
            ("", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }
}
