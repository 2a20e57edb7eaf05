//! A writer: one line of statements, each of which stores its messages or none, and the next of which follows
//! when the last one's fate is known. For the sends through a store. A try whose answer got lost is asked
//! about, and forbidden to come late, before it is made again.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    time::Duration,
};

use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep_until};

use crate::{
    error::{Error, Result},
    message::{Envelope, Visible},
    parcel::{Parcel, take_expired},
    postgres::{
        messages::{self, next_chunk},
        workers,
        writers::{self, Batch, Json, Try, Written},
    },
    send::{prune, tell_all},
    store::{Lent, Store},
    telemetry,
};

/// More than a row takes, even where others compete for the processors: what is left has waited for a disk.
const A_ROW: Duration = Duration::from_micros(16);
/// A token serves for so many statements, since an old snapshot keeps all versions of its row; and for
/// so long, since rows are pruned a day after they were made.
const STATEMENTS: i64 = 1_000;
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Ids are drawn ahead: a few at first, since a store may never send; then for a few statements, within these bounds.
const FIRST_BLOCK: usize = 64;
const SMALLEST_BLOCK: usize = 1_000;
const LARGEST_BLOCK: usize = 4_000;
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// How a store sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) retry_for: Duration,
    pub(crate) coalesce: bool,
    /// Whether ids that one statement doesn't need are kept for the next.
    pub(crate) draw_ahead: bool,
    /// The connections of the pool.
    pub(crate) connections: usize,
}

impl Sending {
    /// How long a try waits for its answer.
    pub(crate) fn patience(&self) -> Duration {
        match self.retry_for {
            Duration::ZERO => Duration::from_secs(30),
            retry_for => (retry_for / 3).clamp(Duration::from_secs(1), Duration::from_secs(30)),
        }
    }
}

/// One line of statements: there is one under way, and the next follows when its fate is known.
pub(crate) struct Writer {
    token: i64,
    /// Of the last try.
    sequence: i64,
    /// When its row was made. None before: without its row, no try stores anything.
    since: Option<Instant>,
    ids: Ids,
    /// Kept from one statement to the next.
    pub(crate) lent: Option<Lent>,
    pub(crate) idle_since: Instant,
}

/// Ids that were drawn ahead.
#[derive(Default)]
struct Ids {
    drawn: VecDeque<i64>,
    /// By the server that was started then.
    by: i64,
}

impl Ids {
    fn put(&mut self, drawn: Vec<i64>, by: i64) {
        self.drawn.extend(drawn);
        self.by = by;
    }

    /// For those parcels that have none yet, where there are enough.
    fn deal(&mut self, group: &mut [Parcel]) {
        for parcel in group.iter_mut().filter(|parcel| parcel.ids.is_empty()) {
            parcel.ids = self.drawn.drain(..parcel.payloads.len()).collect();
        }
    }
}

/// What became of one try.
enum Tried {
    Stored,
    /// Nothing is stored: these envelopes, for these reasons, have no queue that takes them.
    Refused(Vec<(usize, Error)>),
    /// Nothing is stored, for a reason that all messages have in common.
    NotSent(Error),
    /// Nothing is stored: the server refused the statement, perhaps for the sake of one message.
    Failed(Error),
    Unknown(Error),
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            token: rand::random(),
            sequence: 0,
            since: None,
            ids: Ids::default(),
            lent: None,
            idle_since: Instant::now(),
        }
    }
}

impl Writer {
    /// Of a connected store, so that its first send is one statement.
    pub(crate) async fn begun(connection: &mut PgConnection, server: i64) -> Result<Self> {
        let mut writer = Self::default();
        let drawn = writers::reserve(connection, Some(writer.token), FIRST_BLOCK).await?;
        writer.ids.put(drawn, server);
        writer.since = Some(Instant::now());
        Ok(writer)
    }

