//! Statements on `pgqrs.schedules`: install, look for what is due, fire, administer. The process that looks computes the
//! following times; the statement that fires compares what was looked at with what is there.

pub(crate) mod administer;
pub(crate) mod firing;
pub(crate) mod history;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    cron::Cron,
    error::{Error, Result},
    headers::Headers,
    key::{Key, payload_hash},
    message::{MessageOptions, NewMessage, Priority, microseconds},
    postgres::json::{Json, JsonText, headers},
    queue::QueueName,
    timing::{Missed, ScheduleTime},
};

/// A schedule on its way in.
#[derive(Debug, Clone)]
pub(crate) struct NewSchedule {
    pub(crate) name: String,
    pub(crate) queue: QueueName,
    pub(crate) version: i32,
    pub(crate) time: ScheduleTime,
    pub(crate) zone: String,
    pub(crate) missed: Missed,
    pub(crate) priority: Priority,
    pub(crate) headers: Headers,
    pub(crate) message: NewMessage,
}

impl NewSchedule {
    fn options(&self) -> MessageOptions {
        self.message.options().cloned().unwrap_or_default()
    }
}

/// What is installed together, and how.
#[derive(Debug)]
pub(crate) struct Installation<'a> {
    pub(crate) owner: Option<&'a str>,
    /// Each with the next time that it has if it is new, or if its times have changed.
    pub(crate) schedules: &'a [(NewSchedule, DateTime<Utc>)],
    /// Whether those of a higher or an equal version are overwritten too.
    pub(crate) overwrites: bool,
    /// The owner has no other schedules, as of this version.
    pub(crate) is_all_of_version: Option<i32>,
}

/// What became of the schedules that were installed together.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    /// One of the queues, which doesn't exist.
    pub(crate) missing_queue: Option<String>,
    /// A name that belongs to another owner, and that owner.
    pub(crate) taken: Option<(String, Option<String>)>,
    /// The owner has schedules of a higher version, so that nothing was changed.
    pub(crate) is_older: bool,
    pub(crate) created: Vec<String>,
    pub(crate) replaced: Vec<String>,
    pub(crate) deleted: Vec<String>,
}

