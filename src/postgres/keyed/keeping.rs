//! The statement for messages with a key, or with limits of their own, that change no other message.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    batch::{KeyedRow, KeyedTry, KeyedWritten, outcome},
    columns::{EnvelopeColumns, RowColumns},
};
use crate::{
    error::Result,
    message::Envelope,
    postgres::{json::Json, writers},
};

/// Stores messages, unless others have their keys.
pub(super) async fn write_keeping(
    connection: &mut PgConnection,
    run: KeyedTry,
    envelopes: &[Envelope],
    rows: &[KeyedRow<'_>],
) -> Result<KeyedWritten> {
    let of_envelopes = EnvelopeColumns::of(envelopes);
    let columns = RowColumns::of(rows);
    let found = sqlx::query!(
        r#"
        with envelopes as materialized (
            select
                array_agg(q.id order by e.place) as queue_ids,
                array_agg(
                    coalesce(
                        e.exactly,
                        greatest(e.not_before, statement_timestamp() + e.delay * interval '1 microsecond')
                    )
                    order by e.place
                ) as visible_at,
                bool_and(q.id is not null) as known
            from unnest($4::text[], $5::timestamptz[], $6::timestamptz[], $7::bigint[], $8::bigint[])
                with ordinality as e (queue, exactly, not_before, delay, producer, place)
            left join pgqrs.queues q
                on q.name = e.queue and q.closed_at is null
                -- A suspended or stopped producer finds no queue.
                and (e.producer is null or exists (
                    select from pgqrs.workers w
                    where w.id = e.producer and w.queue_id = q.id and w.status = 'ready'
                ))
        ), writer as materialized (
            -- An earlier try that is still under way holds the row's lock, and is waited for.
            select w.token
            from pgqrs.writers w
            where w.token = $1 and w.sequence < $2 and (select known from envelopes)
            for update
        ), begun as materialized (
            -- Another transaction that has stored a key and is open is waited for, but not for long.
            select
                e.queue_ids,
                e.visible_at,
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
            from envelopes e
            where e.known and ($1::bigint is null or exists (select from writer))
        ), looked as materialized (
            select
                m.*,
                m.queue_ids[m.envelope] as queue_id,
                case
                    when m.unique_key is not null then (
                        select h.id from pgqrs.messages h
                        where h.queue_id + 0 = m.queue_ids[m.envelope] and h.unique_key = m.unique_key
                    )
                    when m.seen_key is not null then (
                        select s.message_id from pgqrs.seen s
                        where s.queue_id = m.queue_ids[m.envelope] and s.key = m.seen_key
                            and s.until > statement_timestamp()
                    )
                end as holder
            from (
                select
                    queue_ids,
                    visible_at,
                    generate_subscripts($10::bigint[], 1) as place,
                    unnest($10::bigint[]) as id,
                    unnest($11::integer[]) as envelope,
                    unnest($12::json[]) as headers,
                    unnest($13::json[]) as payload,
                    unnest($14::integer[]) as max_attempts,
                    unnest($15::bigint[]) as expires_in,
                    unnest($16::boolean[]) as drop_if_expired,
                    unnest($17::text[]) as unique_key,
                    unnest($18::text[]) as waiting_key,
                    unnest($19::text[]) as seen_key,
                    unnest($20::bigint[]) as "window",
                    unnest($21::bytea[]) as payload_hash,
                    unnest($22::integer[]) as first,
                    unnest($23::boolean[]) as same_as_first
                from begun
            ) m
        ), saw as (
            insert into pgqrs.seen as s (queue_id, key, message_id, payload_hash, until)
            select
                l.queue_id, l.seen_key, l.id, l.payload_hash,
                statement_timestamp() + l."window" * interval '1 microsecond'
            from looked l
            where l.seen_key is not null and l.first is null and l.holder is null
            -- Each statement takes its keys in the same order: no two wait for each other.
            order by l.queue_id, l.seen_key collate "C"
            on conflict (queue_id, key) do update
                set message_id = case when s.until > statement_timestamp() then s.message_id else excluded.message_id end,
                    payload_hash = case when s.until > statement_timestamp() then s.payload_hash else excluded.payload_hash end,
                    until = case when s.until > statement_timestamp() then s.until else excluded.until end
            returning key, message_id, payload_hash
        ), stored as (
            insert into pgqrs.messages (
                queue_id, id, priority, visible_at, enqueued_at, producer_id, max_attempts, expires_at,
                drop_if_expired, unique_key, payload_hash, headers, payload_bytes, payload
            )
            overriding system value
            select
                l.queue_id,
                l.id,
                ($9::smallint[])[l.envelope],
                l.visible_at[l.envelope],
                statement_timestamp(),
                ($8::bigint[])[l.envelope],
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
            where l.first is null and l.holder is null and l.waiting_key is null
                and (l.seen_key is null or exists (select from saw where saw.message_id = l.id))
            order by l.queue_id, l.unique_key collate "C", l.id
            -- Nobody saw this message when the statement began. It stays as it is.
            on conflict ((queue_id + 0), unique_key) where unique_key is not null
                do update set unique_key = excluded.unique_key
            returning unique_key, id, payload_hash, xmax <> 0 as is_held
        ), stored_waiting as (
            insert into pgqrs.messages (
                queue_id, id, priority, visible_at, enqueued_at, producer_id, max_attempts, expires_at,
                drop_if_expired, waiting_key, payload_hash, headers, payload_bytes, payload
            )
            overriding system value
            select
                l.queue_id,
                l.id,
                ($9::smallint[])[l.envelope],
                l.visible_at[l.envelope],
                statement_timestamp(),
                ($8::bigint[])[l.envelope],
                l.max_attempts,
                statement_timestamp() + l.expires_in * interval '1 microsecond',
                l.drop_if_expired,
                l.waiting_key,
                l.payload_hash,
                l.headers,
                -- Without its header of four bytes.
                pg_column_size(l.payload) - 4,
                l.payload
            from looked l
            -- After the others, in each statement.
            where l.first is null and l.waiting_key is not null and (select count(*) from stored) >= 0
            order by l.queue_id, l.waiting_key collate "C"
            -- It stays as it is, and can't be claimed before this transaction ends: so its handler sees what this
            -- transaction has changed.
            on conflict ((queue_id + 0), waiting_key) where waiting_key is not null
                do update set waiting_key = excluded.waiting_key
            returning waiting_key, id, payload_hash, xmax <> 0 as is_held
        ), held as materialized (
            select array_position($17::text[], unique_key::text) as place, id, payload_hash
            from stored where is_held
            union all
            select array_position($18::text[], waiting_key::text), id, payload_hash
            from stored_waiting where is_held
            union all
            select array_position($19::text[], key::text), message_id, payload_hash
            from saw where message_id <> ($10::bigint[])[array_position($19::text[], key::text)]
        ), duplicates as materialized (
            select
                array_agg(l.id) as ids,
                array_agg(coalesce(l.holder, h.id, ($10::bigint[])[l.first])) as holders,
                array_agg(
                    case
                        when l.holder is null and h.id is null then l.same_as_first
                        when l.holder is null then h.payload_hash = l.payload_hash
                        when l.unique_key is not null then (
                            select m.payload_hash = l.payload_hash from pgqrs.messages m
                            where m.queue_id + 0 = l.queue_id and m.unique_key = l.unique_key
                        )
                        else (
                            select s.payload_hash = l.payload_hash from pgqrs.seen s
                            where s.queue_id = l.queue_id and s.key = l.seen_key
                        )
                    end
                ) as same_payload
            from looked l
            left join held h on h.place = coalesce(l.first, l.place)
            where l.first is not null or l.holder is not null or h.id is not null
        ), advanced as (
            update pgqrs.writers w
            set sequence = $2,
                duplicates = case when $24 then w.duplicates || d.ids else d.ids end,
                holders = case when $24 then w.holders || d.holders else d.holders end,
                same_payload = case when $24 then w.same_payload || d.same_payload else d.same_payload end
            from duplicates d, begun
            where w.token = $1
        )
        select
            exists (select from begun) as "is_stored!",
            e.queue_ids as "queue_ids!: Vec<Option<i32>>",
            d.ids,
            d.holders,
            d.same_payload as "same_payload: Vec<Option<bool>>",
            -- In the caller's own transaction the setting would last on. All is stored once the duplicates are known.
            case when coalesce(cardinality(d.ids), 0) >= 0 then (
                select set_config('lock_timeout', lock_timeout, true) from begun
            ) end as restored
        from envelopes e
        cross join duplicates d
        "#,
        run.this.map(|this| this.token),
        run.this.map_or(0, |this| this.sequence),
        i64::try_from(run.key_timeout.as_millis()).unwrap_or(i64::MAX),
        &of_envelopes.queues as &[&str],
        &of_envelopes.exactly as &[Option<DateTime<Utc>>],
        &of_envelopes.not_before as &[Option<DateTime<Utc>>],
        &of_envelopes.delays,
        &of_envelopes.producers as &[Option<i64>],
        &of_envelopes.priorities,
        &columns.ids,
        &columns.envelopes,
        &columns.headers as &[Option<Json<'_>>],
        &columns.payloads as &[Json<'_>],
        &columns.max_attempts as &[Option<i32>],
        &columns.expires_in as &[Option<i64>],
        &columns.drop_if_expired as &[Option<bool>],
        &columns.unique_keys as &[Option<&str>],
        &columns.waiting_keys as &[Option<&str>],
        &columns.seen_keys as &[Option<&str>],
        &columns.windows as &[Option<i64>],
        &columns.hashes as &[Option<Vec<u8>>],
        &columns.firsts as &[Option<i32>],
        &columns.same_as_first as &[Option<bool>],
        run.continues,
    )
    // Reads all of the answer, down to the end of the transaction: only then are the messages stored.
    .fetch_all(connection)
    .await?;
    let row = found.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
    let duplicates = writers::duplicates(row.ids, row.holders, row.same_payload);
    Ok((outcome(row.is_stored, &row.queue_ids), duplicates))
}
