//! The worker: takes payments, and sends e-mails.

use std::{sync::Arc, time::Duration};

use pgqrs::{Delivery, HandlerTransaction, Outcome, Store};

use crate::orders::{EMAILS, Email, Payment};

/// What sends e-mails: another one in a test.
pub trait Mailer: Send + Sync + 'static {
    fn send(&self, email: &Email) -> Result<(), String>;
}

/// Marks the order as paid, and sends the message about its e-mail; both commit with the acknowledgement.
pub async fn pay(
    delivery: Delivery<Payment>,
    mut tx: HandlerTransaction,
) -> Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
    let order = delivery.payload().order;
    // Nothing if it is paid already: a message can be delivered twice.
    let customer: Option<String> = sqlx::query_scalar(
        "update orders set paid_at = now() where id = $1 and paid_at is null returning customer",
    )
    .bind(order)
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(to) = customer {
        let subject = format!("Order {order} is paid");
        pgqrs::enqueue()
            .message(&Email { to, subject })
            .to(EMAILS)
            .execute(&mut tx)
            .await?;
    }
    Ok(Outcome::Done)
}

/// Sends an e-mail; after a few attempts, it gives up.
pub async fn notify(mailer: Arc<dyn Mailer>, delivery: Delivery<Email>) -> Outcome {
    match mailer.send(delivery.payload()) {
        Ok(()) => Outcome::Done,
        Err(error) if delivery.attempt() >= 5 => Outcome::DeadLetter(error),
        Err(error) => Outcome::RetryIn(Duration::from_secs(60), error),
    }
}

/// Handles both queues until `shutdown` is ready.
pub async fn work(
    store: &Store,
    mailer: Arc<dyn Mailer>,
    shutdown: impl Future<Output = ()>,
) -> pgqrs::Result<()> {
    let payments = pgqrs::consumer(crate::orders::PAYMENTS)
        .create(store)
        .await?;
    let emails = pgqrs::consumer(EMAILS).create(store).await?;
    let (stop_payments, stop_emails) = (payments.handle(), emails.handle());
    let pay = payments.run_in_transaction(pay);
    let notify = emails.run_with(mailer, notify);
    let stop = async {
        shutdown.await;
        stop_payments.stop();
        stop_emails.stop();
    };
    let (paid, notified, ()) = tokio::join!(pay, notify, stop);
    paid?;
    notified?;
    Ok(())
}
