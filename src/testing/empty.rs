//! Waiting until all of a queue is handled.

use std::{fmt, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    error::{Error, Result},
    executor::{self, Executor},
    postgres::testing::{self, Left},
    queue::{IntoQueue, QueueName},
};

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// Why a queue is not empty; returned by [`wait_until_empty`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotEmpty {
    /// The time is over, and there are messages left.
    #[error("after {waited:?}, queue `{queue}` still has {}", Shown(.left))]
    Left {
        /// The queue.
        queue: QueueName,
        /// How long was waited.
        waited: Duration,
        /// What is left: how many messages, and the first ten of them.
        left: LeftInQueue,
    },

    /// The queue can't be read.
    #[error(transparent)]
    Pgqrs(Error),
}

/// What is left in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftInQueue {
    /// How many messages there are.
    pub messages: u64,
    /// How many dead letters the queue has.
    pub dead_letters: u64,
    /// The first ten messages, each on a line: its id, whether it is ready, delayed or being handled, its attempts, the
    /// error of the last one, and its payload.
    pub first: Vec<String>,
}

/// Waits until a queue has no messages any more: ready, delayed, or being handled. For tests of a whole service, with its
/// consumers, in place of a sleep.
///
/// # Shape
/// Runs on `&store` or `&pool`. It looks every ten milliseconds. A message that became a dead letter is not in the queue
/// any more.
///
/// # Errors
/// [`NotEmpty::Left`] after the time-out, which says what is left; [`NotEmpty::Pgqrs`] with
/// [`Error::QueueNotFound`] and connection errors.
///
/// # Source
/// `select … from pgqrs.messages`
///
/// # Example
/// ```no_run
/// # use std::time::Duration;
/// # use pgqrs::{Queue, testing};
/// # const EMAILS: Queue<String> = Queue::new("emails");
/// # async fn example(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
/// testing::wait_until_empty(&store, EMAILS, Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
/// If it isn't, the error reads:
/// ```text
/// after 10s, queue `emails` still has 1 message and 0 dead letters
///   message 7, delayed by 00:00:01, attempt 3, no route to host: {"to":"ada"}
/// ```
pub async fn wait_until_empty(
    on: impl Executor + Copy,
    queue: impl IntoQueue,
    timeout: Duration,
) -> Result<(), NotEmpty> {
    let queue = queue.into_name().map_err(NotEmpty::Pgqrs)?;
    let began = Instant::now();
    let mut looks = interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let left = executor::run(on, async |connection| {
            testing::left(connection, &queue).await
        });
        let left = LeftInQueue::of(&left.await.map_err(NotEmpty::Pgqrs)?);
        if left.messages == 0 {
            return Ok(());
        }
        let waited = began.elapsed();
        if waited >= timeout {
            let waited = timeout;
            return Err(NotEmpty::Left {
                queue,
                waited,
                left,
            });
        }
    }
}

impl LeftInQueue {
    fn of(rows: &[Left]) -> Self {
        let count = |count: fn(&Left) -> i64| {
            let count = rows.first().map(count).unwrap_or_default();
            u64::try_from(count).unwrap_or_default()
        };
        Self {
            messages: count(|row| row.messages),
            dead_letters: count(|row| row.dead_letters),
            first: rows.iter().filter_map(line).collect(),
        }
    }
}

fn line(row: &Left) -> Option<String> {
    let mut line = format!("message {}, {}", row.id?, row.state.as_deref()?);
    if let Some(attempt) = row.attempt.filter(|attempt| *attempt > 0) {
        line += &format!(", attempt {attempt}");
    }
    if let Some(error) = &row.last_error {
        line += &format!(", {error}");
    }
    Some(line + ": " + row.payload.as_deref()?)
}

struct Shown<'a>(&'a LeftInQueue);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count| if count == 1 { "" } else { "s" };
        let (messages, dead) = (self.0.messages, self.0.dead_letters);
        write!(f, "{messages} message{}", plural(messages))?;
        write!(f, " and {dead} dead letter{}", plural(dead))?;
        for line in &self.0.first {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}
