//! Deliveries that aren't done: failed attempts, messages that are put off, and payloads that don't decode. All of them
//! go by one statement, which puts the message back or makes it a dead letter; but for those that slow their queue down.

use std::{collections::HashSet, time::Duration};

use sqlx::PgConnection;

use super::Columns;
use crate::{
    error::Result,
    message::{Receipt, age, microseconds},
    retry::UndecodablePolicy,
};

/// A delivery of a message that isn't done.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) receipt: Receipt,
    /// How long to wait before the next delivery, if there is one.
    pub(crate) delay: Duration,
    pub(crate) error: Option<String>,
    pub(crate) then: Then,
    /// Whether the handler has settled the message itself before it failed. If its transaction was committed, nothing
    /// is left to settle.
    pub(crate) is_settled: bool,
}

/// What is to become of a message that isn't done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    /// Another attempt follows, unless the attempts are used up.
    Retry,
    /// It becomes a dead letter, for this reason.
    Dead(String),
    /// It was put off: this delivery doesn't count as an attempt.
    Later,
    /// It was put off, and its queue slowed down for as long: this delivery doesn't count as an attempt.
    SlowDown,
    /// It doesn't decode: this delivery doesn't count as an attempt. It becomes a dead letter if it was first seen like
    /// that at least this long ago.
    Undecodable { dead_letter_after: Duration },
}

pub(crate) const USED_UP: &str = "attempts used up";
pub(crate) const UNDECODABLE: &str = "its payload doesn't decode";

/// Maximum bytes that are stored of an error's text.
pub(crate) const MAX_ERROR_TEXT: usize = 8 << 10;

impl Failure {
    /// Another attempt follows, unless the attempts are used up. An empty error leaves the last one as it is.
    pub(crate) fn retry(receipt: Receipt, delay: Duration, error: &str) -> Self {
        Self {
            error: Some(storable(error)).filter(|error| !error.is_empty()),
            ..Self::new(receipt, delay, Then::Retry)
        }
    }

    /// No further attempt follows.
    pub(crate) fn dead(receipt: Receipt, reason: &str) -> Self {
        Self::new(receipt, Duration::ZERO, Then::Dead(storable(reason)))
    }

    /// It is delivered again, and this delivery doesn't count.
    pub(crate) fn later(receipt: Receipt, delay: Duration) -> Self {
        Self::new(receipt, delay, Then::Later)
    }

    /// It is delivered again, this delivery doesn't count, and no other message of its queue is delivered before.
    pub(crate) fn slow_down(receipt: Receipt, delay: Duration) -> Self {
        Self::new(receipt, delay, Then::SlowDown)
    }

    /// It doesn't decode.
    pub(crate) fn undecodable(receipt: Receipt, policy: UndecodablePolicy, error: &str) -> Self {
        let dead_letter_after = policy.dead_letter_after;
        Self {
            error: Some(storable(error)),
            ..Self::new(
                receipt,
                policy.wait,
                Then::Undecodable { dead_letter_after },
            )
        }
    }

    fn new(receipt: Receipt, delay: Duration, then: Then) -> Self {
        Self {
            receipt,
            delay,
            error: None,
            then,
            is_settled: false,
        }
    }

    /// Its reason, if it is now a dead letter.
    pub(crate) fn reason(&self) -> &str {
        match &self.then {
            Then::Dead(reason) => reason,
            Then::Undecodable { .. } => UNDECODABLE,
            Then::Retry | Then::Later | Then::SlowDown => USED_UP,
        }
    }

    /// The error as an event shows it: not if it may quote the payload.
    pub(crate) fn error_to_show(&self) -> Option<&str> {
        let is_undecodable = matches!(self.then, Then::Undecodable { .. });
        self.error.as_deref().filter(|_| !is_undecodable)
    }
}

/// PostgreSQL's `text` can store every character except NUL.
fn storable(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_ERROR_TEXT);
    text.get(..end)
        .unwrap_or_default()
        .replace('\0', "\u{fffd}")
}

/// A message that was put back, or is now a dead letter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed<'a> {
    pub(crate) failure: &'a Failure,
    pub(crate) dead: bool,
}

/// Those whose leases weren't held any more.
pub(crate) fn not_found<'a>(
    failures: impl IntoIterator<Item = &'a Failure>,
    failed: &[Failed<'_>],
) -> impl Iterator<Item = &'a Failure> {
    let found: HashSet<_> = failed.iter().map(|one| one.failure.receipt).collect();
    failures
        .into_iter()
        .filter(move |failure| !found.contains(&failure.receipt))
}

/// Failures as the columns of a statement.
pub(super) struct FailureColumns<'a> {
    pub(super) receipts: Columns,
    pub(super) delays: Vec<i64>,
    pub(super) errors: Vec<Option<&'a str>>,
    pub(super) reasons: Vec<Option<&'a str>>,
    pub(super) are_unused: Vec<bool>,
    pub(super) dead_letter_after: Vec<Option<i64>>,
}

