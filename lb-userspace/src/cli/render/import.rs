//! The table of `shunt import --explain`.

use super::table::{self, Cell, Side};
use crate::{cli::palette::Palette, import::Row};

pub fn import(rows: &[Row], palette: Palette) -> String {
    let heads = [
        ("place", Side::Left),
        ("field", Side::Left),
        ("key", Side::Left),
        ("value", Side::Left),
        ("differs", Side::Left),
    ];
    let cells: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| [&row.place, &row.field, &row.key, &row.value, &row.differs].map(Cell::plain).to_vec())
        .collect();
    table::lines(&heads, &cells, None, palette).iter().map(|line| format!("{}\n", line.trim_end())).collect()
}
