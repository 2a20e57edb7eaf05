use pgqrs::{Queue, Store};

struct SendEmail;

const EMAILS: Queue<SendEmail> = Queue::new("emails");

async fn receive(store: Store) {
    let _ = pgqrs::dequeue().from(EMAILS).execute(&store).await;
}

fn main() {}
