//! A worker as an operator sees it: its log on stderr, its traces on stdout, and its metrics as a page for Prometheus.
//!
//! `DATABASE_URL=postgresql://… cargo run --example observed_worker`, and then `curl http://127.0.0.1:9187/metrics`.
//! It runs until Ctrl-C or SIGTERM. The alerts and the dashboard in docs/guide/operating.md are for this page.

use std::{env, error::Error, io, net::SocketAddr, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use pgqrs::{ConnectOptions, Delivery, Outcome, Queue, QueueOptions, RetryPolicy};
use serde::{Deserialize, Serialize};
use tracing::Level;
use tracing_subscriber::{
    Layer,
    filter::{Targets, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

#[derive(Debug, Serialize, Deserialize)]
struct SendEmail {
    to: String,
}

const EMAILS: Queue<SendEmail> = Queue::new("emails");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Before the store is made.
    metrics()?;
    let traces = traces_and_log();

    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "postgresql://localhost/mydb".into());
    let store =
        pgqrs::connect_with(ConnectOptions::builder().url(url).install(true).build()).await?;
    store.queue(EMAILS).await?;
    let options = QueueOptions::builder().max_attempts(2).build();
    pgqrs::admin(&store)
        .configure_queue(EMAILS, options)
        .await?;
    let emails = ["ada", "bob", "eve"].map(|to| SendEmail { to: to.into() });
    pgqrs::enqueue()
        .messages(&emails)
        .to(EMAILS)
        .execute(&store)
        .await?;

    // In one process, or a few: each costs a statement at each interval. The gauges exist until it is dropped.
    let observer = store.observe(Duration::from_secs(15)).await?;
    let consumer = pgqrs::consumer(EMAILS).create(&store).await?;
    consumer
        .run(send)
        .retry(RetryPolicy::fixed(Duration::from_secs(1)))
        .with_graceful_shutdown(pgqrs::shutdown_signal())
        .await?;
    drop(observer);
    // What has not been exported yet.
    traces.shutdown()?;
    Ok(())
}

async fn send(delivery: Delivery<SendEmail>) -> Result<Outcome, &'static str> {
    match delivery.payload().to.as_str() {
        "bob" => Err("the mail server is away"),
        "eve" => Ok(Outcome::DeadLetter("has no address".into())),
        _ => Ok(Outcome::Done),
    }
}

/// Serves the page. Prometheus needs to know the buckets of histograms; without them, they are summaries, for which the
/// alerts and the dashboard don't work.
fn metrics() -> Result<(), Box<dyn Error>> {
    let address = env::var("METRICS_ADDRESS").unwrap_or_else(|_| "127.0.0.1:9187".into());
    let address: SocketAddr = address.parse()?;
    let seconds = [
        0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0,
    ];
    let messages = [
        1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0,
    ];
    PrometheusBuilder::new()
        .with_http_listener(address)
        .set_buckets_for_metric(Matcher::Suffix("duration".into()), &seconds)?
        .set_buckets_for_metric(Matcher::Suffix("messages".into()), &messages)?
        .install()?;
    Ok(())
}

/// Both run in the background as far as they write to a slow place: a subscriber that blocks, blocks handlers.
fn traces_and_log() -> SdkTracerProvider {
    // In production, another exporter, such as that of the crate `opentelemetry-otlp`.
    let exporter = opentelemetry_stdout::SpanExporter::default();
    let traces = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .build();
    let only = || {
        Targets::new()
            .with_default(Level::WARN)
            .with_target("pgqrs", Level::INFO)
    };
    let spans = tracing_opentelemetry::layer().with_tracer(traces.tracer("observed_worker"));
    let log = fmt::layer().with_writer(io::stderr).with_ansi(false);
    // Events have all that an operator needs, so spans would only make its lines long.
    let events = filter_fn(|metadata| metadata.is_event() || metadata.target() != "pgqrs");
    tracing_subscriber::registry()
        .with(log.with_filter(only()).with_filter(events))
        .with(spans.with_filter(only()))
        .init();
    traces
}