impl<'a> FailureColumns<'a> {
    pub(super) fn of(failures: &[&'a Failure]) -> Self {
        let failures = || failures.iter().copied();
        let reason = |failure: &'a Failure| match &failure.then {
            Then::Retry | Then::Later | Then::SlowDown => None,
            Then::Dead(_) | Then::Undecodable { .. } => Some(failure.reason()),
        };
        let is_unused = |failure: &Failure| !matches!(failure.then, Then::Retry | Then::Dead(_));
        let dead_letter_after = |failure: &Failure| match failure.then {
            Then::Undecodable { dead_letter_after } => Some(age(dead_letter_after)),
            _ => None,
        };
        Self {
            receipts: failures().map(|failure| &failure.receipt).collect(),
            delays: failures()
                .map(|failure| microseconds(failure.delay))
                .collect(),
            errors: failures().map(|failure| failure.error.as_deref()).collect(),
            reasons: failures().map(reason).collect(),
            are_unused: failures().map(is_unused).collect(),
            dead_letter_after: failures().map(dead_letter_after).collect(),
        }
    }
}

/// Puts messages of one queue back whose leases are still held, or dead-letters them: if that was asked for, or if their
/// attempts are used up, or if they don't decode and their time is over. Returns which of the two it was.
pub(super) async fn put_back_or_dead_letter<'a>(
    connection: &mut PgConnection,
    failures: &[&'a Failure],
) -> Result<Vec<Failed<'a>>> {
    let columns = FailureColumns::of(failures);
    let rows = sqlx::query!(
        r#"
        with found as materialized (
            select failed.*, m.*
            from unnest(
                $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::boolean[], $8::bigint[]
            ) with ordinality
                as failed (id, token, delay, error, reason, is_unused, dead_letter_after, number)
            cross join lateral (
                select m.ctid as place, m.attempt, m.max_attempts, m.undecodable_since from pgqrs.messages m
                where m.queue_id = $1 and m.id = failed.id and m.lease_token = failed.token
                offset 0
            ) m
        ), held as materialized (
            select found.place, found.id, found.delay, found.error, found.is_unused, found.number,
                found.dead_letter_after is not null as is_undecodable,
                coalesce(
                    case
                        when found.dead_letter_after is null
                            or coalesce(found.undecodable_since, statement_timestamp())
                                <= statement_timestamp() - found.dead_letter_after * interval '1 microsecond'
                        then found.reason
                    end,
                    case
                        when not found.is_unused and found.attempt >= coalesce(found.max_attempts, q.max_attempts)
                        then 'attempts used up'
                    end
                ) as reason
            from found
            join pgqrs.queues q on q.id = $1
        ), put_back as (
            update pgqrs.messages m
            set visible_at = statement_timestamp() + held.delay * interval '1 microsecond',
                lease_until = '-infinity',
                lease_token = 0,
                consumer_id = 0,
                attempt = m.attempt - held.is_unused::integer,
                snoozes = case
                    when held.is_unused and not held.is_undecodable
                    then least(coalesce(m.snoozes, 0), 2147483646) + 1
                    else m.snoozes
                end,
                undecodable_since = case
                    when held.is_undecodable then coalesce(m.undecodable_since, statement_timestamp())
                end,
                last_error = coalesce(held.error, m.last_error)
            from held
            -- An array and no join, whose plan could read the whole queue.
            where m.ctid = any (array(select place from held where reason is null)) and held.id = m.id
                -- Again, for a version that another transaction has just made of it.
                and m.lease_token = any ($3)
            returning held.number
        ), dead as (
            delete from pgqrs.messages m
            using held
            where m.ctid = any (array(select place from held where reason is not null)) and held.id = m.id
                and m.lease_token = any ($3)
            returning m.*, held.reason, held.error, held.number
        ), dead_lettered as (
            insert into pgqrs.dead_letters (
                queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key,
                waiting_key, headers, payload, reason, last_error
            )
            select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
                unique_key, waiting_key, headers, payload, reason, coalesce(error, last_error)
            from dead
        )
        select number as "number!", false as "dead!" from put_back
        union all
        select number, true from dead
        "#,
        columns.receipts.queue_id,
        &columns.receipts.ids,
        &columns.receipts.tokens,
        &columns.delays,
        &columns.errors as &[Option<&str>],
        &columns.reasons as &[Option<&str>],
        &columns.are_unused,
        &columns.dead_letter_after as &[Option<i64>],
    )
    .fetch_all(connection)
    .await?;
    let failed = rows.into_iter().filter_map(|row| {
        let place = usize::try_from(row.number).ok()?.checked_sub(1)?;
        Some(Failed {
            failure: failures.get(place)?,
            dead: row.dead,
        })
    });
    Ok(failed.collect())
}
