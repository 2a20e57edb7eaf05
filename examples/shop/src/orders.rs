//! Orders, and the messages about them. What writes takes the caller's transaction: so a test can roll it back.

use pgqrs::{Queue, Transaction};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    pub order: i64,
    pub cents: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    pub to: String,
    pub subject: String,
}

pub const PAYMENTS: Queue<Payment> = Queue::new("payments");
pub const EMAILS: Queue<Email> = Queue::new("emails");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewOrder {
    pub customer: String,
    pub cents: i64,
}

/// Stores an order, and sends the message about its payment: both, or neither.
pub async fn place(
    tx: &mut Transaction,
    new: &NewOrder,
) -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
    let order: i64 =
        sqlx::query_scalar("insert into orders (customer, cents) values ($1, $2) returning id")
            .bind(&new.customer)
            .bind(new.cents)
            .fetch_one(&mut ***tx)
            .await?;
    let cents = new.cents;
    pgqrs::enqueue()
        .message(&Payment { order, cents })
        .to(PAYMENTS)
        .execute(tx)
        .await?;
    Ok(order)
}
