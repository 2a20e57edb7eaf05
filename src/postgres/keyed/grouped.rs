//! The statement for messages of groups: locks the rows of the groups, and stores each message as one that is on its way, or
//! parked behind others of its group.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    batch::{KeyedRow, KeyedTry, KeyedWritten, outcome},
    columns::{EnvelopeColumns, RowColumns},
};
use crate::{error::Result, key::Key, message::Envelope, postgres::json::Json};

/// The groups of a statement, in the order in which it locks them, and the positions of their messages.
#[derive(Default)]
struct GroupColumns<'a> {
    keys: Vec<&'a str>,
    /// How many messages each gets.
    messages: Vec<i32>,
    /// Of each message: its group's position, its own number within its group, both from 1, and the group's messages.
    group: Vec<i32>,
    number: Vec<i32>,
}

impl<'a> GroupColumns<'a> {
    /// Of rows that are in the order of their groups.
    fn of(rows: &[KeyedRow<'a>]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            let key = row.message.key().map(Key::text).unwrap_or_default();
            if columns.keys.last() != Some(&key) {
                columns.keys.push(key);
                columns.messages.push(0);
            }
            if let Some(messages) = columns.messages.last_mut() {
                *messages += 1;
                columns.number.push(*messages);
            }
            columns
                .group
                .push(i32::try_from(columns.keys.len()).unwrap_or(i32::MAX));
        }
        columns
    }
}

/// A column that few batches have: an array of nulls costs the server as much as one of values.
fn unless_all_null<T>(column: &[Option<T>]) -> Option<&[Option<T>]> {
    column.iter().any(Option::is_some).then_some(column)
}

