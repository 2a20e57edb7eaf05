-- Why: what counts the leased messages of queues that limit how many run at a time. A worker of a version without this
-- limit claims from such a queue as if it had none.

set local lock_timeout = '2s';

-- A row for each slot that is taken: for a message that was claimed, under the token of its lease. A slot is free again
-- when its message hasn't this token any more, for whatever reason; its row is deleted by the next claim. Only queues that
-- limit what runs have any.
create table pgqrs.slots (
    queue_id integer not null
        constraint slots_queue_id_fkey references pgqrs.queues on delete cascade,
    -- 0 is the row by which claims of a queue exclude each other.
    message_id bigint not null,
    lease_token bigint not null,
    constraint slots_pkey primary key (queue_id, message_id)
) with (
    -- As the messages: all churn.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off
);

-- How many messages of a queue can be claimed. Until the caller's transaction ends, no other claim of the queue can ask:
-- so each one counts what all before it have taken.
create function pgqrs.free_slots(queue integer, most integer)
returns integer
language plpgsql set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
    taken integer;
begin
    -- Updated, and not only locked: at a stricter isolation level, a claim whose snapshot is from before the last one fails,
    -- and is tried again.
    insert into pgqrs.slots as s (queue_id, message_id, lease_token) values (queue, 0, 1)
    on conflict (queue_id, message_id) do update set lease_token = s.lease_token + 1;
    -- A lease that has run out is revoked: an extension that comes late would otherwise have it run without a slot. One whose
    -- message another transaction is changing right now keeps its slot.
    update pgqrs.messages m
    set lease_token = -1
    where m.ctid = any (array(
        select over.place
        from pgqrs.slots s
        cross join lateral (
            select m.ctid as place from pgqrs.messages m
            where m.queue_id = s.queue_id and m.id = s.message_id and m.lease_token = s.lease_token
                and m.lease_until <= clock_timestamp()
            for update skip locked
            offset 0
        ) over
        where s.queue_id = queue and s.message_id > 0
    ));
    delete from pgqrs.slots s
    where s.queue_id = queue and s.message_id > 0 and not exists (
        select from pgqrs.messages m
        where m.queue_id = s.queue_id and m.id = s.message_id and m.lease_token = s.lease_token
    );
    select count(*) into taken from pgqrs.slots s where s.queue_id = queue and s.message_id > 0;
    return greatest(most - taken, 0);
end
$$;

-- Takes a slot for each of these messages, and returns how many. The caller's transaction has asked how many are free.
create function pgqrs.take_slots(queue integer, messages bigint[], token bigint)
returns bigint
language sql set search_path = pg_catalog, pg_temp
as $$
    with taken as (
        insert into pgqrs.slots (queue_id, message_id, lease_token)
        select queue, unnest(messages), token
        on conflict (queue_id, message_id) do update set lease_token = excluded.lease_token
        returning 1
    )
    select count(*) from taken
$$;
