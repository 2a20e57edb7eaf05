fn main() {
    let _ = pgqrs::enqueue().message(&1).to("tasks").priority(7);
}
