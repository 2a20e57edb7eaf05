//! Settlements of messages with groups. They lock the rows of the groups, delete the messages, and let as many of those that
//! are parked in: all in one statement, of which `pgqrs.settle_groups` sees what was parked until the locks were granted.

mod failures;

use std::collections::HashSet;

use sqlx::PgConnection;

pub(crate) use self::failures::{FailedOfGroups, fail};
pub(crate) use super::lock_wait::LockWait;
use super::{Columns, message_ids};
use crate::{
    error::Result,
    message::{MessageId, Receipt},
    postgres::dead::{Dead, DeadLettered, End, registered},
};

/// What was settled, and whether others of these groups are ready now.
#[derive(Debug, Default)]
pub(crate) struct SettledOfGroups {
    pub(crate) ids: Vec<MessageId>,
    pub(crate) ready_queues: HashSet<i32>,
}

/// Deletes messages of any queues whose leases are still held, and moves those of some queues to the archive.
pub(crate) async fn ack(
    connection: &mut PgConnection,
    receipts: &[Receipt],
    archiving: &[i32],
    lock_wait: LockWait,
) -> Result<SettledOfGroups> {
    if let [receipt] = receipts {
        let archives = archiving.contains(&receipt.queue_id);
        return delete_or_archive_one(connection, *receipt, archives, lock_wait).await;
    }
    let mut settled = delete_or_archive(connection, receipts, archiving, lock_wait).await?;
    if settled.ids.len() < receipts.len() && lock_wait != LockWait::SkipLocked {
        let missing = super::missing(receipts, &settled.ids);
        let others = delete_or_archive(connection, &missing, archiving, lock_wait).await?;
        settled.ids.extend(others.ids);
        settled.ready_queues.extend(others.ready_queues);
    }
    Ok(settled)
}

async fn delete_or_archive(
    connection: &mut PgConnection,
    receipts: &[Receipt],
    archiving: &[i32],
    lock_wait: LockWait,
) -> Result<SettledOfGroups> {
    let Columns {
        ids,
        tokens,
        distinct_tokens,
        ..
    } = receipts.iter().collect();
    let queues: Vec<_> = receipts.iter().map(|receipt| receipt.queue_id).collect();
    let row = sqlx::query!(
        r#"
        with found as materialized (
            select receipt.queue_id, held.*
            from unnest($1::integer[], $2::bigint[], $3::bigint[]) as receipt (queue_id, id, token)
            cross join lateral (
                select m.ctid as place, m.group_key from pgqrs.messages m
                where m.queue_id = receipt.queue_id and m.id = receipt.id and m.lease_token = receipt.token
                offset 0
            ) held
        ), locked as materialized (
            select l.*
            from pgqrs.lock_groups(
                array(select queue_id from found), array(select group_key from found), $5
            ) l
        ), done as (
            delete from pgqrs.messages m
            where m.ctid = any (array(
                select found.place from found
                where (found.queue_id, found.group_key) in (select locked.queue_id, locked.key from locked)
            ))
                -- Again, for a version that another transaction has just made of it.
                and m.lease_token = any ($6)
            returning m.*
        ), archived as (
            insert into pgqrs.archive (
                queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key,
                waiting_key, headers, payload, group_key
            )
            select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
                unique_key, waiting_key, headers, payload, group_key
            from done
            where queue_id = any ($4)
        ), gone as materialized (
            select queue_id, group_key, count(*) as messages from done group by queue_id, group_key
        ), forgotten as (
            -- Most groups have no other message. All of them at once, which takes half the time of one by one. A row that has
            -- changed since the statement began isn't visible here, and is left to the function.
            delete from pgqrs.groups g
            where g.ctid = any (array(
                select l.place
                from locked l
                join gone on gone.queue_id = l.queue_id and gone.group_key = l.key
                where l.is_simple and l.live <= gone.messages
            ))
            returning g.queue_id, g.key
        )
        select
            array(select id from done) as "ids!",
            (
                select pgqrs.settle_groups(
                    array_agg(queue_id), array_agg(group_key::text), array_agg('done'::text), array_agg(id)
                )
                from done
                where (queue_id, group_key) not in (select forgotten.queue_id, forgotten.key from forgotten)
            ) as ready
        "#,
        &queues,
        &ids,
        &tokens,
        archiving,
        lock_wait.milliseconds(),
        &distinct_tokens,
    )
    .fetch_one(connection)
    .await?;
    Ok(SettledOfGroups {
        ids: message_ids(row.ids),
        ready_queues: row.ready.unwrap_or_default().into_iter().collect(),
    })
}

