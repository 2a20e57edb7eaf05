//! All that there is, a line each: in the model, and in the database.

use super::*;

impl World {
    /// All of it, a line each; and in which order messages come.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, queue) in &self.queues {
            let ready = queue.ready().into_iter().map(|id| id.to_string());
            let ready = ready.collect::<Vec<_>>().join(",");
            let paused = if queue.is_paused { " paused" } else { "" };
            let closed = if queue.is_closed { " closed" } else { "" };
            lines.push(format!(
                "queue {name} {}{paused}{closed} {ready}",
                queue.max_attempts
            ));
            for (id, entry) in &queue.messages {
                let producer = entry.producer.map_or(0, WorkerId::get);
                let consumer = entry.consumer.filter(|_| entry.is_held());
                lines.push(format!(
                    "message {id} {name} {} {} {} {} {producer} {} {} {} {} {}",
                    entry.state(),
                    entry.attempt,
                    entry.snoozes,
                    entry.content(),
                    consumer.map_or(0, WorkerId::get),
                    entry.own(),
                    entry.expiry(),
                    entry.in_group(),
                    if entry.is_parked() { "t" } else { "f" },
                ));
            }
            for (id, (entry, reason)) in &queue.dead {
                let (attempt, content) = (entry.attempt, entry.content());
                let (own, group) = (entry.own(), entry.in_group());
                lines.push(format!(
                    "dead {id} {name} {attempt} {content} {own} {group} {reason}"
                ));
            }
            for (id, entry) in &queue.archive {
                let (attempt, content) = (entry.attempt, entry.content());
                let group = entry.in_group();
                lines.push(format!("archived {id} {name} {attempt} {content} {group}"));
            }
        }
        for ((queue, key), (id, _)) in &self.seen {
            lines.push(format!("seen {queue} {key} {id}"));
        }
        for (id, worker) in &self.workers {
            let (kind, queue, status) = (worker.kind, worker.queue, worker.status);
            lines.push(format!("worker {id} {kind} {queue} {status}"));
        }
        lines.extend(self.group_lines());
        lines.extend(self.rate_lines());
        lines.sort_unstable();
        lines
    }
}

/// The same, as the database has it. Messages without a queue are listed too.
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
                case when lease_until > clock_timestamp() then consumer_id else 0 end,
                coalesce(m.max_attempts, 0), coalesce(unique_key, waiting_key, 'none'), unique_key is not null,
                case when expires_at <= clock_timestamp() then 'over' when expires_at is null then 'never' else 'later' end,
                drop_if_expired is true, coalesce(group_key, 'none'), group_key is not null and visible_at = 'infinity')
            from pgqrs.messages m left join pgqrs.queues q on q.id = m.queue_id
        union all select concat_ws(' ', 'dead', d.id, coalesce(q.name, 'nowhere'), attempt, payload::text,
                coalesce(headers ->> 'n', 'none'), coalesce(d.max_attempts, 0), coalesce(unique_key, waiting_key, 'none'),
                unique_key is not null, coalesce(group_key, 'none'), reason)
            from pgqrs.dead_letters d left join pgqrs.queues q on q.id = d.queue_id
        union all select concat_ws(' ', 'archived', a.id, coalesce(q.name, 'nowhere'), attempt, payload::text,
                coalesce(headers ->> 'n', 'none'), coalesce(group_key, 'none'))
            from pgqrs.archive a left join pgqrs.queues q on q.id = a.queue_id
        union all select concat_ws(' ', 'seen', coalesce(q.name, 'nowhere'), s.key, s.message_id)
            from pgqrs.seen s left join pgqrs.queues q on q.id = s.queue_id
            where s.until > clock_timestamp()
        union all select concat_ws(' ', 'group', coalesce(q.name, 'nowhere'), g.key, g.live, g.parked)
            from pgqrs.groups g left join pgqrs.queues q on q.id = g.queue_id
        union all select concat_ws(' ', 'rate', q.name, q.rate_n is not null, r.arrives_at > clock_timestamp() is true,
                q.slowed_until > clock_timestamp(), q.groups_rated)
            from pgqrs.queues q left join pgqrs.rates r on r.queue_id = q.id
            where q.rate_n is not null or r.arrives_at > clock_timestamp() or q.slowed_until > clock_timestamp()
                or q.groups_rated
        union all select concat_ws(' ', 'group-rate', coalesce(q.name, 'nowhere'), r.key, r.rate_n is not null,
                r.arrives_at > clock_timestamp(), r.slowed_until > clock_timestamp())
            from pgqrs.group_rates r left join pgqrs.queues q on q.id = r.queue_id
            where r.rate_n is not null or greatest(r.arrives_at, r.slowed_until) > clock_timestamp()
        union all select concat_ws(' ', 'worker', w.id, kind, coalesce(q.name, 'nowhere'), status)
            from pgqrs.workers w left join pgqrs.queues q on q.id = w.queue_id
    ) as lines
    order by line collate "C""#;
