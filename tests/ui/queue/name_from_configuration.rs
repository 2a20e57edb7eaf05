//! A typed queue whose name comes from configuration
//!
//! `Queue::new` is for constants, whose names the compiler checks. `Queue::named` checks a name at run time.
//!
//! Fails with: E0597
//! rustc's own words: the message says that the name would have to be `'static`.

use pgqrs::Queue;

async fn send(store: pgqrs::Store, name: String) -> Result<(), Box<dyn std::error::Error>> {
    // Wrong:
    let numbers = Queue::<u32>::new(&name);
    // Right:
    // let numbers = Queue::<u32>::named(name)?;
    pgqrs::enqueue().message(&1).to(&numbers).execute(&store).await?;
    Ok(())
}

fn main() {}
