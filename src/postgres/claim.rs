//! The claim: ready messages of a queue, under a lease. The hottest statement besides the insert, with one caller,
//! [`claim_once`](crate::dequeue::claim_once).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::PgConnection;

use crate::{
    error::{Error, Result},
    lifecycle::WorkerId,
    message::{Message, MessageId, Origin, Priority, QueueSettings, microseconds},
    postgres::{
        dead::{Dead, DeadLettered, End, registered},
        json::{JsonText, headers},
        settle::grouped,
        workers,
    },
    queue::QueueName,
    telemetry::timer::Timer,
    token::random_token,
    watermark::Watermarks,
};

/// What to claim.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) queue: &'a QueueName,
    pub(crate) consumer: Option<WorkerId>,
    /// Maximum number of messages.
    pub(crate) limit: u32,
    /// Maximum bytes of payload; one message is claimed however large it is.
    pub(crate) max_bytes: usize,
    /// Unless the queue has its own.
    pub(crate) lease: Duration,
    /// The lease isn't shorter than this, whatever the queue says.
    pub(crate) lease_at_least: Duration,
    /// After this time the caller has given up, and no message is claimed any more.
    pub(crate) timeout: Duration,
    pub(crate) from: Watermarks,
}

/// What was claimed.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// In queue order.
    pub(crate) messages: Vec<Message>,
    pub(crate) origin: Arc<Origin>,
    /// Messages whose previous delivery was never settled, so that its lease ran out, and the consumer that had claimed
    /// it, if that was a registered one.
    pub(crate) redelivered: HashMap<MessageId, Option<WorkerId>>,
    /// Messages that were not claimed but became dead letters, or were dropped.
    pub(crate) dead: Vec<Dead>,
    /// How long the messages are leased.
    pub(crate) lease: Duration,
    /// The database's time.
    pub(crate) now: DateTime<Utc>,
    /// The duration of the statement in the database.
    pub(crate) took: Duration,
    /// Whether it stopped at a limit, so that more messages may be ready.
    pub(crate) full: bool,
    /// Whether the limit that it stopped at was `max_bytes`.
    pub(crate) stopped_by_bytes: bool,
    /// Whether it has found messages that are over, and could not dead-letter them.
    pub(crate) left_over: bool,
    /// Whether others of the groups of dead letters are ready now.
    pub(crate) is_next_ready: bool,
    /// When the queue's rate lets the next messages be claimed; `None` if it does now, or if the queue has none.
    pub(crate) token_in: Option<Duration>,
    /// When the next message becomes visible, if groups of the queue have rates.
    pub(crate) due_in: Option<Duration>,
    /// How many of the messages that it has found wait for the queue's rate; `None` if it could not look for any.
    pub(crate) held_back: Option<u32>,
}

/// What the first row of a claim's result says.
#[derive(Debug, Deserialize)]
struct Header {
    max_attempts: u32,
    settings: Option<QueueSettings>,
    /// Messages that are to be no longer delivered, since their attempts are used up, or they have expired.
    over: Option<Vec<i64>>,
    /// What only few of the claimed messages have.
    own: Option<HashMap<i64, Own>>,
    /// Claimed messages whose lease had run out, and the consumers that had held them; 0 for an unregistered one.
    redelivered: Option<HashMap<i64, i64>>,
    /// How many were ready, up to the limit.
    found: u32,
    /// How many of those fit into the bytes, and into the limits.
    taken: u32,
    /// `None` if the queue has none.
    limits: Option<Limits>,
    /// The duration of the search.
    microseconds: f64,
}

/// What a claim of a queue with limits has left of them.
#[derive(Debug, Deserialize)]
struct Limits {
    /// In how many microseconds there are tokens of its rate; `None` if there still are some.
    token_in: Option<u64>,
    /// In how many microseconds the next message becomes visible, if groups have rates.
    due_in: Option<u64>,
}

/// What few messages have. In an array: short, as it is for a claim's first row.
#[derive(Debug, Default, Deserialize)]
struct Own {
    max_attempts: Option<u32>,
    snoozes: Option<u32>,
    group: Option<Box<str>>,
}

