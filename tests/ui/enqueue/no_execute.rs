//! An enqueue without `.execute(..)`
//!
//! Until it is executed, an enqueue is only a description. The compiler warns of one that is dropped;
//! here, warnings are errors.
//!
//! Fails with: unused_must_use
//! rustc's own words: the first line of this warning is the compiler's; the note below it is ours. Its
//! advice to write `let _ =` only silences it.

#![deny(unused_must_use)]

async fn send(store: pgqrs::Store) -> pgqrs::Result<()> {
    // Wrong:
    pgqrs::enqueue().message(&"hello").to("tasks");
    // Right:
    // pgqrs::enqueue().message(&"hello").to("tasks").execute(&store).await?;
    let _ = store;
    Ok(())
}

fn main() {}
