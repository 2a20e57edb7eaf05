//! Statements on `pgqrs.messages`: in, out, and settled. For the verbs of the API, each of which is one
//! statement here. All of them carry the queue, since it leads every key.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{
    Connection, Execute, PgConnection, Postgres, SqlStr, postgres::PgArguments, query::QueryScalar,
};

use crate::{
    error::Result,
    lifecycle::WorkerId,
    message::{Envelope, Message, MessageId, Page, Priority, Visible, microseconds},
    postgres::{
        workers,
        writers::{Json, JsonText},
    },
    queue::QueueName,
    watermark::Watermarks,
};

/// The most messages, and about the most bytes of payload, that one statement carries.
pub(crate) const CHUNK_MESSAGES: usize = 1_000;
pub(crate) const CHUNK_BYTES: usize = 64 << 20;

/// Ids in the order of the payloads. One statement; or, where there is too much for one, a transaction
/// around a few of them (a savepoint, inside the caller's own).
pub(crate) async fn insert(
    connection: &mut PgConnection,
    envelope: &Envelope,
    payloads: &[String],
) -> Result<Vec<MessageId>> {
    let (first, mut rest) = next_chunk(payloads);
    if rest.is_empty() {
        return insert_chunk(connection, envelope, envelope.visible, first).await;
    }
    let mut transaction = connection.begin().await?;
    // A batch becomes visible at one time, not chunk by chunk.
    let visible = Visible::Exactly(resolve(&mut transaction, envelope.visible).await?);
    let mut ids = insert_chunk(&mut transaction, envelope, visible, first).await?;
    while !rest.is_empty() {
        let (chunk, after) = next_chunk(rest);
        ids.extend(insert_chunk(&mut transaction, envelope, visible, chunk).await?);
        rest = after;
    }
    transaction.commit().await?;
    Ok(ids)
}

/// What fits into one statement, and what is left. Takes at least one payload, where there is one.
pub(crate) fn next_chunk(payloads: &[String]) -> (&[String], &[String]) {
    let mut bytes = 0;
    let fitting = payloads.iter().take(CHUNK_MESSAGES).take_while(|payload| {
        bytes += payload.len();
        bytes <= CHUNK_BYTES
    });
    payloads.split_at(fitting.count().max(1).min(payloads.len()))
}

async fn insert_chunk(
    connection: &mut PgConnection,
    envelope: &Envelope,
    visible: Visible,
    payloads: &[String],
) -> Result<Vec<MessageId>> {
    let mut ids = insertion(envelope, visible, payloads)
        .fetch_all(&mut *connection)
        .await?;
    if ids.is_empty() {
        return Err(workers::refusal(connection, &envelope.queue, envelope.producer).await?);
    }
    // Ids are drawn in the batch's order; in which the rows come back isn't promised.
    ids.sort_unstable();
    Ok(ids.into_iter().map(MessageId::from).collect())
}

/// The statement of an enqueue, for whoever runs it on a connection of their own.
pub(crate) fn insertion_sql(envelope: &Envelope) -> SqlStr {
    insertion(envelope, Visible::Now, &[]).sql()
}

fn insertion<'q>(
    envelope: &Envelope,
    visible: Visible,
    payloads: &[String],
) -> QueryScalar<'q, Postgres, i64, PgArguments> {
    let Envelope {
        queue,
        producer,
        priority,
        ..
    } = envelope;
    let (exactly, not_before, delay) = visible.bounds();
    let payloads: Vec<_> = payloads.iter().map(|payload| Json(payload)).collect();
    sqlx::query_scalar!(
        "insert into pgqrs.messages (queue_id, priority, visible_at, enqueued_at, producer_id, payload)
         select
             m.queue_id,
             $2,
             -- The statement's time and not the transaction's: the caller's own may be long open.
             coalesce(
                 $3::timestamptz,
                 greatest($4::timestamptz, statement_timestamp() + $5::bigint * interval '1 microsecond')
             ),
             statement_timestamp(),
             $6::bigint,
             m.payload
         from (
             -- In the list and not after `from`: there all rows would be written down before the first is used.
             select q.id as queue_id, unnest($7::json[]) as payload
             from pgqrs.queues q
             where q.name = $1
                 -- A suspended or stopped producer finds no queue.
                 and ($6::bigint is null or exists (
                     select from pgqrs.workers w
                     where w.id = $6 and w.queue_id = q.id and w.status = 'ready'
                 ))
         ) m
         returning id",
        queue.as_str(),
        priority.rank(),
        exactly,
        not_before,
        delay,
        producer.map(WorkerId::get),
        &payloads as &[Json<'_>],
    )
}

