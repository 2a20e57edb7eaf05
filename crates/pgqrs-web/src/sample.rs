//! What is read of all queues at once, and what was read before: for the charts, and for messages per minute.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
};

use pgqrs::{
    Health, QueueInfo, Result,
    chrono::{DateTime, TimeDelta, Utc},
};
use serde::Serialize;

use crate::app::App;

/// The shortest time between two points.
const STEP: TimeDelta = TimeDelta::seconds(5);
/// How many points are kept: ten minutes.
const POINTS: usize = 120;
/// The time that messages are counted in, if there are points from so long ago.
const WINDOW: TimeDelta = TimeDelta::seconds(60);
/// The shortest one.
const SHORTEST: TimeDelta = TimeDelta::seconds(10);

/// All that the overview shows.
pub(crate) struct Sample {
    pub(crate) health: Health,
    pub(crate) queues: Vec<QueueInfo>,
    pub(crate) history: History,
}

/// What was read of the queues in the last ten minutes, and how many messages per minute that makes.
///
/// Sends and acknowledgements write nothing for it. What went out of a queue is what its consumers have counted, of which
/// they report with their heartbeats; what came in is that and the change of the queue's depth.
///
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// let admin = pgqrs::admin(&store);
/// let mut history = pgqrs_web::History::default();
/// loop {
///     history.add(&admin.health().await?);
///     println!("{:?}", history.rates("emails"));
///     tokio::time::sleep(std::time::Duration::from_secs(5)).await;
/// }
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct History(VecDeque<Arc<Point>>);

/// Messages of a queue per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Rates {
    /// Those that came in: that were sent, or put back from the dead letters. `None` if it isn't known: before the
    /// second heartbeat, and while the queue has more than 10,000 messages, which aren't counted. What was cancelled, purged or
    /// has expired isn't subtracted from it.
    pub in_per_minute: Option<u64>,
    /// Those that its consumers were done with. `None` before the second heartbeat.
    pub out_per_minute: Option<u64>,
}

/// One moment.
#[derive(Debug)]
struct Point {
    at: DateTime<Utc>,
    /// By their names.
    queues: Vec<Depth>,
    /// Rows inserted into and deleted from the table of messages, since some time.
    inserted: u64,
    deleted: u64,
}

/// A queue at one moment.
#[derive(Debug, Clone)]
struct Depth {
    name: String,
    messages: u64,
    is_exact: bool,
    /// What its consumers were done with, and when they have said so.
    settled: u64,
    settled_at: DateTime<Utc>,
}

impl History {
    /// Adds what was read, unless less than five seconds have passed.
    pub fn add(&mut self, health: &Health) {
        self.push(Point::of(health));
    }

    fn push(&mut self, point: Point) {
        let since = self.0.back().map(|last| point.at - last.at);
        if since.is_some_and(|since| since < TimeDelta::zero()) {
            // The server's clock was set back, or this is another server.
            self.0.clear();
        } else if since.is_some_and(|since| since < STEP) {
            return;
        }
        while self.0.len() >= POINTS {
            self.0.pop_front();
        }
        self.0.push_back(Arc::new(point));
    }

    /// Returns how many messages came into a queue and went out of it in the last minute.
    pub fn rates(&self, queue: &str) -> Rates {
        let depths = self.depths_of(queue);
        match depths.len() {
            0 => Rates::default(),
            points => rates_at(&depths, points - 1),
        }
    }

    /// The same, of each point.
    pub(crate) fn all_rates(&self, queue: &str) -> Vec<Rates> {
        let depths = self.depths_of(queue);
        (1..depths.len())
            .map(|point| rates_at(&depths, point))
            .collect()
    }

    /// How many messages a queue had.
    pub(crate) fn depths(&self, queue: &str) -> Vec<u64> {
        let depths = self.depths_of(queue);
        depths.iter().map(|(_, depth)| depth.messages).collect()
    }

