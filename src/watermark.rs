//! Where in a queue a claim begins to read. From the beginning, it would read all messages that are in flight, and the
//! rows that were settled and that vacuum could not yet remove: thousands of dead rows under an old snapshot.
//!
//! A watermark is this process's own hint, and never decides whether a message is delivered. Messages below it are found
//! by a rescan, a claim that reads from the beginning, every now and then: those whose leases have run out, whose
//! transactions have committed late, or whose claims were rolled back.

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
/// Rescans may take a twentieth of the time, but there is one after `LONGEST_REST` at the latest: one that was held up must
/// not suspend them for twenty times as long.
const REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_secs(2);

/// A place in the order of one priority. Derived ordering: by time, then by id, as the index has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// `None` comes before all times.
    pub(crate) visible_at: Option<DateTime<Utc>>,
    pub(crate) id: i64,
}

impl Position {
    const BEGINNING: Self = Self {
        visible_at: None,
        id: 0,
    };

    fn before_all_at(time: DateTime<Utc>) -> Self {
        Self {
            visible_at: Some(time),
            id: 0,
        }
    }

    fn of(message: &Message) -> Self {
        Self {
            visible_at: Some(message.visible_at),
            id: message.id.get(),
        }
    }
}

/// For each priority, the position behind which there may be messages.
pub(crate) type Watermarks = [Position; Priority::ALL.len()];

/// Reads a queue from its beginning.
pub(crate) const BEGINNING: Watermarks = [Position::BEGINNING; Priority::ALL.len()];

/// The watermarks of a process, by queue.
#[derive(Debug, Default)]
pub(crate) struct WatermarkCache {
    /// Never held across an await.
    queues: Mutex<HashMap<QueueName, Entry>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    watermarks: Watermarks,
    rescan_at: Instant,
    /// Number of times that the watermarks were set, by a rescan or after a failure, and not only moved forward.
    resets: u64,
}

/// A claim in progress.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) from: Watermarks,
    is_rescan: bool,
    /// Number of resets when it began.
    resets: u64,
}

/// What a claim has found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    /// In queue order.
    pub(crate) messages: &'a [Message],
    /// The database's time.
    pub(crate) now: DateTime<Utc>,
    /// How long the database took.
    pub(crate) took: Duration,
    /// Whether it stopped at its limit.
    pub(crate) full: bool,
}

impl WatermarkCache {
    pub(crate) fn begin(&self, queue: &QueueName) -> Reading {
        let now = Instant::now();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = queues.get_mut(queue) else {
            return Reading {
                from: BEGINNING,
                is_rescan: true,
                resets: 0,
            };
        };
        let is_rescan = entry.rescan_at <= now;
        if is_rescan {
            // Other claims needn't do so meanwhile.
            entry.rescan_at = now + LONGEST_REST;
        }
        Reading {
            from: if is_rescan {
                BEGINNING
            } else {
                entry.watermarks
            },
            is_rescan,
            resets: entry.resets,
        }
    }

    /// Records what a claim has found.
    pub(crate) fn end(&self, queue: &QueueName, reading: &Reading, found: &Found<'_>) {
        let ended = Instant::now();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !queues.contains_key(queue) {
            let entry = Entry {
                watermarks: BEGINNING,
                rescan_at: ended,
                resets: 0,
            };
            queues.insert(queue.clone(), entry);
        }
        let Some(entry) = queues.get_mut(queue) else {
            return;
        };
        // A rescan may have found many messages below the watermark. Claims go on from there, or they would come only as
        // fast as there are rescans. So a claim from before its end must not move the watermark forward again.
        if reading.resets != entry.resets {
            return;
        }
        for (priority, watermark) in Priority::ALL.into_iter().zip(&mut entry.watermarks) {
            if let Some(reached) = found.reached(priority) {
                *watermark = if reading.is_rescan {
                    reached
                } else {
                    reached.max(*watermark)
                };
            }
        }
        if reading.is_rescan {
            entry.resets += 1;
            entry.rescan_at = ended + (found.took * REST).min(LONGEST_REST);
        }
    }

    /// Records that a claim, or the dead-lettering after it, has failed. The next one reads from the beginning: claims
    /// under way may have skipped the messages that this one had locked, and must not move the watermark past them.
    pub(crate) fn fail(&self, queue: &QueueName) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = queues.get_mut(queue) {
            entry.watermarks = BEGINNING;
            entry.resets += 1;
        }
    }
}

