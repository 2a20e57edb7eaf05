//! Sends groups through a writer: an attempt, what follows from its outcome, and the query of an outcome that was lost.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Attempt, MAX_AGE, Writer, prune,
    write::{write_keyed, write_large},
};
use crate::{
    error::{Error, Result},
    pool::{StoreConnection, no_answer},
    postgres::{
        keyed::KEY_TIMEOUT,
        writers::{self, Shape, Try, Written, with_headers},
    },
    queue::QueueName,
    send::{
        batch::{self, chunks, columns},
        batcher::Batcher,
        options::SendOptions,
        pending::{PendingSend, take_expired},
        rejection,
    },
    sent::Duplicate,
    telemetry,
};

/// Upper bound of one row's processor time. The rest of a statement's time is attributed to its commit.
const ROW_TIME: Duration = Duration::from_micros(16);
/// The same for a row with a key, and for its statement besides.
const KEYED_ROW_TIME: Duration = Duration::from_micros(40);
const KEYED_STATEMENT_TIME: Duration = Duration::from_millis(1);
const MIN_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// How long past the deadline the server is queried for the outcome of the last attempt.
const MIN_RESOLVE_TIME: Duration = Duration::from_secs(2);
/// In a small pool, a writer that is never idle returns its connection after this time, so that other callers get one.
const MAX_HOLD: Duration = Duration::from_millis(5);
/// How long a statement waits for another transaction that holds one of its keys, if others wait behind it; and how long
/// once it is known that one of a group's keys is held.
const SHORT_KEY_TIMEOUT: Duration = Duration::from_millis(100);
const SPLIT_KEY_TIMEOUT: Duration = Duration::from_millis(20);
/// How often a token may be drawn that turns out to be in use.
const MAX_TOKENS: u32 = 3;

/// What has become of a group.
#[derive(Default)]
pub(in crate::send) struct Delivered {
    /// The calls of the last statement, if it stored them.
    pub(in crate::send) stored: Vec<PendingSend>,
    /// Calls to be tried again: other transactions hold their keys, and not for too long yet.
    pub(in crate::send) held: Vec<PendingSend>,
}

impl Writer {
    /// Sends a group until the outcome of each call is known, but for those whose keys other transactions hold: the last
    /// statement waits for these up to `key_timeout`. All calls that it doesn't return were answered.
    pub(in crate::send) async fn deliver(
        &mut self,
        batcher: &Arc<Batcher>,
        group: Vec<PendingSend>,
        key_timeout: Duration,
    ) -> Delivered {
        let mut held = Vec::new();
        let mut group_timeout = SHORT_KEY_TIMEOUT;
        // A stack in reverse order: the next group is the last.
        let mut groups = vec![group];
        while let Some(mut group) = groups.pop() {
            let (mut backoff, mut failures) = (MIN_BACKOFF, 0);
            while !group.is_empty() {
                let waits = match &*group {
                    [one] if groups.is_empty() && held.is_empty() => key_timeout
                        .min(KEY_TIMEOUT.saturating_sub(one.held_for()))
                        .max(SHORT_KEY_TIMEOUT),
                    _ => group_timeout,
                };
                let started = Instant::now();
                match self.attempt(batcher, &mut group, waits).await {
                    Attempt::Stored if groups.is_empty() => {
                        return Delivered {
                            stored: group,
                            held,
                        };
                    }
                    Attempt::Stored => batcher.stored(&mut group),
                    Attempt::NoQueue(reasons) => group = rejection::answer(group, &reasons),
                    Attempt::KeyHeld(error) => {
                        group.iter_mut().for_each(|one| one.note_held(started));
                        group_timeout = SPLIT_KEY_TIMEOUT;
                        match &*group {
                            [one] if waits < SHORT_KEY_TIMEOUT || one.held_for() < KEY_TIMEOUT => {
                                // Nothing is stored, and other ids may be drawn by then.
                                group[0].ids.clear();
                                held.append(&mut group);
                            }
                            [_] => refuse(&mut group, &error),
                            _ => groups.push(group.split_off(group.len() / 2)),
                        }
                    }
                    Attempt::NotSent(error) if !error.is_retryable() => refuse(&mut group, &error),
                    Attempt::Refused(error)
                        if !error.is_retryable() && !error.is_message_id_taken() =>
                    {
                        if group.len() == 1 {
                            refuse(&mut group, &error);
                        } else {
                            // One of them is rejected; the half without it isn't.
                            groups.push(group.split_off(group.len() / 2));
                        }
                    }
                    // The rejection is permanent; perhaps it applies to one call only.
                    Attempt::Refused(_) if failures > 0 && group.len() > 1 => {
                        groups.push(group.split_off(group.len() / 2));
                    }
                    // It applies to this call, so the others go first.
                    Attempt::Refused(error) if failures > 0 && !groups.is_empty() => {
                        take_expired(&mut group).for_each(|one| one.not_stored(&error));
                        groups.insert(0, mem::take(&mut group));
                    }
                    Attempt::NotSent(error) | Attempt::Refused(error) => {
                        failures += 1;
                        telemetry::send_failed(queue(&group), &error);
                        take_expired(&mut group).for_each(|one| one.not_stored(&error));
                        batcher.expire_pending(&error);
                        // The next attempt may reach another server, which draws the same ids for other messages.
                        self.forget_ids(&mut group);
                        wait(&mut backoff, &group).await;
                    }
                    Attempt::Unknown(error) => {
                        if self.resolve(batcher, &mut group, error).await {
                            batcher.stored(&mut group);
                        }
                    }
                }
            }
        }
        Delivered {
            held,
            ..Delivered::default()
        }
    }

