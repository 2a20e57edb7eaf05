//! Statements on `pgqrs.workers`: for handles and their heartbeats, and for administration. A heartbeat writes one
//! column, which is in no index; an enqueue or a claim through a worker only reads its state.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{
    admin::rows::{HeldMessage, WorkerFilter, WorkerInfo},
    error::{Error, Result},
    lifecycle::{Transition, WorkerId, WorkerKind, WorkerStatus},
    message::{MessageId, age, microseconds},
    queue::QueueName,
};

/// The data of a registration.
#[derive(Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) kind: WorkerKind,
    pub(crate) hostname: &'a str,
    pub(crate) port: u16,
    pub(crate) queue: &'a QueueName,
    /// Whether to take over the identity of a running worker, too.
    pub(crate) replace: bool,
}

/// Deletes rows of workers whose last heartbeat was a day ago: those that were stopped, and those that crashed.
pub(crate) async fn prune(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        "delete from pgqrs.workers
         where id = any (array(
             select id from pgqrs.workers
             -- One with rare heartbeats may be alive.
             where heartbeat_at < statement_timestamp() - greatest(stale_after, interval '1 day')
             limit 1000
             for update skip locked
         ))",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Registers a worker, and replaces a crashed one of the same identity. Returns the ids of both.
pub(crate) async fn register(
    connection: &mut PgConnection,
    identity: &Identity<'_>,
    stale_after: Duration,
) -> Result<(WorkerId, Option<WorkerId>)> {
    let outcome = sqlx::query!(
        r#"
        with queue as (
            select id from pgqrs.queues where name = $1
        ), crashed as (
            -- Gone, and not only stopped: its old handle then finds nothing to act on.
            delete from pgqrs.workers w
            using queue
            where w.queue_id = queue.id and w.kind = $2 and w.hostname = $3 and w.port = $4
                and w.port <> 0 and w.status <> 'stopped'
                and ($6 or w.heartbeat_at < statement_timestamp() - w.stale_after)
            returning w.id
        ), registered as (
            insert into pgqrs.workers (kind, hostname, port, queue_id, stale_after)
            select $2, $3, $4, queue.id, $5::bigint * interval '1 microsecond'
            -- Counted so that the crashed one is out of the way first.
            from queue, (select count(*) from crashed) as cleared
            on conflict (queue_id, kind, hostname, port) where port <> 0 and status <> 'stopped' do nothing
            returning id
        )
        select
            registered.id as "id?",
            (select min(crashed.id) from crashed) as "replaced?",
            (extract(epoch from statement_timestamp() - holder.heartbeat_at) * 1000000)::bigint as "last_heartbeat?",
            (extract(epoch from holder.stale_after) * 1000000)::bigint as "stale_after?"
        from queue
        left join registered on true
        left join pgqrs.workers holder
            on holder.queue_id = queue.id and holder.kind = $2 and holder.hostname = $3 and holder.port = $4
                and holder.port <> 0 and holder.status <> 'stopped'
        "#,
        identity.queue.as_str(),
        identity.kind.as_str(),
        identity.hostname,
        i32::from(identity.port),
        microseconds(stale_after),
        identity.replace,
    )
    .fetch_optional(connection)
    .await?;
    let ago = |microseconds: Option<i64>| {
        Duration::from_micros(u64::try_from(microseconds.unwrap_or_default()).unwrap_or_default())
    };
    match outcome {
        None => Err(Error::QueueNotFound {
            queue: identity.queue.clone(),
        }),
        Some(row) => row
            .id
            .map(|id| (WorkerId::from(id), row.replaced.map(WorkerId::from)))
            .ok_or_else(|| Error::WorkerExists {
                kind: identity.kind,
                hostname: identity.hostname.to_owned(),
                port: identity.port,
                queue: identity.queue.clone(),
                last_heartbeat: ago(row.last_heartbeat),
                crashed_after: ago(row.stale_after),
            }),
    }
}

/// Writes for each worker how many messages it has settled. Returns those that are still registered and not stopped.
pub(crate) async fn heartbeat(
    connection: &mut PgConnection,
    workers: &[i64],
    settled: &[i64],
) -> Result<Vec<i64>> {
    let alive = sqlx::query_scalar!(
        "update pgqrs.workers w
         set heartbeat_at = statement_timestamp(), settled = beat.settled
         from unnest($1::bigint[], $2::bigint[]) as beat (id, settled)
         where w.id = beat.id and w.status <> 'stopped'
         returning w.id",
        workers,
        settled,
    )
    .fetch_all(connection)
    .await?;
    Ok(alive)
}

/// A step of a worker's life, as it was made or refused.
#[derive(Debug)]
pub(crate) struct Step {
    /// The state before.
    pub(crate) from: WorkerStatus,
    pub(crate) is_made: bool,
    /// The worker's queue, unless it was deleted.
    pub(crate) queue: Option<String>,
}

/// Returns `None` if there is no such worker.
pub(crate) async fn step(
    connection: &mut PgConnection,
    worker: WorkerId,
    transition: Transition,
) -> Result<Option<Step>> {
    let from: Vec<String> = transition
        .from()
        .iter()
        .map(|status| (*status).to_owned())
        .collect();
    let outcome = sqlx::query!(
        r#"
        -- Locked, so that what is decided by it is still true when it is acted on.
        with before as (
            select id, status, queue_id from pgqrs.workers where id = $1 for update
        ), changed as (
            update pgqrs.workers w set status = $2
            from before
            where w.id = before.id and before.status = any ($3)
            returning w.id
        )
        select before.status, exists (select from changed) as "changed!",
            (select name from pgqrs.queues q where q.id = before.queue_id) as "queue?"
        from before
        "#,
        worker.get(),
        transition.to().as_str(),
        &from,
    )
    .fetch_optional(connection)
    .await?;
    Ok(outcome.map(|row| Step {
        from: WorkerStatus::parse(&row.status),
        is_made: row.changed,
        queue: row.queue,
    }))
}

/// Returns its state, and whether its last heartbeat is within this time; `None` if there is no such worker.
pub(crate) async fn state(
    connection: &mut PgConnection,
    worker: WorkerId,
    max_age: Duration,
) -> Result<Option<(WorkerStatus, bool)>> {
    let state = sqlx::query!(
        r#"
        select status,
            statement_timestamp() - heartbeat_at < $2::bigint * interval '1 microsecond' as "recent!"
        from pgqrs.workers where id = $1
        "#,
        worker.get(),
        age(max_age),
    )
    .fetch_optional(connection)
    .await?;
    Ok(state.map(|row| (WorkerStatus::parse(&row.status), row.recent)))
}

/// The error for a claim that found no usable queue, through a worker if there is one.
pub(crate) async fn refusal_of_claim(
    connection: &mut PgConnection,
    queue: &QueueName,
    worker: Option<WorkerId>,
) -> Result<Error> {
    if worker.is_none() {
        return Ok(Error::QueueNotFound {
            queue: queue.clone(),
        });
    }
    let found = state_for_refusal(connection, queue, worker).await?;
    Ok(refused(queue, worker, &found, false))
}

/// The same for a send, which a closed queue refuses.
pub(crate) async fn refusal_of_send(
    connection: &mut PgConnection,
    queue: &QueueName,
    worker: Option<WorkerId>,
    has_groups: bool,
) -> Result<Error> {
    let found = state_for_refusal(connection, queue, worker).await?;
    let lacks_groups = has_groups && found.has_queue && !found.takes_groups;
    let is_ready =
        worker.is_none() || found.is_of_queue && found.worker.as_deref() == Some("ready");
    if lacks_groups && is_ready && !found.is_closed {
        let queue = queue.clone();
        return Ok(Error::GroupsNotEnabled { queue });
    }
    Ok(refused(queue, worker, &found, found.is_closed))
}

/// The state of a queue and a worker, as far as it explains why a statement was refused.
#[derive(Debug)]
struct StateForRefusal {
    has_queue: bool,
    is_closed: bool,
    takes_groups: bool,
    /// `None` if it isn't registered.
    worker: Option<String>,
    /// Whether the queue is the worker's.
    is_of_queue: bool,
}

async fn state_for_refusal(
    connection: &mut PgConnection,
    queue: &QueueName,
    worker: Option<WorkerId>,
) -> Result<StateForRefusal> {
    let found = sqlx::query_as!(
        StateForRefusal,
        r#"
        select q.id is not null as "has_queue!", q.closed_at is not null as "is_closed!",
            q.groups_at_once is not null as "takes_groups!",
            w.status as "worker?", (w.queue_id = q.id) is true as "is_of_queue!"
        from (values (true)) always
        left join pgqrs.queues q on q.name = $1
        left join pgqrs.workers w on w.id = $2::bigint
        "#,
        queue.as_str(),
        worker.map(WorkerId::get),
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}

/// The error for a queue and a worker in this state.
fn refused(
    queue: &QueueName,
    worker: Option<WorkerId>,
    found: &StateForRefusal,
    is_closed: bool,
) -> Error {
    let status = found.worker.as_deref().map(WorkerStatus::parse);
    match (worker, status) {
        (Some(worker), None | Some(WorkerStatus::Stopped)) => Error::WorkerStopped { worker },
        (Some(_), _) if !found.is_of_queue => Error::QueueNotFound {
            queue: queue.clone(),
        },
        (Some(worker), Some(WorkerStatus::Suspended)) => Error::WorkerSuspended { worker },
        _ if is_closed => Error::QueueClosed {
            queue: queue.clone(),
        },
        // By now; when the statement ran, it was not.
        (Some(worker), Some(WorkerStatus::Ready)) => Error::WorkerSuspended { worker },
        // The queue was reopened meanwhile, or created.
        (None, _) if found.has_queue => Error::QueueClosed {
            queue: queue.clone(),
        },
        (None, _) => Error::QueueNotFound {
            queue: queue.clone(),
        },
    }
}

pub(crate) async fn list(
    connection: &mut PgConnection,
    filter: &WorkerFilter,
) -> Result<Vec<WorkerInfo>> {
    select(
        connection,
        None,
        filter.queue.as_ref().map(QueueName::as_str),
        filter.status.map(WorkerStatus::as_str),
        filter.kind.map(WorkerKind::as_str),
    )
    .await
}

pub(crate) async fn find(
    connection: &mut PgConnection,
    worker: WorkerId,
) -> Result<Option<WorkerInfo>> {
    Ok(select(connection, Some(worker), None, None, None)
        .await?
        .pop())
}

async fn select(
    connection: &mut PgConnection,
    worker: Option<WorkerId>,
    queue: Option<&str>,
    status: Option<&str>,
    kind: Option<&str>,
) -> Result<Vec<WorkerInfo>> {
    let rows = sqlx::query!(
        r#"
        select w.id, w.kind, q.name as queue, w.hostname, w.port, w.status, w.started_at, w.heartbeat_at, w.settled,
            w.heartbeat_at < statement_timestamp() - w.stale_after as "stale!"
        from pgqrs.workers w
        join pgqrs.queues q on q.id = w.queue_id
        where ($1::bigint is null or w.id = $1)
            and ($2::text is null or q.name = $2)
            and ($3::text is null or w.status = $3)
            and ($4::text is null or w.kind = $4)
        order by w.id
        "#,
        worker.map(WorkerId::get),
        queue,
        status,
        kind,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(WorkerInfo {
                id: WorkerId::from(row.id),
                kind: WorkerKind::parse(&row.kind),
                queue: QueueName::new(row.queue)?,
                hostname: row.hostname,
                port: u16::try_from(row.port).unwrap_or(0),
                status: WorkerStatus::parse(&row.status),
                started_at: row.started_at,
                heartbeat_at: row.heartbeat_at,
                settled: row.settled.unsigned_abs(),
                stale: row.stale,
            })
        })
        .collect()
}

/// Returns the state that it was in; `None` if there is no such worker.
pub(crate) async fn remove(
    connection: &mut PgConnection,
    worker: WorkerId,
) -> Result<Option<WorkerStatus>> {
    let removed = sqlx::query_scalar!(
        "delete from pgqrs.workers where id = $1 returning status",
        worker.get()
    )
    .fetch_optional(connection)
    .await?;
    Ok(removed.map(|status| WorkerStatus::parse(&status)))
}

/// Removes workers that stopped or crashed at least this long ago.
pub(crate) async fn remove_ended(
    connection: &mut PgConnection,
    older_than: Duration,
) -> Result<u64> {
    let removed = sqlx::query!(
        "delete from pgqrs.workers
         where heartbeat_at < statement_timestamp() - $1::bigint * interval '1 microsecond'
             and (status = 'stopped' or heartbeat_at < statement_timestamp() - stale_after)",
        age(older_than),
    )
    .execute(connection)
    .await?;
    Ok(removed.rows_affected())
}

/// Messages that a worker holds, in the order in which their leases run out; `None` if there is no such worker.
pub(crate) async fn held(
    connection: &mut PgConnection,
    worker: WorkerId,
) -> Result<Option<Vec<HeldMessage>>> {
    let rows = sqlx::query!(
        r#"
        select m.id as "id?", m.attempt as "attempt?",
            -- Somebody may have set it to 'infinity' by hand, and Rust has no such time.
            least(m.lease_until, timestamptz '262000-01-01 00:00+00') as "lease_expires_at?"
        from pgqrs.workers w
        left join pgqrs.messages m
            on m.queue_id = w.queue_id and m.consumer_id = w.id
            and m.lease_until > statement_timestamp()
        where w.id = $1
        order by m.lease_until, m.id
        "#,
        worker.get(),
    )
    .fetch_all(connection)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let held = rows.into_iter().filter_map(|row| {
        Some(HeldMessage {
            id: MessageId::from(row.id?),
            attempt: row.attempt?.unsigned_abs(),
            lease_expires_at: row.lease_expires_at?,
        })
    });
    Ok(Some(held.collect()))
}
