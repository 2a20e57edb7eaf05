fn main() {
    let _ = pgqrs::enqueue().message(&1).worker(&"my-service:3000");
}