    /// Queries whether the last attempt stored its messages, until there is an answer. If it stored nothing, what is
    /// left of the group is to be sent again.
    async fn resolve(
        &mut self,
        batcher: &Arc<Batcher>,
        group: &mut Vec<PendingSend>,
        mut why: Error,
    ) -> bool {
        let last = self.last();
        let mut backoff = MIN_BACKOFF;
        loop {
            telemetry::send_failed(queue(group), &why);
            if group.is_empty() {
                // The outcome of this number stays unknown, so neither it nor any later number of this token is used
                // again.
                self.renew();
                return false;
            }
            let asked_at = Instant::now();
            match ask(batcher, group, last).await {
                Ok(Some(duplicates)) => {
                    group
                        .iter_mut()
                        .for_each(|one| one.set_duplicates(&duplicates));
                    return true;
                }
                Ok(None) => {
                    // After their deadline they are not sent again, however late the answer came: the row that fences
                    // the last attempt may be pruned by then.
                    let in_time = asked_at.elapsed() < MAX_AGE;
                    take_expired(group).for_each(|one| {
                        if in_time {
                            one.not_stored(&why);
                        } else {
                            one.unknown(&why);
                        }
                    });
                    // It may be another server by now, which draws the same ids for other messages.
                    self.forget_ids(group);
                    return false;
                }
                // Neither this server nor this login will ever answer.
                Err(error) if !error.is_retryable() => {
                    group.drain(..).for_each(|one| one.unknown(&error));
                }
                Err(error) => {
                    batcher.expire_pending(&error);
                    why = error;
                }
            }
            take_expired(group).for_each(|one| one.unknown(&why));
            wait(&mut backoff, group).await;
        }
    }

