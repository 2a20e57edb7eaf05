fn example(consumer: pgqrs::Consumer) {
    let _ = pgqrs::enqueue().message(&1).worker(&consumer);
}

fn main() {}
