//! A payload that borrows
//!
//! A payload is kept longer than the row that it was read from, so it must own its data.
//!
//! Fails with: no code
//! rustc's own words: the message names the type that has a lifetime.

use pgqrs::{Delivery, Outcome, Queue};

#[derive(serde::Serialize, serde::Deserialize)]
// Wrong:
struct SendEmail<'a> {
    to: &'a str,
}

type Email = SendEmail<'static>;
// Right:
// struct SendEmail {
//     to: String,
// }
//
// type Email = SendEmail;

const EMAILS: Queue<Email> = Queue::new("emails");

async fn work(store: pgqrs::Store) -> pgqrs::Result<()> {
    let consumer = pgqrs::consumer(EMAILS).create(&store).await?;
    consumer.run(async |_: Delivery<Email>| Outcome::Done).await?;
    Ok(())
}

fn main() {}
