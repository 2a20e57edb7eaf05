//! Benchmarks, as ratios: each subject beside its limit, in one run, in turn. `cargo xtask bench` starts a PostgreSQL
//! with fsync on, and runs them against it in a release build.

mod chart;
mod chunks;
mod citus;
mod claim;
mod drain;
mod enqueue;
mod figures;
mod groups;
mod growth;
mod latency;
mod lifecycle;
mod machine;
mod meter;
mod once;
mod payload;
mod pgbouncer;
mod report;
mod schedules;
mod telemetry;
mod unique;

use std::{env, time::Instant};

use crate::{
    meter::Meter,
    report::{Report, SUBJECTS},
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let subjects: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let url = env::var("DATABASE_URL").map_err(|_| "run it as `cargo xtask bench`")?;
    // Other processes of benchmarks are also this program.
    if let ["receive", how] = subjects[..] {
        return latency::receive(&url, how).await;
    }
    if let ["observed"] = subjects[..] {
        return telemetry::observed().await;
    }
    if let Some(unknown) = subjects.iter().find(|subject| !SUBJECTS.contains(subject)) {
        return Err(format!("{unknown} is none of {}", SUBJECTS.join(", ")).into());
    }
    let mut meter = Meter::new(&url).await?;
    let machine = machine::report(&mut meter, quick).await?;
    if let ["citus"] = subjects[..] {
        return citus::report(&url, &meter, machine, quick).await;
    }
    machine.write()?;
    for subject in SUBJECTS {
        if !subjects.is_empty() && !subjects.contains(&subject) {
            continue;
        }
        let started = Instant::now();
        let mut report = Report::new(subject, quick);
        report.tables = match subject {
            "enqueue" => enqueue::run(&url, &meter, quick).await?,
            "once" => once::run(&url, &meter, quick).await?,
            "payload" => payload::run(&url, &meter, quick).await?,
            "claim" => claim::run(&url, &meter, quick).await?,
            "lifecycle" => lifecycle::run(&url, &meter, quick).await?,
            "drain" => drain::run(&url, &meter, quick).await?,
            "chunks" => chunks::run(&url, &meter, quick).await?,
            "unique" => unique::run(&url, &meter, quick).await?,
            "groups" => groups::run(&url, &meter, quick).await?,
            "latency" => latency::run(&url, &meter, quick).await?,
            "growth" => growth::run(&url, &meter, quick).await?,
            "pgbouncer" => pgbouncer::run(&url, &meter, quick).await?,
            "schedules" => schedules::run(&url, &meter, quick).await?,
            "telemetry" => telemetry::run(&url, &meter, quick).await?,
            // The machine was reported already, Citus has a run of its own, and the peers are a separate program.
            _ => continue,
        };
        report.write()?;
        let took = started.elapsed().as_secs_f64();
        eprintln!("{subject} took {took:.0} s\n");
    }
    Ok(())
}

/// What a team would make without a library: the columns of a queue, and an index in the order of delivery. The limits are
/// measured on it, and so none of our decisions makes them slower.
const BARE: &str = "
    drop schema if exists bare cascade;
    create schema bare;
    create table bare.messages (
        queue_id integer not null,
        id bigint generated always as identity,
        priority smallint not null,
        visible_at timestamptz not null default now(),
        enqueued_at timestamptz not null default now(),
        attempt integer not null default 0,
        lease_token bigint,
        producer_id bigint,
        consumer_id bigint,
        headers json,
        last_error text,
        payload json not null,
        primary key (queue_id, id)
    ) with (
        autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
    );
    create index on bare.messages (queue_id, priority, visible_at, id);
    alter table bare.messages alter column payload set compression lz4;";

/// A store on an installed and empty schema, beside an empty bare table.
async fn fresh(url: &str) -> Outcome<pgqrs::Store> {
    let pool = sqlx::PgPool::connect(url).await?;
    sqlx::raw_sql("drop schema if exists pgqrs cascade")
        .execute(&pool)
        .await?;
    sqlx::raw_sql(BARE).execute(&pool).await?;
    pool.close().await;
    let options = pgqrs::ConnectOptions::builder()
        .url(url)
        .max_connections(16)
        .install(true)
        .build();
    Ok(pgqrs::connect_with(options).await?)
}

/// The id of an existing queue.
async fn queue_id(pool: &sqlx::PgPool, queue: &str) -> Outcome<i32> {
    let id = sqlx::query_scalar("select id from pgqrs.queues where name = $1");
    Ok(id.bind(queue).fetch_one(pool).await?)
}

/// Deletes what a round left behind, so that each round starts from the same state.
async fn clear(pool: &sqlx::PgPool) -> Outcome {
    sqlx::raw_sql("truncate pgqrs.messages, bare.messages; checkpoint")
        .execute(pool)
        .await?;
    Ok(())
}
