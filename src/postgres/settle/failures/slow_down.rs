//! Deliveries that slow their queue down: the message is put off, and nothing is claimed from the queue for as long.

use sqlx::PgConnection;

use super::{Failed, Failure, FailureColumns, not_found};
use crate::error::Result;

/// Puts messages of one queue back whose leases are still held, and slows the queue down for the longest of their waits,
/// also if no lease is held any more.
pub(crate) async fn slow_down<'a>(
    connection: &mut PgConnection,
    failures: &[&'a Failure],
) -> Result<Vec<Failed<'a>>> {
    let mut failed = put_off(connection, failures).await?;
    if failed.len() < failures.len() {
        let rest: Vec<_> = not_found(failures.iter().copied(), &failed).collect();
        failed.extend(put_off(connection, &rest).await?);
    }
    Ok(failed)
}

async fn put_off<'a>(
    connection: &mut PgConnection,
    failures: &[&'a Failure],
) -> Result<Vec<Failed<'a>>> {
    let columns = FailureColumns::of(failures);
    let numbers = sqlx::query_scalar!(
        r#"
        with slowed as (
            update pgqrs.queues q
            set slowed_until = wanted.until
            from (
                -- Up to a tenth of a second, so that waits that end at nearly the same time change the row once: each claim
                -- and each send reads it.
                select to_timestamp(
                    ceil(extract(epoch from statement_timestamp() + max(delay) * interval '1 microsecond') * 10) / 10
                ) as until
                from unnest($4::bigint[]) as delay
                where delay > 0
            ) wanted
            where q.id = $1 and q.slowed_until < wanted.until
        ), held as materialized (
            select found.place, failed.id, failed.delay, failed.number
            from unnest($2::bigint[], $3::bigint[], $4::bigint[]) with ordinality as failed (id, token, delay, number)
            cross join lateral (
                select m.ctid as place from pgqrs.messages m
                where m.queue_id = $1 and m.id = failed.id and m.lease_token = failed.token
                offset 0
            ) found
        )
        update pgqrs.messages m
        set visible_at = statement_timestamp() + held.delay * interval '1 microsecond',
            lease_until = '-infinity',
            lease_token = 0,
            consumer_id = 0,
            attempt = m.attempt - 1,
            snoozes = least(coalesce(m.snoozes, 0), 2147483646) + 1,
            undecodable_since = null
        from held
        -- An array and no join, whose plan could read the whole queue.
        where m.ctid = any (array(select place from held)) and held.id = m.id
            -- Again, for a version that another transaction has just made of it.
            and m.lease_token = any ($3)
        returning held.number as "number!"
        "#,
        columns.receipts.queue_id,
        &columns.receipts.ids,
        &columns.receipts.tokens,
        &columns.delays,
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