    /// Of all queues together, between each two points.
    pub(crate) fn total_rates(&self) -> Vec<Rates> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let pairs = pairs.map(|(before, after)| {
            let minutes = minutes(after.at - before.at);
            // Statistics that were reset begin at zero again.
            let per_minute = |before: u64, after: u64| {
                Some(rounded(after.saturating_sub(before) as f64 / minutes))
            };
            Rates {
                in_per_minute: per_minute(before.inserted, after.inserted),
                out_per_minute: per_minute(before.deleted, after.deleted),
            }
        });
        pairs.collect()
    }

    fn depths_of(&self, queue: &str) -> Vec<(DateTime<Utc>, &Depth)> {
        let points = self.0.iter();
        let depths = points.filter_map(|point| Some((point.at, point.of_queue(queue)?)));
        depths.collect()
    }
}

impl Point {
    fn of(health: &Health) -> Self {
        let table = |of: fn(&pgqrs::TableHealth) -> u64| {
            let mut tables = health.tables.iter();
            let messages = tables.find(|table| table.name == "messages" && !table.toast);
            messages.map_or(0, of)
        };
        let queues = health.queues.iter().map(|queue| Depth {
            name: queue.stats.queue.as_str().to_owned(),
            messages: queue.stats.total().value,
            is_exact: !queue.stats.total().at_least,
            settled: queue.settled,
            settled_at: queue.settled_at.unwrap_or(health.checked_at),
        });
        Self {
            at: health.checked_at,
            queues: queues.collect(),
            inserted: table(|table| table.inserted),
            deleted: table(|table| table.deleted),
        }
    }

    fn of_queue(&self, queue: &str) -> Option<&Depth> {
        let place = self
            .queues
            .binary_search_by(|depth| depth.name.as_str().cmp(queue));
        self.queues.get(place.ok()?)
    }
}

/// What went out is known as of the heartbeats, so what came in is computed for the time between them as well.
fn rates_at(depths: &[(DateTime<Utc>, &Depth)], point: usize) -> Rates {
    let now = depths[point].1;
    let earlier = &depths[..point];
    let is_window_ago = |(_, depth): &&(_, &Depth)| now.settled_at - depth.settled_at >= WINDOW;
    let Some((_, base)) = earlier.iter().rev().find(is_window_ago).or(earlier.first()) else {
        return Rates::default();
    };
    // Less, if the row of a consumer that has ended was deleted.
    let settled = now.settled.checked_sub(base.settled);
    let (Some(settled), true) = (settled, now.settled_at - base.settled_at >= SHORTEST) else {
        return Rates::default();
    };
    let minutes = minutes(now.settled_at - base.settled_at);
    let grown = || {
        let depths = &depths[..=point];
        Some(depth_at(depths, now.settled_at)? - depth_at(depths, base.settled_at)?)
    };
    Rates {
        in_per_minute: grown().map(|grown| rounded((settled as f64 + grown) / minutes)),
        out_per_minute: Some(rounded(settled as f64 / minutes)),
    }
}

/// How many messages there were at a time, between two points; `None` if they weren't counted to the last.
fn depth_at(depths: &[(DateTime<Utc>, &Depth)], time: DateTime<Utc>) -> Option<f64> {
    let exact = |depth: &Depth| depth.is_exact.then_some(depth.messages as f64);
    let after = depths.partition_point(|(at, _)| *at <= time);
    let (Some((from, before)), Some((to, after))) =
        (depths.get(after.wrapping_sub(1)), depths.get(after))
    else {
        let (_, nearest) = depths.get(after).or(depths.last())?;
        return exact(nearest);
    };
    let (before, after) = (exact(before)?, exact(after)?);
    let part = (time - *from).as_seconds_f64() / (*to - *from).as_seconds_f64().max(0.001);
    Some(before + (after - before) * part)
}

fn minutes(time: TimeDelta) -> f64 {
    time.as_seconds_f64().max(0.001) / 60.0
}

/// A count; 0 if it is less, for what left the queue without having been counted.
fn rounded(number: f64) -> u64 {
    number.round().max(0.0) as u64
}

