#![deny(unused_must_use)]

async fn receive(store: pgqrs::Store) -> pgqrs::Result<()> {
    pgqrs::dequeue().from("tasks").execute(&store).await?.remove(0);
    Ok(())
}

fn main() {}
