//! The statement for messages of one envelope that each have a key of their own while they are unfinished: what most
//! keyed sends are. The general statement in `keeping.rs` could store them too, but has three times as many plan nodes.

use sqlx::PgConnection;

use super::{
    batch::{KeyedRow, KeyedTry, KeyedWritten, position},
    columns::RowColumns,
};
use crate::{
    error::Result,
    lifecycle::WorkerId,
    message::Envelope,
    postgres::{
        json::Json,
        writers::{self, Written},
    },
};

/// Stores messages, unless others have their keys. No two of them have the same key.
pub(super) async fn write_unique(
    connection: &mut PgConnection,
    run: KeyedTry,
    envelopes: &[Envelope],
    rows: &[KeyedRow<'_>],
) -> Result<KeyedWritten> {
    let place = rows.first().map_or(0, |row| position(row.envelope));
    let envelope = envelopes.get(place).ok_or(sqlx::Error::RowNotFound)?;
    let times = envelope.visible.times();
    let columns = RowColumns::of(rows);
    let found = sqlx::query!(
        r#"
        with queue as materialized (
            select
                q.id,
                coalesce(
                    $5::timestamptz,
                    greatest($6::timestamptz, statement_timestamp() + $7::bigint * interval '1 microsecond')
                ) as visible_at
            from pgqrs.queues q
            where q.name = $4 and q.closed_at is null
                -- A suspended or stopped producer finds no queue.
                and ($8::bigint is null or exists (
                    select from pgqrs.workers w
                    where w.id = $8 and w.queue_id = q.id and w.status = 'ready'
                ))
        ), writer as materialized (
            -- An earlier try that is still under way holds the row's lock, and is waited for.
            select w.token
            from pgqrs.writers w
            where w.token = $1 and w.sequence < $2 and exists (select from queue)
            for update
        ), begun as materialized (
            -- Another transaction that has stored a key and is open is waited for, but not for long.
            select
                q.id as queue_id,
                q.visible_at,
                current_setting('lock_timeout') as lock_timeout,
                set_config(
                    'lock_timeout',
                    -- The session's own, if it is shorter.
                    least(
                        nullif(extract(epoch from current_setting('lock_timeout')::interval) * 1000, 0)::bigint,
                        $3::bigint
                    )::text,
                    true
                ) as limited
            from queue q
            where $1::bigint is null or exists (select from writer)
        ), looked as materialized (
            select m.*, h.id as holder, h.payload_hash as hash_of_holder
            from (
                select
                    queue_id,
                    visible_at,
                    unnest($10::bigint[]) as id,
                    unnest($11::json[]) as headers,
                    unnest($12::json[]) as payload,
                    unnest($13::integer[]) as max_attempts,
                    unnest($14::bigint[]) as expires_in,
                    unnest($15::boolean[]) as drop_if_expired,
                    unnest($16::text[]) as unique_key,
                    unnest($17::bytea[]) as payload_hash
                from begun
            ) m
            left join lateral (
                select h.id, h.payload_hash from pgqrs.messages h
                where h.queue_id + 0 = m.queue_id and h.unique_key = m.unique_key
                -- A fence: the keys are looked up one by one, along their index.
                offset 0
            ) h on true
        ), stored as (
            insert into pgqrs.messages (
                queue_id, id, priority, visible_at, enqueued_at, producer_id, max_attempts, expires_at,
                drop_if_expired, unique_key, payload_hash, headers, payload_bytes, payload
            )
            overriding system value
            select
                l.queue_id,
                l.id,
                $9::smallint,
                l.visible_at,
                statement_timestamp(),
                $8,
                l.max_attempts,
                statement_timestamp() + l.expires_in * interval '1 microsecond',
                l.drop_if_expired,
                l.unique_key,
                l.payload_hash,
                l.headers,
                -- Without its header of four bytes.
                pg_column_size(l.payload) - 4,
                l.payload
            from looked l
            where l.holder is null
            -- Each statement takes its keys in the same order: no two wait for each other.
            order by l.unique_key collate "C"
            -- Nobody saw this message when the statement began. It stays as it is.
            on conflict ((queue_id + 0), unique_key) where unique_key is not null
                do update set unique_key = excluded.unique_key
            returning unique_key, id, payload_hash, xmax <> 0 as is_held
        ), duplicates as materialized (
            select
                array_agg(l.id) as ids,
                array_agg(coalesce(l.holder, h.id)) as holders,
                array_agg(coalesce(l.hash_of_holder, h.payload_hash) = l.payload_hash) as same_payload
            from looked l
            left join stored h on h.is_held and h.unique_key = l.unique_key
            where l.holder is not null or h.id is not null
        ), advanced as (
            update pgqrs.writers w
            set sequence = $2,
                duplicates = case when $18 then w.duplicates || d.ids else d.ids end,
                holders = case when $18 then w.holders || d.holders else d.holders end,
                same_payload = case when $18 then w.same_payload || d.same_payload else d.same_payload end
            from duplicates d, begun
            where w.token = $1
        )
        select
            exists (select from queue) as "is_known!",
            exists (select from begun) as "is_stored!",
            d.ids,
            d.holders,
            d.same_payload as "same_payload: Vec<Option<bool>>",
            -- In the caller's own transaction the setting would last on. All is stored once the duplicates are known.
            case when coalesce(cardinality(d.ids), 0) >= 0 then (
                select set_config('lock_timeout', lock_timeout, true) from begun
            ) end as restored
        from duplicates d
        "#,
        run.this.map(|this| this.token),
        run.this.map_or(0, |this| this.sequence),
        i64::try_from(run.key_timeout.as_millis()).unwrap_or(i64::MAX),
        envelope.queue.as_str(),
        times.exactly,
        times.not_before,
        times.delay,
        envelope.producer.map(WorkerId::get),
        envelope.priority.rank(),
        &columns.ids,
        &columns.headers as &[Option<Json<'_>>],
        &columns.payloads as &[Json<'_>],
        &columns.max_attempts as &[Option<i32>],
        &columns.expires_in as &[Option<i64>],
        &columns.drop_if_expired as &[Option<bool>],
        &columns.unique_keys as &[Option<&str>],
        &columns.hashes as &[Option<Vec<u8>>],
        run.continues,
    )
    // Reads all of the answer, down to the end of the transaction: only then are the messages stored.
    .fetch_all(connection)
    .await?;
    let row = found.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
    let written = match (row.is_stored, row.is_known) {
        (true, _) => Written::Stored,
        (false, true) => Written::Taken,
        (false, false) => Written::Refused(vec![place]),
    };
    let duplicates = writers::duplicates(row.ids, row.holders, row.same_payload);
    Ok((written, duplicates))
}
