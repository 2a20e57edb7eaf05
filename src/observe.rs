//! `store.observe(interval)`: how many messages the queues hold and what holds back vacuum, read regularly, for gauges
//! and dashboards.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    admin::rows::QueueStats,
    error::{Error, Result},
    health::Horizon,
    postgres::{health, session, stats},
    store::Store,
    telemetry,
};

/// The shortest interval.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest interval.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// How much an interval varies at random, as a part of it, so that processes that were started together don't stay
/// together.
const JITTER: f64 = 0.1;
/// The pause is at least this many times as long as the statements took.
const MIN_PAUSE_FACTOR: u32 = 20;
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(10);

impl Store {
    /// Reads regularly how many messages the queues hold, how long the oldest ready ones have waited, and what holds
    /// back vacuum, until the [`Observer`] is dropped. The first time is during this call.
    ///
    /// With the feature `metrics` or `opentelemetry`, what it reads is in gauges as well: `pgqrs.queue.messages`,
    /// `pgqrs.queue.oldest_ready.age`, `pgqrs.horizon.age` and others, listed in
    /// [Telemetry](crate::guide::telemetry#metrics).
    ///
    /// Each observer costs its statements, so that one process, or a few, should observe, and not each consumer.
    ///
    /// # Units
    /// `interval`: a minute is good for dashboards and alerts. It varies by a tenth at random. Less than a second counts
    /// as a second, and more than a day as a day. If the statements take long, the pause is at least 20 times as long,
    /// and they are given up after ten seconds.
    ///
    /// # Errors
    /// If the first attempt fails for a reason that trying again can't help with, such as
    /// [`Error::PermissionDenied`] or [`Error::NotInstalled`]. If the server can't be reached, that is no error here: it
    /// is tried again at each interval, and [`Observer::error`] returns the reason. The log reports the outage once for
    /// the whole store, and any other error when it begins and when it ends.
    ///
    /// # Source
    /// The statement of [`Admin::all_queue_stats`](crate::Admin::all_queue_stats), which counts up to a limit and reads
    /// no whole queue, and one on the server's views. The roles [`Access::Operator`](crate::Access::Operator) and
    /// [`Access::Consumer`](crate::Access::Consumer) may run them.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// use std::time::Duration;
    ///
    /// let mut observer = store.observe(Duration::from_secs(60)).await?;
    /// loop {
    ///     match observer.changed().await {
    ///         Ok(seen) => {
    ///             for queue in &seen.queues {
    ///                 println!("{}: {} ready", queue.queue, queue.ready);
    ///             }
    ///         }
    ///         Err(pgqrs::Error::Closed) => break,
    ///         Err(error) => eprintln!("{error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn observe(&self, interval: Duration) -> Result<Observer> {
        let mut took = Duration::ZERO;
        let first = match look(self, &mut took).await {
            Err(error) if !error.is_retryable() => return Err(error),
            first => first,
        };
        let observing = Observing {
            store: self.clone(),
            interval: interval.clamp(SHORTEST, LONGEST),
            took,
            gauges: telemetry::Gauges::watched(self.server_name()),
            seen: watch::Sender::new(Seen::default()),
        };
        let seen = observing.seen.subscribe();
        observing.record(first);
        Ok(Observer {
            seen,
            task: Arc::new(Task(tokio::spawn(observing.run()))),
        })
    }
}

/// What was read of the queues at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Observation {
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
    /// The queues, ordered by name: at most 10,000. See [`Admin::all_queue_stats`](crate::Admin::all_queue_stats).
    pub queues: Vec<QueueStats>,
    /// What holds back vacuum; `None` if the role may not read the server's views.
    pub horizon: Option<Horizon>,
}

/// Observes the queues until it, and all of its clones, are dropped; made by [`Store::observe`].
#[derive(Clone)]
pub struct Observer {
    seen: watch::Receiver<Seen>,
    task: Arc<Task>,
}

/// Ends when it is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug, Clone, Default)]
struct Seen {
    latest: Option<Arc<Observation>>,
    /// Why the last attempt failed.
    error: Option<Error>,
}

