use pgqrs::{Delivery, Queue, Store};

#[derive(serde::Deserialize)]
struct SendEmail;

#[derive(serde::Deserialize)]
struct Invoice;

const EMAILS: Queue<SendEmail> = Queue::new("emails");

async fn receive(store: Store) -> pgqrs::Result<Vec<Delivery<Invoice>>> {
    pgqrs::dequeue().from(EMAILS).execute(&store).await
}

fn main() {}