/// When messages become visible that are enqueued now, by the database's clock.
pub(crate) async fn resolve(
    connection: &mut PgConnection,
    visible: Visible,
) -> Result<DateTime<Utc>> {
    let (_, not_before, delay) = visible.bounds();
    let time = sqlx::query_scalar!(
        r#"
        select greatest(
            $1::timestamptz, statement_timestamp() + $2::bigint * interval '1 microsecond'
        ) as "time!"
        "#,
        not_before,
        delay,
    )
    .fetch_one(connection)
    .await?;
    Ok(time)
}

/// What to claim.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) queue: &'a QueueName,
    pub(crate) consumer: Option<WorkerId>,
    pub(crate) limit: u32,
    pub(crate) lease: Duration,
    pub(crate) from: Watermarks,
}

/// What was claimed.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// In queue order.
    pub(crate) messages: Vec<Message>,
    /// The database's time.
    pub(crate) now: DateTime<Utc>,
    /// How long the database took.
    pub(crate) took: Duration,
    /// Whether it stopped at its limit, so that there may be more that is ready.
    pub(crate) full: bool,
}

/// A message that was delivered, and the lease that it was delivered under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Leased {
    pub(crate) queue_id: i32,
    pub(crate) id: MessageId,
    pub(crate) token: i64,
}

