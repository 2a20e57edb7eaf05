-- Why: the rows by which messages of groups are counted, locked and let in. Their columns are in the messages' own table. A
-- worker of a version without groups can't be running: there was none with this schema.

set local lock_timeout = '2s';

-- A row for each group that has messages, or that an operator has set something for. A statement that adds, removes or
-- promotes a message of a group holds its row's lock, and takes the locks of several in the order of this key.
create table pgqrs.groups (
    queue_id integer not null,
    key text collate "C" not null,
    -- Messages on their way: ready, delayed, leased, or waiting for another attempt.
    live integer not null default 0,
    -- Messages that wait for one of those to be settled.
    parked bigint not null default 0,
    -- The place of the message that was sent last.
    sent bigint not null default 0,
    -- Takes precedence over the queue's, unless it is null.
    at_once integer constraint groups_at_once_check check (at_once > 0),
    -- Since when nothing is promoted, and the dead letter that is the reason, if one is.
    stopped_at timestamptz,
    stopped_by bigint
) with (
    -- In no index are the columns that change.
    fillfactor = 50,
    -- As the messages: all churn.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off
);

-- As for the messages: so that a group is looked up in the index from the start.
alter table pgqrs.groups alter column key set storage plain;
insert into pgqrs.groups (queue_id, key) select 0, repeat(' ', 7000) from generate_series(1, 128);
delete from pgqrs.groups;
alter table pgqrs.groups alter column key set storage extended;

alter table pgqrs.groups add constraint groups_pkey primary key (queue_id, key);

-- What an operator has to look at. Its columns change when a group is stopped or resumed, and at no other time.
create index groups_stopped on pgqrs.groups ((queue_id + 0), stopped_at) where stopped_at is not null;

-- Locks the rows of groups, and returns them as they are then. A sender's transaction that stays open holds the locks of its
-- groups.
create function pgqrs.lock_groups(
    queues integer[], keys text[],
    -- 0 locks those that nobody else has locked. Otherwise all of them are waited for, each for so many milliseconds; if it
    -- is null, as long as the session says.
    lock_wait integer
)
returns table (
    queue_id integer, key text, place tid, live integer,
    -- Nothing is parked, and nobody has set anything: the row is deleted with the last message.
    is_simple boolean
)
language plpgsql set search_path = pg_catalog, pg_temp
-- Each group is looked up in the index, whatever the statistics say.
set enable_seqscan = off set enable_bitmapscan = off set jit = off
-- And planned once: that takes longer than a call.
set plan_cache_mode = force_generic_plan
as $$
begin
    if lock_wait > 0 then
        perform set_config('lock_timeout', lock_wait::text, true);
    end if;
    -- All in the same order: no two wait for each other.
    if lock_wait = 0 then
        return query
        select locked.*
        from (
            select distinct u.queue_id, u.key collate "C" as key from unnest(queues, keys) as u (queue_id, key) order by 1, 2
        ) wanted
        cross join lateral (
            select g.queue_id, g.key::text as key, g.ctid, g.live,
                g.parked = 0 and g.at_once is null and g.stopped_at is null
            from pgqrs.groups g
            where g.queue_id = wanted.queue_id and g.key = wanted.key
            for update skip locked
            offset 0
        ) locked;
    else
        return query
        select locked.*
        from (
            select distinct u.queue_id, u.key collate "C" as key from unnest(queues, keys) as u (queue_id, key) order by 1, 2
        ) wanted
        cross join lateral (
            select g.queue_id, g.key::text as key, g.ctid, g.live,
                g.parked = 0 and g.at_once is null and g.stopped_at is null
            from pgqrs.groups g
            where g.queue_id = wanted.queue_id and g.key = wanted.key
            for update
            offset 0
        ) locked;
    end if;
end
$$;

-- Begins groups with the messages that are sent to them, if none of them is there, and returns whether it has. The keys are in
-- the order in which rows are locked. An insert that need not be ready for a conflict takes half the time of one that is.
create function pgqrs.begin_groups(
    queue integer, keys text[],
    -- Of each group.
    messages integer[],
    -- How many of them are on their way.
    at_once integer
)
returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan
as $$
begin
    if exists (
        select from unnest(keys) as wanted (key)
        cross join lateral (
            select from pgqrs.groups g where g.queue_id = queue and g.key = wanted.key
            offset 0
        ) found
    ) then
        return false;
    end if;
    insert into pgqrs.groups (queue_id, key, live, parked, sent)
    select queue, w.key, least(w.messages, begin_groups.at_once), w.messages - least(w.messages, begin_groups.at_once), w.messages
    from (select unnest(keys) as key, unnest(begin_groups.messages) as messages) w;
    return true;
