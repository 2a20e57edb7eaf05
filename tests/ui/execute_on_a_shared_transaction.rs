fn example(tx: sqlx::Transaction<sqlx::Postgres>) {
    let _ = pgqrs::enqueue().message(&1).to("tasks").execute(&tx);
}

fn main() {}
