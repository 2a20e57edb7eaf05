//! The lease that a message is delivered under, and how long one can be.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::{
    error::{Error, Result},
    message::{Message, Receipt},
    telemetry::Subject,
};

const SHORTEST_LEASE: Duration = Duration::from_millis(1);
pub(crate) const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn check_lease(lease: Duration) -> Result<()> {
    if (SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease) {
        return Ok(());
    }
    Err(Error::LeaseOutOfRange {
        lease,
        min: SHORTEST_LEASE,
        max: LONGEST_LEASE,
    })
}

/// State shared by a delivery and the loop that extends its lease.
#[derive(Debug)]
pub(crate) struct Lease {
    receipt: Receipt,
    subject: Subject,
    /// In microseconds since 1970, by the database's clock.
    expires_at: AtomicI64,
    settled: AtomicBool,
    /// Whether a handler is settling it itself.
    settling: AtomicBool,
    /// Whether its handler works in a transaction.
    in_transaction: AtomicBool,
    /// That in which the handler has settled it itself.
    settled_in: OnceLock<i64>,
    is_cancelled: AtomicBool,
    cancelled: Notify,
}

impl Lease {
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            receipt: message.receipt(),
            subject: Subject::of(message),
            expires_at: AtomicI64::new(message.lease_expires_at.timestamp_micros()),
            settled: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            in_transaction: AtomicBool::new(false),
            settled_in: OnceLock::new(),
            is_cancelled: AtomicBool::new(false),
            cancelled: Notify::new(),
        }
    }

    pub(crate) fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// Whether a handler that slows down what handles its message slows the whole queue down.
    pub(crate) fn slows_queue(&self) -> bool {
        !(self.receipt.is_grouped && self.subject.origin.settings.has_group_rates)
    }

    /// For events about it.
    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    pub(crate) fn extended(&self, until: DateTime<Utc>) {
        self.expires_at
            .store(until.timestamp_micros(), Ordering::Relaxed);
    }

    /// `None` beyond chrono's calendar.
    pub(super) fn expires_at(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.expires_at.load(Ordering::Relaxed))
    }

    pub(super) fn settled(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// A handler begins to settle it, or has failed to.
    pub(super) fn set_settling(&self, is_settling: bool) {
        self.settling.store(is_settling, Ordering::Release);
    }

    /// Whether a handler has settled it itself, or may be about to: its message being gone doesn't mean that it was
    /// cancelled.
    pub(crate) fn may_be_settled(&self) -> bool {
        self.settling.load(Ordering::Acquire) || self.is_settled()
    }

    /// Its handler works in a transaction.
    pub(crate) fn set_in_transaction(&self) {
        self.in_transaction.store(true, Ordering::Release);
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        self.in_transaction.load(Ordering::Acquire)
    }

    pub(super) fn set_settled_in(&self, transaction: i64) {
        let _ = self.settled_in.set(transaction);
    }

    /// The id of the transaction in which a handler has settled it itself, if that works in one.
    pub(crate) fn settled_in(&self) -> Option<i64> {
        self.settled_in.get().copied()
    }

    /// Its message was cancelled.
    pub(crate) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
        self.cancelled.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// Waits until its message was cancelled.
    pub(crate) async fn cancelled(&self) {
        // Before the look: from then on, no notification is missed.
        let notified = self.cancelled.notified();
        if !self.is_cancelled() {
            notified.await;
        }
    }

    /// The transaction in which it was settled has been rolled back.
    pub(crate) fn unsettled(&self) {
        self.settled.store(false, Ordering::Release);
        self.set_settling(false);
    }

    /// Whether a handler has settled it itself, maybe in a transaction that can still be rolled back.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }
}
