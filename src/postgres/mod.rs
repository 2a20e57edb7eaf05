//! Every SQL statement of the crate: a file a table, a function a statement. For the layers above, which
//! name what they want and never see SQL. Each statement is a `query!`, held against `.sqlx` when the
//! crate is compiled: after a change here, run `cargo xtask prepare`.

pub(crate) mod archive;
pub(crate) mod dead_letters;
pub(crate) mod messages;
pub(crate) mod queues;
pub(crate) mod schema;
pub(crate) mod workers;

use crate::error::Error;

/// The one place where a SQLSTATE becomes a variant.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(refusal) => match refusal.code().as_deref() {
                // undefined_table, invalid_schema_name: our statements name no tables but ours.
                Some("42P01" | "3F000") => Self::NotInstalled,
                // undefined_column, undefined_function
                Some("42703" | "42883") => Self::SchemaOutdated,
                // admin_shutdown, crash_shutdown, idle_session_timeout; connection_exception and its kin
                Some("57P01" | "57P02" | "57P05") => Self::ConnectionLost(error),
                Some(code) if code.starts_with("08") => Self::ConnectionLost(error),
                _ => Self::Database(error),
            },
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => {
                Self::ConnectionLost(error)
            }
            sqlx::Error::PoolClosed => Self::Closed,
            _ => Self::Database(error),
        }
    }
}