/// Takes ready messages under a lease, in queue order.
///
/// To be run outside a transaction: it turns synchronous commit off for its own, and nobody else's.
/// Messages whose attempts are used up become dead letters instead: their consumers crashed without a word.
pub(crate) async fn claim(connection: &mut PgConnection, claim: &Claim<'_>) -> Result<Claimed> {
    let ranks = Priority::ALL.map(Priority::rank);
    let lease_token: i64 = rand::random();
    let rows = sqlx::query!(
        r#"
        with queue as materialized (
            -- A claim that a crash of the server undoes is only delivered again: no need to wait for the disk.
            select q.id, q.max_attempts, set_config('synchronous_commit', 'off', true)
            from pgqrs.queues q
            where q.name = $1
                -- A suspended or stopped consumer finds no queue.
                and ($5::bigint is null or exists (
                    select from pgqrs.workers w where w.id = $5 and w.queue_id = q.id and w.status = 'ready'
                ))
        ), next as materialized (
            select ready.*
            from queue
            cross join unnest($6::smallint[], $7::timestamptz[]) as level (priority, watermark)
            -- A range of the index for each priority, read only until there is enough: the levels come in
            -- their order, and each range is sorted already.
            cross join lateral (
                select m.ctid as place, m.id, m.visible_at, m.attempt >= queue.max_attempts as used_up
                from pgqrs.messages m
                where m.queue_id = queue.id and m.priority = level.priority
                    and m.visible_at >= level.watermark and m.visible_at <= now()
                order by m.visible_at, m.id
                limit $2
                for update skip locked
            ) ready
            limit $2
        ), claimed as (
            update pgqrs.messages m
            set visible_at = now() + $3::bigint * interval '1 microsecond',
                attempt = m.attempt + 1,
                lease_token = $4,
                consumer_id = $5
            -- The array is a fence: it runs once, so a plan can't claim more rows than the limit.
            where m.ctid = any (array(select place from next where not used_up))
            returning m.id, m.priority, m.enqueued_at, m.attempt, m.headers, m.payload
        )
        -- One row of what is told once, and then the messages as they lie in the table.
        select
            queue.id as "queue_id?",
            array(select id from next) as "ids?",
            array(select visible_at from next) as "visible_at?",
            array(select id from next where used_up) as "used_up?",
            now() as "now?",
            now() + $3::bigint * interval '1 microsecond' as "lease_expires_at?",
            clock_timestamp() - statement_timestamp() as "took?",
            null::bigint as "id?",
            null::smallint as "priority?",
            null::timestamptz as "enqueued_at?",
            null::integer as "attempt?",
            null::json as "headers?: JsonText",
            null::json as "payload?: JsonText"
        from queue
        union all
        select null, null, null, null, null, null, null, id, priority, enqueued_at, attempt, headers, payload
        from claimed
        "#,
        claim.queue.as_str(),
        i64::from(claim.limit),
        microseconds(claim.lease),
        lease_token,
        claim.consumer.map(WorkerId::get),
        &ranks,
        &claim.from,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut rows = rows.into_iter();
    let told = rows.next().and_then(|told| {
        let order = (told.ids?, told.visible_at?, told.used_up?);
        Some((
            told.queue_id?,
            order,
            told.now?,
            told.lease_expires_at?,
            told.took?,
        ))
    });
    let Some((queue_id, (ids, visible_at, used_up), now, lease_expires_at, took)) = told else {
        return Err(workers::refusal(connection, claim.queue, claim.consumer).await?);
    };
    let buried = match used_up.is_empty() {
        true => Ok(()),
        false => bury(connection, queue_id, &used_up).await,
    };
    let mut order: Vec<_> = ids.iter().zip(visible_at).collect();
    order.sort_unstable();
    let mut messages: Vec<_> = rows
        .filter_map(|row| {
            let id = row.id?;
            let place = order.binary_search_by_key(&id, |(id, _)| **id).ok()?;
            let (_, visible_at) = *order.get(place)?;
            Some(Message {
                queue_id,
                id: MessageId::from(id),
                priority: Priority::from_rank(row.priority?),
                visible_at,
                enqueued_at: row.enqueued_at?,
                attempt: row.attempt?,
                lease_token,
                lease_expires_at,
                headers: row.headers.map(|headers| headers.0),
                payload: row.payload?.0,
            })
        })
        .collect();
    messages.sort_unstable_by_key(|message| (message.priority, message.visible_at, message.id));
    // What is claimed is claimed: whoever comes next buries the others.
    if messages.is_empty() {
        buried?;
    }
    Ok(Claimed {
        messages,
        now,
        took: Duration::from_micros(took.microseconds.unsigned_abs()),
        full: ids.len() >= usize::try_from(claim.limit).unwrap_or(usize::MAX),
    })
}

/// Makes dead letters of messages of one queue that a claim has found with their attempts used up. A statement
/// of its own, since it is seldom needed, and as a part of each claim made that a third slower.
async fn bury(connection: &mut PgConnection, queue_id: i32, used_up: &[i64]) -> Result<()> {
    sqlx::query!(
        "with dead as (
             delete from pgqrs.messages m
             using pgqrs.queues q
             where q.id = $1 and m.queue_id = q.id and m.id = any ($2::bigint[])
                 -- Since the claim, others may have been there.
                 and m.attempt >= q.max_attempts and m.visible_at <= statement_timestamp()
             returning m.*
         )
         insert into pgqrs.dead_letters (
             queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, headers, payload,
             reason, last_error
         )
         select queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, headers, payload,
             'attempts used up', coalesce(last_error, 'its consumer crashed, or its lease ran out')
         from dead",
        queue_id,
        used_up,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The queue, ids and tokens of messages of one queue.
fn columns(leased: &[Leased]) -> (Option<i32>, Vec<i64>, Vec<i64>) {
    let queue_id = leased.first().map(|leased| leased.queue_id);
    let ids = leased.iter().map(|leased| leased.id.get()).collect();
    (
        queue_id,
        ids,
        leased.iter().map(|leased| leased.token).collect(),
    )
}

fn ids(rows: Vec<i64>) -> Vec<MessageId> {
    rows.into_iter().map(MessageId::from).collect()
}

/// Deletes messages of one queue whose leases are still held. Gives how many: naming each costs both sides
/// more than deleting it.
pub(crate) async fn ack(connection: &mut PgConnection, leased: &[Leased]) -> Result<u64> {
    let (queue_id, of, tokens) = columns(leased);
    let deleted = sqlx::query!(
        "delete from pgqrs.messages m
         using unnest($2::bigint[], $3::bigint[]) as done (id, token)
         where m.queue_id = $1 and m.id = done.id and m.lease_token = done.token",
        queue_id,
        &of,
        &tokens,
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// Deletes messages whose leases are still held. Gives those.
pub(crate) async fn ack_each(
    connection: &mut PgConnection,
    leased: &[Leased],
) -> Result<Vec<MessageId>> {
    let (_, of, tokens) = columns(leased);
    let queues: Vec<_> = leased.iter().map(|leased| leased.queue_id).collect();
    let deleted = sqlx::query_scalar!(
        "delete from pgqrs.messages m
         using unnest($1::integer[], $2::bigint[], $3::bigint[]) as done (queue_id, id, token)
         where m.queue_id = done.queue_id and m.id = done.id and m.lease_token = done.token
         returning m.id",
        &queues,
        &of,
        &tokens,
    )
    .fetch_all(connection)
    .await?;
    Ok(ids(deleted))
}

/// Moves messages of one queue whose leases are still held to the archive. Gives those.
pub(crate) async fn archive(
    connection: &mut PgConnection,
    leased: &[Leased],
) -> Result<Vec<MessageId>> {
    let (queue_id, of, tokens) = columns(leased);
    let archived = sqlx::query_scalar!(
        "with done as (
             delete from pgqrs.messages m
             using unnest($2::bigint[], $3::bigint[]) as done (id, token)
             where m.queue_id = $1 and m.id = done.id and m.lease_token = done.token
             returning m.*
         )
         insert into pgqrs.archive (
             queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, headers, payload
         )
         select queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, headers, payload
         from done
         returning id",
        queue_id,
        &of,
        &tokens,
    )
    .fetch_all(connection)
    .await?;
    Ok(ids(archived))
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) leased: Leased,
    /// How long to wait, where there is another attempt.
    pub(crate) delay: Duration,
    pub(crate) error: Option<String>,
    /// Why there is to be no other attempt, where that is decided already.
    pub(crate) dead: Option<String>,
}

/// Puts messages of one queue whose leases are still held back for later, or among the dead letters where
/// their attempts are used up. Gives those, and whether they are dead.
pub(crate) async fn fail(
    connection: &mut PgConnection,
    failures: &[Failure],
) -> Result<Vec<(MessageId, bool)>> {
    let leased: Vec<_> = failures.iter().map(|failure| failure.leased).collect();
    let (queue_id, of, tokens) = columns(&leased);
    let delays: Vec<_> = failures
        .iter()
        .map(|failure| microseconds(failure.delay))
        .collect();
    // PostgreSQL's text holds every character but one.
    let text = |text: &Option<String>| text.as_ref().map(|text| text.replace('\0', "\u{fffd}"));
    let errors: Vec<_> = failures
        .iter()
        .map(|failure| text(&failure.error))
        .collect();
    let reasons: Vec<_> = failures.iter().map(|failure| text(&failure.dead)).collect();
    let rows = sqlx::query!(
        r#"
        with held as materialized (
            select m.id, failed.delay, failed.error,
                coalesce(
                    failed.reason,
                    case when m.attempt >= q.max_attempts then 'attempts used up' end
                ) as reason
            from unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[])
                as failed (id, token, delay, error, reason)
            join pgqrs.messages m
                on m.queue_id = $1 and m.id = failed.id and m.lease_token = failed.token
            join pgqrs.queues q on q.id = m.queue_id
            for update of m
        ), retried as (
            update pgqrs.messages m
            set visible_at = statement_timestamp() + held.delay * interval '1 microsecond',
                lease_token = null,
                consumer_id = null,
                last_error = coalesce(held.error, m.last_error)
            from held
            where m.queue_id = $1 and m.id = held.id and held.reason is null
            returning m.id
        ), dead as (
            delete from pgqrs.messages m
            using held
            where m.queue_id = $1 and m.id = held.id and held.reason is not null
            returning m.*, held.reason, held.error
        ), buried as (
            insert into pgqrs.dead_letters (
                queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, headers, payload,
                reason, last_error
            )
            select queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, headers, payload,
                reason, coalesce(error, last_error)
            from dead
            returning id
        )
        select id as "id!", false as "dead!" from retried
        union all
        select id, true from buried
        "#,
        queue_id,
        &of,
        &tokens,
        &delays,
        &errors as &[Option<String>],
        &reasons as &[Option<String>],
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (MessageId::from(row.id), row.dead))
        .collect())
}

