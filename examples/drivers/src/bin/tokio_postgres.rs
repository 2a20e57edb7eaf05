//! An order and its message in one transaction of tokio-postgres; then a handler's work and its acknowledgement.
//!
//! `DATABASE_URL=postgresql://… cargo run --bin tokio_postgres`

use std::{env, error::Error};

use pgqrs::{AckStatement, ConnectOptions, Enqueued, Statement};
use tokio_postgres::{NoTls, Transaction};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let options = ConnectOptions::builder().url(&url).install(true).build();
    let store = pgqrs::connect_with(options).await?;
    store.queue("drivers").await?;

    let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    client
        .batch_execute("create temporary table orders (id int, sent int default 0)")
        .await?;

    let tx = client.transaction().await?;
    tx.execute("insert into orders values (7)", &[]).await?;
    let statement = pgqrs::enqueue()
        .messages(&["receipt of 7", "invoice of 7"])
        .to("drivers")
        .statement()?;
    let ids = enqueue(&tx, &statement).await?;
    tx.commit().await?;
    println!("committed {} messages with their order", ids.len());

    let tx = client.transaction().await?;
    let statement = pgqrs::enqueue().message(&8).to("nowhere").statement()?;
    if let Err(error) = enqueue(&tx, &statement).await {
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
        let tx = client.transaction().await?;
        tx.execute("update orders set sent = sent + 1", &[]).await?;
        // An error rolls the work back.
        acknowledge(&tx, delivery.ack_statement()).await?;
        tx.commit().await?;
    }
    let sent: i32 = client.query_one("select sent from orders", &[]).await?.get(0);
    println!("sent: {sent}");
    Ok(())
}

async fn enqueue(tx: &Transaction<'_>, statement: &Statement) -> Result<Enqueued, Box<dyn Error>> {
    let producer = statement.producer().map(i64::from);
    let rows = tx
        .query(
            statement.sql(),
            &[
                &statement.queue().as_str(),
                &statement.priority(),
                &statement.not_before(),
                &statement.delay(),
                &producer,
                &statement.payloads(),
                &statement.headers(),
            ],
        )
        .await?;
    Ok(statement.check(rows.iter().map(|row| row.get(0)))?)
}

async fn acknowledge<T, D>(
    tx: &Transaction<'_>,
    statement: AckStatement<T, D>,
) -> Result<(), Box<dyn Error>> {
    let rows = tx
        .query(
            statement.sql(),
            &[
                &statement.queue_id(),
                &statement.id().get(),
                &statement.lease_token(),
            ],
        )
        .await?;
    Ok(statement.check(rows.iter().map(|row| row.get(0)))?)
}

// Output:
// committed 2 messages with their order
// refused: queue `nowhere` does not exist; create it with `pgqrs::admin(&store).create_queue("nowhere")`
// delivered: "receipt of 7"
// delivered: "invoice of 7"
// sent: 2
