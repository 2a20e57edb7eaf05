use pgqrs::Queue;

const EMAILS: Queue = Queue::new("emails ");

fn main() {
    let _ = pgqrs::enqueue().message(&1).to(EMAILS);
}
