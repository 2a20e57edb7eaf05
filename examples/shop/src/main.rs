//! The shop: its web service and its worker.

use std::sync::Arc;

use shop::{orders::Email, web, worker};

struct Printed;

impl worker::Mailer for Printed {
    fn send(&self, email: &Email) -> Result<(), String> {
        println!("to {}: {}", email.to, email.subject);
        Ok(())
    }
}

/// Web service and worker in one process; they could be two.
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = shop::connect(&std::env::var("DATABASE_URL")?).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    let serve = axum::serve(listener, web::routes(store.clone()));
    tokio::select! {
        served = serve.into_future() => served?,
        worked = worker::work(&store, Arc::new(Printed), pgqrs::shutdown_signal()) => worked?,
    }
    Ok(())
}