    /// Until it is known what becomes of each parcel. Gives those of the last statement, if it has stored
    /// them; all others have been told.
    pub(crate) async fn deliver(&mut self, store: &Store, group: Vec<Parcel>) -> Vec<Parcel> {
        // Ordered as they came: the next is the last.
        let mut groups = vec![group];
        while let Some(mut group) = groups.pop() {
            let (mut backoff, mut failures) = (FIRST_BACKOFF, 0);
            while !group.is_empty() {
                match self.attempt(store, &mut group).await {
                    Tried::Stored if groups.is_empty() => return group,
                    Tried::Stored => tell_all(store, &mut group),
                    Tried::Refused(reasons) => group = refuse(group, &reasons),
                    Tried::NotSent(error) if !error.is_retryable() => {
                        group.drain(..).for_each(|one| one.tell(Err(error.clone())));
                    }
                    Tried::Failed(error) if !error.is_retryable() && !is_id_taken(&error) => {
                        if group.len() == 1 {
                            group.drain(..).for_each(|one| one.tell(Err(error.clone())));
                        } else {
                            // One of them is refused: the half without it is not.
                            groups.push(group.split_off(group.len() / 2));
                        }
                    }
                    // It doesn't pass; perhaps it is about one of them only.
                    Tried::Failed(_) if failures > 0 && group.len() > 1 => {
                        groups.push(group.split_off(group.len() / 2));
                    }
                    // It is about this one: the others first.
                    Tried::Failed(error) if failures > 0 && !groups.is_empty() => {
                        take_expired(&mut group).for_each(|parcel| parcel.tell_not_stored(&error));
                        groups.insert(0, mem::take(&mut group));
                    }
                    Tried::NotSent(error) | Tried::Failed(error) => {
                        failures += 1;
                        telemetry::send_failed(&error);
                        take_expired(&mut group).for_each(|parcel| parcel.tell_not_stored(&error));
                        store.writers().expire(&error);
                        // Perhaps it is another server next time, which draws the same ids for others.
                        self.forget_ids(&mut group);
                        wait(&mut backoff, &group).await;
                    }
                    Tried::Unknown(error) => {
                        if self.find_out(store, &mut group, error).await {
                            tell_all(store, &mut group);
                        }
                    }
                }
            }
        }
        Vec::new()
    }

    /// Asks whether the last try stored its messages, until there is an answer. If it has not, what is left
    /// of the group is to be sent again.
    async fn find_out(&mut self, store: &Store, group: &mut Vec<Parcel>, mut why: Error) -> bool {
        let this = self.last();
        let mut backoff = FIRST_BACKOFF;
        loop {
            telemetry::send_failed(&why);
            take_expired(group).for_each(|parcel| parcel.tell_unknown(&why));
            if group.is_empty() {
                // The number's fate stays open, so it is never used again, nor any after it.
                self.renew();
                return false;
            }
            let (patience, asked_at) = (store.writers().sending.patience(), Instant::now());
            let asked = async {
                let mut lent = store.lend().await?;
                lent.within(patience, async |connection| {
                    writers::settle(connection, this).await
                })
                .await
            };
            match asked.await {
                Ok(true) => return true,
                Ok(false) => {
                    // After their time they are not sent again, however late the answer came: the row that
                    // forbids the last try may be pruned by then.
                    let in_time = asked_at.elapsed() < LIFETIME;
                    take_expired(group).for_each(|parcel| match in_time {
                        true => parcel.tell_not_stored(&why),
                        false => parcel.tell_unknown(&why),
                    });
                    // Perhaps it is another server by now, which draws the same ids for others.
                    self.forget_ids(group);
                    return false;
                }
                // Neither this server nor this login will ever tell.
                Err(error) if !error.is_retryable() => {
                    group.drain(..).for_each(|one| one.tell_unknown(&error));
                }
                Err(error) => {
                    store.writers().expire(&error);
                    why = error;
                }
            }
            wait(&mut backoff, group).await;
        }
    }

    fn last(&self) -> Try {
        Try {
            token: self.token,
            sequence: self.sequence,
        }
    }

    fn renew(&mut self) {
        (self.token, self.sequence, self.since) = (rand::random(), 0, None);
    }

    /// A new token in good time: ahead of a try, since the writer may have been idle for days.
    fn grow_old(&mut self) {
        let is_old = self.since.is_some_and(|since| since.elapsed() > LIFETIME);
        if self.sequence >= 2 * STATEMENTS || is_old {
            self.renew();
        }
    }

    fn forget_ids(&mut self, group: &mut [Parcel]) {
        group.iter_mut().for_each(|parcel| parcel.ids.clear());
        self.ids.drawn.clear();
    }

