//! A shop: its web service takes orders and sends messages about them, and its worker handles those. The order and its
//! messages are stored in one transaction. `tests/` tests each part by itself, and all of it together.

pub mod orders;
pub mod web;
pub mod worker;

use pgqrs::{ConnectOptions, Store};

/// Connects, and creates what the shop needs.
pub async fn connect(url: &str) -> Result<Store, Box<dyn std::error::Error>> {
    let options = ConnectOptions::builder().url(url).install(true).build();
    let store = pgqrs::connect_with(options).await?;
    prepare(&store).await?;
    Ok(store)
}

/// Creates the shop's table and queues.
pub async fn prepare(store: &Store) -> Result<(), Box<dyn std::error::Error>> {
    sqlx::query(
        "create table if not exists orders (
             id bigint generated always as identity primary key,
             customer text not null,
             cents bigint not null check (cents > 0),
             paid_at timestamptz
         )",
    )
    .execute(store.pool())
    .await?;
    store.queue(orders::PAYMENTS).await?;
    store.queue(orders::EMAILS).await?;
    Ok(())
}
