//! A consumer that handles half of what there is, and then hangs with all of its handlers busy, to be killed; or dies
//! by itself, of a message that says `deadly`. Its argument is the queue; `tasks` without it.

use std::{
    env,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use pgqrs::{Delivery, Outcome};
use serde_json::Value;

static BEGUN: AtomicUsize = AtomicUsize::new(0);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = pgqrs::connect(&env::var("DATABASE_URL")?).await?;
    let queue = env::args().nth(1).unwrap_or_else(|| "tasks".to_owned());
    let consumer = pgqrs::consumer(queue).create(&store).await?;
    let run = consumer.run(async |delivery: Delivery<Value>| {
        if delivery.raw_payload() == r#""deadly""# {
            println!("dies {}", delivery.raw_payload());
            std::process::abort();
        }
        if BEGUN.fetch_add(1, Ordering::SeqCst) >= 50 {
            println!("hangs {}", delivery.raw_payload());
            std::future::pending::<()>().await;
        }
        println!("done {}", delivery.raw_payload());
        Outcome::Done
    });
    run.concurrency(8).lease(Duration::from_secs(1)).await?;
    Ok(())
}
