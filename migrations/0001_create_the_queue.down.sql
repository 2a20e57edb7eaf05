-- Why: takes the queue out of the database, with every message in it. A running worker gets the error
-- that the schema is not installed.
--
-- The schema itself stays: it holds the history of migrations, in which this very step is noted.

-- Whoever uses the tables meanwhile waits behind this one.
set local lock_timeout = '2s';

drop function pgqrs.take_slots;
drop function pgqrs.free_slots;
drop table pgqrs.slots;
drop function pgqrs.prune(text, integer);
drop table pgqrs.archive;
drop table pgqrs.seen;
drop table pgqrs.writers;
drop table pgqrs.dead_letters;
drop table pgqrs.workers;
drop table pgqrs.messages;
drop domain pgqrs.joined_payload;
drop table pgqrs.queues;
