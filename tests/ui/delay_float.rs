fn main() {
    let _ = pgqrs::enqueue().message(&1).to("tasks").delay(0.25);
}
