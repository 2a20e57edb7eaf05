fn example(store: pgqrs::Store) {
    let _ = pgqrs::dequeue().limit(10).execute(&store);
}

fn main() {}
