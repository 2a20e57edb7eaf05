//! What all searches have in common: their conditions, and where a page ends.

use crate::admin::rows::search::{Cursor, Found};

/// How many rows a search looks at, as its statements say. A number there and no parameter, so that the planner knows
/// that they are few.
pub(super) const LOOKED_AT: i64 = 50_000;

/// What a message or a dead letter has to meet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) header: Option<(String, String)>,
    pub(crate) payload: Option<(Vec<String>, String)>,
    pub(crate) error: Option<String>,
    pub(crate) group: Option<String>,
}

impl Filter {
    pub(super) fn header_name(&self) -> Option<&str> {
        self.header.as_ref().map(|(name, _)| name.as_str())
    }

    pub(super) fn header_value(&self) -> Option<&str> {
        self.header.as_ref().map(|(_, value)| value.as_str())
    }

    pub(super) fn payload_path(&self) -> Option<&[String]> {
        self.payload.as_ref().map(|(path, _)| path.as_slice())
    }

    pub(super) fn payload_value(&self) -> Option<&str> {
        self.payload.as_ref().map(|(_, value)| value.as_str())
    }
}

/// A row of a page: something that was found, or the last one that was looked at.
pub(super) struct Row<T> {
    pub(super) item: T,
    pub(super) cursor: Cursor,
    pub(super) place: i64,
    pub(super) matches: bool,
}

pub(super) fn page<T>(rows: Vec<Row<T>>, limit: u32) -> Found<T> {
    let last = rows.last();
    let is_cut = last.is_some_and(|last| last.place == LOOKED_AT);
    let is_full = u32::try_from(rows.len()).is_ok_and(|rows| rows == limit);
    Found {
        next: last.map(|last| last.cursor).filter(|_| is_cut || is_full),
        is_cut,
        items: rows
            .into_iter()
            .filter(|row| row.matches)
            .map(|row| row.item)
            .collect(),
    }
}
