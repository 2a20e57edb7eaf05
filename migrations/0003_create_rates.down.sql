-- Why: takes rates away. A running worker that claims then gets the error that the schema is older than it needs, until that is
-- undone as a whole.

-- Whoever uses the table meanwhile waits behind this one.
set local lock_timeout = '2s';

drop function pgqrs.due_in;
drop function pgqrs.draw_of_group;
drop function pgqrs.is_group_rated;
drop table pgqrs.group_rates;
drop function pgqrs.take_tokens;
drop function pgqrs.free_tokens;
drop table pgqrs.rates;