    /// Creates the writer's row and draws ids for the group, in one statement if either is needed.
    async fn prepare(
        &mut self,
        batcher: &Batcher,
        connection: &mut StoreConnection,
        group: &[PendingSend],
        timeout: Duration,
    ) -> Result<()> {
        let (server, draw_ahead) = (batcher.server(), batcher.options().draw_ahead);
        if draw_ahead {
            self.ids.keep_only(server);
        } else {
            self.ids.clear();
        }
        let missing = self.ids.missing(group, draw_ahead);
        let mut tokens = 0;
        let (drawn, since) = loop {
            let token = self.since.is_none().then_some(self.token);
            if missing == 0 && token.is_none() {
                return Ok(());
            }
            let since = Instant::now();
            let drawn = connection
                .within(timeout, async |connection| {
                    writers::reserve(connection, token, missing).await
                })
                .await;
            match drawn {
                Ok(drawn) => break (drawn, since),
                Err(error) => {
                    // The row may be inserted late, when others of its age are already pruned.
                    self.renew();
                    tokens += 1;
                    if !(error.is_writer_token_taken() && tokens < MAX_TOKENS) {
                        return Err(error);
                    }
                }
            }
        };
        if self.since.is_none() {
            self.since = Some(since);
            // A writer that is never idle has to prune here.
            if batcher.take_prune_due() {
                prune(connection, timeout).await;
            }
            batcher.prune_later();
        }
        self.ids.put(drawn, server);
        Ok(())
    }

    /// The kept connection, or one from the pool.
    async fn connect(&mut self, batcher: &Batcher) -> Result<StoreConnection> {
        let connections = batcher.connections();
        let kept = self.connection.take();
        if connections.is_closed() {
            return Err(Error::Closed);
        }
        if let Some(kept) = kept
            && !kept.is_left()
            && (connections.can_keep() || kept.held_for() < MAX_HOLD)
        {
            return Ok(kept);
        }
        // The kept one has been returned by now: it may be the pool's only one.
        connections.acquire().await
    }

    async fn attempt(
        &mut self,
        batcher: &Arc<Batcher>,
        group: &mut [PendingSend],
        key_timeout: Duration,
    ) -> Attempt {
        let timeout = time_for_attempt(batcher.options(), group);
        self.renew_if_old();
        let mut connection = match self.connect(batcher).await {
            Ok(connection) => connection,
            Err(error) => return Attempt::NotSent(error),
        };
        let prepared = self.prepare(batcher, &mut connection, group, timeout).await;
        if let Err(error) = prepared {
            return Attempt::NotSent(error);
        }
        self.ids.assign(group);
        // One number for each statement. The outcome of the last one is that of all.
        let is_keyed = group.iter().any(PendingSend::is_keyed);
        let statements = match &*group {
            _ if is_keyed => batch::keyed(group).chunks().len(),
            [one] => chunks(&one.messages).count(),
            _ => 1,
        };
        let first = self.sequence + 2;
        self.sequence += 2 * i64::try_from(statements).unwrap_or(1);
        let started = Instant::now();
        let token = self.token;
        let written = match &*group {
            _ if is_keyed => {
                let timeout = timeout + Duration::from_secs(statements as u64 - 1);
                let key_timeout = key_timeout.min(timeout / 2);
                connection
                    .within(timeout, async |connection| {
                        // Boxed: it is large, and would be a part of each send.
                        let written =
                            write_keyed(connection, token, first, group, key_timeout, timeout);
                        Box::pin(written).await
                    })
                    .await
                    .map(|(written, duplicates)| {
                        group
                            .iter_mut()
                            .for_each(|one| one.set_duplicates(&duplicates));
                        written
                    })
            }
            [one] if statements > 1 => {
                let timeout = timeout + Duration::from_secs(statements as u64);
                connection
                    .within(timeout, async |connection| {
                        write_large(connection, token, first, one, timeout).await
                    })
                    .await
            }
            _ => {
                let (this, batch) = (self.last(), columns(group));
                connection
                    .within(timeout, async |connection| match batch.shape() {
                        Shape::One {
                            envelope,
                            id,
                            payload,
                        } => writers::write_one(connection, this, envelope, id, payload).await,
                        Shape::OneWithHeaders {
                            envelope,
                            id,
                            headers,
                            payload,
                        } => {
                            with_headers::write_one(
                                connection, this, envelope, id, headers, payload,
                            )
                            .await
                        }
                        Shape::Alike(envelope) => {
                            writers::write_alike(connection, this, envelope, &batch).await
                        }
                        Shape::AlikeWithHeaders(envelope) => {
                            with_headers::write_alike(connection, this, envelope, &batch).await
                        }
                        Shape::Mixed => writers::write_mixed(connection, this, &batch).await,
                    })
                    .await
            }
        };
        match written {
            Ok(Written::Stored) => {
                let rows = group.iter().map(|one| one.messages.len()).sum::<usize>();
                telemetry::stored(rows);
                let rows_time = rows_time(rows, group.first().is_some_and(PendingSend::is_keyed));
                batcher.record_commit_time(started.elapsed().saturating_sub(rows_time));
                self.connection = Some(connection);
                Attempt::Stored
            }
            Ok(Written::Refused(places)) => {
                let envelopes = columns(group).envelopes;
                let have_groups = group.iter().any(PendingSend::has_groups);
                rejection::reasons(&mut connection, &envelopes, places, have_groups, timeout).await
            }
            // No number is used twice. So the row is missing: lost with the server that had it, or pruned.
            Ok(Written::Taken) => Attempt::Unknown(sqlx::Error::RowNotFound.into()),
            Err(
                error @ (Error::NotInstalled
                | Error::SchemaOutdated
                | Error::PermissionDenied { .. }),
            ) => Attempt::NotSent(error),
            Err(error @ Error::KeyHeld { .. }) => {
                self.connection = Some(connection);
                Attempt::KeyHeld(error)
            }
            Err(error) if error.is_refusal() => rejection::by_server(error),
            Err(error) => Attempt::Unknown(error),
        }
    }
}

