//! A producer that sends one message after another, and says which are stored, to be killed.

use std::env;

use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = pgqrs::connect(&env::var("DATABASE_URL")?).await?;
    let me = env::args().nth(1).unwrap_or_default();
    for n in 0.. {
        let payload = json!({"process": me, "n": n});
        let ids = pgqrs::enqueue()
            .message(&payload)
            .to("tasks")
            .execute(&store)
            .await?;
        println!("sent {} {payload}", ids[0]);
    }
    Ok(())
}