/// Lets a lease run from now on, and gives the time when it runs out; `None` where it isn't held any more.
/// Waits for whoever changes the message at this moment, which may be another extension.
pub(crate) async fn extend(
    connection: &mut PgConnection,
    leased: Leased,
    lease: Duration,
) -> Result<Option<DateTime<Utc>>> {
    let until = sqlx::query_scalar!(
        "update pgqrs.messages
         set visible_at = statement_timestamp() + $4::bigint * interval '1 microsecond'
         where queue_id = $1 and id = $2 and lease_token = $3
         returning visible_at",
        leased.queue_id,
        leased.id.get(),
        leased.token,
        microseconds(lease),
    )
    .fetch_optional(connection)
    .await?;
    Ok(until)
}

/// Lets leases of messages of one queue run from now on. Gives those that are still held, with the time
/// when they run out; but none that somebody changes at this moment.
pub(crate) async fn extend_all(
    connection: &mut PgConnection,
    leased: &[Leased],
    lease: Duration,
) -> Result<Vec<(MessageId, DateTime<Utc>)>> {
    let (queue_id, of, tokens) = columns(leased);
    let rows = sqlx::query!(
        r#"
        update pgqrs.messages m
        set visible_at = statement_timestamp() + $4::bigint * interval '1 microsecond'
        where m.ctid = any (array(
            select m.ctid
            from unnest($2::bigint[], $3::bigint[]) as held (id, token)
            join pgqrs.messages m on m.queue_id = $1 and m.id = held.id and m.lease_token = held.token
            -- One that its handler is settling, in a transaction that takes its time, must not hold up
            -- the others; and needs no lease any more.
            for update of m skip locked
        ))
        returning m.id, m.visible_at
        "#,
        queue_id,
        &of,
        &tokens,
        microseconds(lease),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (MessageId::from(row.id), row.visible_at))
        .collect())
}

