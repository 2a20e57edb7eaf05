//! `shutdown_signal()`: the signals by which a service is asked to stop.

use std::{future::pending, io, sync::LazyLock};

use tokio::sync::watch;

use crate::telemetry;

/// Whether this process was asked to stop. A consumer that starts after the signal must not run for ever.
static REQUESTED: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Completes when the process is asked to stop: by Ctrl-C, or on Unix by SIGTERM, as Kubernetes, systemd and Docker
/// send it.
///
/// Once one of these futures was polled, these signals no longer end the process by themselves. All of them complete on
/// the same signal, also those that are made after it, so one process can stop several consumers by it. To react to a
/// second signal, use `tokio::signal`.
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
    let mut requested = REQUESTED.subscribe();
    tokio::select! {
        () = received(interrupt()) => {}
        () = received(terminate()) => {}
        // The sender is never dropped.
        _ = requested.wait_for(|requested| *requested) => {}
    }
    REQUESTED.send_replace(true);
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
