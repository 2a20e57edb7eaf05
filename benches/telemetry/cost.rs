//! What both features cost, with exporters that drop all: sends and drains by a process with them, and by one that was
//! built without them.

use std::{
    env,
    ffi::OsString,
    process::Stdio,
    time::{Duration, Instant},
};

use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{SdkMeterProvider, Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use pgqrs::Store;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use tracing::{Level, Subscriber, field::Empty};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use super::work;
use crate::{
    Outcome, clear, drain,
    figures::Samples,
    meter::Meter,
    report::{Rounds, Table},
};

const WITHOUT: &str = "built without telemetry";
const WITH: &str = "metrics and traces, exporters that drop them";
const SPAN: &str = "a span as a handled message has one";
/// Single sends in each round.
const BLOCK: usize = 50;

/// Exports nothing.
#[derive(Debug)]
struct Drops;

impl SpanExporter for Drops {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

impl PushMetricExporter for Drops {
    async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

/// The process with all of it.
pub(crate) async fn observed() -> Outcome {
    metrics::set_global_recorder(metrics::NoopRecorder)?;
    let provider = SdkMeterProvider::builder().with_periodic_exporter(Drops);
    global::set_meter_provider(provider.build());
    let traces = SdkTracerProvider::builder()
        .with_batch_exporter(Drops)
        .build();
    subscriber(&traces).init();
    work::serve().await
}

fn subscriber(traces: &SdkTracerProvider) -> impl Subscriber + Send + Sync + use<> {
    let spans = tracing_opentelemetry::layer().with_tracer(traces.tracer("bench"));
    let only = Targets::new().with_target("pgqrs", Level::INFO);
    tracing_subscriber::registry().with(spans.with_filter(only))
}

/// The limit of what a drain with traces can reach: such spans alone, without a queue.
fn spans(meter: &Meter, quick: bool) -> Table {
    const SPANS: usize = 20_000;
    let traces = SdkTracerProvider::builder()
        .with_batch_exporter(Drops)
        .build();
    let title =
        format!("{SPANS} spans alone, of tracing-opentelemetry with an exporter that drops them");
    let mut table = Rounds::new(meter, title, if quick { 6 } else { 30 });
    tracing::subscriber::with_default(subscriber(&traces), || {
        while table.next() {
            let started = Instant::now();
            for id in 0..SPANS {
                let span = tracing::info_span!(
                    target: "pgqrs",
                    "process",
                    otel.name = %format_args!("process {}", "drain"),
                    otel.kind = "consumer",
                    otel.status_code = Empty,
                    messaging.system = "postgresql",
                    messaging.operation.name = "process",
                    "messaging.operation.type" = "process",
                    messaging.destination.name = "drain",
                    messaging.message.id = %id,
                    messaging.batch.message_count = Empty,
                    pgqrs.message.attempt = 1_u32,
                    pgqrs.worker.id = 1_i64,
                    "error.type" = Empty,
                );
                // As a handler that is ready at its first poll.
                drop(span.enter());
            }
            table.add(SPAN, SPANS, started.elapsed(), Samples::default(), None);
        }
    });
    table.finish()
}

/// A process that does what it is asked to.
struct Worker {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    async fn start(url: &str, program: OsString, arguments: &[&str]) -> Outcome<Self> {
        let mut process = Command::new(program)
            .args(arguments)
            .env("DATABASE_URL", url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("no input")?;
        let output = process.stdout.take().ok_or("no output")?;
        let mut worker = Self {
            _process: process,
            input,
            output: BufReader::new(output).lines(),
        };
        worker.line().await?;
        Ok(worker)
    }

    async fn line(&mut self) -> Outcome<String> {
        let line = timeout(Duration::from_secs(120), self.output.next_line()).await??;
        Ok(line.ok_or("the process ended")?)
    }

    async fn took(&mut self, work: &str, messages: usize) -> Outcome<Duration> {
        let request = format!("{work} {messages}\n");
        self.input.write_all(request.as_bytes()).await?;
        Ok(Duration::from_nanos(self.line().await?.parse()?))
    }
}

pub(super) async fn run(
    url: &str,
    meter: &Meter,
    store: &Store,
    quick: bool,
) -> Outcome<Vec<Table>> {
    let plain = env::var_os("PGQRS_BENCH_PLAIN").ok_or("run it as `cargo xtask bench`")?;
    let own = env::current_exe()?.into_os_string();
    let mut workers = [
        (WITHOUT, Worker::start(url, plain, &[]).await?),
        (WITH, Worker::start(url, own, &["observed"]).await?),
    ];
    store.queue("drain").await?;
    let rounds = if quick { 6 } else { 120 };
    let title = format!("one message of 200 bytes after another, {BLOCK} a round");
    let mut sends = Rounds::new(meter, title, rounds);
    while sends.next() {
        for (row, worker) in &mut workers {
            let took = worker.took("send", BLOCK).await?;
            sends.add(row, BLOCK, took, Samples::default(), None);
        }
    }
    sends.at_least(
        0.95,
        WITH,
        WITHOUT,
        "one send, with telemetry, to one without",
    );
    clear(store.pool()).await?;

    let (messages, rounds) = if quick { (5_000, 3) } else { (20_000, 15) };
    let title = format!("draining {messages} messages, handler that does nothing");
    let mut drains = Rounds::new(meter, title, rounds);
    while drains.next() {
        for (row, worker) in &mut workers {
            drain::fill(store, messages).await?;
            let took = worker.took("drain", messages).await?;
            drains.add(row, messages, took, Samples::default(), None);
        }
    }
    drains.at_least(0.95, WITH, WITHOUT, "draining, with telemetry, to without");
    clear(store.pool()).await?;
    Ok(vec![sends.finish(), drains.finish(), spans(meter, quick)])
}
