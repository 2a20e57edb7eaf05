//! A schedule whose message is of another type than its queue
//!
//! A queue with a type takes messages of that type only.
//!
//! Fails with: E0277

use pgqrs::Queue;

#[derive(serde::Serialize, serde::Deserialize)]
struct Email {
    to: String,
}

const EMAILS: Queue<Email> = Queue::new("emails");

async fn install(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    let daily = pgqrs::cron!("@daily");
    pgqrs::schedule("mail", EMAILS).cron(daily).message(&42).install(&store).await?;
    // Right:
    // let daily = pgqrs::cron!("@daily");
    // let email = Email { to: "ada@example.com".into() };
    // pgqrs::schedule("mail", EMAILS).cron(daily).message(&email).install(&store).await?;
    Ok(())
}

fn main() {}
