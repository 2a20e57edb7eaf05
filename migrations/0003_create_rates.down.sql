-- Why: takes rates away. What claims of queues with a rate get meanwhile, and sends and settlements of groups with one, is the
-- error that the schema is not installed.

-- Whoever uses the table meanwhile waits behind this one.
set local lock_timeout = '2s';

drop function pgqrs.due_in;
drop function pgqrs.draw_of_group;
drop table pgqrs.group_rates;
drop function pgqrs.take_tokens;
drop function pgqrs.free_tokens;
drop table pgqrs.rates;
