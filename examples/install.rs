//! Creates or upgrades the schema: for a deployment that does so in a separate step, before the services start. Several
//! processes can run it at the same time.
//!
//! `DATABASE_URL=postgresql://… cargo run --example install`

use std::env;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url =
        env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL to the database to install into")?;
    let store = pgqrs::connect(&url).await?;
    let admin = pgqrs::admin(&store);
    let before = admin.verify().await?;
    admin.install().await?;
    println!("{before:?} -> {:?}", admin.verify().await?);
    Ok(())
}
