//! A typed queue whose name comes from configuration
//!
//! `Queue::new` is for constants, whose names the compiler checks. A name that is known at run time can be wrong then.
//!
//! Fails with: E0597
//! rustc's own words: lifetimes are the compiler's own; it says that the name would have to be `'static`.

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
