//! How many messages were handled without being seen: what consumers report, less what was seen. Without a database.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use pgqrs::{WorkerId, WorkerInfo};

use super::Kind;

/// What a consumer has reported with a heartbeat: how many messages it was done with.
#[derive(Debug, Clone, Copy)]
struct Heartbeat {
    at: DateTime<Utc>,
    settled: u64,
    /// Whether what it reports next was done since the beginning. A consumer's first heartbeat may be about what was done
    /// before.
    counts: bool,
}

/// What consumers have reported with their heartbeats, and what was seen.
#[derive(Debug)]
pub(super) struct Missed {
    started: DateTime<Utc>,
    last: HashMap<WorkerId, Heartbeat>,
    /// What they have reported since the beginning.
    pub(super) reported: u64,
    /// How many of these were done since then, for certain.
    counted: u64,
    /// How many messages were seen to leave the queue.
    pub(super) seen: u64,
    /// How many are known to have been missed.
    missed: u64,
}

impl Missed {
    /// What was reported by then is no news.
    pub(super) fn since(started: DateTime<Utc>, consumers: &[WorkerInfo]) -> Self {
        let mut missed = Self {
            started,
            last: HashMap::new(),
            reported: 0,
            counted: 0,
            seen: 0,
            missed: 0,
        };
        for worker in consumers {
            let heartbeat = Heartbeat {
                at: worker.heartbeat_at,
                settled: worker.settled,
                counts: worker.started_at >= started,
            };
            missed.last.insert(worker.id, heartbeat);
        }
        missed
    }

    pub(super) fn saw(&mut self, kind: Kind) {
        self.seen += u64::from(kind.is_end());
    }

    /// How many more are known to have been missed. What is seen is reported up to 15 seconds later, so that it is a lower
    /// bound until then.
    pub(super) fn after(&mut self, consumers: &[WorkerInfo]) -> u64 {
        for worker in consumers {
            self.report(
                worker.id,
                worker.started_at,
                worker.heartbeat_at,
                worker.settled,
            );
        }
        let missed = self.counted.saturating_sub(self.seen).max(self.missed);
        missed - std::mem::replace(&mut self.missed, missed)
    }

    /// Consumer by consumer, since those that have ended are removed from the list.
    fn report(&mut self, id: WorkerId, since: DateTime<Utc>, at: DateTime<Utc>, settled: u64) {
        let new = Heartbeat {
            at: since,
            settled: 0,
            counts: since >= self.started,
        };
        let last = self.last.entry(id).or_insert(new);
        if at == last.at && settled == last.settled {
            return;
        }
        let more = settled.saturating_sub(last.settled);
        self.reported += more;
        self.counted += if last.counts { more } else { 0 };
        *last = Heartbeat {
            at,
            settled,
            counts: true,
        };
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    /// A consumer's heartbeat, some seconds after the beginning.
    fn beat(missed: &mut Missed, id: i64, since: i64, at: i64, settled: u64) -> u64 {
        let time = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        missed.report(WorkerId::from(id), time(since), time(at), settled);
        missed.after(&[])
    }

    #[test]
    fn what_is_reported_and_was_not_seen_is_missed_once() {
        let mut missed = Missed::since(DateTime::UNIX_EPOCH, &[]);
        missed.saw(Kind::Done);
        missed.saw(Kind::Dead);
        missed.saw(Kind::Claimed);
        assert_eq!(
            beat(&mut missed, 1, 1, 2, 1),
            0,
            "the other is reported later"
        );
        assert_eq!(beat(&mut missed, 1, 1, 17, 5), 3);
        assert_eq!(beat(&mut missed, 1, 1, 17, 5), 0);
        // Another consumer.
        assert_eq!(beat(&mut missed, 2, 3, 18, 4), 4);
        assert_eq!((missed.reported, missed.seen), (9, 2));
        // What is seen and not reported yet isn't taken back.
        (0..3).for_each(|_| missed.saw(Kind::Archived));
        assert_eq!(beat(&mut missed, 2, 3, 33, 5), 0);
    }

    #[test]
    fn the_first_heartbeat_of_a_consumer_that_was_there_is_no_news() {
        let mut missed = Missed::since(DateTime::UNIX_EPOCH, &[]);
        assert_eq!(beat(&mut missed, 1, -60, 5, 100), 0);
        assert_eq!(missed.reported, 100);
        assert_eq!(beat(&mut missed, 1, -60, 20, 107), 7);
    }
}
