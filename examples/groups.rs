//! Orders of two customers: those of each customer are handled one at a time, in their order, also if one fails.
//!
//! `DATABASE_URL=… cargo run --example groups`

use std::time::Duration;

use pgqrs::{
    ConnectOptions, Delivery, GroupedQueue, Groups, Outcome, Queue, QueueOptions, RetryPolicy,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    customer: String,
    step: String,
}

const ORDERS: GroupedQueue<Order> =
    Queue::<Order>::new("orders").group_by(|order| order.customer.clone());

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let options = ConnectOptions::builder().url(url).install(true).build();
    let store = pgqrs::connect_with(options).await?;
    store.queue(ORDERS.name()).await?;
    let one_at_a_time = QueueOptions::builder().groups(Groups::default()).build();
    pgqrs::admin(&store)
        .configure_queue(ORDERS, one_at_a_time)
        .await?;

    for (customer, step) in [
        ("ada", "pay"),
        ("ada", "pack"),
        ("ben", "pay"),
        ("ada", "ship"),
    ] {
        let (customer, step) = (customer.to_owned(), step.to_owned());
        let order = Order { customer, step };
        pgqrs::enqueue()
            .message(&order)
            .to(ORDERS)
            .execute(&store)
            .await?;
    }

    let consumer = pgqrs::consumer(ORDERS).create(&store).await?;
    let handle = consumer.handle();
    let running = tokio::spawn(
        consumer
            .run(|delivery: Delivery<Order>| async move {
                let Order { customer, step } = delivery.payload();
                // The first attempt to pack fails: nothing is shipped before the second one.
                if step == "pack" && delivery.attempt() == 1 {
                    println!("{customer}: pack failed");
                    return Outcome::Retry("no boxes".into());
                }
                println!("{customer}: {step}");
                Outcome::Done
            })
            .concurrency(8)
            .retry(RetryPolicy::fixed(Duration::from_millis(50))),
    );
    while pgqrs::admin(&store)
        .queue_stats(ORDERS)
        .await?
        .total()
        .value
        > 0
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    handle.stop();
    running.await??;
    Ok(())
}

// Output, in any order:
// ada: pay
// ada: pack failed
// ada: pack
// ada: ship
// ben: pay
