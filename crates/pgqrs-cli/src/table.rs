//! Tables that fit the terminal: cells wrap if it is too narrow. In a pipe or a file each row is one line.

use std::io::{IsTerminal, stdout};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use terminal_size::{Width, terminal_size_of};

use crate::output::printable;

/// A column, and whether it has numbers, which are aligned to the right.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    Text(&'static str),
    Number(&'static str),
}

/// A table with a head, and one line for each row; or `nothing` if there are no rows.
pub(crate) fn table<const N: usize>(
    columns: [Column; N],
    rows: impl IntoIterator<Item = [String; N]>,
    nothing: &str,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.map(|column| match column {
        Column::Text(head) | Column::Number(head) => head,
    }));
    let mut is_empty = true;
    for row in rows {
        is_empty = false;
        table.add_row(row.map(|cell| printable(&cell)));
    }
    if is_empty {
        return nothing.to_owned();
    }
    for (column, kind) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if matches!(kind, Column::Number(_)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(width) = width() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
    }
    table.trim_fmt()
}

/// The columns of the terminal that standard output goes to.
fn width() -> Option<u16> {
    if !stdout().is_terminal() {
        return None;
    }
    let (Width(width), _) = terminal_size_of(stdout())?;
    Some(width)
}

/// Names and values, one to a line.
pub(crate) fn facts<const N: usize>(facts: [(&str, String); N]) -> String {
    let width = facts
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or_default();
    let lines = facts.map(|(name, value)| format!("{name:<width$}  {}", printable(&value)));
    lines.join("\n")
}
