//! The tasks of a loop's handlers: each takes what is ready, one delivery or a chunk of them, and handles it, until
//! nothing is due.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::{
    in_flight::{ChunkLimits, InFlight, Taken},
    turns::Turns,
};
use crate::{
    around::Layered,
    delivery::{Delivery, Unchecked, lease::Lease},
    handler::{IntoOutcome, Outcome, Verdict, decode, handle},
    message::Message,
    retry::RetryPolicy,
    store::Store,
    telemetry::{self, Messages, Timer},
    trace_context::{self, Ambient},
};

/// How often to look whether a handler has settled its message, until it is dropped.
const SETTLING_INTERVAL: Duration = Duration::from_millis(50);

/// How a loop's messages are handled.
pub(crate) trait Work: Send + Sync + 'static {
    /// How many a call of the handler takes.
    fn limits(&self) -> ChunkLimits;

    /// Takes and handles what is ready, until nothing is due.
    fn work(&self, shared: &Shared) -> impl Future<Output = ()> + Send;
}

/// What the tasks of a loop's handlers share.
pub(crate) struct Shared {
    pub(super) in_flight: Arc<InFlight>,
    pub(super) turns: Turns,
    pub(super) store: Store,
    pub(super) retry: RetryPolicy,
    /// Of one call of the handler.
    pub(super) limit: Option<Duration>,
    /// How long a handler may go on after its messages were cancelled.
    pub(super) cancel_grace: Duration,
    /// The span in which the loop runs.
    pub(super) ambient: Ambient,
}

impl Shared {
    pub(super) fn deliver<P: DeserializeOwned>(
        &self,
        message: Message,
        lease: Arc<Lease>,
    ) -> Delivery<P, Unchecked> {
        let decode = |json: &str| serde_json::from_str(json);
        Delivery::new(message, lease, decode, self.store.clone(), self.retry).limited(self.limit)
    }

    /// Ready when a handler is to be dropped: some time after all of its messages were cancelled.
    pub(super) async fn cancelled(&self, leases: &[Arc<Lease>]) {
        for lease in leases {
            lease.cancelled().await;
        }
        sleep(self.cancel_grace).await;
        // It is settling one of them by itself, and about to see that it is gone.
        while leases.iter().any(|lease| lease.may_be_settled()) {
            sleep(self.cancel_grace.max(SETTLING_INTERVAL)).await;
        }
    }
}

/// A handler that takes one delivery.
pub(crate) struct Single<P, F>(pub(crate) Layered<Delivery<P>, F>);

impl<P, F, R> Work for Single<P, F>
where
    P: Send + Sync + DeserializeOwned + 'static,
    F: Fn(Delivery<P>) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    fn limits(&self) -> ChunkLimits {
        ChunkLimits::ONE
    }

    async fn work(&self, shared: &Shared) {
        while let Some(mut taken) = shared.in_flight.take() {
            let Some((message, lease)) = taken.message() else {
                return;
            };
            let attempt = message.attempt.unsigned_abs();
            let (waited, timer) = (message.waited(), Timer::start());
            let one = Messages::One(Some(message.id));
            let span = telemetry::process(&message.origin, one, Some(attempt));
            trace_context::follow(&span, &message, &shared.ambient);
            let handling = pin!(Some(async {
                let leases = [Arc::clone(&lease)];
                let cancelled = shared.cancelled(&leases);
                match decode(|| shared.deliver(message, lease)) {
                    Ok(delivery) => handle(self.0.call(delivery), shared.limit, cancelled).await,
                    Err(undecodable) => undecodable,
                }
            }));
            let verdict = shared.turns.run(telemetry::in_span(&span, handling)).await;
            let failed = verdict.error_type();
            if let Some(kind) = failed {
                telemetry::failed_with(&span, kind);
            }
            telemetry::processed(taken.subject(), waited, timer, failed);
            if matches!(verdict, Verdict::Returned(Outcome::Done)) {
                // Nothing is to be reported in the span.
                finish(taken, verdict, &shared.retry);
            } else {
                span.in_scope(|| finish(taken, verdict, &shared.retry));
            }
        }
    }
}

/// Reports the end of a delivery, and passes it to the loop.
pub(super) fn finish(taken: Taken, verdict: Verdict, retry: &RetryPolicy) {
    let retry = taken.subject().origin.settings.retry(*retry);
    let retry_in = verdict.retry_in(&retry, taken.subject().attempt);
    // What a handler returns after its message was cancelled has no effect.
    if !taken.is_cancelled() || matches!(verdict, Verdict::Cancelled) {
        verdict.report(taken.subject(), retry_in);
    }
    taken.finish(verdict, retry_in);
}
