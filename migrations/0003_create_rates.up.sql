-- Why: the tokens of queues that limit how many attempts start within a time. A worker of a version without rates can't be
-- running: there was none with this schema.

set local lock_timeout = '2s';

-- A row for each queue with a rate, by which its claims exclude each other: a bucket of tokens, one for each attempt, as the
-- generic cell rate algorithm has it (ITU-T I.371). Tokens come at regular intervals of `per / n`. The bucket holds what
-- comes in a second, or in `per` if that is shorter, and at least one.
create table pgqrs.rates (
    queue_id integer constraint rates_pkey primary key
        constraint rates_queue_id_fkey references pgqrs.queues on delete cascade,
    -- The theoretical arrival time: when the next attempt would start if all started evenly. The bucket is full if it is
    -- in the past, and empty if it is a whole burst ahead.
    arrives_at timestamptz not null,
    -- When the last claim has asked, by the clock: its transaction may have begun long before, and waited.
    asked_at timestamptz not null
) with (
    -- As the slots: all churn.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off
);

-- How many messages of a queue can be claimed by its rate. Until the caller's transaction ends, no other claim of the queue
-- can ask.
create function pgqrs.free_tokens(queue integer, n integer, per interval, slowed_until timestamptz)
returns integer
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
    -- In microseconds, as all below. A message takes `length / n` of them, which needn't be a whole number.
    length bigint := extract(epoch from per) * 1000000;
    burst bigint := greatest(n * least(length, 1000000) / length, 1);
    -- How far ahead the arrival can be of the present if one token is left, and after the last one was taken.
    tolerance interval := (((burst - 1) * length + n - 1) / n) * interval '1 microsecond';
    furthest interval := ((burst * length + n - 1) / n) * interval '1 microsecond';
    ahead bigint;
begin
    -- Updated, and not only locked: at a stricter isolation level, a claim whose snapshot is from before the last one fails,
    -- and is tried again. The clock is read once the row is locked.
    insert into pgqrs.rates as r (queue_id, arrives_at, asked_at)
    select queue, greatest(clock.now, slowed_until + tolerance), clock.now from clock_timestamp() as clock (now)
    on conflict (queue_id) do update
        set (arrives_at, asked_at) = (
            select
                greatest(
                    -- What wasn't taken in time is lost, so that no more than a burst is saved up.
                    clock.now,
                    -- After a slow-down the bucket is empty.
                    slowed_until + tolerance,
                    -- Further ahead it is only if the rate was lower before, or the clock has been set back.
                    least(r.arrives_at, clock.now + furthest)
                ),
                clock.now
            from clock_timestamp() as clock (now)
        )
    returning extract(epoch from r.arrives_at - r.asked_at) * 1000000 into ahead;
    if ahead * n > (burst - 1) * length then
        return 0;
    end if;
    return ((burst - 1) * length - ahead * n) / length + 1;
end
$$;

-- Takes tokens for messages that were claimed. The caller's transaction has asked how many there are. Returns null if some
-- are left, and otherwise in how many microseconds it is worth while to ask again: when there is one, and of a large burst
-- a tenth, so that not each message is claimed alone.
create function pgqrs.take_tokens(queue integer, n integer, per interval, messages bigint)
returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
    length bigint := extract(epoch from per) * 1000000;
    burst bigint := greatest(n * least(length, 1000000) / length, 1);
    ahead bigint;
begin
    if messages > 0 then
        update pgqrs.rates r
        -- Rounded up: rather too late than too early.
        set arrives_at = r.arrives_at + ((messages * length + n - 1) / n) * interval '1 microsecond'
        where r.queue_id = queue
        returning extract(epoch from r.arrives_at - r.asked_at) * 1000000 into ahead;
    else
        select extract(epoch from r.arrives_at - r.asked_at) * 1000000 into ahead
        from pgqrs.rates r where r.queue_id = queue;
    end if;
    if ahead * n <= (burst - 1) * length then
        return null;
    end if;
    return ahead - (burst - greatest(burst / 10, 1)) * length / n;
end
$$;

