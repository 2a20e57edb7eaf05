-- Why: the tables of the queue. Nothing runs against this schema before it.
--
-- Everything is in schema `pgqrs`, which the migrator creates: it holds the history of migrations too. Each constraint and
-- index is named here: the crate looks at names in the server's refusals, and later migrations refer to them.

create table pgqrs.queues (
    id integer generated always as identity constraint queues_pkey primary key,
    name text collate "C" not null constraint queues_name_key unique,
    -- Deliveries of one message before it becomes a dead letter.
    max_attempts integer not null default 20 constraint queues_max_attempts_check check (max_attempts > 0),
    -- Until then nothing is claimed.
    paused_until timestamptz not null default '-infinity',
    -- Since then sends are refused.
    closed_at timestamptz,
    -- These take precedence over what consumers say, unless they are null.
    lease interval constraint queues_lease_check check (lease > '0'),
    retry_min interval constraint queues_retry_min_check check (retry_min >= '0'),
    retry_max interval constraint queues_retry_max_check check (retry_max >= retry_min),
    -- Whether acknowledged messages are archived.
    archive_on_ack boolean not null default false,
    -- Whether the operators' page and the command hide its payloads.
    sensitive boolean not null default false,
    -- How long archived messages and dead letters are kept: for ever if null.
    archive_for interval constraint queues_archive_for_check check (archive_for >= '0'),
    dead_letters_for interval constraint queues_dead_letters_for_check check (dead_letters_for >= '0'),
    -- How many messages of a group can be on their way at a time. Null: the queue takes no messages of groups.
    groups_at_once integer constraint queues_groups_at_once_check check (groups_at_once > 0),
    -- Whether a group waits for an operator after one of its messages has become a dead letter.
    groups_stop boolean not null default false,
    -- How many of its messages can be leased at a time, by all consumers together. Null: as many as they claim.
    max_running integer constraint queues_max_running_check check (max_running > 0),
    -- How many attempts start within a time, by all consumers together. Null: as many as they claim.
    rate_n integer,
    rate_per interval constraint queues_rate_check
        check ((rate_n is null) = (rate_per is null) and rate_n > 0 and rate_per > '0'),
    -- The same for each group; and whether any group has a rate.
    groups_rate_n integer,
    groups_rate_per interval constraint queues_groups_rate_check
        check ((groups_rate_n is null) = (groups_rate_per is null) and groups_rate_n > 0 and groups_rate_per > '0'),
    groups_rated boolean not null default false,
    -- Until then nothing is claimed, since a handler has asked for it.
    slowed_until timestamptz not null default '-infinity',
    created_at timestamptz not null default now()
);

-- Arrays that were joined, message by message: no larger than a payload that is sent may be.
create domain pgqrs.joined_payload as bytea
    constraint joined_payload_at_most_64_mib check (octet_length(value) <= 67108864);

create table pgqrs.messages (
    -- First in every key, and in every hot statement: a distributed PostgreSQL can shard by it.
    -- No foreign key here or below: each would cost an enqueue a lookup and a lock (a fifth of its
    -- speed), and would make deleting a queue or a worker scan the messages.
    queue_id integer not null,
    -- Beside the other short one: before or after `id`, each would be padded to eight bytes.
    priority smallint not null constraint messages_priority_check check (priority >= 0),
    id bigint generated always as identity,
    -- The schedule: a claim doesn't change it.
    visible_at timestamptz not null default now(),
    enqueued_at timestamptz not null default now(),
    -- The lease, which is what a claim changes. No index has any of these columns, so that a claim is a heap-only update:
    -- the message's index entries stay as they are. Side by side and never null, so that the log holds these bytes
    -- and not the whole row.
    --
    -- A message can be delivered if `visible_at <= now() and lease_until <= now()`, so a crashed consumer's messages are
    -- delivered again without anybody's help.
    lease_until timestamptz not null default '-infinity',
    -- Random for each claim: an attempt number can repeat after a crash of the server. 0 if nobody holds the message.
    lease_token bigint not null default 0,
    -- 0 if it wasn't claimed by a registered consumer.
    consumer_id bigint not null default 0,
    attempt integer not null default 0,
    -- The payload's size as it was sent. A claim adds these up without reading the payloads.
    payload_bytes integer not null default 0,
    producer_id bigint,
    -- What few messages have, and what is null takes no space.
    --
    -- Takes precedence over the queue's.
    max_attempts integer constraint messages_max_attempts_check check (max_attempts > 0),
    -- Unless it has started by then, it becomes a dead letter, or is dropped.
    expires_at timestamptz,
    drop_if_expired boolean,
    -- How often a handler has put it off without using an attempt.
    snoozes integer,
    -- Since when consumers can't decode it.
    undecodable_since timestamptz,
    -- No other message of its queue can have this key while this one exists; or while this one waits to be claimed.
    unique_key text collate "C",
    waiting_key text collate "C",
    -- The group that it belongs to, and its place in the order in which the group's sends have committed.
    group_key text collate "C",
    group_place bigint,
    -- A message that waits for others of its group is parked: it has `visible_at = 'infinity'`, where no claim looks,
    -- and here when it becomes visible, if that isn't as soon as it is promoted.
    due_at timestamptz,
    -- Of messages with a key: compares payloads without reading them, which a producer may not.
    payload_hash bytea,
    headers json,
    -- The error of the last attempt, if known.
    last_error text,
    -- `json` and not `jsonb`: inserts faster, and keeps text, digits and `\u0000` as they were sent.
    payload json not null
) with (
    -- Room for the version of each message that its claim makes: on another page, it would need index entries of its own.
    fillfactor = 50,
    -- A queue's table is all churn: vacuum soon, and without pauses.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    -- Truncating takes the table's exclusive lock again and again, and would undo what follows. Free space is used
    -- again; `vacuum (truncate) pgqrs.messages` returns it to the operating system.
    vacuum_truncate = off
);

