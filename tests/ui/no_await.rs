#![deny(unused_must_use)]

async fn send(store: pgqrs::Store) {
    pgqrs::enqueue().message(&1).to("tasks").execute(&store);
}

fn main() {}