/// The same for one message: by numbers and not by arrays, so that its plan is made once.
async fn delete_or_archive_one(
    connection: &mut PgConnection,
    receipt: Receipt,
    archives: bool,
    lock_wait: LockWait,
) -> Result<SettledOfGroups> {
    let row = sqlx::query!(
        r#"
        with locked as materialized (
            select l.*
            from pgqrs.lock_groups(
                array[$1::integer],
                array(
                    select m.group_key from pgqrs.messages m
                    where m.queue_id = $1 and m.id = $2 and m.lease_token = $3 and m.group_key is not null
                ),
                $5
            ) l
        ), done as (
            delete from pgqrs.messages
            where queue_id = $1 and id = $2 and lease_token = $3 and group_key in (select locked.key from locked)
            returning *
        ), archived as (
            insert into pgqrs.archive (
                queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key,
                waiting_key, headers, payload, group_key
            )
            select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
                unique_key, waiting_key, headers, payload, group_key
            from done
            where $4
        ), forgotten as (
            delete from pgqrs.groups g
            where g.ctid = any (array(
                select l.place from locked l where l.is_simple and l.live <= (select count(*) from done)
            ))
            returning g.key
        )
        select
            array(select id from done) as "ids!",
            (
                select case when count(*) > 0 then
                    pgqrs.settle_groups(
                        array_agg(queue_id), array_agg(group_key::text), array_agg('done'::text), array_agg(id)
                    )
                end
                from done
                where (select count(*) from forgotten) = 0
            ) as ready
        "#,
        receipt.queue_id,
        receipt.id.get(),
        receipt.token,
        archives,
        lock_wait.milliseconds(),
    )
    .fetch_one(connection)
    .await?;
    Ok(SettledOfGroups {
        ids: message_ids(row.ids),
        ready_queues: row.ready.unwrap_or_default().into_iter().collect(),
    })
}

/// Of these messages, those that are still held: after a settlement that didn't wait, the ones whose groups are locked.
pub(crate) async fn still_held(
    connection: &mut PgConnection,
    receipts: &[Receipt],
) -> Result<Vec<Receipt>> {
    let Columns {
        queue_id,
        ids,
        tokens,
        ..
    } = receipts.iter().collect();
    let held = sqlx::query_scalar!(
        r#"
        select held.id
        from unnest($2::bigint[], $3::bigint[]) as receipt (id, token)
        cross join lateral (
            select m.id from pgqrs.messages m
            where m.queue_id = $1 and m.id = receipt.id and m.lease_token = receipt.token
            offset 0
        ) held
        "#,
        queue_id,
        &ids,
        &tokens,
    )
    .fetch_all(connection)
    .await?;
    let held: HashSet<_> = held.into_iter().collect();
    let receipts = receipts.iter().filter(|one| held.contains(&one.id.get()));
    Ok(receipts.copied().collect())
}

/// Dead-letters messages with groups that a claim has found with their attempts used up, or expired. A group that another
/// transaction has locked isn't waited for.
pub(crate) async fn dead_letter(
    connection: &mut PgConnection,
    queue_id: i32,
    max_attempts: u32,
    over: &[i64],
) -> Result<DeadLettered> {
    let rows = sqlx::query!(
        r#"
        with found as materialized (
            select found.*
            from unnest($2::bigint[]) as over (id)
            cross join lateral (
                select m.ctid as place, m.id, m.group_key from pgqrs.messages m
                where m.queue_id = $1 and m.id = over.id and m.group_key is not null
                offset 0
            ) found
        ), locked as materialized (
            select l.key
            from pgqrs.lock_groups(
                array(select $1::integer from found), array(select group_key from found), 0
            ) l
        ), dead as (
            delete from pgqrs.messages m
            where m.ctid = any (array(
                select found.place from found where found.group_key in (select locked.key from locked)
            ))
                -- Since the claim, others may have been there.
                and (
                    m.attempt >= coalesce(m.max_attempts, (select max_attempts from pgqrs.queues where id = $1))
                    or m.attempt = 0 and m.expires_at <= statement_timestamp()
                )
                and m.visible_at <= statement_timestamp() and m.lease_until <= statement_timestamp()
            returning m.*
        ), dead_lettered as (
            insert into pgqrs.dead_letters (
                queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key,
                waiting_key, headers, payload, group_key, group_place, reason, last_error
            )
            select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
                unique_key, waiting_key, headers, payload, group_key, group_place,
                case when attempt = 0 then 'expired' else 'attempts used up' end,
                case when attempt = 0 then last_error
                    else coalesce(
                        last_error,
                        'its last delivery was not settled: the consumer crashed, its lease ran out, or its handler was aborted'
                    ) end
            from dead
            where attempt > 0 or drop_if_expired is not true
        ), settled as materialized (
            select pgqrs.settle_groups(
                array_agg(queue_id), array_agg(group_key::text),
                array_agg(case when attempt > 0 or drop_if_expired is not true then 'dead' else 'done' end), array_agg(id)
            ) as ready
            from dead
        )
        -- Not from the dead letters, which a consumer may not read. The first row is about all of them.
        select null as "id?", 0 as "attempt!", null::integer as "max_attempts?", 0::bigint as "consumer_id!",
            null::boolean as "drop_if_expired?",
            settled.ready is not null as "is_next_ready!",
            (select count(*) from found where found.group_key not in (select locked.key from locked)) as "left_over!"
        from settled
        union all
        select id, attempt, max_attempts, consumer_id, drop_if_expired, false, 0 from dead
        "#,
        queue_id,
        over,
    )
    .fetch_all(connection)
    .await?;
    let mut all = DeadLettered::default();
    for row in rows {
        let Some(id) = row.id else {
            all.is_next_ready = row.is_next_ready;
            all.left_over = row.left_over > 0;
            continue;
        };
        all.dead.push(Dead {
            id: MessageId::from(id),
            attempt: row.attempt.unsigned_abs(),
            max_attempts: row.max_attempts.map_or(max_attempts, i32::unsigned_abs),
            end: match (row.attempt, row.drop_if_expired) {
                (1.., _) => End::UsedUp,
                (_, Some(true)) => End::Dropped,
                (_, _) => End::Expired,
            },
            consumer: registered(row.consumer_id),
        });
    }
    Ok(all)
}
