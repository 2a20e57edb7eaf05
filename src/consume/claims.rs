//! When to claim, and how much. Decisions without I/O, with unit tests below.

use std::time::{Duration, Instant};

/// Maximum number of concurrent claims. They share the free capacity: with a single claim, the database would be idle
/// while its messages are handled. With more, claims step over each other's locked rows.
pub(super) const MAX_CONCURRENT_CLAIMS: usize = 2;

/// Prefetch target: the messages that handlers finish in this time.
const AHEAD: Duration = Duration::from_millis(50);

/// What a consumer holds, and its limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Messages that handlers may have at once.
    pub(super) running: usize,
    /// Maximum number of messages to hold beyond those.
    pub(super) prefetch: usize,
    /// Maximum bytes of payload to hold.
    pub(super) max_bytes: usize,
    /// Recent rate of handled messages, per second.
    pub(super) per_second: f64,
    /// Claims under way, and the sum of their limits.
    pub(super) claims: usize,
    pub(super) requested: Request,
    /// Messages ready or being handled.
    pub(super) held: Request,
    /// Messages handled whose settlement is overdue.
    pub(super) unsettled: usize,
    /// Maximum number of messages of one claim.
    pub(super) limit: usize,
}

/// Messages, and bytes of payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Load {
    /// How many messages to hold: those of all handlers, and those that are handled soon.
    pub(super) fn capacity(&self) -> usize {
        let ahead = (self.per_second * AHEAD.as_secs_f64()) as usize;
        self.running.saturating_add(ahead.min(self.prefetch))
    }

    /// What to claim now; `None` if enough is held or being claimed.
    pub(super) fn next_claim(&self) -> Option<Request> {
        let capacity = self.capacity();
        let held = self.held.messages + self.requested.messages + self.unsettled;
        let room = capacity.saturating_sub(held);
        // If many messages are handled in the time of one claim, they aren't claimed one by one. But an idle handler
        // never waits.
        let is_idle = held < self.running;
        if room == 0 || self.claims >= MAX_CONCURRENT_CLAIMS || !(is_idle || room > capacity / 3) {
            return None;
        }
        let share = capacity.div_ceil(MAX_CONCURRENT_CLAIMS).max(self.running);
        if self.is_full() {
            return None;
        }
        Some(Request {
            messages: room.min(share).min(self.limit.max(1)),
            bytes: self.room_bytes().min(self.share_bytes()),
        })
    }

    /// Whether claims wait until some of the bytes that are held are handled. A claim takes at least one message, of any
    /// size.
    pub(super) fn is_full(&self) -> bool {
        let room = self.room_bytes();
        self.held_bytes() > 0 && (room == 0 || room < self.share_bytes() / 2)
    }

    fn held_bytes(&self) -> usize {
        self.held.bytes + self.requested.bytes
    }

    fn room_bytes(&self) -> usize {
        self.max_bytes.saturating_sub(self.held_bytes())
    }

    fn share_bytes(&self) -> usize {
        self.max_bytes / MAX_CONCURRENT_CLAIMS
    }
}

/// Maximum size of one statement: halved after a failure that its size may have caused, and growing again after
/// successes.
#[derive(Debug)]
pub(super) struct AdaptiveLimit {
    most: usize,
    now: usize,
}

impl AdaptiveLimit {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, now: most }
    }

    pub(super) fn get(&self) -> usize {
        self.now
    }

    /// A statement of this size succeeded.
    pub(super) fn passed(&mut self, size: usize) {
        // A small statement says nothing about larger ones.
        if size >= self.now / 2 {
            self.now = (self.now + self.now / 8 + 1).min(self.most);
        }
    }

    /// A statement of this size failed.
    pub(super) fn failed(&mut self, size: usize) {
        self.now = self.now.min(size / 2).max(1);
    }
}

/// Recent rate at which messages are handled.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    handled: usize,
    per_second: f64,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            handled: 0,
            per_second: 0.0,
        }
    }

    pub(super) fn handled(&mut self, messages: usize, now: Instant) {
        self.handled += messages;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= Duration::from_millis(5) {
            let of_late = self.handled as f64 / elapsed.as_secs_f64();
            self.per_second = (self.per_second + of_late) / 2.0;
            (self.since, self.handled) = (now, 0);
        }
    }

    pub(super) fn per_second(&self) -> f64 {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load {
        running: 8,
        prefetch: 512,
        max_bytes: 64 << 20,
        per_second: 0.0,
        claims: 0,
        requested: Request {
            messages: 0,
            bytes: 0,
        },
        held: Request {
            messages: 0,
            bytes: 0,
        },
        unsettled: 0,
        limit: 10_000,
    };

    fn messages(messages: usize) -> Request {
        Request { messages, bytes: 0 }
    }

    #[test]
    fn an_idle_consumer_claims_for_all_of_its_handlers() {
        assert_eq!(IDLE.next_claim().map(|claim| claim.messages), Some(8));
    }

    #[test]
    fn a_fast_one_claims_ahead_in_two_halves_up_to_its_prefetch() {
        let fast = Load {
            per_second: 1_000_000.0,
            ..IDLE
        };
        assert_eq!(fast.capacity(), 520);
        assert_eq!(fast.next_claim().map(|claim| claim.messages), Some(260));
        let second = Load {
            claims: 1,
            requested: messages(260),
            ..fast
        };
        assert_eq!(second.next_claim().map(|claim| claim.messages), Some(260));
        let third = Load {
            claims: 2,
            requested: messages(400),
            ..fast
        };
        assert_eq!(third.next_claim(), None);
        let nearly_full = Load {
            held: messages(400),
            ..fast
        };
        assert_eq!(nearly_full.next_claim(), None);
    }

    #[test]
    fn what_cannot_be_settled_stops_the_claims() {
        let stuck = Load {
            unsettled: 8,
            ..IDLE
        };
        assert_eq!(stuck.next_claim(), None);
    }

    #[test]
    fn payloads_are_held_up_to_their_bytes_but_at_least_one() {
        let full = Load {
            held: Request {
                messages: 2,
                bytes: 60 << 20,
            },
            ..IDLE
        };
        assert_eq!(full.next_claim(), None);
        let tiny = Load {
            max_bytes: 0,
            ..IDLE
        };
        assert!(tiny.next_claim().is_some());
        let tiny_and_full = Load {
            held: Request {
                messages: 1,
                bytes: 1,
            },
            ..tiny
        };
        assert_eq!(tiny_and_full.next_claim(), None);
        let half = Load {
            held: Request {
                messages: 2,
                bytes: 32 << 20,
            },
            ..IDLE
        };
        assert_eq!(half.next_claim().map(|claim| claim.bytes), Some(32 << 20));
    }

    #[test]
    fn a_limit_is_halved_by_failures_and_grows_back() {
        let mut limit = AdaptiveLimit::new(1_000);
        limit.failed(1_000);
        assert_eq!(limit.get(), 500);
        limit.failed(3);
        assert_eq!(limit.get(), 1);
        limit.failed(0);
        assert_eq!(limit.get(), 1);
        for _ in 0..100 {
            limit.passed(limit.get());
        }
        assert_eq!(limit.get(), 1_000);
        limit.failed(1_000);
        limit.passed(1);
        assert_eq!(limit.get(), 500, "one message says nothing about many");
    }

    #[test]
    fn the_pace_follows_what_was_handled() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..20 {
            now += Duration::from_millis(10);
            pace.handled(100, now);
        }
        assert!((pace.per_second() - 10_000.0).abs() < 10.0);
    }
}
