fn main() {
    let _ = pgqrs::dequeue().from("tasks").from("emails");
}
