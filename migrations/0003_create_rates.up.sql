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
