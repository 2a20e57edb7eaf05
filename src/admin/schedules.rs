//! Schedules: list, install without an owner, pause, resume, fire now, delete.

use super::{
    Admin,
    rows::{firings::ScheduleFiring, schedules::ScheduleInfo},
};
use crate::{
    error::{Error, Result},
    message::MessageId,
    postgres::schedules::{
        self,
        administer::{self, FiredNow},
        history,
    },
    queue::QueueName,
    schedule::{ScheduleChange, ScheduleSpec, Settings, install},
    timing::Timing,
};

/// How often a change is tried that meets another one.
const TRIES: usize = 5;

impl Admin {
    /// Returns all schedules, ordered by name.
    pub async fn schedules(&self) -> Result<Vec<ScheduleInfo>> {
        self.store
            .run(async |connection| administer::list(connection, None).await)
            .await
    }

    /// Returns a schedule.
    ///
    /// # Errors
    /// [`Error::ScheduleNotFound`].
    pub async fn schedule(&self, name: &str) -> Result<ScheduleInfo> {
        let mut found = self
            .store
            .run(async |connection| administer::list(connection, Some(name)).await)
            .await?;
        found.pop().ok_or_else(|| not_found(name))
    }

    /// Returns the last firings of a schedule, the newest first, and what became of their messages: at most 100. A schedule
    /// that is replaced keeps them; with the schedule they are deleted.
    ///
    /// # Errors
    /// [`Error::ScheduleNotFound`].
    ///
    /// # Source
    /// The table `pgqrs.firings`, which the statement that fires a schedule writes. What became of a message is looked up by
    /// its id, in its queue, the dead letters and the archive.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// for firing in pgqrs::admin(&store).schedule_history("daily-report").await? {
    ///     println!("{:?}: message {:?} is {}", firing.scheduled_for, firing.message, firing.outcome);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn schedule_history(&self, name: &str) -> Result<Vec<ScheduleFiring>> {
        let firings = self
            .store
            .run(async |connection| history::list(connection, name).await)
            .await?;
        if firings.is_empty() {
            self.schedule(name).await?;
        }
        Ok(firings)
    }

    /// Installs a schedule, or overwrites the one of its name, whatever its version: for schedules that users of an
    /// application edit. It then has a higher version than before.
    ///
    /// # Errors
    /// As for [`Schedule::install`](crate::Schedule::install). [`Error::ScheduleTaken`] for one that has an owner, whose
    /// next deployment would undo it.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store, edited: String) -> pgqrs::Result<()> {
    /// use pgqrs::Cron;
    ///
    /// let schedule = pgqrs::schedule("digest-of-acme", "digests").cron(Cron::parse(edited)?).message(&"acme");
    /// pgqrs::admin(&store).set_schedule(schedule.spec()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_schedule(&self, schedule: ScheduleSpec) -> Result<ScheduleChange> {
        let settings = Settings {
            overwrites: true,
            ..Settings::default()
        };
        let installed = install(&self.store, vec![schedule.0?], settings).await?;
        Ok(ScheduleChange::of(&installed))
    }

    /// Pauses a schedule: it sends no messages until it is resumed. If it is paused already, nothing changes.
    ///
    /// # Errors
    /// [`Error::ScheduleNotFound`].
    pub async fn pause_schedule(&self, name: &str) -> Result<()> {
        let paused = self
            .store
            .run(async |connection| administer::pause(connection, name).await)
            .await?;
        paused.then_some(()).ok_or_else(|| not_found(name))
    }

    /// Resumes a schedule, from its next time on: those that passed meanwhile were not missed. If it isn't paused, nothing
    /// changes.
    ///
    /// # Errors
    /// [`Error::ScheduleNotFound`].
    pub async fn resume_schedule(&self, name: &str) -> Result<()> {
        for _ in 0..TRIES {
            let schedule = self.schedule(name).await?;
            if schedule.paused_at.is_none() {
                return Ok(());
            }
            let timing = Timing::new(&schedule.time, &schedule.zone)?;
            let resumed = self
                .store
                .run(async |connection| {
                    let now = schedules::now(connection).await?;
                    let next_at = timing.skip_to(schedule.next_at, now);
                    administer::resume(connection, &schedule, next_at.unwrap_or(schedule.next_at))
                        .await
                })
                .await?;
            if resumed {
                self.store.notifier().wake(&QueueName::SCHEDULES);
                return Ok(());
            }
            // It was replaced meanwhile.
        }
        Err(not_found(name))
    }

    /// Sends a schedule's message now, beside its times, also if it is paused. Its
    /// [`scheduled_for`](crate::Delivery::scheduled_for) is the present. Returns its id; `None` if there is none, since
    /// another message has its key: the last one is [unfinished](crate::Schedule::skip_if_unfinished).
    ///
    /// # Errors
    /// [`Error::ScheduleNotFound`]; [`Error::QueueClosed`]; [`Error::KeyHeld`].
    pub async fn fire_schedule(&self, name: &str) -> Result<Option<MessageId>> {
        for _ in 0..TRIES {
            let schedule = self.schedule(name).await?;
            let queue = schedule.queue.clone();
            let fired = self.store.run(async |connection| {
                let now = schedules::now(connection).await?;
                administer::fire_now(connection, &schedule, now).await
            });
            match fired.await.map_err(|error| error.or_key_held(&queue))? {
                Some(FiredNow::Sent(message)) => {
                    self.store.notifier().wake(&queue);
                    return Ok(Some(message));
                }
                Some(FiredNow::Unfinished) => return Ok(None),
                Some(FiredNow::Closed) => return Err(Error::QueueClosed { queue }),
                // It was replaced meanwhile.
                None => {}
            }
        }
        Err(not_found(name))
    }

    /// Deletes a schedule. Messages that it has sent stay.
    ///
    /// # Errors
    /// [`Error::ScheduleNotFound`].
    pub async fn delete_schedule(&self, name: &str) -> Result<()> {
        let deleted = self
            .store
            .run(async |connection| administer::delete(connection, name).await)
            .await?;
        deleted.then_some(()).ok_or_else(|| not_found(name))
    }
}

fn not_found(name: &str) -> Error {
    Error::ScheduleNotFound {
        schedule: name.to_owned(),
    }
}
