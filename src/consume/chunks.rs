//! Handlers that take a chunk: many deliveries in one call, which are settled together or one by one.

use std::{future::Future, mem, pin::pin, sync::Arc};

use serde::de::DeserializeOwned;

use super::{
    handlers::{Shared, Work, finish},
    in_flight::{ChunkLimits, Taken},
};
use crate::{
    around::Layered,
    chunk::{Chunk, Verdicts},
    delivery::Delivery,
    handler::{IntoOutcome, Outcome, Verdict, decode, handle},
    retry::RetryPolicy,
    telemetry::{self, Messages, Timer},
    trace_context,
};

/// A handler that takes a chunk.
pub(crate) struct Chunks<P, F> {
    pub(crate) handler: Layered<Chunk<P>, F>,
    pub(crate) limits: ChunkLimits,
}

impl<P, F, R> Work for Chunks<P, F>
where
    P: Send + Sync + DeserializeOwned + 'static,
    F: Fn(Chunk<P>) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    fn limits(&self) -> ChunkLimits {
        self.limits
    }

    async fn work(&self, shared: &Shared) {
        while let Some(taken) = shared.in_flight.take_chunk(self.limits) {
            let timer = Timer::start();
            let Some(first) = taken.first() else {
                return;
            };
            let origin = Arc::clone(&first.subject().origin);
            let span = telemetry::process(&origin, Messages::Batch(taken.len()), None);
            let messages = || taken.iter().filter_map(Taken::peek);
            trace_context::follow_all(&span, messages(), &shared.ambient);
            let waited: Vec<_> = messages().map(|message| message.waited()).collect();
            let mut open = Open::new(taken, shared.retry);
            let verdict = {
                let handling = pin!(Some(async {
                    let deliveries = open.decode(shared);
                    if deliveries.is_empty() {
                        return Verdict::Returned(Outcome::Done);
                    }
                    let leases: Vec<_> = deliveries.iter().map(Delivery::lease).cloned().collect();
                    let chunk = Chunk::new(deliveries, Arc::clone(&open.verdicts));
                    let cancelled = shared.cancelled(&leases);
                    handle(self.handler.call(chunk), shared.limit, cancelled).await
                }));
                shared.turns.run(telemetry::in_span(&span, handling)).await
            };
            let verdict = open.verdicts.checked(verdict);
            let failed = verdict.error_type();
            if let Some(kind) = failed {
                telemetry::failed_with(&span, kind);
            }
            telemetry::processed_chunk(&origin, &waited, timer, failed);
            span.in_scope(|| open.finish(&verdict));
        }
    }
}

/// The deliveries of a chunk whose handler has not ended. If it is aborted, those that it has settled one by one stay
/// settled.
struct Open {
    /// In the order of the chunk, once they are decoded.
    taken: Vec<Taken>,
    verdicts: Arc<Verdicts>,
    retry: RetryPolicy,
}

impl Open {
    fn new(taken: Vec<Taken>, retry: RetryPolicy) -> Self {
        Self {
            taken,
            verdicts: Arc::new(Verdicts::new(0)),
            retry,
        }
    }

    /// Decodes the payloads. Those that don't decode are no part of the chunk, and fail alone.
    fn decode<P: DeserializeOwned>(&mut self, shared: &Shared) -> Vec<Delivery<P>> {
        let mut deliveries = Vec::with_capacity(self.taken.len());
        for mut taken in mem::take(&mut self.taken) {
            let Some((message, lease)) = taken.message() else {
                continue;
            };
            match decode(|| shared.deliver(message, lease)) {
                Ok(delivery) => {
                    deliveries.push(delivery);
                    self.taken.push(taken);
                }
                Err(undecodable) => finish(taken, undecodable, &self.retry),
            }
        }
        self.verdicts = Arc::new(Verdicts::new(deliveries.len()));
        deliveries
    }

    /// Settles each by its own verdict, and those without one by what the handler has returned.
    fn finish(mut self, verdict: &Verdict) {
        let verdicts = self.verdicts.take();
        for (taken, own) in self.taken.drain(..).zip(verdicts) {
            finish(taken, own.unwrap_or_else(|| verdict.clone()), &self.retry);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let verdicts = self.verdicts.take();
        for (taken, own) in self.taken.drain(..).zip(verdicts) {
            // Those without a verdict of their own are reported as aborted when they are dropped.
            if let Some(own) = own {
                finish(taken, own, &self.retry);
            }
        }
    }
}