/// Takes ready messages under a lease, in queue order.
///
/// To be run outside a transaction: it turns synchronous commit off for its own transaction only. Messages whose
/// attempts are used up become dead letters instead: their consumers crashed without settling them. So do those that
/// have expired, unless they are to be dropped.
pub(crate) async fn claim(connection: &mut PgConnection, claim: &Claim<'_>) -> Result<Claimed> {
    let ranks = Priority::ALL.map(Priority::rank);
    let lease_token = random_token();
    let (times, ids): (Vec<_>, Vec<_>) = claim
        .from
        .iter()
        .map(|position| (position.visible_at, position.id))
        .unzip();
    let rows = sqlx::query!(
        r#"
        with queue as materialized (
            -- A claim that a crash of the server undoes is only delivered again: no need to wait for the disk.
            select q.id, q.max_attempts, held.until as held_until, set_config('synchronous_commit', 'off', true),
                q.max_running, q.rate_n, q.rate_per, q.groups_rated,
                greatest(
                    coalesce(q.lease, $3::bigint * interval '1 microsecond'), $11::bigint * interval '1 microsecond'
                ) as lease,
                -- How many can be claimed: without a limit, more than any claim asks for.
                case
                    when coalesce(q.max_running, q.rate_n) is null then 2147483647
                    when held.until > now() then 0
                    else least(
                        case when q.max_running is not null then pgqrs.free_slots(q.id, q.max_running) end,
                        case when q.rate_n is not null
                            then pgqrs.free_tokens(q.id, q.rate_n, q.rate_per, q.slowed_until)
                        end
                    )
                end as free,
                -- Null for a queue without any, as most are.
                case
                    when coalesce(q.lease, q.retry_min, q.retry_max, q.archive_for, q.dead_letters_for) is not null
                        or q.archive_on_ack or q.groups_rated or held.until > now() or coalesce(q.max_running, q.rate_n) is not null
                    then json_build_object(
                        'lease', (extract(epoch from q.lease) * 1000000)::bigint,
                        'retry_min', (extract(epoch from q.retry_min) * 1000000)::bigint,
                        'retry_max', (extract(epoch from q.retry_max) * 1000000)::bigint,
                        'archive_on_ack', q.archive_on_ack,
                        'is_pruned', coalesce(q.archive_for, q.dead_letters_for) is not null or q.groups_rated,
                        'is_paused', q.paused_until > now(),
                        'is_slowed', q.slowed_until > now(),
                        'held_for', case when held.until > now() then
                            (extract(epoch from least(held.until, now() + interval '1 day') - now()) * 1000000)::bigint
                        end,
                        'is_limited', q.max_running is not null,
                        'is_rated', q.rate_n is not null,
                        'has_group_rates', q.groups_rated
                    )
                end as settings
            from pgqrs.queues q
            cross join lateral (select greatest(q.paused_until, q.slowed_until) as until) held
            where q.name = $1
                -- A suspended or stopped consumer finds no queue.
                and ($5::bigint = 0 or exists (
                    select from pgqrs.workers w where w.id = $5 and w.queue_id = q.id and w.status = 'ready'
                ))
        ), next as materialized (
            select ready.*
            from queue
            cross join unnest($6::smallint[], $7::timestamptz[], $8::bigint[]) as level (priority, visible_at, id)
            -- A range of the index for each priority, read only until there is enough: the levels come in
            -- their order, and each range is sorted already.
            cross join lateral (
                select m.ctid as place, m.id, m.payload_bytes,
                    (
                        m.attempt >= coalesce(m.max_attempts, queue.max_attempts)
                        or m.attempt = 0 and m.expires_at <= now()
                    ) is true as is_over,
                    -- Who held it, if its lease ran out; null if nobody did.
                    case when m.lease_token <> 0 then m.consumer_id end as left_by,
                    -- Most messages have none of them.
                    case
                        when coalesce(m.max_attempts, m.snoozes) is not null or m.group_key is not null
                        then json_build_array(m.max_attempts, m.snoozes, m.group_key)
                    end as own
                from pgqrs.messages m
                -- As `messages_ready` has it, and no other index.
                where queue.held_until <= now() and queue.free > 0
                    and m.queue_id + 0 = queue.id and m.priority = level.priority and m.priority >= 0
                    and (m.visible_at, m.id) > (coalesce(level.visible_at, '-infinity'), level.id)
                    -- The planner takes a comparison of rows for a third of the table, and a range for little of it:
                    -- without this one, it may prefer to sort.
                    and m.visible_at >= coalesce(level.visible_at, '-infinity') and m.visible_at <= now()
                    -- Nobody holds it, or no longer. Checked again for a row that was changed while we waited for it.
                    and m.lease_until <= now()
                order by m.visible_at, m.id
                limit $2
                for update skip locked
            ) ready
            limit $2
        ), sized as materialized (
            -- What doesn't fit is unlocked by the commit, and stays as it was.
            select place, id, is_over, left_by, own,
                (row_number() over in_order = 1 or sum(payload_bytes) over in_order <= $9)
                    and row_number() over in_order <= (select free from queue) as fits
            from next
            window in_order as (rows unbounded preceding)
        ), claimed as (
            update pgqrs.messages m
            set lease_until = now() + (select lease from queue),
                lease_token = $4,
                consumer_id = $5,
                attempt = m.attempt + 1,
                waiting_key = null
            -- The array is a fence: it runs once, so a plan can't claim more rows than the limit.
            where m.ctid = any (array(select place from sized where fits and not is_over))
                -- A caller that has given up would never hand these to a handler, but use up an attempt of each. Counted
                -- from the transaction's begin: a wait for a lock on the table is over before the statement's time.
                and clock_timestamp() < now() + $10::bigint * interval '1 microsecond'
            returning m.id, m.priority, m.visible_at, m.enqueued_at, m.attempt, m.headers, m.payload
        )
        -- The first row is a header: it has no id, and what is common to all in columns of the same types. Then a row for
        -- each message, unordered.
        select
            null as "id?",
            null::smallint as "priority?",
            now() as "visible_at!",
            now() + queue.lease as "enqueued_at!",
            queue.id as "attempt!",
            null::json as "headers?: JsonText",
            json_build_object(
                'max_attempts', queue.max_attempts,
                'settings', queue.settings,
                'over', counted.over,
                'own', counted.own,
                'redelivered', counted.redelivered,
                'found', counted.found,
                'taken', counted.taken,
                'limits', case
                    when queue.free < 2147483647 or queue.groups_rated
                    then json_build_object(
                        'slots', case
                            when queue.max_running is not null
                            then pgqrs.take_slots(queue.id, array(select id from claimed), $4)
                        end,
                        'token_in', case
                            when queue.rate_n is not null
                            then pgqrs.take_tokens(
                                queue.id, queue.rate_n, queue.rate_per, (select count(*) from claimed)
                            )
                        end,
                        'due_in', case when queue.groups_rated then pgqrs.due_in(queue.id) end
                    )
                end,
                'microseconds', extract(epoch from clock_timestamp() - statement_timestamp()) * 1000000
            ) as "payload!: JsonText"
        from queue
        cross join (
            select count(*) as found, count(*) filter (where fits) as taken,
                array_agg(id) filter (where fits and is_over) as over,
                json_object_agg(id, own) filter (where fits and not is_over and own is not null) as own,
                json_object_agg(id, left_by) filter (where fits and not is_over and left_by is not null) as redelivered
            from sized
        ) counted
        union all
        select id, priority,
            -- Somebody may have set it to '-infinity' by hand, and Rust has no such time.
            greatest(visible_at, timestamptz '0001-01-01 00:00+00'),
            enqueued_at, attempt, headers, payload
        from claimed
        "#,
        claim.queue.as_str(),
        i64::from(claim.limit),
        microseconds(claim.lease),
        lease_token,
        claim.consumer.map_or(0, WorkerId::get),
        &ranks,
        &times as &[Option<DateTime<Utc>>],
        &ids,
        i64::try_from(claim.max_bytes).unwrap_or(i64::MAX),
        microseconds(claim.timeout),
        microseconds(claim.lease_at_least),
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut rows = rows.into_iter();
    let Some(header) = rows.next() else {
        return Err(workers::refusal_of_claim(connection, claim.queue, claim.consumer).await?);
    };
    let (now, lease_expires_at, queue_id) = (header.visible_at, header.enqueued_at, header.attempt);
    let Header {
        max_attempts,
        settings,
        over,
        own,
        redelivered,
        found,
        taken,
        limits,
        microseconds,
    } = serde_json::from_str(&header.payload.0)
        .map_err(|error| Error::from(sqlx::Error::Decode(Box::new(error))))?;
    let dead_lettered = match over {
        None => Ok(DeadLettered::default()),
        Some(over) => dead_letter(connection, queue_id, max_attempts, &over).await,
    };
    let origin = Arc::new(Origin {
        queue: claim.queue.clone(),
        worker: claim.consumer,
        settings: settings.unwrap_or_default(),
        claimed_at: now,
        timer: Timer::start(),
    });
    let redelivered = redelivered.unwrap_or_default();
    let mut own = own.unwrap_or_default();
    let mut messages: Vec<_> = rows
        .filter_map(|row| {
            let id = row.id?;
            let own = own.remove(&id).unwrap_or_default();
            Some(Message {
                origin: Arc::clone(&origin),
                is_redelivered: redelivered.contains_key(&id),
                queue_id,
                id: MessageId::from(id),
                priority: Priority::from_rank(row.priority?),
                visible_at: row.visible_at,
                enqueued_at: row.enqueued_at,
                attempt: row.attempt,
                max_attempts: own.max_attempts.unwrap_or(max_attempts),
                snoozes: own.snoozes.unwrap_or_default(),
                lease_token,
                lease_expires_at,
                headers: headers(row.headers),
                payload: row.payload.0,
                group: own.group,
            })
        })
        .collect();
    messages.sort_unstable_by_key(|message| (message.priority, message.visible_at, message.id));
    // The claim has committed, so return its messages even if dead-lettering failed; a later claim retries that.
    let failed = dead_lettered.is_err();
    let DeadLettered {
        dead,
        is_next_ready,
        left_over,
    } = match dead_lettered {
        Err(error) if messages.is_empty() => return Err(error),
        dead_lettered => dead_lettered.unwrap_or_default(),
    };
    // With a limit of the queue, there may be no free slot for the others, or no token.
    let is_limited = origin.settings.has_limits();
    let stopped_by_bytes = found > taken && !is_limited;
    // What is over took places within the limit, and there may be others behind it.
    let is_cut_short = is_limited && !dead.is_empty() && !left_over && !failed;
    let token_in = limits.as_ref().and_then(|limits| limits.token_in);
    let held_back = match token_in {
        _ if origin.settings.held_for().is_some() => None,
        None => Some(0),
        // Without a token it looks for no message.
        Some(_) if found == 0 => None,
        Some(_) => Some(found.saturating_sub(taken)),
    };
    Ok(Claimed {
        messages,
        origin,
        redelivered: redelivered
            .into_iter()
            .map(|(id, consumer)| (MessageId::from(id), registered(consumer)))
            .collect(),
        dead,
        lease: (lease_expires_at - now).to_std().unwrap_or_default(),
        now,
        took: Duration::try_from_secs_f64(microseconds / 1e6).unwrap_or_default(),
        full: taken >= claim.limit || stopped_by_bytes || is_cut_short,
        stopped_by_bytes,
        left_over: left_over || failed,
        is_next_ready,
        token_in: token_in.map(Duration::from_micros),
        due_in: limits
            .and_then(|limits| limits.due_in)
            .map(Duration::from_micros),
        held_back,
    })
}

/// Dead-letters messages of one queue that a claim has found with their attempts used up, or expired. A separate statement, since
/// it is seldom needed, and as a part of the claim made each one a third slower.
async fn dead_letter(
    connection: &mut PgConnection,
    queue_id: i32,
    max_attempts: u32,
    over: &[i64],
) -> Result<DeadLettered> {
    let dead = sqlx::query!(
        "with dead as (
             delete from pgqrs.messages m
             where m.ctid = any (array(
                 select found.place
                 from unnest($2::bigint[]) as over (id)
                 cross join lateral (
                     select m.ctid as place from pgqrs.messages m
                     where m.queue_id = $1 and m.id = over.id
                     offset 0
                 ) found
             ))
                 -- Since the claim, others may have been there.
                 and (
                     m.attempt >= coalesce(m.max_attempts, (select max_attempts from pgqrs.queues where id = $1))
                     or m.attempt = 0 and m.expires_at <= statement_timestamp()
                 )
                 -- Those with a group are not only deleted.
                 and m.group_key is null
                 and m.visible_at <= statement_timestamp() and m.lease_until <= statement_timestamp()
             returning m.*
         ), dead_lettered as (
             insert into pgqrs.dead_letters (
                 queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key,
                 waiting_key, headers, payload, reason, last_error
             )
             select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
                 unique_key, waiting_key, headers, payload,
                 case when attempt = 0 then 'expired' else 'attempts used up' end,
                 case when attempt = 0 then last_error
                     else coalesce(
                         last_error,
                         'its last delivery was not settled: the consumer crashed, its lease ran out, or its handler was aborted'
                     ) end
             from dead
             where attempt > 0 or drop_if_expired is not true
         )
         -- Not from the dead letters, which a consumer may not read.
         select id, attempt, max_attempts, consumer_id, drop_if_expired from dead",
        queue_id,
        over,
    )
    .fetch_all(&mut *connection)
    .await?;
    let dead: Vec<_> = dead
        .into_iter()
        .map(|row| Dead {
            id: MessageId::from(row.id),
            attempt: row.attempt.unsigned_abs(),
            max_attempts: row.max_attempts.map_or(max_attempts, i32::unsigned_abs),
            end: match (row.attempt, row.drop_if_expired) {
                (1.., _) => End::UsedUp,
                (_, Some(true)) => End::Dropped,
                (_, _) => End::Expired,
            },
            consumer: registered(row.consumer_id),
        })
        .collect();
    if dead.len() == over.len() {
        return Ok(DeadLettered {
            dead,
            ..DeadLettered::default()
        });
    }
    // The others have groups, or somebody else was there first.
    let without_groups: HashSet<_> = dead.iter().map(|dead| dead.id.get()).collect();
    let rest = over.iter().filter(|id| !without_groups.contains(id));
    let rest: Vec<_> = rest.copied().collect();
    let mut grouped = grouped::dead_letter(connection, queue_id, max_attempts, &rest).await?;
    grouped.dead.extend(dead);
    Ok(grouped)
}
