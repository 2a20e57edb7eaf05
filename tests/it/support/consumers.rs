//! Consumers that run beside a test, and what their handlers have seen.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use pgqrs::{
    Consumer, ConsumerBuilder, ConsumerHandle, Delivery, IntoOutcome, Outcome, Report, RetryPolicy,
};
use serde_json::Value;
use sqlx::PgPool;
use tokio::{sync::Semaphore, task::JoinHandle};

use super::{count, until};

/// Of the queue `tasks`. What failed is ready again at once: tests don't wait for what they don't test.
pub(crate) fn consumer() -> ConsumerBuilder {
    pgqrs::consumer("my-service", 3001, "tasks")
        .retry(RetryPolicy::fixed(Duration::ZERO))
        .poll_interval(Duration::from_millis(20))
}

/// A consumer that runs beside the test.
pub(crate) struct Running {
    pub(crate) handle: ConsumerHandle,
    pub(crate) task: JoinHandle<pgqrs::Result<Report>>,
}

pub(crate) fn start<F, R>(consumer: Consumer, handler: F) -> Running
where
    F: Fn(Delivery<Value>) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    let handle = consumer.handle();
    let task = tokio::spawn(consumer.run(handler).into_future());
    Running { handle, task }
}

impl Running {
    pub(crate) async fn stop(self) -> Result<Report, Box<dyn std::error::Error>> {
        self.handle.stop();
        Ok(self.task.await??)
    }
}

pub(crate) async fn drained(pool: &PgPool) {
    until("the queue is empty", async || {
        count(pool).await.expect("counted") == 0
    })
    .await;
}

/// How often each payload came to a handler.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<BTreeMap<String, u32>>>);

impl Seen {
    pub(crate) fn note(&self, payload: impl Into<String>) {
        let mut seen = self.0.lock().expect("not poisoned");
        *seen.entry(payload.into()).or_default() += 1;
    }

    /// A handler that does nothing else.
    pub(crate) fn handler(
        &self,
    ) -> impl Fn(Delivery<Value>) -> std::future::Ready<Outcome> + Send + Sync + 'static + use<>
    {
        let seen = self.clone();
        move |delivery| {
            seen.note(delivery.raw_payload());
            std::future::ready(Outcome::Done)
        }
    }

    /// How many different ones.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().expect("not poisoned").len()
    }

    pub(crate) fn times(&self) -> BTreeMap<String, u32> {
        self.0.lock().expect("not poisoned").clone()
    }
}

/// A gate that handlers wait at; each permit lets one through.
pub(crate) fn gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

pub(crate) async fn pass(gate: &Semaphore) {
    gate.acquire().await.expect("never closed").forget();
}
