//! What is said when something failed: what happened, and what to do about it in terms of this command. The library's
//! own messages name its functions.

use std::{error::Error as StdError, io};

use pgqrs::Error;

use crate::{
    exit::Exit,
    output::counted,
    remedy::{quoted, with_commands},
};

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command failed, as a sentence, and the code that it exits with.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(exit_of(&error), explain(&error))
    }
}

/// Of writing to standard output. If the reader has closed it, as `head` does, that is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::Done,
            _ => Exit::Failed,
        };
        Self::new(exit, format!("the output can't be written: {error}"))
    }
}

pub(crate) fn exit_of(error: &Error) -> Exit {
    match error {
        Error::QueueNotFound { .. }
        | Error::WorkerNotFound { .. }
        | Error::ScheduleNotFound { .. } => Exit::NotFound,
        Error::Connect(_) | Error::AcquireTimeout { .. } | Error::NotStored { .. } => {
            Exit::Unreachable
        }
        Error::ConnectionLost(_) | Error::OutcomeUnknown { .. } => Exit::Uncertain,
        _ => Exit::Failed,
    }
}

/// An error in one line, with its causes.
pub(crate) fn explain(error: &Error) -> String {
    match error {
        Error::NotInstalled => {
            "pgqrs is not installed in this database; run `pgqrs install`".into()
        }
        Error::SchemaOutdated => {
            "the pgqrs schema of this database is older than this command; run `pgqrs migrate`"
                .into()
        }
        Error::SchemaNewer {
            installed,
            compiled,
        } => format!(
            "the pgqrs schema of this database is version {installed}, and this command knows up to {compiled}; install a newer `pgqrs`"
        ),
        Error::PermissionDenied { role, object, .. } => {
            let role = role.as_deref().unwrap_or("ROLE");
            format!(
                "role `{role}` lacks a privilege on {object}; the schema's owner can grant it: `pgqrs grants --operator {role}` prints the statements, and `--producer` or `--consumer` those for sending or receiving"
            )
        }
        Error::QueueNotFound { queue } => format!(
            "queue `{queue}` does not exist; `pgqrs queues` lists those that do, and `pgqrs queue create {}` creates it",
            quoted(queue.as_str())
        ),
        Error::QueueClosed { queue } => {
            let name = quoted(queue.as_str());
            format!("queue `{queue}` is closed; `pgqrs queue reopen {name}` reopens it")
        }
        Error::QueueExists { queue } => {
            let name = quoted(queue.as_str());
            format!(
                "queue `{queue}` exists already; `pgqrs queue show {name}` shows its settings, and `pgqrs queue set {name}` changes them"
            )
        }
        Error::QueueNotEmpty { queue, messages } => format!(
            "queue `{queue}` still holds {}; `pgqrs queue purge {}` deletes them",
            counted(*messages, "message"),
            quoted(queue.as_str())
        ),
        Error::WorkerNotFound { worker } => {
            format!("there is no worker {worker}; `pgqrs workers` lists those that there are")
        }
        Error::ScheduleNotFound { schedule } => format!(
            "there is no schedule {schedule:?}; `pgqrs schedules` lists those that there are"
        ),
        Error::PayloadTooLarge { bytes, limit, .. } => format!(
            "the payload has {bytes} bytes, over the limit of {limit}; store it elsewhere and send a reference"
        ),
        Error::PayloadTooDeep { limit, .. } => format!(
            "the payload is nested more than {limit} levels deep, so that no consumer could read it; flatten it"
        ),
        Error::AcquireTimeout { after } => format!(
            "no connection to PostgreSQL was available within {after:?}; check that the server runs and can be reached"
        ),
        Error::NotStored { after, source } => format!(
            "nothing was stored: every attempt failed, for {after:?}; the last one: {}",
            explain(source)
        ),
        Error::OutcomeUnknown { ids, source } => {
            let range = match (ids.first(), ids.last()) {
                (Some(first), Some(last)) => format!(", under the ids {first} to {last}"),
                _ => String::new(),
            };
            format!(
                "it is not known whether {} messages were stored{range}: {}",
                ids.len(),
                explain(source)
            )
        }
        error => with_commands(&chain(error)),
    }
}

/// An error with its causes; each once, if an error repeats its cause's text.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
