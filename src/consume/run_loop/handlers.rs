//! The tasks of a run loop in which handlers run.

use std::{future::Future, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use super::{MIN_BACKOFF, RunLoop};
use crate::{
    delivery::{Delivery, lease::Lease},
    handler::{IntoOutcome, Verdict, handle},
    telemetry::{self, Timer},
    trace_context,
};

impl<F> RunLoop<F> {
    pub(super) fn start_handlers<P, R>(&mut self)
    where
        P: Send + Sync + DeserializeOwned + 'static,
        F: Fn(Delivery<P>) -> R + Send + Sync + 'static,
        R: Future<Output: IntoOutcome> + Send + 'static,
    {
        let ready = self.in_flight.ready();
        let idle = self.options.concurrency.saturating_sub(self.handlers.len());
        for _ in 0..ready.min(idle) {
            let in_flight = Arc::clone(&self.in_flight);
            let (handler, turns) = (Arc::clone(&self.handler), Arc::clone(&self.turns));
            let store = self.store.clone();
            let (retry, limit) = (self.own.retry, self.own.handler_timeout);
            let cancel_grace = self.own.cancel_grace;
            let ambient = self.ambient.clone();
            self.handlers.spawn(async move {
                while let Some(mut taken) = in_flight.take() {
                    let Some((message, lease)) = taken.message() else {
                        return;
                    };
                    let attempt = message.attempt.unsigned_abs();
                    let (waited, timer) = (message.waited(), Timer::start());
                    let span = telemetry::process(taken.subject());
                    trace_context::follow(&span, &message, &ambient);
                    let retry = message.origin.settings.retry(retry);
                    let cancelled = cancelled(Arc::clone(&lease), cancel_grace);
                    let deliver = || {
                        let decode = |json: &str| serde_json::from_str(json);
                        Delivery::new(message, lease, decode, store.clone(), retry)
                    };
                    let handling =
                        handle(&*handler, deliver, limit, cancelled).instrument(span.clone());
                    let verdict = turns.run(handling).await;
                    let failed = verdict.error_type();
                    if let Some(kind) = failed {
                        telemetry::failed_with(&span, kind);
                    }
                    telemetry::processed(taken.subject(), waited, timer, failed);
                    let retry_in = verdict.retry_in(&retry, attempt);
                    // What it returns after that has no effect.
                    if !taken.is_cancelled() || matches!(verdict, Verdict::Cancelled) {
                        span.in_scope(|| verdict.report(taken.subject(), retry_in));
                    }
                    taken.finish(verdict, retry_in);
                }
            });
        }
    }

    pub(super) fn abort_late_handlers(&mut self) {
        if let Some(ending) = &mut self.ending
            && !ending.is_aborted
            && ending.abort_at <= Instant::now()
        {
            ending.is_aborted = true;
            let running = self.in_flight.running();
            if running > 0 {
                telemetry::handlers_aborted(self.worker, &self.queue, running);
            }
            self.handlers.abort_all();
        }
    }
}

/// Ready when a handler is to be dropped: some time after its message was cancelled.
async fn cancelled(lease: Arc<Lease>, grace: Duration) {
    lease.cancelled().await;
    sleep(grace).await;
    // It is settling the message by itself, and about to see that it is gone.
    while lease.may_be_settled() {
        sleep(grace.max(MIN_BACKOFF)).await;
    }
}
