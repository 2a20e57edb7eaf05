//! The lease that a message is delivered under, and how long one can be.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};

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
}

impl Lease {
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            receipt: message.receipt(),
            subject: Subject::of(message),
            expires_at: AtomicI64::new(message.lease_expires_at.timestamp_micros()),
            settled: AtomicBool::new(false),
        }
    }

    pub(crate) fn receipt(&self) -> Receipt {
        self.receipt
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

    /// The transaction in which it was settled has been rolled back.
    pub(crate) fn unsettled(&self) {
        self.settled.store(false, Ordering::Release);
    }

    /// Whether a handler has settled it itself, maybe in a transaction that can still be rolled back.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }
}