impl Found<'_> {
    /// How far a priority was read; `None` if it wasn't.
    fn reached(&self, priority: Priority) -> Option<Position> {
        let recent = Position::before_all_at(self.now - SLACK);
        if !self.full {
            return Some(recent);
        }
        // It read no further than the message at which it had enough. If it found only messages that it dead-lettered,
        // there may be others behind them.
        let last = self.messages.last()?;
        match priority.cmp(&last.priority) {
            std::cmp::Ordering::Less => Some(recent),
            std::cmp::Ordering::Equal => Some(Position::of(last).min(recent)),
            std::cmp::Ordering::Greater => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{headers::Headers, message::Origin, telemetry::timer::Timer};

    fn queue() -> QueueName {
        QueueName::new("tasks").expect("a name")
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000, 0).expect("a time")
    }

    fn message(priority: Priority, visible_at: DateTime<Utc>, id: i64) -> Message {
        Message {
            origin: Arc::new(Origin {
                settings: crate::message::QueueSettings::default(),
                queue: queue(),
                worker: None,
                claimed_at: now(),
                timer: Timer::start(),
            }),
            is_redelivered: false,
            queue_id: 1,
            id: id.into(),
            priority,
            visible_at,
            enqueued_at: visible_at,
            attempt: 1,
            max_attempts: 20,
            snoozes: 0,
            lease_token: 1,
            lease_expires_at: visible_at,
            headers: Headers::default(),
            payload: "null".into(),
            group: None,
        }
    }

    fn found(messages: &[Message], full: bool) -> Found<'_> {
        Found {
            messages,
            now: now(),
            took: Duration::from_secs(60),
            full,
        }
    }

    fn position(visible_at: DateTime<Utc>, id: i64) -> Position {
        Position {
            visible_at: Some(visible_at),
            id,
        }
    }

    #[test]
    fn a_claim_that_was_not_full_has_read_all_but_the_slack() {
        let cache = WatermarkCache::default();
        let first = cache.begin(&queue());
        assert_eq!((first.from, first.is_rescan), (BEGINNING, true));
        cache.end(&queue(), &first, &found(&[], false));
        let next = cache.begin(&queue());
        assert!(!next.is_rescan);
        assert_eq!(next.from, [position(now() - SLACK, 0); 4]);
    }

    #[test]
    fn a_full_claim_goes_on_behind_its_last_message_and_leaves_lower_priorities() {
        let (cache, old) = (WatermarkCache::default(), now() - TimeDelta::hours(1));
        let first = cache.begin(&queue());
        let messages = [
            message(Priority::High, old, 7),
            message(Priority::Normal, old, 5),
        ];
        cache.end(&queue(), &first, &found(&messages, true));
        let recent = position(now() - SLACK, 0);
        let expected = [recent, recent, position(old, 5), Position::BEGINNING];
        assert_eq!(cache.begin(&queue()).from, expected);
    }

    #[test]
    fn only_a_rescan_moves_a_watermark_back() {
        let (cache, old) = (WatermarkCache::default(), now() - TimeDelta::hours(1));
        let first = cache.begin(&queue());
        cache.end(&queue(), &first, &found(&[], false));
        let messages = [message(Priority::Urgent, old, 5)];
        let (claim, before) = (cache.begin(&queue()), cache.begin(&queue()));
        cache.end(&queue(), &claim, &found(&messages, true));
        assert_eq!(cache.begin(&queue()).from[0], position(now() - SLACK, 0));

        rescan_now(&cache);
        let rescan = cache.begin(&queue());
        assert!(rescan.is_rescan);
        assert!(!cache.begin(&queue()).is_rescan, "one claim only");
        cache.end(&queue(), &rescan, &found(&messages, true));
        assert_eq!(cache.begin(&queue()).from[0], position(old, 5));
        // From before the rescan's end.
        cache.end(&queue(), &before, &found(&[], false));
        assert_eq!(cache.begin(&queue()).from[0], position(old, 5));
    }

    #[test]
    fn after_a_claim_that_failed_all_read_from_the_beginning_whatever_others_have_skipped() {
        let cache = WatermarkCache::default();
        cache.end(&queue(), &cache.begin(&queue()), &found(&[], false));
        rescan_now(&cache);
        let (rescan, claim) = (cache.begin(&queue()), cache.begin(&queue()));
        assert!(rescan.is_rescan && !claim.is_rescan);
        cache.fail(&queue());
        for skipped in [&rescan, &claim] {
            cache.end(&queue(), skipped, &found(&[], false));
            assert_eq!(cache.begin(&queue()).from, BEGINNING);
        }
        cache.end(&queue(), &cache.begin(&queue()), &found(&[], false));
        assert_eq!(cache.begin(&queue()).from[0], position(now() - SLACK, 0));
    }

    fn rescan_now(cache: &WatermarkCache) {
        let mut queues = cache.queues.lock().expect("no test panics");
        queues.get_mut(&queue()).expect("claimed from").rescan_at = Instant::now();
    }
}
