//! Benchmarks, as ratios: each subject beside its limit, in one run, in turn. `cargo xtask bench` starts a PostgreSQL
//! with fsync on, and runs them against it in a release build.

mod chart;
mod claim;
mod drain;
mod enqueue;
mod figures;
mod growth;
mod latency;
mod lifecycle;
mod meter;
mod once;
mod payload;
mod pgbouncer;
mod report;

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
    // The other process of the latency benchmark is also this program.
    if let ["receive", how] = subjects[..] {
        return latency::receive(&url, how).await;
    }
    if let Some(unknown) = subjects.iter().find(|subject| !SUBJECTS.contains(subject)) {
        return Err(format!("{unknown} is none of {}", SUBJECTS.join(", ")).into());
    }
    let mut meter = Meter::new(&url).await?;
    report::machine(&mut meter, quick).await?.write()?;
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
            "latency" => latency::run(&url, &meter, quick).await?,
            "growth" => growth::run(&url, &meter, quick).await?,
            "pgbouncer" => pgbouncer::run(&url, &meter, quick).await?,
            // The machine was reported already, and the peers are a separate program.
            _ => continue,
        };
        report.write()?;
        let took = started.elapsed().as_secs_f64();
        eprintln!("{subject} took {took:.0} s\n");
    }
    Ok(())
}

/// A store on an installed and empty schema.
async fn fresh(url: &str) -> Outcome<pgqrs::Store> {
    let pool = sqlx::PgPool::connect(url).await?;
    sqlx::raw_sql("drop schema if exists pgqrs cascade")
        .execute(&pool)
        .await?;
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
    sqlx::raw_sql("truncate pgqrs.messages; checkpoint")
        .execute(pool)
        .await?;
    Ok(())
}
