//! What a SQLSTATE means. The only place that looks at one.

use std::{io, sync::Arc};

use sqlx::{
    error::DatabaseError,
    migrate::MigrateError,
    postgres::{PgDatabaseError, PgSeverity},
};

use crate::error::Error;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(refusal) => match refusal.code().as_deref() {
                // undefined_table, invalid_schema_name
                Some("42P01" | "3F000") if is_ours(refusal.as_ref()) => Self::NotInstalled,
                // undefined_column, undefined_function
                Some("42703" | "42883") if is_ours(refusal.as_ref()) => Self::SchemaOutdated,
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

/// Whether one of our statements names what is missing, and not a trigger or a rule of the user's.
fn is_ours(refusal: &dyn DatabaseError) -> bool {
    let is_in_our_text = refusal
        .try_downcast_ref::<PgDatabaseError>()
        // Only what runs inside of a function has a context.
        .is_none_or(|refusal| refusal.r#where().is_none());
    let names_a_table = matches!(refusal.code().as_deref(), Some("42P01" | "3F000"));
    // Whatever the language of the message, the name stands in it.
    is_in_our_text && (!names_a_table || refusal.message().contains("pgqrs"))
}

fn ends_session(refusal: &dyn DatabaseError) -> bool {
    refusal
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|refusal| matches!(refusal.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

impl Error {
    /// Whether the same call can succeed when it is made again: the reason lies in the connection, the
    /// load, a conflict with another transaction or a worker that lives, and not in what was asked for.
    ///
    /// | variant | |
    /// |---|---|
    /// | `AcquireTimeout`, `NotStored`, `ConnectionLost` | yes |
    /// | `WorkerExists` | yes: the other one may end, or count as crashed |
    /// | `Connect` | if the server wasn't reached, is starting, stopping or full; not if the URL, the login or a certificate is refused |
    /// | `Database`, `Migrate` | after a deadlock, a serialization failure, a time-out for a lock or a statement, on a server that is full or read-only |
    /// | `OutcomeUnknown` | no: the messages may be stored |
    /// | all others | no |
    ///
    /// An enqueue that failed with [`ConnectionLost`](Self::ConnectionLost) may have been stored, so
    /// making it again may store it twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::AcquireTimeout { .. }
            | Self::NotStored { .. }
            | Self::ConnectionLost(_)
            | Self::WorkerExists { .. } => true,
            Self::Connect(source) | Self::Database(source) => is_transient(source),
            Self::Migrate(source) => match &**source {
                MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                    is_transient(source)
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the caller's own transaction, in which a call failed with this error, has failed with it and can only be rolled
    /// back. If not, nothing was stored, and the transaction goes on as if the call had not been made: what it holds already
    /// is committed by `commit`, *without the message*.
    ///
    /// | error of `.execute(&mut tx)` and the like | |
    /// |---|---|
    /// | `Database`, `NotInstalled`, `SchemaOutdated` | yes: the server refused the statement |
    /// | `ConnectionLost`, `Connect` | yes: there is no transaction any more |
    /// | `QueueNotFound`, `WorkerSuspended`, `WorkerStopped`, `LeaseLost` | no: the statement found nothing to do |
    /// | `Serialize`, `PayloadTooLarge`, `PayloadTooDeep`, `InvalidQueueName`, `DelayTooLong` and other bad arguments | no: nothing was sent |
    ///
    /// A batch of more than 1,000 messages runs in a savepoint, so that the transaction could go on even if this says yes.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
    /// # let (order, queue) = (7, "receipts");
    /// let mut tx = store.pool().begin().await?;
    /// let sent = pgqrs::enqueue().message(&order).to(queue).execute(&mut tx).await;
    /// if let Err(error) = sent {
    ///     if error.aborted_transaction() {
    ///         println!("all of it is undone");
    ///     }
    ///     tx.rollback().await?; // in any case, unless the order may stand without its message
    ///     return Err(error.into());
    /// }
    /// tx.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn aborted_transaction(&self) -> bool {
        matches!(
            self,
            Self::Database(_)
                | Self::NotInstalled
                | Self::SchemaOutdated
                | Self::ConnectionLost(_)
                | Self::Connect(_)
        )
    }

    /// The server's refusal of a statement, which it then has undone.
    pub(crate) fn is_refusal(&self) -> bool {
        self.refusal().is_some()
    }

    fn refusal(&self) -> Option<&dyn DatabaseError> {
        match self {
            Self::Database(source) => source.as_database_error(),
            _ => None,
        }
    }

    /// Whether the statement was undone because of another transaction, so that it can be repeated at once.
    pub(crate) fn is_conflict(&self) -> bool {
        // serialization_failure, deadlock_detected
        self.has_code(|code| code == "40001" || code == "40P01")
    }

    /// Whether the server only reads: it is a standby by now.
    pub(crate) fn is_read_only(&self) -> bool {
        self.has_code(|code| code == "25006")
    }

    fn has_code(&self, is: impl FnOnce(&str) -> bool) -> bool {
        self.refusal()
            .and_then(|refusal| refusal.code())
            .is_some_and(|code| is(&code))
    }

    /// Whether a statement on many messages was refused for a reason that may be about one of them, and doesn't pass by
    /// itself: then the others get on without it.
    pub(crate) fn may_concern_one_message(&self) -> bool {
        !self.concerns_every_message() && !self.is_retryable()
    }

    /// Whether a statement was refused for a reason that all of its rows have in common. What a trigger or a constraint
    /// says, in whichever code, may concern one row only.
    pub(crate) fn concerns_every_message(&self) -> bool {
        let Some(refusal) = self.refusal() else {
            return true;
        };
        let is_in_a_function = refusal
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|refusal| refusal.r#where().is_some());
        let Some(code) = refusal.code() else {
            return false;
        };
        // A right that is missing may be one for some rows only.
        let is_general = code != "42501"
            && code.get(..2).is_some_and(|class| {
                matches!(
                    class,
                    // connections, transactions, logins, names and rights, resources, the operator, the server itself
                    "08" | "25" | "28" | "3D" | "3F" | "42" | "53" | "57" | "58" | "F0" | "XX"
                )
            });
        is_general && !is_in_a_function
    }

    /// After a fail-over the server may draw ids again that it has drawn before. Others will do.
    pub(crate) fn is_message_id_taken(&self) -> bool {
        self.breaks("messages_pkey")
    }

    pub(crate) fn is_writer_token_taken(&self) -> bool {
        self.breaks("writers_pkey")
    }

    fn breaks(&self, constraint: &str) -> bool {
        self.refusal()
            .is_some_and(|refusal| refusal.constraint() == Some(constraint))
    }
}

/// Whether a failure passes by itself.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        // A connection that breaks in the middle of the login is a breach of the protocol.
        sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Io(error) => is_transient_io(error),
        sqlx::Error::Tls(error) => error
            .downcast_ref::<io::Error>()
            .is_some_and(is_transient_io),
        sqlx::Error::Database(refusal) => {
            refusal.code().is_some_and(|code| is_transient_code(&code))
        }
        _ => false,
    }
}

/// Not what a look at the other side's certificate, or at a file of one's own, has come to.
fn is_transient_io(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::Unsupported
    )
}

/// The SQLSTATEs that pass: conflicts between transactions, a server that is starting, stopping or full.
fn is_transient_code(sqlstate: &str) -> bool {
    matches!(
        sqlstate,
        "40001" // serialization_failure
        | "40P01" // deadlock_detected
        | "55P03" // lock_not_available
        | "57014" // query_canceled, by a time-out
        | "53300" // too_many_connections
        | "57P01" // admin_shutdown, while a connection is being made
        | "57P02" // crash_shutdown, likewise
        | "57P03" // cannot_connect_now
        | "25006" // read_only_sql_transaction: a standby, until it is promoted
    )
}
