//! The database that a command works on.

use std::time::Duration;

use pgqrs::{Admin, ConnectOptions, Store};

use crate::{
    failure::{Failure, Result},
    output::Output,
};

/// Where a command works, and where its results go.
pub(crate) struct Session {
    url: Option<String>,
    pub(crate) output: Output,
}

impl Session {
    pub(crate) fn new(url: Option<String>, output: Output) -> Self {
        Self { url, output }
    }

    pub(crate) fn url(&self) -> Result<&str> {
        self.url.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
            Failure::usage(
                "which database? Set DATABASE_URL, such as to postgresql://user:password@host/database, or pass --database-url",
            )
        })
    }

    pub(crate) async fn store(&self) -> Result<Store> {
        let options = ConnectOptions::builder()
            .url(self.url()?)
            .application_name("pgqrs command")
            .acquire_timeout(Duration::from_secs(10))
            .max_connections(4)
            // What it sends has no trace.
            .trace_context(false)
            .build();
        Ok(pgqrs::connect_with(options).await?)
    }

    pub(crate) async fn admin(&self) -> Result<Admin> {
        Ok(pgqrs::admin(&self.store().await?))
    }
}

/// Where a store is connected to, for questions: ``database `app` on db.example.com:5432``.
pub(crate) fn place(store: &Store) -> String {
    let options = store.pool().connect_options();
    let database = options.get_database().unwrap_or(options.get_username());
    format!(
        "database `{database}` on {}:{}",
        options.get_host(),
        options.get_port()
    )
}
