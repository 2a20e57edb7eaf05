fn main() {
    let _ = pgqrs::enqueue().message(&1).message(&2).to("tasks");
}
