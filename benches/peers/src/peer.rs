//! What is asked of each library: send one, send a thousand, and handle what comes.

mod apalis;
mod awa;
mod graphile_worker;
mod ours;
mod pgqrs_published;
mod sqlxmq;
mod underway;

use std::{pin::Pin, sync::Arc};

use tokio::{sync::oneshot, task::JoinHandle};

use crate::{Outcome, Payload};

/// Connections of each, and handlers that run at once.
const CONNECTIONS: u32 = 20;
const HANDLERS: usize = 16;
const QUEUE: &str = "bench";

/// Ours first: speeds are printed as multiples of it.
pub(crate) const NAMES: [&str; 7] = [
    OURS,
    PUBLISHED,
    "underway 0.2",
    "apalis-postgres 1.0",
    "sqlxmq 0.6",
    "awa 0.6",
    "graphile_worker 0.14",
];
const OURS: &str = "pgqrs, this one";
const PUBLISHED: &str = "pgqrs 0.15, published";

pub(crate) type Doing<'a, T> = Pin<Box<dyn Future<Output = Outcome<T>> + Send + 'a>>;

/// One library, in a database of its own.
pub(crate) trait Peer: Send + Sync {
    fn name(&self) -> &'static str;

    fn send(&self, payload: Payload) -> Doing<'_, ()>;

    /// By whatever it has that is best for many at once.
    fn send_all(&self, payloads: Vec<Payload>) -> Doing<'_, ()>;

    /// Starts handlers that call [`handled::note`](crate::handled::note).
    fn handle(&self, how: For) -> Doing<'_, Running>;
}

/// What its settings are chosen for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum For {
    Throughput,
    Latency,
}

pub(crate) async fn connect(name: &str, url: &str, install: bool) -> Outcome<Arc<dyn Peer>> {
    Ok(match name {
        OURS => Arc::new(ours::Ours::connect(url, install).await?),
        PUBLISHED => Arc::new(pgqrs_published::Published::connect(url, install).await?),
        "underway 0.2" => Arc::new(underway::Underway::connect(url, install).await?),
        "apalis-postgres 1.0" => Arc::new(apalis::Apalis::connect(url, install).await?),
        "sqlxmq 0.6" => Arc::new(sqlxmq::Sqlxmq::connect(url, install).await?),
        "awa 0.6" => Arc::new(awa::Awa::connect(url, install).await?),
        "graphile_worker 0.14" => Arc::new(graphile_worker::Graphile::connect(url, install).await?),
        _ => return Err(format!("there is no peer {name}").into()),
    })
}

/// Handlers under way.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Outcome>,
}

impl Running {
    /// For what ends some time after it was stopped.
    pub(crate) fn spawn<F>(run: impl FnOnce(oneshot::Receiver<()>) -> F) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(run(stopped));
        Self { stop, ended }
    }

    pub(crate) async fn stop(self) -> Outcome {
        // It may have ended by itself, and then says why.
        let _ = self.stop.send(());
        self.ended.await?
    }
}

async fn pool08(url: &str) -> Outcome<sqlx08::PgPool> {
    let options = sqlx08::postgres::PgPoolOptions::new().max_connections(CONNECTIONS);
    Ok(options.connect(url).await?)
}

async fn pool09(url: &str) -> Outcome<sqlx::PgPool> {
    let options = sqlx::postgres::PgPoolOptions::new().max_connections(CONNECTIONS);
    Ok(options.connect(url).await?)
}