-- A table of less than about 40 pages is cheaper to read whole than by ctid, says the planner, and a connection keeps
-- that plan while the table grows by millions. So it has 128 pages from the start.
alter table pgqrs.messages alter column payload set storage plain;
insert into pgqrs.messages (queue_id, id, priority, payload)
overriding system value
select 0, page, 0, to_json(repeat(' ', 7000)) from generate_series(1, 128) page;
delete from pgqrs.messages;
alter table pgqrs.messages alter column payload set storage extended;

alter table pgqrs.messages add constraint messages_pkey primary key (queue_id, id);

-- The order of delivery. A range of it starts at the ready head, whatever waits behind.
--
-- While statistics are missing, or say that the table is empty, the planner takes any index that has one of the columns for
-- as good as the right one, and a connection keeps that plan while the table grows. So each statement has one index only
-- that it can use: a claim can't read the primary key, which has no `queue_id + 0`; and what looks a message up by its id
-- can't read this one, whose condition only the claim has.
create index messages_ready on pgqrs.messages ((queue_id + 0), priority, visible_at, id) where priority >= 0;

-- A claim doesn't change a key that is null, and stays a heap-only update.
-- Like the claim's index these have no `queue_id` by itself: what looks a key up can't read the primary key.
create unique index messages_unique_key on pgqrs.messages ((queue_id + 0), unique_key) where unique_key is not null;
create unique index messages_waiting_key on pgqrs.messages ((queue_id + 0), waiting_key) where waiting_key is not null;

-- What is parked, in the order of each group. A message leaves it when it is promoted, and doesn't return.
create index messages_parked on pgqrs.messages ((queue_id + 0), group_key, group_place, id)
    where group_key is not null and visible_at = 'infinity';

-- Keys that no other message can have within a time, whatever became of the first.
create table pgqrs.seen (
    queue_id integer not null,
    key text collate "C" not null,
    message_id bigint not null,
    payload_hash bytea not null,
    until timestamptz not null
) with (vacuum_truncate = off);

-- As for the messages: so that a key is looked up in the index from the start.
alter table pgqrs.seen alter column payload_hash set storage plain;
insert into pgqrs.seen (queue_id, key, message_id, payload_hash, until)
select 0, '', 0, repeat(' ', 7000)::bytea, 'now' from generate_series(1, 128);
delete from pgqrs.seen;
alter table pgqrs.seen alter column payload_hash set storage extended;

alter table pgqrs.seen add constraint seen_pkey primary key (queue_id, key);
create index seen_until on pgqrs.seen (until);

create table pgqrs.workers (
    id bigint generated always as identity constraint workers_pkey primary key,
    kind text not null constraint workers_kind_check check (kind in ('producer', 'consumer')),
    hostname text not null constraint workers_hostname_check check (octet_length(hostname) between 1 and 255),
    -- 0 is anonymous: any number of workers may have it.
    port integer not null constraint workers_port_check check (port between 0 and 65535),
    queue_id integer not null,
    status text not null default 'ready'
        constraint workers_status_check check (status in ('ready', 'suspended', 'stopped')),
    started_at timestamptz not null default now(),
    -- In no index, so that a heartbeat is a heap-only update.
    heartbeat_at timestamptz not null default now(),
    -- Of a consumer: how many messages it has taken out of its queue, as of that heartbeat.
    settled bigint not null default 0,
    -- How long after its last heartbeat a worker counts as crashed.
    stale_after interval not null
) with (fillfactor = 50);

