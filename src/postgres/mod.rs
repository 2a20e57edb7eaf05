//! Every SQL statement of the crate: a file a table, a function a statement. For the layers above, which
//! name what they want and never see SQL. Each statement is a `query!`, held against `.sqlx` when the
//! crate is compiled: after a change here, run `cargo xtask prepare`.

pub(crate) mod archive;
pub(crate) mod dead_letters;
pub(crate) mod messages;
pub(crate) mod queues;
pub(crate) mod schema;
pub(crate) mod workers;
pub(crate) mod writers;

use std::sync::Arc;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

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
                // The server has ended the session, perhaps after the commit and before its answer.
                _ if ends_session(refusal.as_ref()) => Self::ConnectionLost(Arc::new(error)),
                // connection_exception and its kin
                Some(code) if code.starts_with("08") => Self::ConnectionLost(Arc::new(error)),
                _ => Self::Database(Arc::new(error)),
            },
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => {
                Self::ConnectionLost(Arc::new(error))
            }
            sqlx::Error::PoolClosed => Self::Closed,
            _ => Self::Database(Arc::new(error)),
        }
    }
}

fn ends_session(refusal: &dyn sqlx::error::DatabaseError) -> bool {
    refusal
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|refusal| matches!(refusal.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}
