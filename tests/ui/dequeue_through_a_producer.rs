fn example(producer: pgqrs::Producer) {
    let _ = pgqrs::dequeue().worker(&producer);
}

fn main() {}