    /// Its row, and ids for the group: one statement, where it takes any.
    async fn prepare(
        &mut self,
        store: &Store,
        lent: &mut Lent,
        group: &[Parcel],
        patience: Duration,
    ) -> Result<()> {
        let server = store.writers().server();
        let draw_ahead = store.writers().sending.draw_ahead;
        if self.ids.by != server || !draw_ahead {
            self.ids.drawn.clear();
        }
        let without = group.iter().filter(|parcel| parcel.ids.is_empty());
        let needed: usize = without.map(|parcel| parcel.payloads.len()).sum();
        let missing = match self.ids.drawn.len() < needed {
            true if draw_ahead => (needed * 4)
                .clamp(SMALLEST_BLOCK, LARGEST_BLOCK)
                .max(needed),
            true => needed,
            false => 0,
        };
        let token = self.since.is_none().then_some(self.token);
        if missing == 0 && token.is_none() {
            return Ok(());
        }
        let since = Instant::now();
        let drawn = lent.within(patience, async |connection| {
            writers::reserve(connection, token, missing).await
        });
        let drawn = match drawn.await {
            Ok(drawn) => drawn,
            Err(error) => {
                // Its row may come late, when others of its time are pruned already.
                self.renew();
                return Err(error);
            }
        };
        if token.is_some() {
            self.since = Some(since);
            // Who is never idle has to see to it here.
            if store.writers().is_prune_due() {
                prune(lent, patience).await;
            }
            store.writers().prune_later();
        }
        self.ids.put(drawn, server);
        Ok(())
    }

    async fn attempt(&mut self, store: &Store, group: &mut [Parcel]) -> Tried {
        let patience = store.writers().sending.patience();
        self.grow_old();
        let mut lent = match self.lent.take() {
            Some(lent) => lent,
            None => match store.lend().await {
                Ok(lent) => lent,
                Err(error) => return Tried::NotSent(error),
            },
        };
        if let Err(error) = self.prepare(store, &mut lent, group, patience).await {
            return Tried::NotSent(error);
        }
        self.ids.deal(group);
        // So many numbers: one for each statement. The last one's tells of all.
        let statements = match &*group {
            [one] => chunks(&one.payloads).count(),
            _ => 1,
        };
        let first = self.sequence + 2;
        self.sequence += 2 * i64::try_from(statements).unwrap_or(1);
        let started = Instant::now();
        let token = self.token;
        let written = match &*group {
            [one] if statements > 1 => {
                let patience = patience + Duration::from_secs(statements as u64);
                lent.within(patience, async |connection| {
                    write_large(connection, token, first, one, patience).await
                })
                .await
            }
            _ => {
                let this = self.last();
                let batch = lay_out(group);
                lent.within(patience, async |connection| {
                    writers::write(connection, this, &batch).await
                })
                .await
            }
        };
        match written {
            Ok(Written::Stored) => {
                let rows = group.iter().map(|one| one.payloads.len()).sum::<usize>();
                let rows = A_ROW * u32::try_from(rows).unwrap_or(u32::MAX);
                store.writers().took(started.elapsed().saturating_sub(rows));
                self.lent = Some(lent);
                Tried::Stored
            }
            Ok(Written::Refused(places)) => {
                reasons(&mut lent, &lay_out(group).envelopes, places, patience).await
            }
            // No try has its number twice. So the row is gone, with the server that had it; or was pruned.
            Ok(Written::Taken) => Tried::Unknown(sqlx::Error::RowNotFound.into()),
            Err(Error::NotInstalled) => Tried::NotSent(Error::NotInstalled),
            Err(Error::SchemaOutdated) => Tried::NotSent(Error::SchemaOutdated),
            Err(Error::Database(source)) if source.as_database_error().is_some() => {
                refused_by_server(Error::Database(source))
            }
            Err(error) => Tried::Unknown(error),
        }
    }
}

/// Longer each time, apart from others who failed at the same time; not beyond the group's last deadline.
async fn wait(backoff: &mut Duration, group: &[Parcel]) {
    let until = Instant::now() + backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
    *backoff = (*backoff * 2).min(LONGEST_BACKOFF);
    if let Some(last) = group.iter().map(|parcel| parcel.deadline).max() {
        sleep_until(until.min(last)).await;
    }
}

/// After a fail-over the server may draw ids again that it has drawn before. Others will do.
fn is_id_taken(error: &Error) -> bool {
    match error {
        Error::Database(source) => source
            .as_database_error()
            .is_some_and(|refusal| refusal.constraint() == Some("messages_pkey")),
        _ => false,
    }
}

