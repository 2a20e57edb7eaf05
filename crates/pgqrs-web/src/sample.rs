//! What is read of all queues at once, and what was read before, for the charts.

use std::{
    collections::VecDeque,
    sync::PoisonError,
    time::{Duration, Instant},
};

use pgqrs::{Health, QueueInfo, Result};

use crate::app::App;

/// The shortest time between two points of a chart.
const STEP: Duration = Duration::from_secs(5);
/// How many points are kept: ten minutes.
const POINTS: usize = 120;

/// All that the overview shows.
pub(crate) struct Sample {
    pub(crate) health: Health,
    pub(crate) queues: Vec<QueueInfo>,
    pub(crate) points: Vec<Point>,
}

/// One moment.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    at: Instant,
    /// Of each queue, by its name: its messages, and its dead letters.
    depths: Vec<(String, u64, u64)>,
    /// Rows inserted into and deleted from the table of messages, since some time.
    inserted: u64,
    deleted: u64,
}

/// Points of the last minutes: as many as there were requests for.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<Point>);

impl History {
    fn add(&mut self, point: Point) {
        if self.0.back().is_some_and(|last| point.at - last.at < STEP) {
            return;
        }
        while self.0.len() >= POINTS {
            self.0.pop_front();
        }
        self.0.push_back(point);
    }
}

impl Point {
    fn of(health: &Health) -> Self {
        let table = |of: fn(&pgqrs::TableHealth) -> u64| {
            let mut tables = health.tables.iter();
            let messages = tables.find(|table| table.name == "messages" && !table.toast);
            messages.map_or(0, of)
        };
        let depths = health.queues.iter().map(|queue| {
            let stats = &queue.stats;
            let name = stats.queue.as_str().to_owned();
            (name, stats.total().value, stats.dead.value)
        });
        Self {
            at: Instant::now(),
            depths: depths.collect(),
            inserted: table(|table| table.inserted),
            deleted: table(|table| table.deleted),
        }
    }

    /// How many messages the queue had.
    pub(crate) fn depth(&self, queue: &str) -> Option<u64> {
        let place = self
            .depths
            .binary_search_by(|(name, ..)| name.as_str().cmp(queue));
        Some(self.depths.get(place.ok()?)?.1)
    }
}

/// What has come into all queues, and gone out of them, in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) into: u64,
    pub(crate) out: u64,
}

/// The rates between each two points.
pub(crate) fn rates(points: &[Point]) -> Vec<Rates> {
    let pairs = points.windows(2).map(|pair| {
        let seconds = (pair[1].at - pair[0].at).as_secs_f64().max(0.001);
        let per_minute = |before: u64, after: u64| {
            // Statistics that were reset begin at zero again.
            let more = after.saturating_sub(before) as f64;
            (more * 60.0 / seconds).round() as u64
        };
        Rates {
            into: per_minute(pair[0].inserted, pair[1].inserted),
            out: per_minute(pair[0].deleted, pair[1].deleted),
        }
    });
    pairs.collect()
}

impl App {
    pub(crate) async fn sample(&self) -> Result<Sample> {
        let health = self.admin.health().await?;
        let queues = self.admin.queues().await?;
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.add(Point::of(&health));
        let points = history.0.iter().cloned().collect();
        Ok(Sample {
            health,
            queues,
            points,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: Instant, inserted: u64, deleted: u64) -> Point {
        Point {
            at,
            depths: vec![("a".into(), 1, 0), ("b".into(), 2, 0)],
            inserted,
            deleted,
        }
    }

    #[test]
    fn rates_are_per_minute_and_survive_a_reset_of_the_statistics() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let points = [
            point(now, 100, 50),
            point(later(10), 110, 53),
            point(later(20), 0, 0),
        ];
        let expected = [Rates { into: 60, out: 18 }, Rates { into: 0, out: 0 }];
        assert_eq!(rates(&points), expected);
        assert_eq!(
            (points[0].depth("b"), points[0].depth("c")),
            (Some(2), None)
        );
    }

    #[test]
    fn a_history_keeps_points_that_are_some_seconds_apart_for_ten_minutes() {
        let (now, mut history) = (Instant::now(), History::default());
        for second in 0..1_000 {
            history.add(point(now + Duration::from_secs(second), second, 0));
        }
        assert_eq!(history.0.len(), POINTS);
        assert_eq!(history.0.back().map(|last| last.inserted), Some(995));
    }
}