exception when unique_violation then
    -- Another transaction has begun one of them meanwhile. What was inserted before it is undone.
    return false;
end
$$;

-- Counts messages of groups that have gone, and promotes as many of those that are parked. The caller has locked the
-- groups before, so that the statements in here see all that was parked by then. Returns the queues of the messages that
-- are visible now.
create function pgqrs.settle_groups(
    queues integer[], keys text[],
    -- Of each message: `done`, `dead`, or `parked` for one that had been parked; or null: only promotes.
    ends text[], ids bigint[]
)
returns integer[]
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
    gone record;
    held record;
    -- Of the last queue.
    settings_of integer;
    most integer;
    stops boolean;
    rated boolean;
    n integer;
    per interval;
    places tid[];
    -- By the group's rate, when the first of them can start, and how long after it each next one.
    first_at timestamptz;
    step interval;
    visible boolean;
    ready integer[];
    -- Not the statement's time, which is long past after a wait for a lock: every watermark may be past it.
    promoted_at timestamptz := clock_timestamp();
begin
    for gone in
        select u.queue_id, u.key collate "C" as key,
            count(*) filter (where u.gone in ('done', 'dead')) as live,
            count(*) filter (where u.gone = 'parked') as parked,
            min(u.id) filter (where u.gone = 'dead') as dead
        from unnest(queues, keys, ends, ids) as u (queue_id, key, gone, id)
        group by 1, 2
        order by 1, 2
    loop
        if settings_of is distinct from gone.queue_id then
            select q.id, coalesce(q.groups_at_once, 1), q.groups_stop, q.groups_rated, q.groups_rate_n, q.groups_rate_per
            into settings_of, most, stops, rated, n, per
            from pgqrs.queues q where q.id = gone.queue_id;
        end if;
        select greatest(g.live - gone.live, 0) as live, greatest(g.parked - gone.parked, 0) as parked,
            g.at_once, g.stopped_at, g.stopped_by
        into held
        from pgqrs.groups g where g.queue_id = gone.queue_id and g.key = gone.key;
        continue when not found;
        if gone.dead is not null and stops and held.stopped_at is null then
            held.stopped_at := clock_timestamp();
            held.stopped_by := gone.dead;
        end if;
        if held.stopped_at is null and held.parked > 0 and held.live < coalesce(held.at_once, most) then
            places := array(
                select m.ctid from pgqrs.messages m
                -- As `messages_parked` has it, and no other index.
                where m.queue_id + 0 = gone.queue_id and m.group_key = gone.key and m.group_key is not null
                    and m.visible_at = 'infinity'
                order by m.group_place, m.id
                limit coalesce(held.at_once, most) - held.live
            );
            first_at := null;
            if rated then
                select d.first_at, d.step into first_at, step
                from pgqrs.draw_of_group(
                    gone.queue_id, gone.key, n, per, coalesce(held.at_once, most), cardinality(places)
                ) d;
            end if;
            with promoted as (
                update pgqrs.messages m
                set visible_at = greatest(
                        m.due_at,
                        promoted_at,
                        case when first_at is not null then first_at + (array_position(places, m.ctid) - 1) * step end
                    ),
                    due_at = null
                where m.ctid = any (places)
                returning m.visible_at
            )
            select bool_or(p.visible_at <= clock_timestamp()) into visible from promoted p;
            held.live := held.live + cardinality(places);
            held.parked := held.parked - cardinality(places);
            if visible and not gone.queue_id = any (coalesce(ready, '{}')) then
                ready := array_append(ready, gone.queue_id);
            end if;
        end if;
        if held.live = 0 and held.parked = 0 and held.at_once is null and held.stopped_at is null then
            delete from pgqrs.groups g where g.queue_id = gone.queue_id and g.key = gone.key;
        else
            update pgqrs.groups g
            set live = held.live, parked = held.parked, stopped_at = held.stopped_at, stopped_by = held.stopped_by
            where g.queue_id = gone.queue_id and g.key = gone.key;
        end if;
    end loop;
    return ready;
end
$$;
