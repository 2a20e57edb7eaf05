//! Benchmarks, as ratios: each subject beside its limit, in one run, in turn. `cargo xtask bench` starts a
//! PostgreSQL with fsync on, and runs them against it in a release build.

mod claim;
mod drain;
mod enqueue;
mod figures;
mod latency;

use std::env;

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
    // The other process of the latency benchmark is this program too.
    if let ["receive", how] = subjects[..] {
        return latency::receive(&url, how).await;
    }
    let all = subjects.is_empty();
    let wanted = |subject| all || subjects.contains(&subject);
    if wanted("enqueue") {
        enqueue::run(&url, quick).await?;
    }
    if wanted("claim") {
        claim::run(&url, quick).await?;
    }
    if wanted("drain") {
        drain::run(&url, quick).await?;
    }
    if wanted("latency") {
        latency::run(&url, quick).await?;
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
