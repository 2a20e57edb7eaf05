//! Events about a delivery, which are counted too.

use std::time::Duration;

use super::{
    fields::{Compact, bounded, of_message, of_worker},
    metrics,
    subject::Subject,
};
use crate::{
    error::{Error, error_chain},
    lifecycle::WorkerId,
    message::Origin,
};

/// The error of a message whose last attempt nobody has settled.
const NEVER_SETTLED: &str = "its last delivery was not settled: the consumer crashed, its lease ran out, or its handler was aborted";

/// An attempt failed. `retry_in` is `None` if it was the last one.
pub(crate) fn attempt_failed(subject: &Subject, error: &str, retry_in: Option<Duration>) {
    if retry_in.is_some() {
        metrics::retried(subject);
    }
    of_message!(
        warn,
        subject,
        error = &*bounded(error),
        retry_in = retry_in.map(|wait| display(Compact(wait))),
        "attempt failed",
    );
}

/// A handler has put a message off.
pub(crate) fn snoozed(subject: &Subject) {
    metrics::snooze(subject);
}

/// A payload doesn't decode as the type that the handler takes. The error's own text may quote the payload, so only its
/// place is shown.
pub(crate) fn undecodable(subject: &Subject, place: &str) {
    metrics::undecoded(subject);
    of_message!(
        warn,
        subject,
        error = &*bounded(place),
        "payload doesn't decode"
    );
}

/// A message was moved to the dead letters. `error` is that of its last attempt, if that had one.
pub(crate) fn dead_lettered(subject: &Subject, reason: &str, error: Option<&str>) {
    metrics::dead(subject);
    let error = error.map(bounded);
    of_message!(
        error,
        subject,
        reason = &*bounded(reason),
        error = error.as_deref(),
        "message moved to the dead letters",
    );
}

/// A claim found a message whose attempts are used up, since its last consumer crashed or lost its lease. It is a dead
/// letter now.
pub(crate) fn dead_after_lost_lease(subject: &Subject, previous: Option<WorkerId>) {
    metrics::dead(subject);
    of_message!(
        error,
        subject,
        previous_worker_id = previous.map(WorkerId::get),
        reason = "attempts used up",
        error = NEVER_SETTLED,
        "message moved to the dead letters",
    );
}

/// A claim found a message that has expired. It is a dead letter now.
pub(crate) fn expired(subject: &Subject) {
    metrics::expiry(subject);
    dead_lettered(subject, "expired", None);
}

/// A claim found a message that has expired, and that was to be dropped then.
pub(crate) fn dropped(subject: &Subject) {
    metrics::expiry(subject);
    of_message!(
        info,
        subject,
        "message expired: it was dropped, as its sender asked"
    );
}

/// A settlement or an extension found that another consumer has the message, or that it is gone.
pub(crate) fn lease_lost(subject: &Subject, during: &'static str) {
    metrics::lost(&subject.origin, 1);
    of_message!(
        warn,
        subject,
        during,
        "lease lost: the message is or was delivered again, or is gone",
    );
}

/// A message that a consumer holds was cancelled.
pub(crate) fn cancelled(subject: &Subject) {
    metrics::cancellation(subject);
    of_message!(info, subject, "message cancelled: it was deleted");
}

/// The handler of a cancelled message has not returned in time.
pub(crate) fn handler_dropped(subject: &Subject) {
    of_message!(info, subject, "handler dropped: its message was cancelled");
}

/// Of deliveries that were settled together, these had lost their leases, and their messages are gone by now. Which
/// ones they were isn't known.
pub(crate) fn leases_lost(origin: &Origin, messages: u64, during: &'static str) {
    metrics::lost(origin, messages);
    of_worker!(
        warn,
        origin.queue,
        origin.worker,
        messages,
        during,
        "leases lost: the messages were settled elsewhere, or are gone",
    );
}

/// A message is delivered again because the lease of its previous delivery ran out.
pub(crate) fn redelivered(subject: &Subject, previous: Option<WorkerId>) {
    metrics::redelivery(subject);
    of_message!(
        warn,
        subject,
        previous_worker_id = previous.map(WorkerId::get),
        "delivered again: the lease of the previous delivery ran out",
    );
}

/// The server refuses to settle one message, which is delivered again when its lease runs out.
pub(crate) fn settlement_refused(subject: &Subject, error: &Error) {
    of_message!(
        error,
        subject,
        error = &*bounded(&error_chain(error)),
        "error.type" = error.kind(),
        "settlement refused by the server: the message will be delivered again",
    );
}

/// The server refuses to extend the lease of one message. Unless it is settled before, it is delivered again.
pub(crate) fn extension_refused(subject: &Subject, error: &Error) {
    of_message!(
        error,
        subject,
        error = &*bounded(&error_chain(error)),
        "error.type" = error.kind(),
        "lease not extended, since the server refuses it: the message may be delivered again",
    );
}

/// A message's `traceparent` is malformed, so its span has no parent and no link. The value isn't logged, since anybody
/// may have written it.
#[cfg(feature = "opentelemetry")]
pub(crate) fn malformed_trace_context(subject: &Subject) {
    metrics::malformed(subject);
    of_message!(debug, subject, "malformed `traceparent` ignored");
}
