//! The statements of test helpers for connections that aren't sqlx's. Python's are made of them.

use crate::postgres::{settle::statement, test_statement};

/// A statement of a test helper, for a connection of any driver that is in a test's own transaction. What it takes and
/// returns may change with any version: it is for the Python package, which is built with this version.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TestStatement {
    /// Lists messages.
    List,
    /// Takes a message.
    Take,
    /// Acknowledges it.
    Ack,
    /// Acknowledges it, and lets the next one of its group in.
    AckInGroup,
    /// Archives it.
    Archive,
    /// Archives it, and lets the next one of its group in.
    ArchiveInGroup,
    /// Puts it back.
    PutBack,
    /// Moves it to the dead letters.
    DeadLetter,
}

impl TestStatement {
    /// The text, with a cast for each of its parameters.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Self::List => test_statement::list(),
            Self::Take => test_statement::take(),
            Self::Ack => statement::ack(),
            Self::AckInGroup => statement::ack_in_group(),
            Self::Archive => statement::archive(),
            Self::ArchiveInGroup => statement::archive_in_group(),
            Self::PutBack => test_statement::put_back(),
            Self::DeadLetter => test_statement::dead_letter(),
        }
    }
}
