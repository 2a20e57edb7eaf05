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
