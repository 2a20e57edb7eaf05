use pgqrs::Producer;

#[derive(serde::Serialize)]
struct SendEmail;

#[derive(serde::Serialize)]
struct Invoice;

fn example(producer: Producer<SendEmail>) {
    let _ = producer.enqueue().message(&Invoice);
    let _ = pgqrs::enqueue().message(&Invoice).worker(&*producer);
}

fn main() {}
