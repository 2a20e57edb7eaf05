//! The state of the queues as the database has it.

/// What `World::lines` returns, as the database has it. Messages without a queue are listed too.
pub(crate) const LINES: &str = r#"
    select line from (
        select concat_ws(' ', 'queue', name, max_attempts,
                case when paused_until > clock_timestamp() then 'paused' end,
                case when closed_at is not null then 'closed' end, (
                select coalesce(string_agg(m.id::text, ',' order by m.priority, m.visible_at, m.id), '')
                from pgqrs.messages m where m.queue_id = q.id
                    and greatest(m.visible_at, m.lease_until) <= clock_timestamp()
            )) as line
            from pgqrs.queues q
        union all select concat_ws(' ', 'message', m.id, coalesce(q.name, 'nowhere'),
                case when lease_until > clock_timestamp() then 'leased'
                    when visible_at > clock_timestamp() then 'delayed'
                    when lease_token <> 0 then 'given-up' else 'ready' end,
                attempt, coalesce(snoozes, 0), payload::text, coalesce(headers ->> 'n', 'none'), coalesce(producer_id, 0),
                case when lease_until > clock_timestamp() then consumer_id else 0 end)
            from pgqrs.messages m left join pgqrs.queues q on q.id = m.queue_id
        union all select concat_ws(' ', 'dead', d.id, coalesce(q.name, 'nowhere'), attempt, payload::text,
                coalesce(headers ->> 'n', 'none'), reason)
            from pgqrs.dead_letters d left join pgqrs.queues q on q.id = d.queue_id
        union all select concat_ws(' ', 'archived', a.id, coalesce(q.name, 'nowhere'), attempt, payload::text,
                coalesce(headers ->> 'n', 'none'))
            from pgqrs.archive a left join pgqrs.queues q on q.id = a.queue_id
        union all select concat_ws(' ', 'worker', w.id, kind, coalesce(q.name, 'nowhere'), status)
            from pgqrs.workers w left join pgqrs.queues q on q.id = w.queue_id
    ) as lines
    order by line collate "C""#;
