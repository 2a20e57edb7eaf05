-- Why: takes rates away. What claims of queues with a rate get meanwhile is the error that the schema is not installed.

-- Whoever uses the table meanwhile waits behind this one.
set local lock_timeout = '2s';

drop function pgqrs.take_tokens;
drop function pgqrs.free_tokens;
drop table pgqrs.rates;
