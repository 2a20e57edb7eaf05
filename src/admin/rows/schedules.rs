//! What administrative calls return of schedules.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    error::Result,
    headers::Headers,
    message::Priority,
    queue::QueueName,
    timing::{Missed, ScheduleTime, Timing},
};

/// A schedule, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ScheduleInfo {
    /// Its name, which no other schedule of the database has.
    pub name: String,
    /// The queue that it sends to.
    pub queue: QueueName,
    /// Who declares it, together with others: see [`Store::schedules`](crate::Store::schedules).
    pub owner: Option<String>,
    /// Its version, which only a higher one replaces.
    pub version: u32,
    /// The expression or interval.
    pub time: ScheduleTime,
    /// The zone of a cron expression, by its name in the tz database.
    pub zone: String,
    /// What it does about times that it missed.
    pub missed: Missed,
    /// The key of its messages, if they have one: it sends none while another of its queue has this key.
    pub unique_key: Option<String>,
    /// The priority of its messages.
    pub priority: Priority,
    /// After how many deliveries a message becomes a dead letter, if it doesn't follow its queue.
    pub max_attempts: Option<u32>,
    /// How long its messages are of use, from when they were sent.
    pub expires_in: Option<Duration>,
    /// Whether those that have expired are deleted, instead of becoming dead letters.
    pub drop_if_expired: bool,
    /// The headers of its messages.
    pub headers: Headers,
    /// Its next time. In the past if it is paused, or if it is due and no process has fired it yet.
    pub next_at: DateTime<Utc>,
    /// The last time that it has sent a message for.
    pub last_at: Option<DateTime<Utc>>,
    /// When it did so, by the database's clock.
    pub last_fired_at: Option<DateTime<Utc>>,
    /// Since when it is paused.
    pub paused_at: Option<DateTime<Utc>>,
}

impl ScheduleInfo {
    /// Returns how long after its time the last message was sent; `None` if none was yet.
    pub fn lateness(&self) -> Option<Duration> {
        let late = self.last_fired_at? - self.last_at?;
        Some(late.to_std().unwrap_or_default())
    }

    /// Returns its next times, from [`next_at`](Self::next_at) on, as this process computes them. Those of a schedule that
    /// is paused are what they would be.
    ///
    /// # Errors
    /// [`Error::InvalidCron`](crate::Error::InvalidCron) or [`Error::InvalidSetting`](crate::Error::InvalidSetting) if a
    /// newer version of the crate, or one with a newer tz database, has stored what this one doesn't know.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// for schedule in pgqrs::admin(&store).schedules().await? {
    ///     println!("{}: {:?}", schedule.name, schedule.upcoming(5)?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn upcoming(&self, times: usize) -> Result<Vec<DateTime<Utc>>> {
        let timing = Timing::new(&self.time, &self.zone)?;
        let next = |time: &DateTime<Utc>| timing.next(*time);
        Ok(std::iter::successors(Some(self.next_at), next)
            .take(times)
            .collect())
    }
}