/// Stores messages of groups. All of them go to one queue.
pub(super) async fn write_grouped(
    connection: &mut PgConnection,
    run: KeyedTry,
    envelopes: &[Envelope],
    rows: &[KeyedRow<'_>],
) -> Result<KeyedWritten> {
    let of_envelopes = EnvelopeColumns::of(envelopes);
    let columns = RowColumns::of_groups(rows);
    let groups = GroupColumns::of(rows);
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
                bool_and(q.id is not null) as known,
                -- All envelopes have the same queue.
                min(q.id) as queue_id,
                min(q.groups_at_once) as at_once,
                bool_or(q.groups_rated) as rated,
                min(q.groups_rate_n) as n,
                min(q.groups_rate_per) as per
            from unnest($4::text[], $5::timestamptz[], $6::timestamptz[], $7::bigint[], $8::bigint[])
                with ordinality as e (queue, exactly, not_before, delay, producer, place)
            left join pgqrs.queues q
                on q.name = e.queue and q.closed_at is null and q.groups_at_once is not null
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
            -- Another transaction that has sent to a group and is open is waited for, but not for long.
            select
                e.visible_at,
                e.queue_id,
                e.at_once,
                e.rated,
                e.n,
                e.per,
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
        ), started as materialized (
            -- Many groups are mostly new ones, which a function inserts in half the time. Few aren't worth its call.
            select case
                when cardinality($20::text[]) >= 64
                then pgqrs.begin_groups(queue_id, $20::text[], $21::integer[], at_once)
                else false
            end as are_new
            from begun
        ), locked as (
            insert into pgqrs.groups as g (queue_id, key, live, parked, sent)
            select queue_id, key, least(messages, at_once), messages - least(messages, at_once), messages
            from (
                select queue_id, at_once, unnest($20::text[]) as key, unnest($21::integer[]) as messages
                from begun
                where not (select are_new from started)
            ) w
            -- Each statement locks its groups in the same order: no two wait for each other.
            order by queue_id, key collate "C"
            on conflict (queue_id, key) do update
                set (live, parked, sent) = (
                    select g.live + room.messages, g.parked + excluded.sent - room.messages, g.sent + excluded.sent
                    from (
                        select case
                            -- No message overtakes those that are parked already.
                            when g.parked = 0 and g.stopped_at is null
                            then least(excluded.sent, greatest(0, coalesce(g.at_once, (select at_once from begun)) - g.live))
                            else 0
                        end as messages
                        -- A fence: computed once.
                        offset 0
                    ) room
                )
            returning key, parked, sent, coalesce(g.at_once, (select at_once from begun)) as at_once
        ), counted as materialized (
            -- In the order of the keys, as the arrays of the groups are.
            select
                case
                    when s.are_new
                    then array(select w.messages - least(w.messages, b.at_once) from unnest($21::integer[]) as w (messages))::bigint[]
                    else l.parked
                end as parked,
                case when s.are_new then $21::bigint[] else l.sent end as sent,
                case when s.are_new then array_fill(b.at_once, array[cardinality($20::text[])]) else l.at_once end as at_once
            from begun b
            cross join started s
            cross join (
                select array_agg(parked) as parked, array_agg(sent) as sent, array_agg(at_once) as at_once
                from (select * from locked order by key) l
            ) l
        ), drawn as materialized (
            -- Of groups with a rate, when the messages that are let in can start.
            select array_agg(d.first_at order by w.number) as first_at, array_agg(d.step order by w.number) as step
            from begun b
            cross join counted c
            cross join unnest($20::text[], $21::integer[], c.parked, c.at_once) with ordinality
                as w (key, messages, parked, at_once, number)
            cross join lateral pgqrs.draw_of_group(
                b.queue_id, w.key, b.n, b.per, w.at_once, w.messages - w.parked
            ) d
            where b.rated
        ), stored as (
            insert into pgqrs.messages (
                queue_id, id, priority, visible_at, enqueued_at, producer_id, max_attempts, expires_at,
                drop_if_expired, group_key, group_place, due_at, headers, payload_bytes, payload
            )
            overriding system value
            select
                m.queue_id,
                m.id,
                ($9::smallint[])[m.envelope],
                case
                    when m.is_parked then 'infinity'
                    else greatest(m.visible_at, m.first_at + (m.number - 1) * m.step)
                end,
                statement_timestamp(),
                ($8::bigint[])[m.envelope],
                m.max_attempts,
                statement_timestamp() + m.expires_in * interval '1 microsecond',
                m.drop_if_expired,
                m.group_key,
                m.place,
                case when m.is_parked and m.visible_at > statement_timestamp() then m.visible_at end,
                m.headers,
                -- Without its header of four bytes.
                pg_column_size(m.payload) - 4,
                m.payload
            from (
                select
                    l.*,
                    l.all_visible_at[l.envelope] as visible_at,
                    d.first_at[l.in_group] as first_at,
                    d.step[l.in_group] as step,
                    c.sent[l.in_group] - ($21::integer[])[l.in_group] + l.number as place,
                    -- Of the statement's messages the last ones are.
                    l.number > ($21::integer[])[l.in_group] - c.parked[l.in_group] as is_parked
                from (
                    select
                        queue_id,
                        visible_at as all_visible_at,
                        unnest($10::bigint[]) as id,
                        unnest($11::integer[]) as envelope,
                        unnest($12::json[]) as headers,
                        unnest($13::json[]) as payload,
                        unnest($14::integer[]) as max_attempts,
                        unnest($15::bigint[]) as expires_in,
                        unnest($16::boolean[]) as drop_if_expired,
                        unnest($17::text[]) as group_key,
                        unnest($18::integer[]) as in_group,
                        unnest($19::integer[]) as number
                    from begun
                ) l
                cross join counted c
                cross join drawn d
            ) m
        ), advanced as (
            update pgqrs.writers w
            set sequence = $2,
                -- Those of the statements before it, if there are some.
                duplicates = case when $22 then w.duplicates end,
                holders = case when $22 then w.holders end,
                same_payload = case when $22 then w.same_payload end
            from begun
            where w.token = $1
        )
        select
            exists (select from begun) as "is_stored!",
            e.queue_ids as "queue_ids!: Vec<Option<i32>>",
            -- In the caller's own transaction the setting would last on. All groups are locked once they are counted.
            case when (select cardinality(parked) from counted) > 0 and (select count(*) from drawn) > 0 then (
                select set_config('lock_timeout', lock_timeout, true) from begun
            ) end as restored
        from envelopes e
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
        unless_all_null(&columns.headers) as Option<&[Option<Json<'_>>]>,
        &columns.payloads as &[Json<'_>],
        unless_all_null(&columns.max_attempts) as Option<&[Option<i32>]>,
        unless_all_null(&columns.expires_in) as Option<&[Option<i64>]>,
        unless_all_null(&columns.drop_if_expired) as Option<&[Option<bool>]>,
        &columns.groups as &[&str],
        &groups.group,
        &groups.number,
        &groups.keys as &[&str],
        &groups.messages,
        run.continues,
    )
    // Reads all of the answer, down to the end of the transaction: only then are the messages stored.
    .fetch_all(connection)
    .await?;
    let row = found.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
    Ok((outcome(row.is_stored, &row.queue_ids), HashMap::new()))
}
