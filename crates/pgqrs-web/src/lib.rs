//! The operators' page of [pgqrs](https://docs.rs/pgqrs): queues, messages, dead letters, workers, schedules and health,
//! in a router of your own.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = pgqrs::connect("postgres://localhost/app").await?;
//! let app = axum::Router::new().nest("/ops/queues", pgqrs_web::router(&store));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! axum::serve(listener, app).await?;
//! # Ok(())
//! # }
//! ```
//!
//! It is rendered on the server, with one stylesheet and one script that are compiled in, loads nothing from elsewhere,
//! and can be read without JavaScript. It only reads, unless [`Page::actions`] decides otherwise. It has no login: mount it
//! behind your own.
//!
//! Everybody who looks at the same view within two seconds gets the same sample, so that twenty open pages cost the
//! database what one does.

mod actions;
mod api;
mod app;
mod charts;
mod format;
mod layout;
mod metrics;
mod path;
mod respond;
mod sample;
mod settings;
mod views;

pub use actions::Action;
pub use sample::{History, Rates};
pub use settings::{Page, page, router};

/// The examples of the pages, which are compiled with the documentation's.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../docs/guide/page.md")]
    struct Page;
    #[doc = include_str!("../README.md")]
    struct Readme;
}
