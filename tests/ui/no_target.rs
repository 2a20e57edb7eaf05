fn example(store: pgqrs::Store) {
    let _ = pgqrs::enqueue().message(&1).execute(&store);
}

fn main() {}
