-- Why: takes groups away. Messages that are parked stay so: settle them all, or delete them, before. A running worker that sends
-- or settles a message with a group gets the error that the schema is not installed.

-- Whoever uses the table meanwhile waits behind this one.
set local lock_timeout = '2s';

-- While messages are sent or settled, nothing is undone: neither this nor what comes before it.
lock table pgqrs.messages;

drop function pgqrs.settle_groups;
drop function pgqrs.begin_groups;
drop function pgqrs.lock_groups;
drop table pgqrs.groups;
