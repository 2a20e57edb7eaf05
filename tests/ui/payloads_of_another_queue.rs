use pgqrs::Queue;

#[derive(serde::Serialize)]
struct SendEmail;

#[derive(serde::Serialize)]
struct Invoice;

const EMAILS: Queue<SendEmail> = Queue::new("emails");

fn main() {
    let _ = pgqrs::enqueue().to(EMAILS).messages(&[Invoice, Invoice]);
}
