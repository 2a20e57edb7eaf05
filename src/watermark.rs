//! Where in a queue a claim begins to read. From the beginning, it would read the rows that were settled and that
//! vacuum could not yet remove: thousands of dead rows under an old snapshot.
//!
//! A watermark is this process's own hint, and never decides whether a message is delivered: messages below it are
//! found by reading from the beginning every now and then.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    message::{Message, Priority},
    queue::QueueName,
};

/// Transactions commit a little later than the time that they store. Measured: a whole second of slack costs four
/// fifths of the speed under an old snapshot, 50 ms a twenty-fifth.
const SLACK: TimeDelta = TimeDelta::milliseconds(50);
/// Reading from the beginning may take a twentieth of the time, but is repeated after `LONGEST_REST` at the latest: one
/// that was held up must not suspend it for twenty times as long.
const REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_secs(2);

/// A time for each priority, from which on there may be messages; `None` is from the beginning.
pub(crate) type Watermarks = [Option<DateTime<Utc>>; Priority::ALL.len()];

const BEGINNING: Watermarks = [None; Priority::ALL.len()];

#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// Never held across an await.
    queues: Mutex<HashMap<QueueName, Hint>>,
}

#[derive(Debug, Clone, Copy)]
struct Hint {
    watermarks: Watermarks,
    rescan_at: Instant,
}

/// A claim in progress.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) from: Watermarks,
    rescan: bool,
}

/// What a claim has found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) messages: &'a [Message],
    /// The database's time.
    pub(crate) now: DateTime<Utc>,
    /// How long the database took.
    pub(crate) took: Duration,
    /// Whether it stopped at its limit.
    pub(crate) full: bool,
}

impl Hints {
    pub(crate) fn begin(&self, queue: &QueueName) -> Reading {
        let now = Instant::now();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let rescan = match queues.get_mut(queue) {
            Some(hint) if hint.rescan_at > now => {
                return Reading {
                    from: hint.watermarks,
                    rescan: false,
                };
            }
            Some(hint) => {
                // Other claims needn't do so meanwhile.
                hint.rescan_at = now + LONGEST_REST;
                true
            }
            None => true,
        };
        Reading {
            from: BEGINNING,
            rescan,
        }
    }

    /// Records what a claim has found.
    pub(crate) fn end(&self, queue: &QueueName, reading: &Reading, found: &Found<'_>) {
        let Found {
            messages,
            now,
            took,
            full,
        } = *found;
        let ended = Instant::now();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !queues.contains_key(queue) {
            queues.insert(
                queue.clone(),
                Hint {
                    watermarks: BEGINNING,
                    rescan_at: ended,
                },
            );
        }
        let Some(hint) = queues.get_mut(queue) else {
            return;
        };
        let last_read = if full {
            // It read no further than the priority at which it had enough.
            messages.iter().map(|message| message.priority).max()
        } else {
            Some(Priority::Low)
        };
        for (priority, watermark) in Priority::ALL.into_iter().zip(&mut hint.watermarks) {
            // If it stopped at messages that it dead-lettered, there may be others behind them.
            if last_read.is_some_and(|last| priority <= last) {
                let of_this = messages
                    .iter()
                    .filter(|message| message.priority == priority);
                let first = of_this.map(|message| message.visible_at).min();
                *watermark = Some(first.unwrap_or(now).min(now - SLACK));
            }
        }
        if reading.rescan {
            hint.rescan_at = ended + (took * REST).min(LONGEST_REST);
        }
    }
}
