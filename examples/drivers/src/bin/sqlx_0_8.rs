//! An order and its message in one transaction of another version of sqlx; then a handler's work and its
//! acknowledgement.
//!
//! `DATABASE_URL=postgresql://… cargo run --bin sqlx_0_8`

use std::{env, error::Error};

use pgqrs::{AckStatement, ConnectOptions, Enqueued, Statement};
use sqlx08::{Connection, PgConnection};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let options = ConnectOptions::builder().url(&url).install(true).build();
    let store = pgqrs::connect_with(options).await?;
    store.queue("drivers").await?;

    let mut connection = PgConnection::connect(&url).await?;
    sqlx08::query("create temporary table orders (id int, sent int default 0)")
        .execute(&mut connection)
        .await?;

    let mut tx = connection.begin().await?;
    sqlx08::query("insert into orders values (7)")
        .execute(&mut *tx)
        .await?;
    let statement = pgqrs::enqueue()
        .messages(&["receipt of 7", "invoice of 7"])
        .to("drivers")
        .statement()?;
    let ids = enqueue(&mut tx, &statement).await?;
    tx.commit().await?;
    println!("committed {} messages with their order", ids.len());

    let mut tx = connection.begin().await?;
    let statement = pgqrs::enqueue().message(&8).to("nowhere").statement()?;
    if let Err(error) = enqueue(&mut tx, &statement).await {
        println!("refused: {error}");
    }
    tx.rollback().await?;

    let deliveries = pgqrs::dequeue()
        .from("drivers")
        .limit(10)
        .execute(&store)
        .await?;
    for delivery in deliveries {
        println!("delivered: {}", delivery.payload()?);
        let mut tx = connection.begin().await?;
        sqlx08::query("update orders set sent = sent + 1")
            .execute(&mut *tx)
            .await?;
        // An error rolls the work back.
        acknowledge(&mut tx, delivery.ack_statement()).await?;
        tx.commit().await?;
    }
    let sent: i32 = sqlx08::query_scalar("select sent from orders")
        .fetch_one(&mut connection)
        .await?;
    println!("sent: {sent}");
    Ok(())
}

async fn enqueue(tx: &mut PgConnection, statement: &Statement) -> Result<Enqueued, Box<dyn Error>> {
    let rows: Vec<i64> = sqlx08::query_scalar(statement.sql())
        .bind(statement.queue().as_str())
        .bind(statement.priority())
        .bind(statement.not_before())
        .bind(statement.delay())
        .bind(statement.producer().map(i64::from))
        .bind(statement.payloads())
        .bind(statement.headers())
        .fetch_all(tx)
        .await?;
    Ok(statement.check(rows)?)
}

async fn acknowledge<T, D>(
    tx: &mut PgConnection,
    statement: AckStatement<T, D>,
) -> Result<(), Box<dyn Error>> {
    let rows: Vec<i64> = sqlx08::query_scalar(statement.sql())
        .bind(statement.queue_id())
        .bind(statement.id().get())
        .bind(statement.lease_token())
        .fetch_all(tx)
        .await?;
    Ok(statement.check(rows)?)
}

// Output:
// committed 2 messages with their order
// refused: queue `nowhere` does not exist; create it with `pgqrs::admin(&store).create_queue("nowhere")`
// delivered: "receipt of 7"
// delivered: "invoice of 7"
// sent: 2