impl App {
    pub(crate) async fn sample(&self) -> Result<Sample> {
        let health = self.admin.health().await?;
        let queues = self.admin.queues().await?;
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.add(&health);
        Ok(Sample {
            health,
            queues,
            history: history.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn depth(messages: u64, settled: u64, settled_at: i64) -> Depth {
        Depth {
            name: "b".into(),
            messages,
            is_exact: true,
            settled,
            settled_at: at(settled_at),
        }
    }

    fn point(second: i64, depth: Depth) -> Point {
        let other = Depth {
            name: "a".into(),
            ..depth.clone()
        };
        Point {
            at: at(second),
            queues: vec![other, depth],
            inserted: 0,
            deleted: 0,
        }
    }

    /// Of a queue at each fifth second, from its second to how it is then.
    fn history(seconds: i64, of: impl Fn(i64) -> Depth) -> History {
        let mut history = History::default();
        for second in (0..=seconds).step_by(5) {
            history.push(point(second, of(second)));
        }
        history
    }

    fn rates(into: u64, out: u64) -> Rates {
        Rates {
            in_per_minute: Some(into),
            out_per_minute: Some(out),
        }
    }

    /// When its consumers have sent their last heartbeat: each fifteenth second.
    fn beat(second: i64) -> i64 {
        second / 15 * 15
    }

    #[test]
    fn what_comes_and_goes_steadily_is_known_although_heartbeats_are_rare() {
        let done = |second: i64| u64::try_from(second * 2).expect("positive");
        let steady = history(200, |second| depth(7, done(beat(second)), beat(second)));
        let all = steady.all_rates("b");
        assert_eq!(all[0], Rates::default(), "no heartbeat has come yet");
        assert_eq!(all[3..], vec![rates(120, 120); 37]);
        let growing = history(200, |second| {
            depth(done(second), done(beat(second)), beat(second))
        });
        assert_eq!(growing.rates("b"), rates(240, 120));
        assert_eq!(growing.rates("c"), Rates::default());
    }

    #[test]
    fn a_backlog_that_is_worked_off_is_no_message_that_came_in() {
        let done = |second: i64| u64::try_from(second * 10).expect("positive");
        let drained = history(100, |second| {
            depth(2_000 - done(second), done(beat(second)), beat(second))
        });
        assert_eq!(drained.rates("b"), rates(0, 600));
    }

    #[test]
    fn without_consumers_what_comes_in_is_what_the_queue_has_grown() {
        let sent = |second: i64| u64::try_from(second).expect("positive");
        let waiting = history(100, |second| depth(sent(second), 3, second));
        assert_eq!(waiting.rates("b"), rates(60, 0));
    }

    #[test]
    fn of_a_queue_with_too_many_messages_only_what_goes_out_is_known() {
        let done = |second: i64| u64::try_from(second).expect("positive");
        let long = history(100, |second| Depth {
            is_exact: second < 95,
            ..depth(10_000, done(beat(second)), beat(second))
        });
        let known = Rates {
            in_per_minute: None,
            out_per_minute: Some(60),
        };
        assert_eq!(long.rates("b"), known);
    }

    #[test]
    fn after_a_consumer_was_deleted_nothing_is_known_until_its_count_is_a_minute_old() {
        let deleted = history(200, |second| {
            let before = if second < 100 { 500 } else { 0 };
            depth(0, before + u64::try_from(second).expect("positive"), second)
        });
        let all = deleted.all_rates("b");
        assert_eq!(all[18], rates(60, 60));
        assert_eq!(all[19], Rates::default());
        assert_eq!(all[39], rates(60, 60));
    }

    #[test]
    fn all_queues_together_survive_a_reset_of_the_statistics() {
        let mut history = History::default();
        for (second, inserted, deleted) in [(0, 100, 50), (10, 110, 53), (20, 0, 0)] {
            history.push(Point {
                inserted,
                deleted,
                ..point(second, depth(0, 0, second))
            });
        }
        assert_eq!(history.total_rates(), [rates(60, 18), rates(0, 0)]);
    }

    #[test]
    fn a_history_keeps_points_that_are_some_seconds_apart_for_ten_minutes() {
        let mut history = History::default();
        for second in 0..1_000 {
            history.push(point(second, depth(0, 0, second)));
        }
        assert_eq!(history.0.len(), POINTS);
        assert_eq!(history.0.back().map(|last| last.at), Some(at(995)));
        history.push(point(3, depth(0, 0, 3)));
        assert_eq!(history.0.len(), 1, "of another server");
    }
}
