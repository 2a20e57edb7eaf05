//! Failures of messages with groups: one that is put back keeps its place in its group, and one that becomes a dead letter
//! lets the next one in, or stops its group.

use sqlx::PgConnection;

use crate::{
    error::Result,
    postgres::settle::{
        failures::{Failed, Failure, FailureColumns, Then, not_found},
        lock_wait::LockWait,
        slow_down::slow_down,
    },
};

/// What became of failures, and whether others of their groups are ready now.
#[derive(Debug)]
pub(crate) struct FailedOfGroups<'a> {
    pub(crate) failed: Vec<Failed<'a>>,
    pub(crate) is_next_ready: bool,
}

/// As [`fail`](crate::postgres::settle::fail::fail), for messages with groups.
pub(crate) async fn fail<'a>(
    connection: &mut PgConnection,
    failures: &[&'a Failure],
    lock_wait: LockWait,
) -> Result<FailedOfGroups<'a>> {
    let (slowing, others): (Vec<_>, Vec<_>) =
        (failures.iter().copied()).partition(|failure| failure.then == Then::SlowDown);
    let slowed = if slowing.is_empty() {
        Vec::new()
    } else {
        slow_down(connection, &slowing, lock_wait).await?
    };
    if others.is_empty() {
        return Ok(FailedOfGroups {
            failed: slowed,
            is_next_ready: false,
        });
    }
    let mut all = put_back_or_dead_letter(connection, &others, lock_wait).await?;
    if all.failed.len() < others.len() && lock_wait != LockWait::SkipLocked {
        let rest: Vec<_> = not_found(others, &all.failed).collect();
        let missed = put_back_or_dead_letter(connection, &rest, lock_wait).await?;
        all.failed.extend(missed.failed);
        all.is_next_ready |= missed.is_next_ready;
    }
    all.failed.extend(slowed);
    Ok(all)
}

async fn put_back_or_dead_letter<'a>(
    connection: &mut PgConnection,
    failures: &[&'a Failure],
    lock_wait: LockWait,
) -> Result<FailedOfGroups<'a>> {
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
                select m.ctid as place, m.attempt, m.max_attempts, m.undecodable_since, m.group_key from pgqrs.messages m
                where m.queue_id = $1 and m.id = failed.id and m.lease_token = failed.token
                offset 0
            ) m
        ), held as materialized (
            select found.place, found.id, found.group_key, found.delay, found.error, found.is_unused, found.number,
                found.dead_letter_after is not null as is_undecodable,
                q.groups_rated as is_rated, q.groups_rate_n as n, q.groups_rate_per as per,
                coalesce(q.groups_at_once, 1) as at_once,
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
        ), locked as materialized (
            -- Only groups that a message leaves, or whose rate counts the next attempt.
            select l.key
            from pgqrs.lock_groups(
                array(select $1::integer from held where reason is not null or is_rated),
                array(select group_key from held where reason is not null or is_rated),
                $9
            ) l
        ), drawn as materialized (
            select h.number, d.first_at
            from held h
            cross join lateral pgqrs.draw_of_group($1, h.group_key, h.n, h.per, h.at_once, 1) d
            where h.is_rated and h.reason is null and h.group_key in (select locked.key from locked)
        ), put_back as (
            update pgqrs.messages m
            set visible_at = greatest(
                    statement_timestamp() + held.delay * interval '1 microsecond',
                    (select drawn.first_at from drawn where drawn.number = held.number)
                ),
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
            where m.ctid = any (array(
                    select h.place from held h
                    where h.reason is null and (not h.is_rated or h.group_key in (select locked.key from locked))
                ))
                and held.id = m.id
                -- Again, for a version that another transaction has just made of it.
                and m.lease_token = any ($3)
            returning held.number
        ), dead as (
            delete from pgqrs.messages m
            using held
            where m.ctid = any (array(
                    select h.place from held h
                    where h.reason is not null and h.group_key in (select locked.key from locked)
                ))
                and held.id = m.id
                and m.lease_token = any ($3)
            returning m.*, held.reason, held.error, held.number
        ), dead_lettered as (
            insert into pgqrs.dead_letters (
                queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key,
                waiting_key, headers, payload, group_key, group_place, reason, last_error
            )
            select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
                unique_key, waiting_key, headers, payload, group_key, group_place, reason, coalesce(error, last_error)
            from dead
        ), settled as materialized (
            select pgqrs.settle_groups(
                array_agg(queue_id), array_agg(group_key::text), array_agg('dead'::text), array_agg(id)
            ) as ready
            from dead
        )
        -- The first row is about all of them.
        select 0::bigint as "number!", settled.ready is not null as "is_true!" from settled
        union all
        select number, false from put_back
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
        lock_wait.milliseconds(),
    )
    .fetch_all(connection)
    .await?;
    let is_next_ready = rows.iter().any(|row| row.number == 0 && row.is_true);
    let failed = rows.into_iter().filter_map(|row| {
        let place = usize::try_from(row.number).ok()?.checked_sub(1)?;
        Some(Failed {
            failure: failures.get(place)?,
            dead: row.is_true,
        })
    });
    Ok(FailedOfGroups {
        failed: failed.collect(),
        is_next_ready,
    })
}
