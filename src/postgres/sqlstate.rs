//! What a SQLSTATE means. The only file that examines one.

use std::{io, sync::Arc};

use sqlx::{
    error::DatabaseError,
    migrate::MigrateError,
    postgres::{PgDatabaseError, PgSeverity},
};

use crate::{
    error::{Error, GENERAL_REMEDY},
    queue::QueueName,
};

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(refusal) => match refusal.code().as_deref() {
                // undefined_table, invalid_schema_name
                Some("42P01" | "3F000") if is_ours(refusal.as_ref()) => Self::NotInstalled,
                // undefined_column, undefined_function
                Some("42703" | "42883") if is_ours(refusal.as_ref()) => Self::SchemaOutdated,
                // insufficient_privilege
                Some("42501") => match denied_object(refusal.as_ref()) {
                    Some(object) => Self::PermissionDenied {
                        role: None,
                        object,
                        source: Arc::new(error),
                    },
                    None => Self::Database(Arc::new(error)),
                },
                // The server has ended the session, perhaps after the commit and before its answer.
                _ if ends_session(refusal.as_ref()) => Self::ConnectionLost(Arc::new(error)),
                // connection_exception and the others of its class
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

/// Whether it is one of our statements that names the missing object, and not a trigger or a rule of the user's.
fn is_ours(refusal: &dyn DatabaseError) -> bool {
    let is_in_our_text = refusal
        .try_downcast_ref::<PgDatabaseError>()
        // Only statements inside a function have a context.
        .is_none_or(|refusal| refusal.r#where().is_none());
    let names_a_table = matches!(refusal.code().as_deref(), Some("42P01" | "3F000"));
    // The name is in the message, whatever its language.
    is_in_our_text && (!names_a_table || refusal.message().contains("pgqrs"))
}

/// The object of ours on which the role lacks a privilege.
fn denied_object(refusal: &dyn DatabaseError) -> Option<String> {
    const OURS: [&str; 12] = [
        "archive",
        "dead_letters",
        "fire_schedules",
        "firings",
        "messages",
        "messages_id_seq",
        "queues",
        "schedules",
        "seen",
        "workers",
        "writers",
        "_sqlx_migrations",
    ];
    let refusal = refusal.try_downcast_ref::<PgDatabaseError>()?;
    // Row-level security has the same code, but may apply to single rows; a trigger has a context.
    let is_ours = refusal.r#where().is_none()
        && matches!(
            refusal.routine(),
            Some("aclcheck_error" | "nextval_internal")
        );
    // The name is in the message, whatever its language.
    let is_separator = |letter: char| !letter.is_alphanumeric() && letter != '_';
    let mut words = refusal.message().split(is_separator);
    let name = words.find(|word| *word == "pgqrs" || OURS.contains(word))?;
    is_ours.then(|| match name {
        "pgqrs" => "schema pgqrs".to_owned(),
        name => format!("pgqrs.{name}"),
    })
}

fn ends_session(refusal: &dyn DatabaseError) -> bool {
    refusal
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|refusal| matches!(refusal.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

impl Error {
    /// Whether the same call may succeed if it is repeated: the reason is the connection, the load, a conflict with
    /// another transaction or a running worker, and not the call's arguments.
    ///
    /// | variant | |
    /// |---|---|
    /// | `AcquireTimeout`, `NotStored`, `ConnectionLost` | yes |
    /// | `WorkerExists` | yes: the other one may end, or count as crashed |
    /// | `KeyHeld` | yes: the other transaction ends |
    /// | `Connect` | if the server wasn't reached, is starting, stopping or full; not if the URL, the login or a certificate is refused |
    /// | `Database`, `Migrate` | after a deadlock, a serialization failure, a time-out for a lock or a statement, on a server that is full or read-only |
    /// | `OutcomeUnknown` | no: the messages may be stored |
    /// | all others | no |
    ///
    /// An enqueue that failed with [`ConnectionLost`](Self::ConnectionLost) may have been stored, so repeating it may
    /// store it twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::AcquireTimeout { .. }
            | Self::NotStored { .. }
            | Self::ConnectionLost(_)
            | Self::KeyHeld { .. }
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
    /// | `Database`, `NotInstalled`, `SchemaOutdated`, `PermissionDenied`, `KeyHeld` | yes: the server refused the statement |
    /// | `ConnectionLost`, `Connect` | yes: there is no transaction any more |
    /// | `QueueNotFound`, `QueueClosed`, `GroupsNotEnabled`, `WorkerSuspended`, `WorkerStopped`, `LeaseLost` | no: the statement found nothing to do |
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
                | Self::KeyHeld { .. }
                | Self::NotInstalled
                | Self::SchemaOutdated
                | Self::PermissionDenied { .. }
                | Self::ConnectionLost(_)
                | Self::Connect(_)
        )
    }

    /// The remedy for a login that was refused, by the server or by a pooler in front of it.
    pub(crate) fn login_remedy(refusal: &dyn DatabaseError) -> &'static str {
        if refuses_setting(refusal) {
            return "a PgBouncer in front of it refuses this setting: remove it from the URL, or add it to PgBouncer's `ignore_startup_parameters`";
        }
        match refusal.code().as_deref() {
            // invalid_password
            Some("28P01") => "check the user and the password",
            // invalid_authorization_specification
            Some("28000") => {
                "the server's `pg_hba.conf` doesn't admit this login: it may require TLS (`sslmode=require`), a client certificate (`sslcert` and `sslkey`), or another user"
            }
            // invalid_catalog_name
            Some("3D000") => "create the database, or name another one in the URL",
            // too_many_connections
            Some("53300") => {
                "the server has reached its limit of connections: lower `ConnectOptions::max_connections`, or raise the server's `max_connections`"
            }
            // cannot_connect_now
            Some("57P03") => "the server is starting or stopping: try again",
            _ => GENERAL_REMEDY,
        }
    }

    /// Whether a pooler has refused a startup parameter of the connection.
    pub(crate) fn is_refused_setting(error: &sqlx::Error) -> bool {
        error.as_database_error().is_some_and(refuses_setting)
    }

    /// Whether the server has refused a statement, which it has then undone.
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

    /// Whether the role lacks a privilege, on an object of ours or on another.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::PermissionDenied { .. }) || self.has_code(|code| code == "42501")
    }

    /// Whether the server is read-only: it is a standby by now.
    pub(crate) fn is_read_only(&self) -> bool {
        self.has_code(|code| code == "25006")
    }

    /// A statement that has waited for a lock in vain, as a send with a key does: somebody else's open transaction has it.
    pub(crate) fn or_key_held(self, queue: &QueueName) -> Self {
        if self.is_lock_timeout() {
            let queue = queue.clone();
            return Self::KeyHeld { queue };
        }
        self
    }

    /// Whether a statement has waited for a lock in vain.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        // lock_not_available
        self.has_code(|code| code == "55P03")
    }

    /// Whether a migration could not get a lock in time.
    pub(crate) fn is_migration_lock_timeout(&self) -> bool {
        let Self::Migrate(source) = self else {
            return false;
        };
        let (MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) = &**source
        else {
            return false;
        };
        // lock_not_available
        let code = source
            .as_database_error()
            .and_then(|refusal| refusal.code());
        code.as_deref() == Some("55P03")
    }

    fn has_code(&self, is: impl FnOnce(&str) -> bool) -> bool {
        self.refusal()
            .and_then(|refusal| refusal.code())
            .is_some_and(|code| is(&code))
    }

    /// Whether a statement on many messages was refused for a reason that may apply to one of them, and isn't
    /// transient: then the others are sent without it.
    pub(crate) fn may_concern_one_message(&self) -> bool {
        !self.concerns_every_message() && !self.is_retryable()
    }

    /// Whether a statement was refused for a reason that all of its rows have in common. An error raised by a trigger
    /// or a constraint, whatever its code, may apply to one row only.
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
        // A missing privilege may concern some rows only.
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

    /// After a fail-over the server may draw ids again that were drawn before. The remedy is to draw others.
    pub(crate) fn is_message_id_taken(&self) -> bool {
        self.breaks("messages_pkey")
    }

    /// A queue's `retry_max` would be shorter than its `retry_min`.
    pub(crate) fn is_retry_max_too_short(&self) -> bool {
        self.breaks("queues_retry_max_check")
    }

    pub(crate) fn is_writer_token_taken(&self) -> bool {
        self.breaks("writers_pkey")
    }

    fn breaks(&self, constraint: &str) -> bool {
        self.refusal()
            .is_some_and(|refusal| refusal.constraint() == Some(constraint))
    }
}

/// Matched by PgBouncer's message, since it has no SQLSTATE for this.
fn refuses_setting(refusal: &dyn DatabaseError) -> bool {
    refusal
        .message()
        .starts_with("unsupported startup parameter")
}

/// Whether a failure is transient.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        // A connection that breaks in the middle of the login is reported as a protocol violation.
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

/// Excludes errors about the server's certificate and about local files. A file that doesn't exist may be the socket of
/// a server that restarts.
fn is_transient_io(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::Unsupported
    )
}

/// SQLSTATEs of transient errors: conflicts between transactions, a server that is starting, stopping or full.
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

#[cfg(test)]
mod tests;