pub(crate) async fn now(connection: &mut PgConnection) -> Result<DateTime<Utc>> {
    let now = sqlx::query_scalar!(r#"select statement_timestamp() as "now!""#)
        .fetch_one(connection)
        .await?;
    Ok(now)
}

/// Installs schedules: all of them, or none if a queue is missing or a name taken.
pub(crate) async fn install(
    connection: &mut PgConnection,
    installation: &Installation<'_>,
) -> Result<Installed> {
    let of = installation.schedules;
    let names: Vec<_> = of.iter().map(|(new, _)| new.name.clone()).collect();
    let queues: Vec<_> = of
        .iter()
        .map(|(new, _)| new.queue.as_str().to_owned())
        .collect();
    let versions: Vec<_> = of.iter().map(|(new, _)| new.version).collect();
    let crons: Vec<Option<String>> = of.iter().map(|(new, _)| cron(&new.time)).collect();
    let intervals: Vec<Option<i64>> = of.iter().map(|(new, _)| every_ms(&new.time)).collect();
    let zones: Vec<_> = of.iter().map(|(new, _)| new.zone.clone()).collect();
    let missed: Vec<_> = of.iter().map(|(new, _)| Policy::of(new.missed)).collect();
    let kinds: Vec<_> = missed.iter().map(|policy| policy.kind.to_owned()).collect();
    let older_than: Vec<_> = missed.iter().map(|policy| policy.older_than).collect();
    let at_most: Vec<_> = missed.iter().map(|policy| policy.at_most).collect();
    let priorities: Vec<_> = of.iter().map(|(new, _)| new.priority.rank()).collect();
    let options: Vec<_> = of.iter().map(|(new, _)| new.options()).collect();
    let max_attempts: Vec<_> = options.iter().map(|of| of.max_attempts).collect();
    let max_attempts: Vec<_> = max_attempts
        .into_iter()
        .map(|most| most.map(|most| i32::try_from(most).unwrap_or(i32::MAX)))
        .collect();
    let expires_in: Vec<_> = options
        .iter()
        .map(|of| of.expires_in.map(microseconds))
        .collect();
    let drop_if_expired: Vec<_> = options
        .iter()
        .map(|of| of.drop_if_expired.then_some(true))
        .collect();
    let keys: Vec<_> = options
        .iter()
        .map(|of| of.key.as_ref().map(Key::text))
        .collect();
    let hashes: Vec<_> = of
        .iter()
        .map(|(new, _)| {
            new.message
                .key()
                .map(|_| payload_hash(new.message.payload()))
        })
        .collect();
    let next_times: Vec<_> = of.iter().map(|(_, next_at)| *next_at).collect();
    let all_headers: Vec<_> = of.iter().map(|(new, _)| new.headers.to_json()).collect();
    let all_headers: Vec<_> = all_headers
        .iter()
        .map(|json| json.as_deref().map(Json))
        .collect();
    let payloads: Vec<_> = of
        .iter()
        .map(|(new, _)| Json(new.message.payload()))
        .collect();
    let rows = sqlx::query!(
        r#"
        with given as materialized (
            select * from unnest(
                $4::text[], $5::text[], $6::integer[], $7::text[], $8::bigint[], $9::text[], $10::text[],
                $11::bigint[], $12::integer[], $13::smallint[], $14::integer[], $15::bigint[], $16::boolean[],
                $17::text[], $18::bytea[], $19::timestamptz[], $20::json[], $21::json[]
            ) as g (
                name, queue, version, cron, every_ms, zone, missed, older_than, at_most, priority, max_attempts,
                expires_in, drop_if_expired, unique_key, payload_hash, next_at, headers, payload
            )
        ), verdict as materialized (
            select missing.queue as missing_queue, taken.name as taken, taken.owner as taken_by, older.is_older
            from (values (true)) always
            left join lateral (
                select g.queue from given g
                where not exists (select from pgqrs.queues q where q.name = g.queue)
                limit 1
            ) missing on true
            left join lateral (
                select s.name, s.owner from given g
                join pgqrs.schedules s on s.name = g.name
                where s.owner is distinct from $1
                limit 1
            ) taken on true
            cross join lateral (
                select exists (
                    select from pgqrs.schedules s where s.owner = $1 and s.version > $3::integer
                ) as is_older
            ) older
        ), installed as (
            insert into pgqrs.schedules as s (
                queue_id, name, owner, version, cron, every_ms, zone, missed, older_than, at_most, priority,
                max_attempts, expires_in, drop_if_expired, unique_key, payload_hash, next_at, headers, payload
            )
            select q.id, g.name, $1, g.version, g.cron, g.every_ms, g.zone, g.missed, g.older_than, g.at_most,
                g.priority, g.max_attempts, g.expires_in, g.drop_if_expired, g.unique_key, g.payload_hash, g.next_at,
                g.headers, g.payload
            from verdict v
            cross join given g
            join pgqrs.queues q on q.name = g.queue
            where v.missing_queue is null and v.taken is null and not v.is_older
            -- In the same order everywhere, so that two of these don't wait for each other.
            order by g.name
            on conflict (name) do update
            set queue_id = excluded.queue_id,
                version = greatest(excluded.version, s.version + 1),
                cron = excluded.cron,
                every_ms = excluded.every_ms,
                zone = excluded.zone,
                missed = excluded.missed,
                older_than = excluded.older_than,
                at_most = excluded.at_most,
                priority = excluded.priority,
                max_attempts = excluded.max_attempts,
                expires_in = excluded.expires_in,
                drop_if_expired = excluded.drop_if_expired,
                unique_key = excluded.unique_key,
                payload_hash = excluded.payload_hash,
                -- A deployment that doesn't change the times doesn't put them off either.
                next_at = case
                    when (s.cron, s.every_ms, s.zone)
                        is not distinct from (excluded.cron, excluded.every_ms, excluded.zone)
                    then s.next_at
                    else excluded.next_at
                end,
                headers = excluded.headers,
                payload = excluded.payload
            where (s.version < excluded.version or $2) and s.owner is not distinct from excluded.owner
            -- A row that was there has been locked by this statement.
            returning s.name, s.xmax = 0 as is_new
        ), deleted as (
            delete from pgqrs.schedules s
            using verdict v
            where s.owner = $1 and $3::integer is not null and s.name <> all ($4)
                and v.missing_queue is null and v.taken is null and not v.is_older
            returning s.name
        )
        select v.missing_queue as "missing_queue?", v.taken as "taken?", v.taken_by as "taken_by?",
            v.is_older as "is_older!", c.name as "name?", c.is_new as "is_new?"
        from verdict v
        left join (
            select i.name, i.is_new from installed i
            union all
            -- Neither new nor replaced.
            select d.name, null from deleted d
        ) c on true
        "#,
        installation.owner,
        installation.overwrites,
        installation.is_all_of_version,
        &names,
        &queues,
        &versions,
        &crons as &[Option<String>],
        &intervals as &[Option<i64>],
        &zones,
        &kinds,
        &older_than as &[Option<i64>],
        &at_most as &[Option<i32>],
        &priorities,
        &max_attempts as &[Option<i32>],
        &expires_in as &[Option<i64>],
        &drop_if_expired as &[Option<bool>],
        &keys as &[Option<&str>],
        &hashes as &[Option<Vec<u8>>],
        &next_times,
        &all_headers as &[Option<Json<'_>>],
        &payloads as &[Json<'_>],
    )
    .fetch_all(connection)
    .await?;
    let mut installed = Installed::default();
    for row in rows {
        installed.missing_queue = row.missing_queue;
        installed.taken = row.taken.map(|name| (name, row.taken_by));
        installed.is_older = row.is_older;
        let Some(name) = row.name else { continue };
        match row.is_new {
            Some(true) => installed.created.push(name),
            Some(false) => installed.replaced.push(name),
            None => installed.deleted.push(name),
        }
    }
    Ok(installed)
}

fn cron(time: &ScheduleTime) -> Option<String> {
    match time {
        ScheduleTime::Cron(cron) => Some(cron.as_str().to_owned()),
        ScheduleTime::Every(_) => None,
    }
}

fn every_ms(time: &ScheduleTime) -> Option<i64> {
    match time {
        ScheduleTime::Cron(_) => None,
        ScheduleTime::Every(interval) => i64::try_from(interval.as_millis()).ok(),
    }
}

/// What a schedule does about times that it missed, as columns.
struct Policy {
    kind: &'static str,
    older_than: Option<i64>,
    at_most: Option<i32>,
}

impl Policy {
    fn of(missed: Missed) -> Self {
        let (kind, older_than, at_most) = match missed {
            Missed::Once => ("once", None, None),
            Missed::Skip { older_than } => ("skip", Some(microseconds(older_than)), None),
            Missed::All { at_most } => ("all", None, i32::try_from(at_most).ok()),
        };
        Self {
            kind,
            older_than,
            at_most,
        }
    }

    fn read(kind: &str, older_than: Option<i64>, at_most: Option<i32>) -> Missed {
        match kind {
            "skip" => Missed::Skip {
                older_than: Duration::from_micros(older_than.unwrap_or_default().unsigned_abs()),
            },
            "all" => Missed::All {
                at_most: at_most.unwrap_or(1).unsigned_abs(),
            },
            _ => Missed::Once,
        }
    }
}

fn read_time(cron: Option<String>, every_ms: Option<i64>) -> ScheduleTime {
    match cron {
        Some(cron) => ScheduleTime::Cron(Cron::unchecked(cron)),
        None => ScheduleTime::Every(Duration::from_millis(
            every_ms.unwrap_or_default().unsigned_abs(),
        )),
    }
}

/// What there is to do, at one moment.
#[derive(Debug)]
pub(crate) struct Look {
    /// By the database's clock.
    pub(crate) now: DateTime<Utc>,
    pub(crate) due: Vec<Due>,
    /// The next time of those that aren't due.
    pub(crate) next_at: Option<DateTime<Utc>>,
}

/// A schedule that is due.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) queue: QueueName,
    pub(crate) version: i32,
    pub(crate) time: ScheduleTime,
    pub(crate) zone: String,
    pub(crate) missed: Missed,
    /// Whether its messages have a key, so that a transaction of somebody else can keep one from being stored.
    pub(crate) is_keyed: bool,
    pub(crate) next_at: DateTime<Utc>,
    pub(crate) headers: Headers,
}

/// Looks for schedules that are due, the earliest first, without these.
pub(crate) async fn look(
    connection: &mut PgConnection,
    limit: usize,
    without: &[i64],
) -> Result<Look> {
    let rows = sqlx::query!(
        r#"
        select
            statement_timestamp() as "now!",
            (
                select min(s.next_at) from pgqrs.schedules s
                where s.paused_at is null and s.next_at > statement_timestamp() and s.id <> all ($2)
            ) as "later_at?",
            due.id as "id?",
            due.name as "name?",
            due.queue as "queue?",
            due.version as "version?",
            due.cron as "cron?",
            due.every_ms as "every_ms?",
            due.zone as "zone?",
            due.missed as "missed?",
            due.older_than as "older_than?",
            due.at_most as "at_most?",
            due.unique_key is not null as "is_keyed!",
            due.next_at as "next_at?",
            due.headers as "headers?: JsonText"
        -- A row with the time alone if nothing is due.
        from (values (true)) always
        left join lateral (
            select s.*, q.name as queue
            from pgqrs.schedules s
            join pgqrs.queues q on q.id = s.queue_id
            where s.paused_at is null and s.next_at <= statement_timestamp() and s.id <> all ($2)
            order by s.next_at
            limit $1
        ) due on true
        "#,
        i64::try_from(limit).unwrap_or(i64::MAX),
        without,
    )
    .fetch_all(connection)
    .await?;
    let mut look = Look {
        now: DateTime::UNIX_EPOCH,
        due: Vec::with_capacity(rows.len()),
        next_at: None,
    };
    for row in rows {
        (look.now, look.next_at) = (row.now, row.later_at);
        if let (Some(id), Some(queue), Some(next_at)) = (row.id, row.queue, row.next_at) {
            look.due.push(Due {
                id,
                name: row.name.unwrap_or_default(),
                queue: QueueName::new(queue)?,
                version: row.version.unwrap_or_default(),
                time: read_time(row.cron, row.every_ms),
                zone: row.zone.unwrap_or_default(),
                missed: Policy::read(&row.missed.unwrap_or_default(), row.older_than, row.at_most),
                is_keyed: row.is_keyed,
                next_at,
                headers: headers(row.headers),
            });
        }
    }
    Ok(look)
}

/// Why schedules could not be installed.
pub(crate) fn refusal(installed: &mut Installed) -> Result<()> {
    if let Some(queue) = installed.missing_queue.take() {
        let queue = QueueName::new(queue)?;
        return Err(Error::QueueNotFound { queue });
    }
    match installed.taken.take() {
        Some((schedule, owner)) => Err(Error::ScheduleTaken { schedule, owner }),
        None => Ok(()),
    }
}
