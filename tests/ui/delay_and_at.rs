fn example(tomorrow: chrono::DateTime<chrono::Utc>) {
    let _ = pgqrs::enqueue().message(&1).to("tasks").delay(300).at(tomorrow);
}

fn main() {}
