//! Rows of what is listed, in the order of the fields of Python's classes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use pgqrs::{
    ArchivedMessage, DeadLetter, HeldMessage, QueueInfo, QueuedMessage, SchemaVersion, WorkerId,
    WorkerInfo,
};

use crate::consumer::{priority_name, texts};

pub(crate) type VersionRow = (&'static str, Option<i64>, Option<i64>);

pub(crate) fn version(version: SchemaVersion) -> VersionRow {
    match version {
        SchemaVersion::NotInstalled => ("not_installed", None, None),
        SchemaVersion::UpToDate { installed } => ("up_to_date", Some(installed), Some(installed)),
        SchemaVersion::Older {
            installed,
            compiled,
        } => ("older", Some(installed), Some(compiled)),
        SchemaVersion::Newer {
            installed,
            compiled,
        } => ("newer", Some(installed), Some(compiled)),
        _ => ("unknown", None, None),
    }
}

pub(super) type QueueRow = (String, u32, DateTime<Utc>);

pub(super) fn queue_row(queue: QueueInfo) -> QueueRow {
    (
        queue.name.as_str().to_owned(),
        queue.max_attempts,
        queue.created_at,
    )
}

pub(super) type MessageRow = (
    i64,
    &'static str,
    DateTime<Utc>,
    DateTime<Utc>,
    u32,
    Option<DateTime<Utc>>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    BTreeMap<String, String>,
    Option<String>,
    (
        Option<u32>,
        Option<DateTime<Utc>>,
        u32,
        Option<DateTime<Utc>>,
    ),
);

pub(super) fn message_row(message: QueuedMessage) -> MessageRow {
    (
        message.id.get(),
        priority_name(message.priority),
        representable(message.visible_at),
        message.enqueued_at,
        message.attempt,
        message.lease_expires_at.map(representable),
        message.producer.map(WorkerId::get),
        message.consumer.map(WorkerId::get),
        message.last_error,
        texts(&message.headers),
        message.payload,
        // Together, since a tuple has at most twelve elements.
        (
            message.max_attempts,
            message.expires_at.map(representable),
            message.snoozes,
            message.undecodable_since,
        ),
    )
}

pub(super) type DeadRow = (
    i64,
    &'static str,
    DateTime<Utc>,
    u32,
    String,
    Option<String>,
    DateTime<Utc>,
    BTreeMap<String, String>,
    Option<String>,
    Option<u32>,
);

pub(super) fn dead_row(letter: DeadLetter) -> DeadRow {
    (
        letter.id.get(),
        priority_name(letter.priority),
        letter.enqueued_at,
        letter.attempt,
        letter.reason,
        letter.last_error,
        letter.died_at,
        texts(&letter.headers),
        letter.payload,
        letter.max_attempts,
    )
}

pub(super) type ArchivedRow = (
    i64,
    &'static str,
    DateTime<Utc>,
    u32,
    DateTime<Utc>,
    BTreeMap<String, String>,
    Option<String>,
);

pub(super) fn archived_row(message: ArchivedMessage) -> ArchivedRow {
    (
        message.id.get(),
        priority_name(message.priority),
        message.enqueued_at,
        message.attempt,
        message.archived_at,
        texts(&message.headers),
        message.payload,
    )
}

pub(crate) type WorkerRow = (
    i64,
    &'static str,
    String,
    String,
    u16,
    &'static str,
    DateTime<Utc>,
    DateTime<Utc>,
    bool,
);

pub(crate) fn worker_row(worker: WorkerInfo) -> WorkerRow {
    (
        worker.id.get(),
        worker.kind.as_str(),
        worker.queue.as_str().to_owned(),
        worker.hostname,
        worker.port,
        worker.status.as_str(),
        worker.started_at,
        worker.heartbeat_at,
        worker.stale,
    )
}

pub(super) fn held_row(message: HeldMessage) -> (i64, u32, DateTime<Utc>) {
    (
        message.id.get(),
        message.attempt,
        representable(message.lease_expires_at),
    )
}

/// Python's calendar ends with the year 9999, PostgreSQL's much later.
fn representable(time: DateTime<Utc>) -> DateTime<Utc> {
    let end = DateTime::from_timestamp(253_402_300_799, 0);
    end.map_or(time, |end| time.min(end))
}
