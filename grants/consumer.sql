-- A consumer: claims and settles, and manages its own worker. It can't enqueue, nor create, configure or delete queues,
-- nor read what is archived or dead.
grant usage on schema pgqrs to :"role";
grant select on pgqrs.queues, pgqrs.workers, pgqrs._sqlx_migrations to :"role";
grant select, update (visible_at, lease_until, lease_token, consumer_id, attempt, snoozes, undecodable_since, waiting_key, due_at, last_error), delete on pgqrs.messages to :"role";
-- To settle messages of groups, and to let the next ones in.
grant select, update, delete on pgqrs.groups to :"role";
-- To count what runs, for queues that limit it.
grant select, insert, update, delete on pgqrs.slots to :"role";
grant select, insert, update, delete on pgqrs.group_rates to :"role";
-- The same for queues with a rate; and to slow a queue down.
grant select, insert, update on pgqrs.rates to :"role";
grant update (slowed_until) on pgqrs.queues to :"role";
grant insert on pgqrs.archive, pgqrs.dead_letters to :"role";
-- Both return the ids of what was moved there; and the dead letters of a queue are counted.
grant select (id) on pgqrs.archive to :"role";
grant select (queue_id, id) on pgqrs.dead_letters to :"role";
grant insert, update (status, heartbeat_at, settled), delete on pgqrs.workers to :"role";
-- Deletes only what is older than its queue keeps it.
grant execute on function pgqrs.prune(text, integer) to :"role";
-- Fires schedules that are due, by a function of the schema's owner that sends their messages, and no others.
grant select on pgqrs.schedules to :"role";
grant execute on function pgqrs.fire_schedules to :"role";
