//! What administrative calls return, as tuples in the order of the fields of Python's classes, and what they take.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use pgqrs::{
    AfterDeadLetter, ArchivedMessage, Cancelled, DeadLetter, Fillfactor, GroupInfo, GroupOrder,
    Groups, HeldMessage, MessageId, Page, QueueInfo, QueueName, QueueOptions, QueuedMessage, Rate,
    Requeued, SchemaVersion, WorkerFilter, WorkerId, WorkerInfo,
};
use pyo3::{PyResult, exceptions::PyValueError};

use crate::consumer::{priority_name, texts};

pub(crate) fn rows<T, R>(found: Vec<T>, row: fn(T) -> R) -> Vec<R> {
    found.into_iter().map(row).collect()
}

pub(crate) type VersionRow = (&'static str, Option<i64>, Option<i64>, bool, Vec<String>);

pub(crate) fn version(version: SchemaVersion) -> VersionRow {
    let none = Vec::new();
    match version {
        SchemaVersion::NotInstalled => ("not_installed", None, None, false, none),
        SchemaVersion::UpToDate {
            installed,
            on_citus,
        } => {
            let version = Some(installed);
            ("up_to_date", version, version, on_citus, none)
        }
        SchemaVersion::Older {
            installed,
            compiled,
        } => ("older", Some(installed), Some(compiled), false, none),
        SchemaVersion::Newer {
            installed,
            compiled,
        } => ("newer", Some(installed), Some(compiled), false, none),
        SchemaVersion::Distributed { installed, tables } => {
            ("distributed", Some(installed), None, true, tables)
        }
        _ => ("unknown", None, None, false, none),
    }
}

pub(crate) fn cancelled_name(cancelled: Cancelled) -> &'static str {
    match cancelled {
        Cancelled::Waiting => "waiting",
        Cancelled::Running => "running",
    }
}

/// How far inserts fill pages, in percent.
pub(crate) fn fillfactor(percent: i64) -> PyResult<Fillfactor> {
    Ok(match percent {
        50 => Fillfactor::Percent50,
        60 => Fillfactor::Percent60,
        70 => Fillfactor::Percent70,
        80 => Fillfactor::Percent80,
        90 => Fillfactor::Percent90,
        100 => Fillfactor::Percent100,
        other => {
            let wrong = format!("percent: expected 50, 60, 70, 80, 90 or 100, not {other}");
            return Err(PyValueError::new_err(wrong));
        }
    })
}

pub(crate) type QueueRow = (
    String,
    u32,
    DateTime<Utc>,
    Option<Duration>,
    Option<Duration>,
    Option<Duration>,
    bool,
    Option<Duration>,
    Option<Duration>,
    (
        bool,
        Option<u32>,
        bool,
        Option<(u32, Duration)>,
        Option<u32>,
        Option<(u32, Duration)>,
        bool,
        Option<DateTime<Utc>>,
        Option<DateTime<Utc>>,
        Option<DateTime<Utc>>,
    ),
);

pub(crate) fn queue_row(queue: QueueInfo) -> QueueRow {
    (
        queue.name.as_str().to_owned(),
        queue.max_attempts,
        queue.created_at,
        queue.lease,
        queue.retry_min,
        queue.retry_max,
        queue.archive_on_ack,
        queue.archive_for,
        queue.dead_letters_for,
        // Together, since a tuple has at most twelve elements.
        (
            queue.sensitive,
            queue.groups.map(|groups| groups.at_once()),
            queue
                .groups
                .is_some_and(|groups| groups.after_dead_letter() == AfterDeadLetter::Stop),
            queue
                .groups
                .and_then(|groups| groups.rate())
                .map(|rate| (rate.messages(), rate.per())),
            queue.max_running,
            queue.rate.map(|rate| (rate.messages(), rate.per())),
            queue.is_paused,
            queue.paused_until.map(representable),
            queue.slowed_until.map(representable),
            queue.closed_at,
        ),
    )
}

/// How many of a group at a time, whether a group stops after a dead letter, and its rate.
type GroupSettings = (u32, bool, Option<(u32, Duration)>);

