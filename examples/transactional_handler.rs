//! Work and acknowledgement in one commit: a handler that writes to the same database acknowledges the message in its
//! own transaction. So the work is done once, however often the message is delivered.
//!
//! `DATABASE_URL=postgresql://… cargo run --example transactional_handler`

use std::{env, time::Duration};

use pgqrs::{ConnectOptions, Delivery, Queue, RetryPolicy};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

#[derive(Debug, Serialize, Deserialize)]
struct Payment {
    account: i32,
    cents: i64,
}

const PAYMENTS: Queue<Payment> = Queue::new("payments");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let store =
        pgqrs::connect_with(ConnectOptions::builder().url(url).install(true).build()).await?;
    store.queue(PAYMENTS).await?;
    sqlx::raw_sql(
        "drop table if exists accounts; create table accounts (id int primary key, cents bigint)",
    )
    .execute(store.pool())
    .await?;
    sqlx::query("insert into accounts values (1, 0)")
        .execute(store.pool())
        .await?;
    let payments = [100, 20, 3].map(|cents| Payment { account: 1, cents });
    pgqrs::enqueue()
        .messages(&payments)
        .to(PAYMENTS)
        .execute(&store)
        .await?;

    let consumer = pgqrs::consumer(PAYMENTS)
        .identity("my-service", 3001)
        .create(&store)
        .await?;
    let handle = consumer.handle();
    let run = consumer
        .run_with(store.pool().clone(), book)
        .retry(RetryPolicy::fixed(Duration::ZERO));
    let running = tokio::spawn(run);

    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while pgqrs::admin(&store).queue_stats(PAYMENTS).await?.total() != 0 {
        tick.tick().await;
    }
    handle.stop();
    let report = running.await??;
    let cents: i64 = sqlx::query_scalar("select cents from accounts")
        .fetch_one(store.pool())
        .await?;
    println!("done: {}, retried: {}", report.done, report.retried);
    println!("balance: {cents}");
    sqlx::query("drop table accounts")
        .execute(store.pool())
        .await?;
    Ok(())
}

async fn book(
    pool: PgPool,
    delivery: Delivery<Payment>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let first_time = delivery.attempt() == 1;
    let mut tx = pool.begin().await?;
    let payment = delivery.payload();
    sqlx::query("update accounts set cents = cents + $2 where id = $1")
        .bind(payment.account)
        .bind(payment.cents)
        .execute(&mut *tx)
        .await?;
    delivery.ack(&mut tx).await?;
    if first_time {
        // The first attempt fails before the commit.
        return Err("the power fails".into());
    }
    tx.commit().await?;
    Ok(())
}

// Output:
// done: 3, retried: 3
// balance: 123
