struct SendEmail;

fn main() {
    let _ = pgqrs::enqueue().message(&SendEmail).to("emails");
}