/// Changes of how a queue handles groups, of how many of its messages run at a time, and of its rate.
pub(crate) type Limits = (
    Option<(Option<GroupSettings>,)>,
    Option<(Option<u32>,)>,
    Option<(Option<(u32, Duration)>,)>,
);

pub(crate) fn limits_options((groups, running, rate): Limits) -> QueueOptions {
    let groups = groups.map(|(groups,)| groups_options(groups));
    let running = running.map(|(most,)| QueueOptions::builder().max_running(most).build());
    let rate = rate.map(|(rate,)| {
        let rate = rate.map(|(messages, per)| Rate::new(messages, per));
        QueueOptions::builder().rate(rate).build()
    });
    groups.into_iter().chain(running).chain(rate).collect()
}

fn groups_options(groups: Option<GroupSettings>) -> QueueOptions {
    let groups = groups.map(|(at_once, stops, rate)| {
        let after_dead_letter = if stops {
            AfterDeadLetter::Stop
        } else {
            AfterDeadLetter::Continue
        };
        Groups::builder()
            .at_once(at_once)
            .after_dead_letter(after_dead_letter)
            .rate(rate.map(|(messages, per)| Rate::new(messages, per)))
            .build()
    });
    QueueOptions::builder().groups(groups).build()
}

pub(crate) type MessageRow = (
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
        Option<String>,
        bool,
    ),
);

pub(crate) fn message_row(message: QueuedMessage) -> MessageRow {
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
            message.group,
            message.is_parked,
        ),
    )
}

pub(crate) type DeadRow = (
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
    Option<String>,
);

pub(crate) fn dead_row(letter: DeadLetter) -> DeadRow {
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
        letter.group,
    )
}

/// How many dead letters are back, and how many are not since other messages have their keys.
pub(crate) fn counts(requeued: Requeued) -> (u64, u64) {
    (requeued.back, requeued.held)
}

pub(crate) type ArchivedRow = (
    i64,
    &'static str,
    DateTime<Utc>,
    u32,
    DateTime<Utc>,
    BTreeMap<String, String>,
    Option<String>,
);

pub(crate) fn archived_row(message: ArchivedMessage) -> ArchivedRow {
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

pub(crate) type GroupRow = (
    String,
    u64,
    u64,
    Option<u32>,
    Option<(u32, Duration)>,
    Option<DateTime<Utc>>,
    Option<i64>,
    Option<DateTime<Utc>>,
);

pub(crate) fn group_row(group: GroupInfo) -> GroupRow {
    (
        group.group,
        group.live,
        group.parked,
        group.at_once,
        group.rate.map(|rate| (rate.messages(), rate.per())),
        group.stopped_at,
        group.stopped_by.map(MessageId::get),
        group.oldest_parked,
    )
}

pub(crate) fn group_order(order: &str) -> GroupOrder {
    match order {
        "oldest" => GroupOrder::Oldest,
        "stopped" => GroupOrder::Stopped,
        _ => GroupOrder::Parked,
    }
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

pub(crate) fn held_row(message: HeldMessage) -> (i64, u32, DateTime<Utc>) {
    (
        message.id.get(),
        message.attempt,
        representable(message.lease_expires_at),
    )
}

/// Python's calendar ends with the year 9999, PostgreSQL's much later.
pub(crate) fn representable(time: DateTime<Utc>) -> DateTime<Utc> {
    let end = DateTime::from_timestamp(253_402_300_799, 0);
    end.map_or(time, |end| time.min(end))
}

pub(crate) fn page(after: Option<i64>, limit: u32, payload: bool) -> Page {
    let page = Page::builder().limit(limit).payload(payload);
    match after {
        Some(after) => page.after(MessageId::from(after)).build(),
        None => page.build(),
    }
}

pub(crate) fn filter(queue: Option<String>) -> pgqrs::Result<WorkerFilter> {
    Ok(match queue {
        Some(queue) => WorkerFilter::builder()
            .queue(QueueName::new(queue)?)
            .build(),
        None => WorkerFilter::default(),
    })
}
