//! What all handlers do: count, or print when their message was sent and how long it was on its way. One for the whole process,
//! since one peer is measured at a time.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::Notify;

use crate::Payload;

static HANDLED: AtomicUsize = AtomicUsize::new(0);
static EXPECTED: AtomicUsize = AtomicUsize::new(usize::MAX);
static ALL: Notify = Notify::const_new();
static PRINT: OnceLock<()> = OnceLock::new();

pub(crate) fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A message's handler has started.
pub(crate) fn note(payload: &Payload) {
    if PRINT.get().is_some() {
        println!("{} {}", payload.sent, now().saturating_sub(payload.sent));
    }
    let handled = HANDLED.fetch_add(1, Ordering::SeqCst) + 1;
    if handled == EXPECTED.load(Ordering::SeqCst) {
        ALL.notify_one();
    }
}

pub(crate) fn print() {
    let _ = PRINT.set(());
}

/// Ends when this number of further messages have been handled.
pub(crate) fn expect(messages: usize) -> impl Future<Output = ()> {
    let from = HANDLED.load(Ordering::SeqCst);
    EXPECTED.store(from + messages, Ordering::SeqCst);
    ALL.notified()
}