-- A row for each group that has drawn by a rate of late, or has a rate of its own. A statement that changes the arrival time
-- holds the lock of the group's row in `pgqrs.groups`, which may be deleted meanwhile.
create table pgqrs.group_rates (
    -- No foreign key: it would cost each send to a new group a lock.
    queue_id integer not null,
    key text collate "C" not null,
    arrives_at timestamptz not null,
    -- Until then nothing starts that is let in, since a handler has asked for it.
    slowed_until timestamptz not null default '-infinity',
    -- Takes precedence over the queue's, unless it is null.
    rate_n integer,
    rate_per interval constraint group_rates_rate_check
        check ((rate_n is null) = (rate_per is null) and rate_n > 0 and rate_per > '0'),
    constraint group_rates_pkey primary key (queue_id, key)
) with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off
);

-- Whether a group of a queue other than this one has a rate of its own. It sees all that was committed before the call: also by
-- a transaction for whose lock on the queue's row the caller has waited.
create function pgqrs.is_group_rated(queue integer, besides text)
returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan
as $$
begin
    return exists (
        select from pgqrs.group_rates r
        where r.queue_id = queue and r.rate_n is not null and r.key is distinct from besides
    );
end
$$;

-- Draws places in time for messages of a group that are let in, or put back: moves its arrival time on by an interval for
-- each. Returns when the first of them can start, and after which interval each next one can; nulls if the group has no
-- rate. The caller has locked the group.
create function pgqrs.draw_of_group(
    queue integer, group_key text,
    -- The rate of the queue's groups.
    queue_n integer, queue_per interval,
    -- How many messages of the group are on their way at most.
    at_once integer,
    messages bigint,
    -- How long nothing starts, if a handler has slowed the group down.
    slowed_for interval default null,
    out first_at timestamptz, out step interval
)
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
    n bigint;
    length bigint;
    burst bigint;
    tolerance interval;
begin
    if messages < 1 then
        return;
    end if;
    select r.rate_n, (extract(epoch from r.rate_per) * 1000000)::bigint into n, length
    from pgqrs.group_rates r where r.queue_id = queue and r.key = group_key;
    if n is null then
        n := queue_n;
        length := extract(epoch from queue_per) * 1000000;
    end if;
    if n is null then
        return;
    end if;
    burst := greatest(n * least(length, 1000000) / length, 1);
    -- In whole microseconds: rather too long than too short.
    step := ((length + n - 1) / n) * interval '1 microsecond';
    tolerance := (burst - 1) * step;
    insert into pgqrs.group_rates as r (queue_id, key, slowed_until, arrives_at)
    select queue, group_key, greatest('-infinity', clock.now + slowed_for),
        greatest(clock.now, clock.now + slowed_for + tolerance) + messages * step
    from clock_timestamp() as clock (now)
    on conflict (queue_id, key) do update
        set (slowed_until, arrives_at) = (
            select slow.until,
                -- Further ahead than all that is on its way it is only if the rate was lower before, or the clock has been
                -- set back.
                greatest(first.free_at, least(r.arrives_at, first.free_at + (burst + at_once) * step)) + messages * step
            from clock_timestamp() as clock (now)
            cross join lateral (select greatest(r.slowed_until, clock.now + slowed_for) as until) slow
            cross join lateral (select greatest(clock.now, slow.until + tolerance) as free_at) first
        )
    returning r.arrives_at - messages * step - tolerance into first_at;
end
$$;

-- When the next message of a queue becomes visible: in how many microseconds, or null if none waits for that.
create function pgqrs.due_in(queue integer)
returns bigint
language sql set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off
as $$
    select (extract(epoch from least(min(next.visible_at), now() + interval '1 day') - now()) * 1000000)::bigint
    from unnest(array[0, 1, 2, 3]::smallint[]) as level (priority)
    cross join lateral (
        select m.visible_at from pgqrs.messages m
        -- As `messages_ready` has it, and no other index.
        where m.queue_id + 0 = queue and m.priority = level.priority and m.priority >= 0
            and m.visible_at > now() and m.visible_at < 'infinity'
        order by m.visible_at, m.id
        limit 1
    ) next
    having count(*) > 0
$$;
