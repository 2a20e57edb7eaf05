//! A doctor for the database and the queues: prints what to act on, and exits with 1 if something is critical.
//!
//! `DATABASE_URL=postgresql://… cargo run --example health`

use std::{env, process::ExitCode};

use pgqrs::Severity;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let store = pgqrs::connect(url.as_str()).await?;
    let health = pgqrs::admin(&store).health().await?;
    println!("{health}");
    Ok(match health.severity() {
        Some(Severity::Critical) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}
