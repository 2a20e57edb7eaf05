//! Acknowledgements of one message for connections of other drivers. They return the message's id, or no row if its
//! lease is lost.

use std::sync::LazyLock;

use sqlx::{Execute, Postgres, postgres::PgArguments, query::QueryScalar};

/// The text of the one that deletes the message.
pub(crate) fn ack() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| deletion().sql().as_str().to_owned());
    &SQL
}

/// The text of the one that also keeps it in the archive.
pub(crate) fn archive() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| archival().sql().as_str().to_owned());
    &SQL
}

/// The text of the one for a message with a group: it deletes the message and lets the next one in, and waits if another
/// transaction has locked the group.
pub(crate) fn ack_in_group() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| deletion_in_group().sql().as_str().to_owned());
    &SQL
}

/// The same, and keeps the message in the archive.
pub(crate) fn archive_in_group() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| archival_in_group().sql().as_str().to_owned());
    &SQL
}

/// Each parameter is cast in the text, so that a driver binds the type that the server expects.
fn deletion<'q>() -> QueryScalar<'q, Postgres, i64, PgArguments> {
    sqlx::query_scalar!(
        "delete from pgqrs.messages
         where queue_id = $1::integer and id = $2::bigint and lease_token = $3::bigint
         returning id",
        0_i32,
        0_i64,
        0_i64,
    )
}

fn archival<'q>() -> QueryScalar<'q, Postgres, i64, PgArguments> {
    sqlx::query_scalar!(
        "with done as (
             delete from pgqrs.messages
             where queue_id = $1::integer and id = $2::bigint and lease_token = $3::bigint
             returning *
         )
         insert into pgqrs.archive (
             queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key, waiting_key,
             headers, payload
         )
         select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
             unique_key, waiting_key, headers, payload
         from done
         returning id",
        0_i32,
        0_i64,
        0_i64,
    )
}

fn deletion_in_group<'q>() -> QueryScalar<'q, Postgres, i64, PgArguments> {
    sqlx::query_scalar!(
        r#"
        with locked as materialized (
            select l.key
            from pgqrs.lock_groups(
                array[$1::integer],
                array(
                    select m.group_key from pgqrs.messages m
                    where m.queue_id = $1::integer and m.id = $2::bigint and m.lease_token = $3::bigint
                        and m.group_key is not null
                ),
                null
            ) l
        ), done as (
            delete from pgqrs.messages
            where queue_id = $1::integer and id = $2::bigint and lease_token = $3::bigint
                and group_key in (select locked.key from locked)
            returning *
        ), settled as materialized (
            select pgqrs.settle_groups(
                array_agg(queue_id), array_agg(group_key::text), array_agg('done'::text), array_agg(id)
            ) as ready
            from done
        )
        -- Counted so that it is executed.
        select id as "id!" from done where (select count(*) from settled) > 0
        "#,
        0_i32,
        0_i64,
        0_i64,
    )
}

fn archival_in_group<'q>() -> QueryScalar<'q, Postgres, i64, PgArguments> {
    sqlx::query_scalar!(
        r#"
        with locked as materialized (
            select l.key
            from pgqrs.lock_groups(
                array[$1::integer],
                array(
                    select m.group_key from pgqrs.messages m
                    where m.queue_id = $1::integer and m.id = $2::bigint and m.lease_token = $3::bigint
                        and m.group_key is not null
                ),
                null
            ) l
        ), done as (
            delete from pgqrs.messages
            where queue_id = $1::integer and id = $2::bigint and lease_token = $3::bigint
                and group_key in (select locked.key from locked)
            returning *
        ), archived as (
            insert into pgqrs.archive (
                queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key,
                waiting_key, headers, payload, group_key
            )
            select queue_id, id, priority, enqueued_at, attempt, producer_id, nullif(consumer_id, 0), max_attempts,
                unique_key, waiting_key, headers, payload, group_key
            from done
        ), settled as materialized (
            select pgqrs.settle_groups(
                array_agg(queue_id), array_agg(group_key::text), array_agg('done'::text), array_agg(id)
            ) as ready
            from done
        )
        -- Counted so that it is executed.
        select id as "id!" from done where (select count(*) from settled) > 0
        "#,
        0_i32,
        0_i64,
        0_i64,
    )
}
