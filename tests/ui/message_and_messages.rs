fn main() {
    let _ = pgqrs::enqueue().message(&1).messages(&[2, 3]).to("tasks");
}