/// The queue of the first message, for events.
fn queue(group: &[PendingSend]) -> Option<&QueueName> {
    group.first().map(|pending| &pending.envelope.queue)
}

fn refuse(group: &mut Vec<PendingSend>, why: &Error) {
    group.drain(..).for_each(|one| one.refused(why.clone()));
}

/// Time-out of an attempt: not much beyond the deadline of the whole group.
fn time_for_attempt(options: &SendOptions, group: &[PendingSend]) -> Duration {
    let timeout = options.statement_timeout();
    if options.retry_for.is_zero() {
        // There is no second attempt.
        return timeout;
    }
    let left = last_deadline(group).map_or(timeout, |last| last - Instant::now());
    timeout.min(left.max(Duration::from_secs(1)))
}

fn last_deadline(group: &[PendingSend]) -> Option<Instant> {
    group.iter().map(|pending| pending.deadline).max()
}

/// Queries the outcome of an attempt: at least once, and for at least [`MIN_RESOLVE_TIME`], even past the deadline.
async fn ask(
    batcher: &Batcher,
    group: &[PendingSend],
    last: Try,
) -> Result<Option<HashMap<i64, Duplicate>>> {
    let now = Instant::now();
    let until = last_deadline(group).map_or(now, |deadline| deadline.max(now + MIN_RESOLVE_TIME));
    let asked = async {
        let mut connection = batcher.connections().acquire().await?;
        connection
            .within(batcher.options().statement_timeout(), async |connection| {
                writers::settle(connection, last).await
            })
            .await
    };
    timeout_at(until, asked)
        .await
        .unwrap_or_else(|_| Err(no_answer()))
}

/// Exponential back-off with jitter, bounded by the group's last deadline.
async fn wait(backoff: &mut Duration, group: &[PendingSend]) {
    let until = Instant::now() + backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
    *backoff = (*backoff * 2).min(MAX_BACKOFF);
    if let Some(last) = last_deadline(group) {
        sleep_until(until.min(last)).await;
    }
}

/// Upper bound of the processor time of a statement that stores this number of messages.
fn rows_time(rows: usize, are_keyed: bool) -> Duration {
    let rows = u32::try_from(rows).unwrap_or(u32::MAX);
    if are_keyed {
        KEYED_STATEMENT_TIME + KEYED_ROW_TIME.saturating_mul(rows)
    } else {
        ROW_TIME.saturating_mul(rows)
    }
}