/// Makes messages of one queue ready again at once. `untouched` ones were never handed to a handler, so
/// that this delivery doesn't count.
pub(crate) async fn release(
    connection: &mut PgConnection,
    leased: &[Leased],
    untouched: bool,
) -> Result<u64> {
    let (queue_id, of, tokens) = columns(leased);
    let released = sqlx::query!(
        "update pgqrs.messages m
         set visible_at = statement_timestamp(),
             lease_token = null,
             consumer_id = null,
             attempt = m.attempt - $4::integer
         from unnest($2::bigint[], $3::bigint[]) as held (id, token)
         where m.queue_id = $1 and m.id = held.id and m.lease_token = held.token",
        queue_id,
        &of,
        &tokens,
        i32::from(untouched),
    )
    .execute(connection)
    .await?;
    Ok(released.rows_affected())
}

/// A message of a queue, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuedMessage {
    /// The message.
    pub id: MessageId,
    /// Its priority.
    pub priority: Priority,
    /// When it can be delivered; while it is leased, when the lease runs out.
    pub visible_at: DateTime<Utc>,
    /// When it was enqueued, by the database's clock.
    pub enqueued_at: DateTime<Utc>,
    /// How often it was delivered.
    pub attempt: u32,
    /// Whether somebody holds it under a lease that still runs.
    pub leased: bool,
    /// The producer that it was sent through, if any.
    pub producer: Option<WorkerId>,
    /// The consumer that it was last delivered to, if any.
    pub consumer: Option<WorkerId>,
    /// What the last attempt failed with, where that is known.
    pub last_error: Option<String>,
    /// The payload as it was sent, where the page asked for payloads.
    pub payload: Option<String>,
}