/// What a trigger or a constraint says, in whichever code, may be about one message only.
fn refused_by_server(error: Error) -> Tried {
    let is_common = match &error {
        Error::Database(source) => source
            .as_database_error()
            .and_then(|refusal| refusal.code())
            // connections, transactions, logins, names and rights, resources, the operator, the server itself
            .is_some_and(|code| {
                let class = code.get(..2);
                // A right that is missing may be one for some rows only.
                code != "42501"
                    && class.is_some_and(|class| {
                        matches!(
                            class,
                            "08" | "25"
                                | "28"
                                | "3D"
                                | "3F"
                                | "42"
                                | "53"
                                | "57"
                                | "58"
                                | "F0"
                                | "XX"
                        )
                    })
            }),
        _ => true,
    };
    match is_common && !error.is_retryable() {
        true => Tried::NotSent(error),
        false => Tried::Failed(error),
    }
}

/// Tells those whose envelopes were refused; gives the others.
fn refuse(group: Vec<Parcel>, reasons: &[(usize, Error)]) -> Vec<Parcel> {
    let mut places = HashMap::new();
    let places: Vec<_> = group
        .iter()
        .map(|parcel| {
            let next = places.len();
            *places.entry(&parcel.envelope).or_insert(next)
        })
        .collect();
    let mut left = Vec::new();
    for (parcel, place) in group.into_iter().zip(places) {
        match reasons.iter().find(|(refused, _)| *refused == place) {
            Some((_, reason)) => parcel.tell(Err(reason.clone())),
            None => left.push(parcel),
        }
    }
    left
}

async fn reasons(
    lent: &mut Lent,
    envelopes: &[&Envelope],
    places: Vec<usize>,
    patience: Duration,
) -> Tried {
    let mut reasons = Vec::new();
    for place in places {
        let Some(envelope) = envelopes.get(place) else {
            continue;
        };
        let reason = lent
            .within(patience, async |connection| {
                workers::refusal(connection, &envelope.queue, envelope.producer).await
            })
            .await;
        match reason {
            Ok(reason) => reasons.push((place, reason)),
            Err(error) => return Tried::NotSent(error),
        }
    }
    Tried::Refused(reasons)
}

fn lay_out(group: &[Parcel]) -> Batch<'_> {
    let messages = group.iter().map(|parcel| parcel.ids.len()).sum();
    let mut batch = Batch {
        envelopes: Vec::new(),
        ids: Vec::with_capacity(messages),
        envelope: Vec::with_capacity(messages),
        payloads: Vec::with_capacity(messages),
    };
    let mut places = HashMap::new();
    let mut last: Option<(&Envelope, i32)> = None;
    for parcel in group {
        let place = match last {
            // Mostly they are alike, and comparing two is cheaper than a look into the map.
            Some((envelope, place)) if *envelope == parcel.envelope => place,
            _ => *places.entry(&parcel.envelope).or_insert_with(|| {
                batch.envelopes.push(&parcel.envelope);
                i32::try_from(batch.envelopes.len()).unwrap_or(i32::MAX)
            }),
        };
        last = Some((&parcel.envelope, place));
        batch.ids.extend(&parcel.ids);
        batch
            .payloads
            .extend(parcel.payloads.iter().map(|payload| Json(payload)));
        batch.envelope.resize(batch.ids.len(), place);
    }
    batch
}

fn chunks(payloads: &[String]) -> impl Iterator<Item = &[String]> {
    let mut rest = payloads;
    std::iter::from_fn(move || {
        let (chunk, after) = next_chunk(rest);
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// More than one statement should carry: a few, in one transaction.
async fn write_large(
    connection: &mut PgConnection,
    token: i64,
    first: i64,
    parcel: &Parcel,
    patience: Duration,
) -> Result<Written> {
    let mut transaction = connection.begin().await?;
    writers::limit_silence(&mut transaction, patience).await?;
    // A batch becomes visible at one time, not chunk by chunk.
    let visible = messages::resolve(&mut transaction, parcel.envelope.visible).await?;
    let envelope = Envelope {
        queue: parcel.envelope.queue.clone(),
        visible: Visible::Exactly(visible),
        ..parcel.envelope
    };
    let (mut sequence, mut ids) = (first, &parcel.ids[..]);
    for chunk in chunks(&parcel.payloads) {
        let (of_chunk, rest) = ids.split_at(chunk.len());
        let batch = Batch {
            envelopes: vec![&envelope],
            ids: of_chunk.to_vec(),
            envelope: vec![1; chunk.len()],
            payloads: chunk.iter().map(|payload| Json(payload)).collect(),
        };
        match writers::write(&mut transaction, Try { token, sequence }, &batch).await? {
            Written::Stored => {}
            written => return Ok(written),
        }
        (ids, sequence) = (rest, sequence + 2);
    }
    transaction.commit().await?;
    Ok(Written::Stored)
}
