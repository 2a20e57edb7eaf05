//! Serves the page of the database `DATABASE_URL` at http://127.0.0.1:3000/ops/queues, for this machine alone.

use axum::Router;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = pgqrs::connect(&std::env::var("DATABASE_URL")?).await?;
    pgqrs::admin(&store).install().await?;
    let app = Router::new().nest("/ops/queues", pgqrs_web::router(&store));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{}/ops/queues", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
