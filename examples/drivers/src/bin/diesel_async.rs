//! An order and its message in one transaction of diesel-async; then a handler's work and its acknowledgement.
//!
//! `DATABASE_URL=postgresql://… cargo run --bin diesel_async`

use std::{env, error::Error};

use diesel::{
    QueryableByName, sql_query,
    sql_types::{Array, BigInt, Integer, Nullable, SmallInt, Text, Timestamptz},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use pgqrs::{AckStatement, ConnectOptions, Enqueued, Statement};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let options = ConnectOptions::builder().url(&url).install(true).build();
    let store = pgqrs::connect_with(options).await?;
    store.queue("drivers").await?;

    let mut connection = AsyncPgConnection::establish(&url).await?;
    connection
        .batch_execute("create temporary table orders (id int, sent bigint default 0)")
        .await?;

    let statement = pgqrs::enqueue()
        .messages(&["receipt of 7", "invoice of 7"])
        .to("drivers")
        .statement()?;
    let ids = order(&mut connection, 7, &statement).await?;
    println!("committed {} messages with their order", ids.len());

    let statement = pgqrs::enqueue().message(&8).to("nowhere").statement()?;
    if let Err(error) = order(&mut connection, 8, &statement).await {
        println!("refused: {error}");
    }

    let deliveries = pgqrs::dequeue()
        .from("drivers")
        .limit(10)
        .execute(&store)
        .await?;
    for delivery in deliveries {
        println!("delivered: {}", delivery.payload()?);
        work(&mut connection, delivery.ack_statement()).await?;
    }
    let sent: Row = sql_query("select sent as id from orders")
        .get_result(&mut connection)
        .await?;
    println!("sent: {}", sent.id);
    Ok(())
}

async fn order(
    connection: &mut AsyncPgConnection,
    id: i32,
    statement: &Statement,
) -> Result<Enqueued, Failed> {
    connection
        .transaction(async |tx| {
            sql_query(format!("insert into orders (id) values ({id})"))
                .execute(tx)
                .await?;
            let rows: Vec<Row> = sql_query(statement.sql())
                .bind::<Text, _>(statement.queue().as_str())
                .bind::<SmallInt, _>(statement.priority())
                .bind::<Nullable<Timestamptz>, _>(statement.not_before())
                .bind::<BigInt, _>(statement.delay())
                .bind::<Nullable<BigInt>, _>(statement.producer().map(i64::from))
                .bind::<Array<Text>, _>(statement.payloads())
                .bind::<Array<Nullable<Text>>, _>(statement.headers())
                .load(tx)
                .await?;
            // An error rolls the order back as well.
            Ok(statement.check(rows.iter().map(|row| row.id))?)
        })
        .await
}

async fn work<T: Send, D: Send>(
    connection: &mut AsyncPgConnection,
    statement: AckStatement<T, D>,
) -> Result<(), Failed> {
    connection
        .transaction(async move |tx| {
            sql_query("update orders set sent = sent + 1")
                .execute(tx)
                .await?;
            let rows: Vec<Row> = sql_query(statement.sql())
                .bind::<Integer, _>(statement.queue_id())
                .bind::<BigInt, _>(statement.id().get())
                .bind::<BigInt, _>(statement.lease_token())
                .load(tx)
                .await?;
            // An error rolls the work back as well.
            Ok(statement.check(rows.iter().map(|row| row.id))?)
        })
        .await
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// diesel wants an error type of its own to be one of the transaction's.
#[derive(Debug)]
enum Failed {
    Database(diesel::result::Error),
    Queue(pgqrs::Error),
}

impl From<diesel::result::Error> for Failed {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error)
    }
}

impl From<pgqrs::Error> for Failed {
    fn from(error: pgqrs::Error) -> Self {
        Self::Queue(error)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Queue(error) => error.fmt(f),
        }
    }
}

impl Error for Failed {}

// Output:
// committed 2 messages with their order
// refused: queue `nowhere` does not exist; create it with `pgqrs::admin(&store).create_queue("nowhere")`
// delivered: "receipt of 7"
// delivered: "invoice of 7"
// sent: 2
