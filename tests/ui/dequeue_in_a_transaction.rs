async fn receive(mut tx: sqlx::Transaction<'_, sqlx::Postgres>) {
    let _ = pgqrs::dequeue().from("tasks").execute(&mut tx).await;
}

fn main() {}
