//! Deliveries that slow their queue down, or their group if it has a rate: the message is put off, and nothing else of the
//! queue, or of the group, starts for as long.

use sqlx::PgConnection;

use super::{
    failures::{Failed, Failure, FailureColumns, not_found},
    lock_wait::LockWait,
};
use crate::error::Result;

/// Puts messages of one queue back whose leases are still held, and slows the queue down for the longest of their waits,
/// also if no lease is held any more. A group with a rate is slowed down instead, if the lease is held.
pub(crate) async fn slow_down<'a>(
    connection: &mut PgConnection,
    failures: &[&'a Failure],
    lock_wait: LockWait,
) -> Result<Vec<Failed<'a>>> {
    let mut failed = put_off(connection, failures, lock_wait).await?;
    if failed.len() < failures.len() && lock_wait != LockWait::SkipLocked {
        let rest: Vec<_> = not_found(failures.iter().copied(), &failed).collect();
        failed.extend(put_off(connection, &rest, lock_wait).await?);
    }
    Ok(failed)
}

async fn put_off<'a>(
    connection: &mut PgConnection,
    failures: &[&'a Failure],
    lock_wait: LockWait,
) -> Result<Vec<Failed<'a>>> {
    let columns = FailureColumns::of(failures);
    let numbers = sqlx::query_scalar!(
        r#"
        with held as materialized (
            select failed.delay, failed.number, found.*,
                -- Of a message that is gone the group isn't known.
                q.groups_rated and (found.id is null or found.group_key is not null) as is_rated,
                q.groups_rate_n as n, q.groups_rate_per as per, coalesce(q.groups_at_once, 1) as at_once
            from unnest($2::bigint[], $3::bigint[], $4::bigint[]) with ordinality as failed (id, token, delay, number)
            join pgqrs.queues q on q.id = $1
            left join lateral (
                select m.ctid as place, m.id, m.group_key from pgqrs.messages m
                where m.queue_id = $1 and m.id = failed.id and m.lease_token = failed.token
                offset 0
            ) found on true
        ), locked as materialized (
            select l.key
            from pgqrs.lock_groups(
                array(select $1::integer from held where is_rated), array(select group_key from held where is_rated), $5
            ) l
        ), drawn as materialized (
            select h.number, d.first_at
            from held h
            cross join lateral pgqrs.draw_of_group(
                $1, h.group_key, h.n, h.per, h.at_once, 1, h.delay * interval '1 microsecond'
            ) d
            where h.is_rated and h.group_key in (select locked.key from locked)
        ), slowed as (
            update pgqrs.queues q
            set slowed_until = wanted.until
            from (
                -- Up to a tenth of a second, so that waits that end at nearly the same time change the row once: each claim
                -- and each send reads it.
                select to_timestamp(
                    ceil(extract(epoch from statement_timestamp() + max(h.delay) * interval '1 microsecond') * 10) / 10
                ) as until
                from held h
                left join drawn on drawn.number = h.number
                -- A group without a rate has none to slow down.
                where h.delay > 0
                    and (not h.is_rated or drawn.first_at is null and h.group_key in (select locked.key from locked))
            ) wanted
            where q.id = $1 and q.slowed_until < wanted.until
        )
        update pgqrs.messages m
        set visible_at = greatest(
                statement_timestamp() + held.delay * interval '1 microsecond',
                (select drawn.first_at from drawn where drawn.number = held.number)
            ),
            lease_until = '-infinity',
            lease_token = 0,
            consumer_id = 0,
            attempt = m.attempt - 1,
            snoozes = least(coalesce(m.snoozes, 0), 2147483646) + 1,
            undecodable_since = null
        from held
        -- An array and no join, whose plan could read the whole queue.
        where m.ctid = any (array(
                select h.place from held h where not h.is_rated or h.group_key in (select locked.key from locked)
            ))
            and held.id = m.id
            -- Again, for a version that another transaction has just made of it.
            and m.lease_token = any ($3)
        returning held.number as "number!"
        "#,
        columns.receipts.queue_id,
        &columns.receipts.ids,
        &columns.receipts.tokens,
        &columns.delays,
        lock_wait.milliseconds(),
    )
    .fetch_all(connection)
    .await?;
    let failed = numbers.into_iter().filter_map(|number| {
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        Some(Failed {
            failure: failures.get(place)?,
            dead: false,
        })
    });
    Ok(failed.collect())
}
