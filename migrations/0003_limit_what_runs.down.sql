-- Why: takes the limits away. A running worker's claims get the error that the schema is not installed.

set local lock_timeout = '2s';

-- While messages are claimed, nothing is undone.
lock table pgqrs.messages;

drop function pgqrs.take_slots;
drop function pgqrs.free_slots;
drop table pgqrs.slots;
