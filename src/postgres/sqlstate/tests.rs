//! Which errors can pass if the call is repeated.

use std::{borrow::Cow, error, fmt, time::Duration};

use serde::de::Error as _;
use sqlx::error::ErrorKind;

use super::*;
use crate::{
    headers::NewHeaders,
    lifecycle::{WorkerId, WorkerKind, WorkerStatus},
    message::MessageId,
    queue::QueueName,
};

/// An error of the server, of which only the code matters here.
#[derive(Debug)]
struct Refusal(&'static str);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl error::Error for Refusal {}

impl DatabaseError for Refusal {
    fn message(&self) -> &str {
        self.0
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.0.into())
    }

    fn as_error(&self) -> &(dyn error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn error::Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

fn refused(code: &'static str) -> sqlx::Error {
    sqlx::Error::Database(Box::new(Refusal(code)))
}

fn io(kind: io::ErrorKind) -> sqlx::Error {
    sqlx::Error::Io(kind.into())
}

fn tls(error: impl Into<Box<dyn error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Tls(error.into())
}

fn invalid_header() -> Error {
    let mut headers = NewHeaders::default();
    headers.set(String::new(), String::new());
    headers.finish().expect_err("no name").into()
}

/// Each variant, in order, with the fields that decide about it.
fn every_variant() -> Vec<(Error, bool)> {
    let queue = || QueueName::new("tasks").expect("a name");
    let (worker, message) = (WorkerId::from(1), MessageId::from(1));
    let second = std::time::Duration::from_secs(1);
    let migrate = |error| Error::Migrate(Arc::new(error));
    let connect = |error| Error::Connect(Arc::new(error));
    let lost = |error| Error::ConnectionLost(Arc::new(error));
    let database = |error| Error::Database(Arc::new(error));
    let json = || Arc::new(serde_json::Error::custom("not JSON"));
    let mut all = vec![
        (Error::NotInstalled, false),
        (Error::SchemaOutdated, false),
        (
            Error::SchemaNewer {
                installed: 2,
                compiled: 1,
            },
            false,
        ),
        (
            Error::SchemaDistributed {
                tables: vec!["messages".to_owned()],
            },
            false,
        ),
        // Waiting for another installer, or for a transaction on a table that is to change, timed out.
        (migrate(MigrateError::Execute(refused("55P03"))), true),
        (
            migrate(MigrateError::ExecuteMigration(refused("55P03"), 1)),
            true,
        ),
        (migrate(MigrateError::Execute(refused("42501"))), false),
        (migrate(MigrateError::VersionMismatch(1)), false),
        (migrate(MigrateError::Dirty(1)), false),
        (
            Error::PermissionDenied {
                role: None,
                object: "table messages".to_owned(),
                source: Arc::new(refused("42501")),
            },
            false,
        ),
        (Error::QueueNotFound { queue: queue() }, false),
        (Error::QueueClosed { queue: queue() }, false),
        (Error::QueueExists { queue: queue() }, false),
        (
            Error::QueueNotEmpty {
                queue: queue(),
                messages: 1,
            },
            false,
        ),
        (
            Error::WorkerExists {
                kind: WorkerKind::Consumer,
                hostname: "host".to_owned(),
                port: 1,
                queue: queue(),
                last_heartbeat: Duration::ZERO,
                crashed_after: Duration::from_secs(30),
            },
            true,
        ),
        (Error::WorkerNotFound { worker }, false),
        (Error::WorkerSuspended { worker }, false),
        (Error::WorkerStopped { worker }, false),
        (
            Error::InvalidTransition {
                worker,
                from: WorkerStatus::Stopped,
                to: WorkerStatus::Ready,
            },
            false,
        ),
        (
            Error::InvalidHostname {
                hostname: String::new(),
            },
            false,
        ),
        (invalid_header(), false),
        (QueueName::new("").expect_err("not a name").into(), false),
        (
            Error::InvalidSetting {
                setting: "max_attempts",
                value: "0".to_owned(),
                expected: "at least 1",
            },
            false,
        ),
        (
            Error::Serialize {
                index: 0,
                source: json(),
            },
            false,
        ),
        (
            Error::PayloadTooLarge {
                index: 0,
                bytes: 2,
                limit: 1,
            },
            false,
        ),
        (Error::PayloadTooDeep { index: 0, limit: 1 }, false),
        (
            Error::Decode {
                message,
                source: json(),
            },
            false,
        ),
        (
            Error::DelayTooLong {
                delay: second,
                limit: second,
            },
            false,
        ),
        (
            Error::InvalidKey {
                index: 0,
                problem: "is empty",
            },
            false,
        ),
        (
            Error::Unkeyed {
                index: 0,
                source: Arc::new(serde_json::Error::custom("not of its queue's type")),
            },
            false,
        ),
        (Error::KeyHeld { queue: queue() }, true),
        (Error::GroupsNotEnabled { queue: queue() }, false),
        (Error::LimitOutOfRange { limit: 0, max: 1 }, false),
        (
            Error::LeaseOutOfRange {
                lease: second,
                min: second,
                max: second,
            },
            false,
        ),
        (Error::LeaseLost { message }, false),
        (Error::AcquireTimeout { after: second }, true),
        (Error::Closed, false),
        (connect(sqlx::Error::Protocol("cut".to_owned())), true),
        (connect(refused("28P01")), false),
        (connect(refused("3D000")), false),
        (connect(sqlx::Error::Configuration("a URL".into())), false),
        // A certificate of an unknown issuer, and a TLS connection that was cut.
        (connect(tls("an unknown issuer")), false),
        (
            connect(tls(io::Error::from(io::ErrorKind::InvalidData))),
            false,
        ),
        (
            connect(tls(io::Error::from(io::ErrorKind::UnexpectedEof))),
            true,
        ),
        (connect(io(io::ErrorKind::InvalidData)), false),
        (connect(io(io::ErrorKind::PermissionDenied)), false),
        (connect(io(io::ErrorKind::ConnectionRefused)), true),
        (connect(io(io::ErrorKind::ConnectionReset)), true),
        (connect(io(io::ErrorKind::TimedOut)), true),
        // The socket of a server that restarts.
        (connect(io(io::ErrorKind::NotFound)), true),
        (lost(io(io::ErrorKind::BrokenPipe)), true),
        (
            Error::NotStored {
                after: second,
                source: Box::new(Error::Closed),
            },
            true,
        ),
        (
            Error::OutcomeUnknown {
                ids: vec![message],
                source: Box::new(Error::Closed),
            },
            false,
        ),
        (database(sqlx::Error::RowNotFound), false),
        #[cfg(feature = "schedules")]
        (
            crate::cron::Cron::parse("").expect_err("empty").into(),
            false,
        ),
        #[cfg(feature = "schedules")]
        (
            Error::ScheduleNotFound {
                schedule: "poll".to_owned(),
            },
            false,
        ),
        #[cfg(feature = "schedules")]
        (
            Error::ScheduleTaken {
                schedule: "poll".to_owned(),
                owner: None,
            },
            false,
        ),
    ];
    let passing = [
        "40001", "40P01", "55P03", "57014", "53300", "57P01", "57P02", "57P03", "25006",
    ];
    let lasting = ["23505", "22P02", "42501", "42P01", "53100", "P0001"];
    for (codes, passes) in [(&passing[..], true), (&lasting[..], false)] {
        for code in codes {
            all.push((database(refused(code)), passes));
            all.push((connect(refused(code)), passes));
        }
    }
    all
}

#[test]
fn each_variant_is_retryable_or_not_as_the_table_of_the_docs_says() {
    let all = every_variant();
    for (error, retryable) in &all {
        assert_eq!(error.is_retryable(), *retryable, "{error:?}");
    }
    for name in Error::KINDS {
        let is_here = all.iter().any(|(error, _)| error.kind() == *name);
        assert!(is_here, "{name} is missing above");
    }
}
