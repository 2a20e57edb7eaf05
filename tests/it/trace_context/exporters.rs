//! Exporters of spans that block or panic: messages go on.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use pgqrs::{Delivery, Outcome};
use serde_json::Value;
use sqlx::PgPool;
use tracing_subscriber::{Registry, layer::SubscriberExt};

use crate::support::{
    TestResult,
    consumers::{consumer, drained, start},
    send, until, with_queues,
};

/// Runs a function instead of exporting.
struct Faulty {
    called: Arc<Mutex<usize>>,
    fail: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl SpanExporter for Faulty {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        *self.called.lock().expect("not poisoned") += 1;
        (self.fail)();
        Ok(())
    }
}

/// As applications install it: spans are exported by a thread of their own.
async fn messages_go_on(pool: &PgPool, fail: Box<dyn Fn() + Send + Sync>) -> TestResult {
    const ROUNDS: usize = 100;
    let store = with_queues(pool, &["tasks"]).await?;
    let called = Arc::<Mutex<usize>>::default();
    let exporter = Faulty {
        called: Arc::clone(&called),
        fail,
    };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let guard = tracing::subscriber::set_default(Registry::default().with(layer));
    let running = start(
        consumer().create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    send(&store, &["task"; 1_000]).await?;
    until("it exports", async || {
        *called.lock().expect("not poisoned") > 0
    })
    .await;
    for _ in 0..ROUNDS {
        send(&store, &["task"]).await?;
    }
    drained(pool).await;
    let report = running.stop().await?;
    assert_eq!(report.done, 1_000 + ROUNDS as u64);
    drop(guard);
    // Its thread may never end.
    std::mem::forget(provider);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_exporter_that_blocks_holds_up_no_message(pool: PgPool) -> TestResult {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let block = move || {
        // Until the sender is dropped.
        let _ = released.lock().expect("not poisoned").recv();
    };
    messages_go_on(&pool, Box::new(block)).await?;
    drop(release);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_exporter_that_panics_harms_no_message(pool: PgPool) -> TestResult {
    messages_go_on(&pool, Box::new(|| panic!("on purpose"))).await
}
