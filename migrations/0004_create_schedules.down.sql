-- Why: takes schedules away, with what they have fired. A running worker then gets the error that the schema is older than it
-- needs, until that is undone as a whole.

-- Whoever uses the tables meanwhile waits behind this one.
set local lock_timeout = '2s';

drop function pgqrs.fire_schedules;
drop table pgqrs.firings;
drop table pgqrs.schedules;