impl Observer {
    /// Returns what was read last; `None` if nothing was yet. If the server is away, it is as old as the outage:
    /// [`Observation::at`] says when it was read, and [`error`](Self::error) why it is not newer.
    pub fn latest(&self) -> Option<Arc<Observation>> {
        self.seen.borrow().latest.clone()
    }

    /// Returns why the last attempt to read failed; `None` if it didn't.
    pub fn error(&self) -> Option<Error> {
        self.seen.borrow().error.clone()
    }

    /// Stops it, also for its clones. What was read last can still be had.
    pub fn stop(&self) {
        self.task.0.abort();
    }

    /// Waits for the next attempt after those that this method has returned, and returns what it read. The first call
    /// returns at once what [`Store::observe`] has read.
    ///
    /// # Errors
    /// Why it failed. [`Error::Closed`] if there will be no other: it was stopped, the store was closed, or the tokio
    /// runtime has ended.
    pub async fn changed(&mut self) -> Result<Arc<Observation>> {
        if self.seen.changed().await.is_err() {
            return Err(Error::Closed);
        }
        let seen = self.seen.borrow_and_update().clone();
        match (seen.error, seen.latest) {
            (None, Some(latest)) => Ok(latest),
            (Some(error), _) => Err(error),
            (None, None) => Err(Error::Closed),
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("at", &self.latest().map(|latest| latest.at))
            .field("error", &self.error())
            .finish_non_exhaustive()
    }
}

/// The task of an observer.
struct Observing {
    store: Store,
    interval: Duration,
    /// The duration of the last statements.
    took: Duration,
    gauges: Arc<telemetry::Gauges>,
    seen: watch::Sender<Seen>,
}

impl Observing {
    async fn run(mut self) {
        let pool = self.store.pool().clone();
        loop {
            tokio::select! {
                () = sleep(pause(self.interval, self.took, rand::random())) => {}
                () = pool.close_event() => return,
            }
            let outcome = look(&self.store, &mut self.took).await;
            self.record(outcome);
        }
    }

    fn record(&self, outcome: Result<Observation>) {
        let before = self.seen.borrow().error.clone();
        match outcome {
            Ok(observation) => {
                if let Some(before) = &before {
                    telemetry::observation_succeeded(before);
                }
                telemetry::observed(
                    &self.gauges,
                    &observation.queues,
                    observation.horizon.as_ref(),
                );
                if let Some(before) = &self.seen.borrow().latest {
                    telemetry::groups_stopped(&before.queues, &observation.queues);
                }
                self.seen.send_replace(Seen {
                    latest: Some(Arc::new(observation)),
                    error: None,
                });
            }
            Err(error) => {
                telemetry::observation_failed(before.as_ref(), &error);
                self.seen.send_modify(|seen| seen.error = Some(error));
            }
        }
    }
}

/// Reads once, and sets the duration of the statements: the wait for a connection costs the server nothing.
async fn look(store: &Store, took: &mut Duration) -> Result<Observation> {
    *took = Duration::ZERO;
    let mut connection = store.connection().await?;
    let began = Instant::now();
    let observation = connection
        .within(OBSERVE_TIMEOUT, async |connection| {
            let queues = session::read_briefly(connection, async |connection| {
                stats::count(connection, None).await
            });
            let queues = queues.await?;
            let (at, _) = health::server(connection).await?;
            let horizon = match health::horizon(connection).await {
                Err(error) if error.is_denied() => None,
                horizon => Some(horizon?),
            };
            Ok(Observation {
                at,
                queues,
                horizon,
            })
        })
        .await;
    *took = began.elapsed();
    observation
}

/// The wait before the next attempt, for a random number from 0 to 1.
fn pause(interval: Duration, took: Duration, random: f64) -> Duration {
    let varied = interval.mul_f64(1.0 + JITTER * (2.0 * random - 1.0));
    varied.max(took.saturating_mul(MIN_PAUSE_FACTOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_varies_and_is_longer_if_the_statements_are_slow() {
        let minute = Duration::from_secs(60);
        assert_eq!(pause(minute, Duration::ZERO, 0.0), Duration::from_secs(54));
        assert_eq!(pause(minute, Duration::ZERO, 1.0), Duration::from_secs(66));
        let slow = Duration::from_secs(10);
        assert_eq!(pause(minute, slow, 0.5), Duration::from_secs(200));
    }
}
