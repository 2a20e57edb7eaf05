//! What `pgqrs::admin(&store).health()` reads besides the queues: the server, what holds back vacuum, the tables and the
//! workers. Only columns that all supported versions of PostgreSQL have; what the role may not see is null.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    admin::rows::WorkerInfo,
    error::{Error, Result},
    health::{
        ConnectionUse, Horizon, HorizonHolder, HorizonSource, ServerFacts, StaleWorker, TableHealth,
    },
    lifecycle::{WorkerId, WorkerKind, WorkerStatus},
    queue::QueueName,
};

/// What the server says about itself, and the time.
pub(crate) async fn server(connection: &mut PgConnection) -> Result<(DateTime<Utc>, ServerFacts)> {
    let row = sqlx::query!(
        r#"
        select
            statement_timestamp() as "now!",
            d.datname::text as "database!",
            current_user::text as "role!",
            -- Debian appends its package's version.
            split_part(current_setting('server_version'), ' ', 1) as "version!",
            pg_has_role(current_user, 'pg_read_all_stats', 'usage') as "sees_sessions!",
            -- Without its counters it doesn't run either.
            current_setting('autovacuum')::boolean and current_setting('track_counts')::boolean as "autovacuum!",
            age(d.datfrozenxid)::bigint as "unfrozen!"
        from pg_database d
        where d.datname = current_database()
        "#,
    )
    .fetch_one(connection)
    .await?;
    let facts = ServerFacts {
        database: row.database,
        role: row.role,
        version: row.version,
        sees_sessions: row.sees_sessions,
        autovacuum: row.autovacuum,
        unfrozen_transactions: row.unfrozen.unsigned_abs(),
    };
    Ok((row.now, facts))
}

/// How many connections are in use.
pub(crate) async fn connections(connection: &mut PgConnection) -> Result<ConnectionUse> {
    let row = sqlx::query!(
        r#"
        select
            count(*) as "used!",
            current_setting('max_connections')::bigint
                - current_setting('superuser_reserved_connections')::bigint
                -- Since PostgreSQL 16.
                - coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::bigint as "limit!"
        -- Clients' sessions, of which a role without privileges doesn't see the type.
        from pg_stat_activity s
        where s.datid is not null and s.usesysid is not null
            and coalesce(s.backend_type, 'client backend') = 'client backend'
        "#,
    )
    .fetch_one(connection)
    .await?;
    Ok(ConnectionUse {
        used: row.used.unsigned_abs(),
        limit: u64::try_from(row.limit).unwrap_or_default(),
    })
}

/// What holds back vacuum in this database, the oldest first.
pub(crate) async fn horizon(connection: &mut PgConnection) -> Result<Horizon> {
    let rows = sqlx::query!(
        r#"
        select
            held.source as "source!",
            held.pid as "pid?",
            held.name as "name?",
            held.role as "role?",
            held.state as "state?",
            held.query as "query?",
            held.transactions as "transactions?",
            held.microseconds as "microseconds?"
        from (
            select
                case when r.pid is null then 'session' else 'standby' end as source,
                s.pid,
                coalesce(s.application_name, '') as name,
                s.usename::text as role,
                s.state,
                -- Of a session that the role may not see, the server says so here.
                case when s.query <> '<insufficient privilege>' then left(s.query, 120) end as query,
                greatest(age(s.backend_xid), age(s.backend_xmin))::bigint as transactions,
                -- A standby's process has no transaction.
                case when r.pid is null
                    then (extract(epoch from clock_timestamp() - s.xact_start) * 1000000)::bigint
                end as microseconds
            from pg_stat_activity s
            left join pg_stat_replication r on r.pid = s.pid
            where (s.backend_xid is not null or s.backend_xmin is not null)
                and s.pid <> pg_backend_pid()
                -- Snapshots of other databases don't count, except those of standbys.
                and (s.datid = (select oid from pg_database where datname = current_database()) or r.pid is not null)
                -- The workers of a parallel statement have its snapshot.
                and s.leader_pid is null
                -- A vacuum holds back no other.
                and not exists (select from pg_stat_progress_vacuum v where v.pid = s.pid)
            union all
            select
                'prepared', null, p.gid, p.owner::text, null, null,
                age(p.transaction)::bigint,
                (extract(epoch from clock_timestamp() - p.prepared) * 1000000)::bigint
            from pg_prepared_xacts p
            where p.database = current_database()
            union all
            select 'slot', s.active_pid, s.slot_name::text, null, null, null, age(s.xmin)::bigint, null
            from pg_replication_slots s
            where s.xmin is not null
            union all
            select 'catalogs', s.active_pid, s.slot_name::text, null, null, null, age(s.catalog_xmin)::bigint, null
            from pg_replication_slots s
            where s.xmin is null and s.catalog_xmin is not null
                and (s.database is null or s.database = current_database())
        ) held
        order by held.transactions desc, held.microseconds desc nulls last
        limit 10
        "#,
    )
    .fetch_all(connection)
    .await?;
    let holders = rows.into_iter().filter_map(|row| {
        let found = row.source;
        let pid = row.pid.unwrap_or_default();
        let name = row.name.unwrap_or_default();
        let source = match found.as_str() {
            "session" => HorizonSource::Session {
                pid,
                role: row.role,
                application: name,
                state: row.state,
                query: row.query.as_deref().map(in_one_line),
            },
            "standby" => HorizonSource::Standby {
                pid,
                application: name,
            },
            "prepared" => HorizonSource::PreparedTransaction {
                gid: name,
                role: row.role.unwrap_or_default(),
            },
            _ => HorizonSource::ReplicationSlot {
                name,
                active_pid: row.pid,
            },
        };
        Some(HorizonHolder {
            source,
            transactions: row.transactions?.unsigned_abs(),
            held_for: row.microseconds.map(elapsed),
            only_catalogs: found == "catalogs",
        })
    });
    Ok(Horizon {
        holders: holders.collect(),
    })
}

