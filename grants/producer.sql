-- A producer: enqueues, and manages its own worker. It can't read payloads, claim, or delete messages.
grant usage on schema pgqrs to :"role";
grant select on pgqrs.queues, pgqrs.workers, pgqrs._sqlx_migrations to :"role";
grant insert on pgqrs.messages to :"role";
-- An enqueue returns the ids. With a key, it looks for the message that has the key already, and locks it if it waits; but it
-- can't replace it, postpone it or append to it, which takes more: `grant select, update on pgqrs.messages`.
grant select (queue_id, id, unique_key, waiting_key, payload_hash, xmax) on pgqrs.messages to :"role";
grant update (unique_key, waiting_key) on pgqrs.messages to :"role";
grant select, insert, update, delete on pgqrs.seen to :"role";
-- To count messages of groups.
grant select, insert, update on pgqrs.groups, pgqrs.group_rates to :"role";
grant usage on sequence pgqrs.messages_id_seq to :"role";
grant select, insert, update, delete on pgqrs.writers to :"role";
grant insert, update (status, heartbeat_at, settled), delete on pgqrs.workers to :"role";
-- Schedules send messages.
grant select, insert, update, delete on pgqrs.schedules to :"role";
grant select, insert, update on pgqrs.firings to :"role";
grant execute on function pgqrs.fire_schedules to :"role";
