-- Why: messages that are sent at regular times, and what became of the last ones. A worker of a version without schedules can't
-- be running: there was none with this schema.

set local lock_timeout = '2s';

-- Messages that are sent at regular times. Whichever process finds one that is due fires it.
create table pgqrs.schedules (
    id bigint generated always as identity constraint schedules_pkey primary key,
    -- Without an index: it would make each firing slower, and a queue is seldom deleted.
    queue_id integer not null
        constraint schedules_queue_id_fkey references pgqrs.queues on delete cascade,
    -- Of the whole schema, and not only of its queue.
    name text collate "C" not null constraint schedules_name_key unique
        constraint schedules_name_check check (octet_length(name) between 1 and 128),
    -- Whoever declares it, together with others of theirs; null if it stands alone.
    owner text collate "C",
    -- Only a higher one overwrites it.
    version integer not null,
    cron text,
    every_ms bigint constraint schedules_every_ms_check check (every_ms > 0),
    zone text not null default 'UTC',
    -- What happens to the times that passed while no process ran.
    missed text not null default 'once' constraint schedules_missed_check check (missed in ('once', 'skip', 'all')),
    -- Of `skip`, in microseconds.
    older_than bigint,
    -- Of `all`.
    at_most integer,
    -- As its messages have them.
    priority smallint not null,
    max_attempts integer,
    expires_in bigint,
    drop_if_expired boolean,
    unique_key text collate "C",
    payload_hash bytea,
    -- The next time, which whoever fires it compares and replaces.
    next_at timestamptz not null,
    -- The last time for which a message was sent, and when it was.
    last_at timestamptz,
    last_fired_at timestamptz,
    -- How many rows of its history have been written: the next one is the one after that.
    firings bigint not null default 0,
    paused_at timestamptz,
    created_at timestamptz not null default now(),
    headers json,
    payload json not null,
    constraint schedules_time_check check ((cron is null) <> (every_ms is null))
) with (fillfactor = 50);

create index schedules_next on pgqrs.schedules (next_at) where paused_at is null;

-- The last 100 firings of each schedule: of the next one, the row of the oldest is overwritten. So nothing has to be deleted,
-- and what became of a message is looked up by its id: its acknowledgement writes nothing here.
create table pgqrs.firings (
    schedule_id bigint not null
        constraint firings_schedule_id_fkey references pgqrs.schedules on delete cascade,
    -- The time that it was for; null if it was fired by hand, beside its times.
    scheduled_for timestamptz,
    fired_at timestamptz not null,
    -- Null if no message was sent.
    message_id bigint,
    -- The queue of that time: another may have been declared since.
    queue_id integer not null,
    slot smallint not null,
    -- Why no message was sent: the queue was closed. Otherwise another message had its key.
    is_closed boolean not null,
    constraint firings_pkey primary key (schedule_id, slot)
) with (
    -- Room for the new version of a row, so that it needs no index entry of its own.
    fillfactor = 70
);