pub(crate) async fn list(
    connection: &mut PgConnection,
    queue: &QueueName,
    page: &Page,
) -> Result<Vec<QueuedMessage>> {
    let rows = sqlx::query!(
        r#"
        select m.id, m.priority, m.visible_at, m.enqueued_at, m.attempt, m.producer_id, m.consumer_id,
            m.lease_token is not null and m.visible_at > statement_timestamp() as "leased!",
            m.last_error,
            case when $4 then m.payload::text end as payload
        from pgqrs.queues q
        join pgqrs.messages m on m.queue_id = q.id
        where q.name = $1 and m.id > $2
        order by m.id
        limit $3
        "#,
        queue.as_str(),
        page.after(),
        page.limit(),
        page.with_payload(),
    )
    .fetch_all(connection)
    .await?;
    let messages = rows.into_iter().map(|row| QueuedMessage {
        id: MessageId::from(row.id),
        priority: Priority::from_rank(row.priority),
        visible_at: row.visible_at,
        enqueued_at: row.enqueued_at,
        attempt: row.attempt.unsigned_abs(),
        leased: row.leased,
        producer: row.producer_id.map(WorkerId::from),
        consumer: row.consumer_id.map(WorkerId::from),
        last_error: row.last_error,
        payload: row.payload,
    });
    Ok(messages.collect())
}

/// Deletes a message that nobody holds; `false` where there is none.
pub(crate) async fn cancel(
    connection: &mut PgConnection,
    queue: &QueueName,
    message: MessageId,
) -> Result<bool> {
    let cancelled = sqlx::query!(
        "delete from pgqrs.messages m
         using pgqrs.queues q
         where q.name = $1 and m.queue_id = q.id and m.id = $2
             and (m.lease_token is null or m.visible_at <= statement_timestamp())",
        queue.as_str(),
        message.get(),
    )
    .execute(connection)
    .await?;
    Ok(cancelled.rows_affected() == 1)
}

/// Moves a message that nobody holds to another time; `false` where there is none.
pub(crate) async fn reschedule(
    connection: &mut PgConnection,
    queue: &QueueName,
    message: MessageId,
    visible: Visible,
) -> Result<bool> {
    let (_, not_before, delay) = visible.bounds();
    let moved = sqlx::query!(
        "update pgqrs.messages m
         set visible_at =
                 greatest($3::timestamptz, statement_timestamp() + $4::bigint * interval '1 microsecond'),
             lease_token = null
         from pgqrs.queues q
         where q.name = $1 and m.queue_id = q.id and m.id = $2
             and (m.lease_token is null or m.visible_at <= statement_timestamp())",
        queue.as_str(),
        message.get(),
        not_before,
        delay,
    )
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Makes all that a worker holds ready again; `None` where there is no such worker.
pub(crate) async fn release_of(
    connection: &mut PgConnection,
    worker: WorkerId,
) -> Result<Option<u64>> {
    let released = sqlx::query_scalar!(
        r#"
        with worker as (
            select id, queue_id from pgqrs.workers where id = $1
        ), released as (
            update pgqrs.messages m
            set visible_at = statement_timestamp(), lease_token = null, consumer_id = null
            from worker
            where m.queue_id = worker.queue_id and m.consumer_id = worker.id
                and m.lease_token is not null and m.visible_at > statement_timestamp()
            returning m.id
        )
        select (select count(*) from released) as "count!" from worker
        "#,
        worker.get(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(released.map(i64::unsigned_abs))
}

/// Tells others that there is something in these queues.
pub(crate) async fn notify(
    connection: &mut PgConnection,
    channel: &str,
    queues: &[String],
) -> Result<()> {
    sqlx::query!(
        r#"select pg_notify($1, queue) as "told: ()" from unnest($2::text[]) as queue"#,
        channel,
        queues,
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}
