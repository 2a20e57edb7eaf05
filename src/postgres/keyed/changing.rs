//! The statement for messages with a key that change the message that waits with it, if there is one.

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

/// Stores messages, or changes those that wait with their keys. No two of them have the same key.
pub(super) async fn write_changing(
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
        ), stored as (
            insert into pgqrs.messages as m (
                queue_id, id, priority, visible_at, enqueued_at, producer_id, max_attempts, expires_at,
                drop_if_expired, waiting_key, payload_hash, headers, payload_bytes, payload
            )
            overriding system value
            select
                l.queue_ids[l.envelope],
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
            from (
                select
                    queue_ids,
                    visible_at,
                    unnest($10::bigint[]) as id,
                    unnest($11::integer[]) as envelope,
                    unnest($12::json[]) as headers,
                    unnest($13::json[]) as payload,
                    unnest($14::integer[]) as max_attempts,
                    unnest($15::bigint[]) as expires_in,
                    unnest($16::boolean[]) as drop_if_expired,
                    unnest($17::text[]) as waiting_key,
                    unnest($18::bytea[]) as payload_hash
                from begun
            ) l
            -- Each statement takes its keys in the same order: no two wait for each other.
            order by 1, l.waiting_key collate "C"
            on conflict ((queue_id + 0), waiting_key) where waiting_key is not null do update
                set (
                    priority, visible_at, max_attempts, expires_at, drop_if_expired, headers, payload_hash,
                    payload_bytes, payload
                ) = (
                    select
                        case c.change when 1 then excluded.priority else m.priority end,
                        case c.change
                            when 1 then excluded.visible_at
                            when 2 then greatest(
                                m.visible_at,
                                least(excluded.visible_at, m.enqueued_at + c.max_wait * interval '1 microsecond')
                            )
                            else m.visible_at
                        end,
                        case c.change when 1 then excluded.max_attempts else m.max_attempts end,
                        case c.change when 1 then excluded.expires_at else m.expires_at end,
                        case c.change when 1 then excluded.drop_if_expired else m.drop_if_expired end,
                        case c.change when 1 then excluded.headers else m.headers end,
                        case c.change
                            when 1 then excluded.payload_hash
                            -- As `payload_hash()` computes it.
                            when 3 then substring(sha256(c.joined), 1, 16)
                            else m.payload_hash
                        end,
                        case c.change
                            when 1 then excluded.payload_bytes
                            when 3 then octet_length(c.joined)
                            else m.payload_bytes
                        end,
                        case c.change when 1 then excluded.payload when 3 then convert_from(c.joined, 'UTF8')::json else m.payload end
                    from (
                        select
                            ($19::smallint[])[place] as change,
                            ($20::bigint[])[place] as max_wait,
                            -- As bytes, so that digits and the order of fields stay as they were sent, and for speed.
                            case when ($19::smallint[])[place] = 3 then (
                                select '[' || coalesce(string_agg(elements, ',' order by part), '') || ']'
                                from (
                                    select
                                        part,
                                        case
                                            -- Only another sender can have stored something else than an array.
                                            when get_byte(array_text, 0) <> ascii('[') then array_text
                                            else substring(array_text from 2 for octet_length(array_text) - 2)
                                        end as elements
                                    from (
                                        select part, btrim(convert_to(payload::text, 'UTF8'), decode('20090d0a', 'hex')) as array_text
                                        from (values (1, m.payload), (2, excluded.payload)) parts (part, payload)
                                        offset 0
                                    ) trimmed
                                ) arrays
                                where octet_length(btrim(elements, decode('20090d0a', 'hex'))) > 0
                            )::pgqrs.joined_payload end as joined
                        from array_position($10::bigint[], excluded.id) place
                        -- A fence: the arrays are joined once.
                        offset 0
                    ) c
                )
            returning waiting_key, id, payload_hash, xmax <> 0 as is_held
        ), duplicates as materialized (
            select
                array_agg(($10::bigint[])[place]) as ids,
                array_agg(id) as holders,
                array_agg(payload_hash = ($18::bytea[])[place]) as same_payload
            from stored, array_position($17::text[], waiting_key::text) place
            where is_held
        ), advanced as (
            update pgqrs.writers w
            set sequence = $2,
                duplicates = case when $21 then w.duplicates || d.ids else d.ids end,
                holders = case when $21 then w.holders || d.holders else d.holders end,
                same_payload = case when $21 then w.same_payload || d.same_payload else d.same_payload end
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
        &columns.waiting_keys as &[Option<&str>],
        &columns.hashes as &[Option<Vec<u8>>],
        &columns.changes,
        &columns.max_waits as &[Option<i64>],
        run.continues,
    )
    // Reads all of the answer, down to the end of the transaction: only then are the messages stored.
    .fetch_all(connection)
    .await?;
    let row = found.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
    let duplicates = writers::duplicates(row.ids, row.holders, row.same_payload);
    Ok((outcome(row.is_stored, &row.queue_ids), duplicates))
}
