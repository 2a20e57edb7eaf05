fn example(producer: pgqrs::Producer) {
    let _ = producer.enqueue().message(&1).to("emails");
}

fn main() {}
