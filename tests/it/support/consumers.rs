//! Consumers that run beside a test, and what their handlers have seen.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    ops::Deref,
    sync::{Arc, Mutex},
    time::Duration,
};

use pgqrs::{
    Chunk, Consumer, ConsumerBuilder, ConsumerHandle, Delivery, HandlerTransaction, IntoOutcome,
    Outcome, Readable, Report, RetryPolicy, Run, Store, UndecodablePolicy,
};
use serde_json::Value;
use sqlx::PgPool;
use tokio::{sync::Semaphore, task::JoinHandle};

use super::{count, until};

/// Of the queue `tasks`. What failed is ready again at once: tests don't wait for what they don't test.
pub(crate) fn consumer() -> Prepared<ConsumerBuilder> {
    prepare(pgqrs::consumer("tasks").identity("my-service", 3001))
        .retry(RetryPolicy::fixed(Duration::ZERO))
        .poll_interval(Duration::from_millis(20))
}

/// A consumer before or after its registration, and how it is to run.
pub(crate) struct Prepared<T> {
    consumer: T,
    settings: Settings,
}

pub(crate) fn prepare<C>(consumer: ConsumerBuilder<C>) -> Prepared<ConsumerBuilder<C>> {
    Prepared {
        consumer,
        settings: Settings::default(),
    }
}

macro_rules! settings {
    ($($setting:ident: $value:ty,)+) => {
        /// Options of a run.
        #[derive(Debug, Clone, Copy, Default)]
        pub(crate) struct Settings {
            $($setting: Option<$value>,)+
        }

        impl Settings {
            pub(crate) fn apply<I: 'static>(self, mut run: Run<I>) -> Run<I> {
                $(if let Some(value) = self.$setting {
                    run = run.$setting(value);
                })+
                run
            }
        }

        impl<T> Prepared<T> {$(
            pub(crate) fn $setting(mut self, value: $value) -> Self {
                self.settings.$setting = Some(value);
                self
            }
        )+}
    };
}

settings! {
    concurrency: usize,
    cancel_grace: Duration,
    handler_timeout: Duration,
    lease: Duration,
    listen: bool,
    poll_interval: Duration,
    prefetch: usize,
    prefetch_bytes: usize,
    retry: RetryPolicy,
    undecodable: UndecodablePolicy,
}

impl<C: 'static> Prepared<ConsumerBuilder<C>> {
    pub(crate) fn heartbeat_interval(self, interval: Duration) -> Self {
        Self {
            consumer: self.consumer.heartbeat_interval(interval),
            ..self
        }
    }

    pub(crate) async fn create(self, store: &Store) -> pgqrs::Result<Prepared<Consumer<C>>> {
        Ok(Prepared {
            consumer: self.consumer.create(store).await?,
            settings: self.settings,
        })
    }
}

impl<C: Readable + 'static> Prepared<Consumer<C>> {
    pub(crate) fn run<F, R>(self, handler: F) -> Run<Delivery<C::Payload>>
    where
        F: Fn(Delivery<C::Payload>) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        self.settings.apply(self.consumer.run(handler))
    }

    pub(crate) fn run_chunks<F, R>(
        self,
        size: usize,
        wait: Duration,
        handler: F,
    ) -> Run<Chunk<C::Payload>>
    where
        F: Fn(Chunk<C::Payload>) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        (self.settings).apply(self.consumer.run_chunks(size, wait, handler))
    }

    pub(crate) fn run_in_transaction<F, R>(self, handler: F) -> Run<Delivery<C::Payload>>
    where
        F: Fn(Delivery<C::Payload>, HandlerTransaction) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        (self.settings).apply(self.consumer.run_in_transaction(handler))
    }
}

impl<T: fmt::Debug> fmt::Debug for Prepared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.consumer.fmt(f)
    }
}

impl<C> Deref for Prepared<Consumer<C>> {
    type Target = Consumer<C>;

    fn deref(&self) -> &Consumer<C> {
        &self.consumer
    }
}

impl From<Consumer> for Prepared<Consumer> {
    fn from(consumer: Consumer) -> Self {
        Self {
            consumer,
            settings: Settings::default(),
        }
    }
}

/// A consumer that runs beside the test.
pub(crate) struct Running {
    pub(crate) handle: ConsumerHandle,
    pub(crate) task: JoinHandle<pgqrs::Result<Report>>,
}

pub(crate) fn start<F, R>(consumer: impl Into<Prepared<Consumer>>, handler: F) -> Running
where
    F: Fn(Delivery<Value>) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    let consumer = consumer.into();
    let handle = consumer.handle();
    let task = tokio::spawn(consumer.run(handler));
    Running { handle, task }
}

/// Spawns a run of another kind.
pub(crate) fn handle_and_spawn<I: Send + 'static>(
    consumer: Prepared<Consumer>,
    run: impl FnOnce(Prepared<Consumer>) -> Run<I>,
) -> Running {
    let handle = consumer.handle();
    let task = tokio::spawn(run(consumer));
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
