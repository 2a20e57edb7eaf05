//! `shutdown_signal()`: the signals by which a service is asked to stop.

use std::{future::pending, io};

use crate::telemetry;

/// Completes when the process is asked to stop: by Ctrl-C, or on Unix by SIGTERM, as Kubernetes, systemd and Docker
/// send it.
///
/// From the first call on, these signals no longer end the process by themselves. Each call's future completes on the
/// same signal, so one process can stop several consumers by it.
///
/// # Errors
/// None. If the operating system refuses to deliver a signal, an event at `warn` reports it, and the other one still
/// counts.
///
/// # Example
/// ```no_run
/// # async fn handle(_: pgqrs::Delivery<serde_json::Value>) -> pgqrs::Result<()> { Ok(()) }
/// # async fn example(consumer: pgqrs::Consumer) -> pgqrs::Result<()> {
/// let report = consumer.run(handle).with_graceful_shutdown(pgqrs::shutdown_signal()).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Source
/// [`tokio::signal`](https://docs.rs/tokio/latest/tokio/signal/)
pub async fn shutdown_signal() {
    tokio::select! {
        () = received(interrupt()) => {}
        () = received(terminate()) => {}
    }
}

async fn received(signal: impl Future<Output = io::Result<()>>) {
    if let Err(error) = signal.await {
        telemetry::signal_failed(&error);
        pending().await
    }
}

async fn interrupt() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}

#[cfg(unix)]
async fn terminate() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

#[cfg(not(unix))]
async fn terminate() -> io::Result<()> {
    pending().await
}