/// A time that has passed. Another session may have begun since the statement did.
fn elapsed(microseconds: i64) -> Duration {
    Duration::from_micros(u64::try_from(microseconds).unwrap_or_default())
}

fn in_one_line(query: &str) -> String {
    query.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The tables of the schema, each with the one of its large values. An empty list if the schema isn't installed.
pub(crate) async fn tables(connection: &mut PgConnection) -> Result<Vec<TableHealth>> {
    let rows = sqlx::query!(
        r#"
        select
            c.relname::text as "name!",
            part.is_toast as "toast!",
            -- What `pg_stat_all_tables` shows, which reads all tables of the database.
            pg_stat_get_live_tuples(t.oid) as "live!",
            pg_stat_get_dead_tuples(t.oid) as "dead!",
            pg_stat_get_tuples_inserted(t.oid) as "inserted!",
            pg_stat_get_tuples_deleted(t.oid) as "deleted!",
            (setting.threshold + setting.scale * greatest(t.reltuples, 0))::bigint as "vacuum_at!",
            setting.is_on as "autovacuum!",
            (extract(epoch from
                clock_timestamp()
                - greatest(pg_stat_get_last_vacuum_time(t.oid), pg_stat_get_last_autovacuum_time(t.oid))
            ) * 1000000)::bigint as last_vacuum,
            (extract(epoch from
                clock_timestamp()
                - greatest(pg_stat_get_last_analyze_time(t.oid), pg_stat_get_last_autoanalyze_time(t.oid))
            ) * 1000000)::bigint as last_analyze
        from pg_namespace n
        join pg_class c on c.relnamespace = n.oid and c.relkind = 'r'
        cross join lateral (values (c.oid, false), (c.reltoastrelid, true)) as part (oid, is_toast)
        join pg_class t on t.oid = part.oid
        cross join lateral (
            select
                coalesce(max(o.option_value) filter (where o.option_name = 'autovacuum_enabled'), 'on')::boolean
                    as is_on,
                coalesce(
                    max(o.option_value) filter (where o.option_name = 'autovacuum_vacuum_threshold'),
                    current_setting('autovacuum_vacuum_threshold')
                )::float8 as threshold,
                coalesce(
                    max(o.option_value) filter (where o.option_name = 'autovacuum_vacuum_scale_factor'),
                    current_setting('autovacuum_vacuum_scale_factor')
                )::float8 as scale
            -- Without settings of its own, a table of large values has those of its table.
            from pg_options_to_table(coalesce(t.reloptions, c.reloptions)) o
        ) setting
        where n.nspname = 'pgqrs'
        order by c.relname, part.is_toast
        limit 200
        "#,
    )
    .fetch_all(connection)
    .await?;
    let tables = rows.into_iter().map(|row| TableHealth {
        name: row.name,
        toast: row.toast,
        live_rows: row.live.unsigned_abs(),
        inserted: row.inserted.unsigned_abs(),
        deleted: row.deleted.unsigned_abs(),
        dead_rows: row.dead.unsigned_abs(),
        vacuum_at: u64::try_from(row.vacuum_at).unwrap_or_default(),
        last_vacuum: row.last_vacuum.map(elapsed),
        last_analyze: row.last_analyze.map(elapsed),
        autovacuum: row.autovacuum,
    });
    Ok(tables.collect())
}

/// Consumers of a queue.
pub(crate) struct Consumers {
    pub(crate) queue: QueueName,
    pub(crate) running: u64,
    pub(crate) suspended: u64,
    /// What all of them have settled by their last heartbeats, and when these were on average.
    pub(crate) settled: u64,
    pub(crate) settled_at: Option<DateTime<Utc>>,
    /// Whether none of them can claim.
    pub(crate) is_paused: bool,
}

/// How many consumers run and are suspended, and what they have settled, of each queue that has one or is paused.
pub(crate) async fn consumers(connection: &mut PgConnection) -> Result<Vec<Consumers>> {
    let rows = sqlx::query!(
        r#"
        select
            q.name as queue,
            q.paused_until > statement_timestamp() as "is_paused!",
            count(*) filter (where w.is_alive and w.status = 'ready') as "running!",
            count(*) filter (where w.is_alive and w.status = 'suspended') as "suspended!",
            -- Also of those that have ended, so that it grows until their rows are deleted.
            coalesce(sum(w.settled), 0)::bigint as "settled!",
            to_timestamp(avg(extract(epoch from w.heartbeat_at)) filter (where w.is_alive and w.status <> 'stopped'))
                as settled_at
        from pgqrs.queues q
        left join lateral (
            select c.id, c.status, c.settled, c.heartbeat_at,
                c.heartbeat_at >= statement_timestamp() - c.stale_after as is_alive
            from pgqrs.workers c
            where c.queue_id = q.id and c.kind = 'consumer'
        ) w on true
        where w.id is not null or q.paused_until > statement_timestamp()
        group by q.id
        "#,
    )
    .fetch_all(connection)
    .await?;
    let consumers = rows.into_iter().map(|row| {
        Ok(Consumers {
            queue: QueueName::new(row.queue)?,
            running: row.running.unsigned_abs(),
            suspended: row.suspended.unsigned_abs(),
            settled: row.settled.unsigned_abs(),
            settled_at: row.settled_at,
            is_paused: row.is_paused,
        })
    });
    consumers.collect()
}

/// Workers that missed their heartbeats, the last ones first.
pub(crate) async fn stale_workers(connection: &mut PgConnection) -> Result<Vec<StaleWorker>> {
    let rows = sqlx::query!(
        r#"
        select w.id, w.kind, q.name as queue, w.hostname, w.port, w.status, w.started_at, w.heartbeat_at, w.settled,
            (extract(epoch from statement_timestamp() - w.heartbeat_at) * 1000000)::bigint as "silence!",
            exists (
                select from pgqrs.workers other
                where other.queue_id = w.queue_id and other.kind = w.kind and other.status <> 'stopped'
                    and other.heartbeat_at >= statement_timestamp() - other.stale_after
            ) as "others_run!"
        from pgqrs.workers w
        join pgqrs.queues q on q.id = w.queue_id
        where w.status <> 'stopped' and w.heartbeat_at < statement_timestamp() - w.stale_after
        order by w.heartbeat_at desc, w.id
        limit 100
        "#,
    )
    .fetch_all(connection)
    .await?;
    let stale = rows.into_iter().map(|row| {
        Ok::<_, Error>(StaleWorker {
            worker: WorkerInfo {
                id: WorkerId::from(row.id),
                kind: WorkerKind::parse(&row.kind),
                queue: QueueName::new(row.queue)?,
                hostname: row.hostname,
                port: u16::try_from(row.port).unwrap_or(0),
                status: WorkerStatus::parse(&row.status),
                started_at: row.started_at,
                heartbeat_at: row.heartbeat_at,
                settled: row.settled.unsigned_abs(),
                stale: true,
            },
            last_heartbeat: elapsed(row.silence),
            others_run: row.others_run,
        })
    });
    stale.collect()
}
