//! A delay in a variable that isn't a `u64`
//!
//! A literal such as `300` becomes a `u64` by itself. A
//! variable has a type already, so convert it to `u64`.
//!
//! Fails with: E0277

async fn send(store: pgqrs::Store, seconds: i32) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks").delay(seconds).execute(&store).await?;
    // Right:
    // let delay = u64::try_from(seconds).unwrap_or(0);
    // pgqrs::enqueue().message(&"hello").to("tasks").delay(delay).execute(&store).await?;
    Ok(())
}

fn main() {}
