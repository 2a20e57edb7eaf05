//! `consumer.run(..)`: how a consumer is started and stopped, and what it reports at its end. The loop itself is in
//! `consume/`.

use std::{
    fmt,
    future::{Future, IntoFuture, pending},
    pin::Pin,
    time::Duration,
};

use tokio::time::timeout_at;

use crate::{
    consume::{self, Job, Options},
    consumer::ConsumerHandle,
    delivery::Delivery,
    error::Result,
    executor::Execute,
    handler::IntoOutcome,
    queue::Readable,
    report::Report,
    store::Store,
    telemetry,
    worker::{Worker, sealed::Registered},
};

/// A consumer that runs as soon as this is awaited; made by [`Consumer::run`](crate::Consumer::run).
#[must_use = "a consumer does nothing until this is awaited: add `.await`"]
pub struct Run<C> {
    handle: ConsumerHandle<C>,
    options: Options,
    shutdown: Shutdown,
    deadline: Duration,
    /// Knows the handler, so that awaiting a consumer needs no bounds, and a wrong handler is reported once.
    start: Box<dyn FnOnce(Shutdown, Duration) -> Execute<'static, Result<Report>> + Send>,
}

type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<C: Readable + 'static> Run<C> {
    pub(crate) fn new<F, R, O>(
        handle: ConsumerHandle<C>,
        store: Store,
        options: Options,
        handler: F,
    ) -> Self
    where
        F: Fn(Delivery<C::Payload>) -> R + Send + Sync + 'static,
        R: Future<Output = O> + Send + 'static,
        O: IntoOutcome,
    {
        let (shutdown, deadline) = (Box::pin(pending()), Duration::from_secs(25));
        let started = handle.clone();
        Self {
            handle,
            options,
            shutdown,
            deadline,
            start: Box::new(move |shutdown, deadline| {
                start(started, store, options, handler, shutdown, deadline)
            }),
        }
    }
}

impl<C> Run<C> {
    /// Stops when this future is ready, as [`ConsumerHandle::stop`] does.
    ///
    /// To end at once on a second signal, call [`ConsumerHandle::abort`].
    pub fn with_graceful_shutdown(self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            shutdown: Box::pin(signal),
            ..self
        }
    }

    /// How long the shutdown takes at most, from the signal until this future is ready; defaults to 25 seconds, since
    /// Kubernetes kills a container after 30.
    ///
    /// All of it is within this time, also if the server is away: handlers run on until five seconds before its end (or
    /// until its half, if it is shorter than ten seconds) and are then aborted, and their messages given back; what was
    /// handled is settled, and the worker's identity is freed.
    pub fn shutdown_deadline(self, deadline: Duration) -> Self {
        // Far beyond any use, but well within what an instant can hold.
        let deadline = deadline.min(Duration::from_secs(365 * 24 * 60 * 60));
        Self { deadline, ..self }
    }
}

impl<C> fmt::Debug for Run<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("handle", &self.handle)
            .field("options", &self.options)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl<C> IntoFuture for Run<C> {
    type Output = Result<Report>;
    type IntoFuture = Execute<'static, Result<Report>>;

    fn into_future(self) -> Self::IntoFuture {
        (self.start)(self.shutdown, self.deadline)
    }
}

fn start<C, F, R, O>(
    handle: ConsumerHandle<C>,
    store: Store,
    options: Options,
    handler: F,
    shutdown: Shutdown,
    deadline: Duration,
) -> Execute<'static, Result<Report>>
where
    C: Readable + 'static,
    F: Fn(Delivery<C::Payload>) -> R + Send + Sync + 'static,
    R: Future<Output = O> + Send + 'static,
    O: IntoOutcome,
{
    Execute::new(async move {
        let connections = store.max_connections();
        if options.concurrency >= connections as usize {
            telemetry::more_handlers_than_connections(
                handle.queue(),
                options.concurrency,
                connections,
            );
        }
        let job = Job {
            queue: handle.queue().clone(),
            worker: handle.id(),
            store,
            options,
            handler,
            shutdown,
            stop: handle.stop_requests(),
            deadline,
        };
        let ended = consume::start(job).await;
        let freed = timeout_at(ended.deadline, handle.shutdown()).await;
        let failed = match &freed {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the shutdown deadline was over".to_owned()),
        };
        if let Some(reason) = failed {
            let registration = handle.registration();
            telemetry::deregistration_failed(
                registration.id(),
                &reason,
                registration.crashes_after(),
            );
        }
        ended.outcome
    })
}
