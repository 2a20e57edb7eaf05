-- An operator: reads everything, requeues dead letters, releases and reschedules messages, pauses and closes queues,
-- suspends, stops and removes workers. It can't enqueue through a store, claim, delete messages, nor create, configure or delete queues.
grant usage on schema pgqrs to :"role";
grant select on all tables in schema pgqrs to :"role";
-- To requeue is to move, and to lock meanwhile.
grant update (last_error) on pgqrs.dead_letters to :"role";
grant delete on pgqrs.dead_letters to :"role";
grant insert on pgqrs.messages to :"role";
grant update (visible_at, lease_until, lease_token, consumer_id, due_at) on pgqrs.messages to :"role";
-- To stop and resume groups, and to set their limits.
grant insert, update, delete on pgqrs.groups, pgqrs.group_rates to :"role";
grant update (paused_until, slowed_until, closed_at, groups_rated) on pgqrs.queues to :"role";
grant update (status), delete on pgqrs.workers to :"role";
-- Deletes only what is older than its queue keeps it.
grant execute on function pgqrs.prune(text, integer) to :"role";
-- To pause, resume and delete schedules, and to fire them.
grant update (next_at, last_at, last_fired_at, firings, paused_at), delete on pgqrs.schedules to :"role";
grant insert, update on pgqrs.firings to :"role";
grant execute on function pgqrs.fire_schedules to :"role";
