//! What test helpers of other languages run on a connection of a test's own, in its transaction. They compare with the time
//! of the statement: a claim compares with `now()`, which in a transaction is the time of its beginning, and would not find
//! what was sent in it.

use std::sync::LazyLock;

use sqlx::{Execute, Postgres};

fn text<'q>(query: impl Execute<'q, Postgres>) -> String {
    query.sql().as_str().to_owned()
}

/// The messages of a queue with higher ids than this one, by id; a row of nulls if it has none, and no row if there is
/// no such queue.
pub(crate) fn list() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        text(sqlx::query!(
            r#"
        select
            m.id as "id?",
            m.priority as "priority?",
            m.attempt as "attempt?",
            m.enqueued_at as "enqueued_at?",
            case
                when m.visible_at = 'infinity' and m.group_key is null then 'infinity'
                else greatest(extract(
                    epoch from case when m.visible_at = 'infinity' then m.due_at else m.visible_at end - m.enqueued_at
                ), 0)::float8
            end as delay,
            m.visible_at <= statement_timestamp() and m.lease_until <= statement_timestamp() as is_ready,
            coalesce(m.unique_key, m.waiting_key) as key,
            m.group_key::text as "group",
            m.headers::text as headers,
            m.payload::text as payload
        from pgqrs.queues q
        left join pgqrs.messages m on m.queue_id = q.id and m.id > $2::bigint
        where q.name = $1::text
        order by m.id
        "#,
            "",
            0_i64,
        ))
    });
    &SQL
}

/// Takes the next one of these messages that is ready, or of all if there are none of these; also one that is delayed,
/// if that is asked for.
pub(crate) fn take() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        text(sqlx::query!(
            r#"
        with next as materialized (
            select m.ctid as place, q.max_attempts
            from pgqrs.queues q
            join pgqrs.messages m on m.queue_id = q.id
            where q.name = $1::text
                and (m.visible_at <= statement_timestamp() or $4::boolean)
                -- Parked in its group.
                and (m.visible_at < 'infinity' or m.group_key is null)
                and m.lease_until <= statement_timestamp()
                and ($3::bigint[] is null or m.id = any ($3::bigint[]))
            order by m.priority, m.visible_at, m.id
            limit 1
            for update of m skip locked
        )
        update pgqrs.messages m
        set lease_until = 'infinity', lease_token = $2::bigint, attempt = m.attempt + 1, waiting_key = null
        from next
        where m.ctid = next.place
        returning
            m.queue_id, m.id, m.priority, m.attempt, coalesce(m.max_attempts, next.max_attempts) as "max_attempts!",
            coalesce(m.snoozes, 0) as "snoozes!", m.group_key::text as "group", m.enqueued_at, m.headers::text as headers, m.payload::text as payload
        "#,
            "",
            0_i64,
            &[] as &[i64],
            false,
        ))
    });
    &SQL
}

/// Puts a message back after a delay, in microseconds; with some of its attempts returned, and its snoozes counted up.
pub(crate) fn put_back() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        text(sqlx::query!(
            "update pgqrs.messages
         set visible_at = statement_timestamp() + $4::bigint * interval '1 microsecond',
             lease_until = '-infinity',
             lease_token = 0,
             attempt = attempt - $5::integer,
             snoozes = coalesce(snoozes, 0) + $6::integer,
             last_error = coalesce($7::text, last_error)
         where queue_id = $1::integer and id = $2::bigint and lease_token = $3::bigint
         returning id",
            0_i32,
            0_i64,
            0_i64,
            0_i64,
            0_i32,
            0_i32,
            "",
        ))
    });
    &SQL
}

/// Moves a message to the dead letters, and lets the next one of its group in, or stops the group.
pub(crate) fn dead_letter() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        text(sqlx::query!(
            r#"
        with dead as (
            delete from pgqrs.messages
            where queue_id = $1::integer and id = $2::bigint and lease_token = $3::bigint
            returning *
        ), settled as materialized (
            select pgqrs.settle_groups(
                array_agg(queue_id), array_agg(group_key::text), array_agg('dead'::text), array_agg(id)
            )
            from dead
            where group_key is not null
        )
        insert into pgqrs.dead_letters (
            queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key, waiting_key,
            headers, payload, group_key, group_place, reason, last_error
        )
        select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
            unique_key, waiting_key, headers, payload, group_key, group_place, $4::text, coalesce($5::text, last_error)
        from dead
        where (select count(*) from settled) > 0
        returning id
        "#,
            0_i32,
            0_i64,
            0_i64,
            "",
            "",
        ))
    });
    &SQL
}
