//! The web service: `POST /orders`.

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use pgqrs::Store;

use crate::orders::{self, NewOrder};

pub fn routes(store: Store) -> Router {
    Router::new()
        .route("/orders", post(place))
        .with_state(store)
}

async fn place(
    State(store): State<Store>,
    Json(new): Json<NewOrder>,
) -> Result<(StatusCode, Json<i64>), StatusCode> {
    let unavailable = |_| StatusCode::SERVICE_UNAVAILABLE;
    let mut tx = store.begin().await.map_err(unavailable)?;
    let order = orders::place(&mut tx, &new)
        .await
        .map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
    // From here on the order is there, and a consumer is woken for its payment.
    tx.commit().await.map_err(unavailable)?;
    Ok((StatusCode::CREATED, Json(order)))
}