-- Fires schedules that are due: moves each to its following time, and stores its messages, in one statement. A schedule
-- that another process has fired, replaced, paused or deleted meanwhile is left as it is, and so is one that another
-- process fires right now.
--
-- A function with its owner's privileges, since a consumer fires schedules and can't send messages of its own.
create function pgqrs.fire_schedules(
    ids bigint[], versions integer[], due_times timestamptz[], next_times timestamptz[], last_times timestamptz[],
    -- Of each schedule an array: the headers of each of its messages, and the time that it is for.
    message_headers json[], message_times json[]
)
-- The outcome: `sent`, `unfinished` if a message with its key exists, or `closed` if its queue is.
returns table (schedule_id bigint, fired_at timestamptz, outcome text)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Another transaction that has stored a key and is open is waited for, but not for long.
set lock_timeout = '2s'
as $$
begin
    return query
    with locked as materialized (
        select s.id, w.version, w.due_at, w.next_at, w.last_at, w.all_headers, w.all_times, w.place
        from unnest(ids, versions, due_times, next_times, last_times, message_headers, message_times)
            with ordinality as w (id, version, due_at, next_at, last_at, all_headers, all_times, place)
        join pgqrs.schedules s on s.id = w.id
        where s.version = w.version and s.next_at = w.due_at and s.next_at <= statement_timestamp()
            and s.paused_at is null and w.next_at > w.due_at
        for update of s skip locked
    ), moved as (
        update pgqrs.schedules s
        set next_at = l.next_at,
            last_at = coalesce(l.last_at, s.last_at),
            last_fired_at = case when l.last_at is null then s.last_fired_at else statement_timestamp() end,
            firings = s.firings + json_array_length(l.all_headers)
        from locked l
        where s.id = l.id and s.version = l.version and s.next_at = l.due_at and s.paused_at is null
        returning s.id, s.queue_id, s.priority, s.max_attempts, s.expires_in, s.drop_if_expired, s.unique_key,
            s.payload_hash, s.payload, s.firings, l.all_headers, l.all_times, json_array_length(l.all_headers) as messages,
            l.place
    ), planned as materialized (
        select
            m.*,
            -- Drawn here, so that it is known which message is whose.
            case when not m.is_closed and m.is_free then nextval('pgqrs.messages_id_seq') end as message_id
        from (
            select s.*, q.closed_at is not null as is_closed, m.headers, m.scheduled_for::timestamptz, m.place as message_place,
                -- One that an open transaction deletes exists, and isn't waited for.
                s.unique_key is null or not exists (
                    select from pgqrs.messages h where h.queue_id + 0 = s.queue_id and h.unique_key = s.unique_key
                ) as is_free
            from moved s
            join pgqrs.queues q on q.id = s.queue_id
            cross join lateral rows from (
                json_array_elements(s.all_headers), json_array_elements_text(s.all_times)
            ) with ordinality as m (headers, scheduled_for, place)
            -- Each statement takes its keys in the same order: no two wait for each other.
            order by s.queue_id, s.unique_key collate "C", s.place, m.place
        ) m
    ), stored as (
        insert into pgqrs.messages (
            id, queue_id, priority, visible_at, enqueued_at, max_attempts, expires_at, drop_if_expired, unique_key,
            payload_hash, headers, payload_bytes, payload
        )
        overriding system value
        select
            p.message_id,
            p.queue_id,
            p.priority,
            statement_timestamp(),
            statement_timestamp(),
            p.max_attempts,
            statement_timestamp() + p.expires_in * interval '1 microsecond',
            p.drop_if_expired,
            p.unique_key,
            p.payload_hash,
            p.headers,
            -- As it was sent: it may be stored compressed.
            octet_length(p.payload::text),
            p.payload
        from planned p
        -- A closed queue takes no messages.
        where p.message_id is not null
        order by p.message_id
        -- Nobody saw this message when the statement began.
        on conflict do nothing
        returning messages.id
    ), outcomes as materialized (
        select p.id, p.is_closed, p.queue_id, p.scheduled_for, t.id as message_id,
            p.message_place, p.messages,
            ((p.firings - p.messages + p.message_place) % 100)::smallint as slot
        from planned p
        left join stored t on t.id = p.message_id
    ), recorded as (
        insert into pgqrs.firings as f (schedule_id, slot, queue_id, scheduled_for, fired_at, message_id, is_closed)
        select o.id, o.slot, o.queue_id, o.scheduled_for, statement_timestamp(), o.message_id, o.is_closed
        from outcomes o
        -- No row is written twice.
        where o.message_place > o.messages - 100
        on conflict on constraint firings_pkey do update
        set queue_id = excluded.queue_id,
            scheduled_for = excluded.scheduled_for,
            fired_at = excluded.fired_at,
            message_id = excluded.message_id,
            is_closed = excluded.is_closed
    )
    select
        s.id,
        statement_timestamp(),
        case
            when q.closed_at is not null then 'closed'
            when s.unique_key is null or s.id in (select o.id from outcomes o where o.message_id is not null) then 'sent'
            else 'unfinished'
        end
    from moved s
    join pgqrs.queues q on q.id = s.queue_id;
end
$$;

revoke all on function pgqrs.fire_schedules from public;
