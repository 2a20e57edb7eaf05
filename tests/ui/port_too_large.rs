fn main() {
    let _ = pgqrs::producer("my-service", 70000, "tasks");
}
