//! Lays cells out in columns.

use super::text::{printable, truncated, width};
use crate::cli::palette::{Paint, Palette};

const INDENT: &str = "  ";

/// The last column keeps at least this width when it is truncated.
const LAST: usize = 8;

/// The side on which a text is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    pub(super) fn plain(text: impl AsRef<str>) -> Self {
        Self::painted(text, Paint::Plain)
    }

    pub(super) fn painted(text: impl AsRef<str>, paint: Paint) -> Self {
        Self { text: printable(text.as_ref()), paint }
    }
}

/// Columns are as wide as their widest cell. Above `limit` they move closer together, and if that is not enough, the
/// last one is truncated.
pub(super) fn lines(
    heads: &[(&str, Side)],
    rows: &[Vec<Cell>],
    limit: Option<usize>,
    palette: Palette,
) -> Vec<String> {
    let mut widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(i, (title, _))| rows.iter().map(|row| width(&row[i].text)).fold(width(title), usize::max))
        .collect();
    let sides: Vec<Side> = heads.iter().map(|(_, side)| *side).collect();
    let limit = limit.unwrap_or(usize::MAX);
    let fits = total(&widths, &gaps(&sides, 2)) <= limit;
    let gaps = gaps(&sides, if fits { 2 } else { 1 });
    let over = total(&widths, &gaps).saturating_sub(limit);
    if let Some(last) = widths.last_mut() {
        *last = last.saturating_sub(over).max(LAST.min(*last));
    }
    let line = |cells: Vec<Cell>| {
        let mut line = INDENT.to_owned();
        for (i, Cell { text, paint }) in cells.iter().enumerate() {
            let text = truncated(text, widths[i]);
            let space = " ".repeat(widths[i] - width(&text));
            let text = palette.paint(*paint, &text);
            line += &" ".repeat(gaps[i]);
            line += &match sides[i] {
                Side::Left => text + &space,
                Side::Right => space + &text,
            };
        }
        line.truncate(line.trim_end().len());
        line
    };
    let head = heads.iter().map(|(title, _)| Cell::painted(title, Paint::Faint)).collect();
    std::iter::once(head).chain(rows.iter().cloned()).map(line).collect()
}

/// The gap before each column. Numbers may stand closer: they rarely fill their column.
fn gaps(sides: &[Side], text: usize) -> Vec<usize> {
    let gap = |(i, side): (usize, &Side)| match side {
        _ if i == 0 => 0,
        Side::Left => text,
        Side::Right => 1,
    };
    sides.iter().enumerate().map(gap).collect()
}

fn total(widths: &[usize], gaps: &[usize]) -> usize {
    INDENT.len() + widths.iter().chain(gaps).sum::<usize>()
}