-- One live worker of an identity. What is stopped has none any more.
create unique index workers_identity on pgqrs.workers (queue_id, kind, hostname, port)
    where port <> 0 and status <> 'stopped';

-- How far each writer of sends has come. A statement that stores messages advances its writer's number in
-- the same transaction, so that the number tells, after an answer got lost, whether they are stored.
create table pgqrs.writers (
    token bigint constraint writers_pkey primary key,
    sequence bigint not null,
    -- What the last statement didn't store, since there was a message with the same key: the ids that were drawn for these,
    -- and for each the id of the message that has the key, and whether its payload is the same.
    duplicates bigint[],
    holders bigint[],
    same_payload boolean[],
    -- A token is used for an hour at most, and its row deleted after a day.
    created_at timestamptz not null default now()
) with (fillfactor = 20);

create index writers_age on pgqrs.writers (created_at);

create table pgqrs.dead_letters (
    queue_id integer not null,
    priority smallint not null,
    id bigint not null,
    enqueued_at timestamptz not null,
    attempt integer not null,
    producer_id bigint,
    consumer_id bigint,
    max_attempts integer,
    unique_key text collate "C",
    waiting_key text collate "C",
    group_key text collate "C",
    group_place bigint,
    headers json,
    payload json not null,
    reason text not null,
    last_error text,
    died_at timestamptz not null default statement_timestamp(),
    constraint dead_letters_pkey primary key (queue_id, id)
);

-- For those that are older than the queue keeps them.
create index dead_letters_age on pgqrs.dead_letters (queue_id, died_at);

create table pgqrs.archive (
    queue_id integer not null,
    priority smallint not null,
    id bigint not null,
    enqueued_at timestamptz not null,
    attempt integer not null,
    producer_id bigint,
    consumer_id bigint,
    max_attempts integer,
    unique_key text collate "C",
    waiting_key text collate "C",
    group_key text collate "C",
    headers json,
    payload json not null,
    archived_at timestamptz not null default statement_timestamp(),
    constraint archive_pkey primary key (queue_id, id)
);

create index archive_age on pgqrs.archive (queue_id, archived_at);

-- Deletes archived messages and dead letters that are older than their queue keeps them, at most this number of each.
-- With its owner's rights: a consumer can delete what is over, and nothing else.
create function pgqrs.prune(queue_name text, most integer, out archived bigint, out dead bigint)
language sql security definer set search_path = pg_catalog, pg_temp
-- So that only as much is read as is deleted, whatever the statistics say.
set enable_bitmapscan = off set enable_seqscan = off
as $$
    with kept as materialized (
        select id, archive_for, dead_letters_for from pgqrs.queues
        where name = queue_name and coalesce(archive_for, dead_letters_for) is not null
    ), queue as materialized (
        -- By one process at a time. The first number is this lock's class: "pgqr".
        select * from kept where pg_try_advisory_xact_lock(1885827442, id)
    ), of_archive as (
        delete from pgqrs.archive a
        where a.ctid = any (array(
            select old.place
            from queue
            -- Along the index, only as many as are deleted: a join would read and sort all that is over.
            cross join lateral (
                select o.ctid as place from pgqrs.archive o
                where o.queue_id = queue.id and o.archived_at < statement_timestamp() - queue.archive_for
                order by o.archived_at
                limit most
            ) old
        ))
        returning a.id
    ), of_dead_letters as (
        delete from pgqrs.dead_letters d
        where d.ctid = any (array(
            select old.place
            from queue
            cross join lateral (
                select o.ctid as place from pgqrs.dead_letters o
                where o.queue_id = queue.id and o.died_at < statement_timestamp() - queue.dead_letters_for
                order by o.died_at
                limit most
            ) old
        ))
        returning d.id
    )
    select (select count(*) from of_archive), (select count(*) from of_dead_letters)
$$;

revoke execute on function pgqrs.prune(text, integer) from public;

-- Compress large payloads with lz4 where the server has it (PostgreSQL 14 and later, built with lz4):
-- three times as fast as the default for payloads of 50 kB.
do $$
begin
    execute 'alter table pgqrs.messages alter column payload set compression lz4';
    execute 'alter table pgqrs.dead_letters alter column payload set compression lz4';
    execute 'alter table pgqrs.archive alter column payload set compression lz4';
exception
    when feature_not_supported or syntax_error then null;
end
$$;

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
