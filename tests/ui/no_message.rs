fn example(store: pgqrs::Store) {
    let _ = pgqrs::enqueue().to("tasks").execute(&store);
}

fn main() {}
