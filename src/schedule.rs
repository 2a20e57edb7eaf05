//! `schedule()`: messages that are sent at regular times. The builder's type tracks what is set, so a schedule without a
//! time or a message, or with two of either, doesn't compile.

pub(crate) mod owned;
pub(crate) mod states;

use std::{marker::PhantomData, time::Duration};

use serde::Serialize;

use self::states::{
    ScheduleHasMessage, ScheduleHasNoMessage, ScheduleHasNoTime, ScheduleHasTime, Timed, Untimed,
    WithMessage, WithoutMessage,
};
use crate::{
    cron::Cron,
    error::{Error, Result},
    headers::NewHeaders,
    message::{NewMessage, Priority},
    payload::encode,
    postgres::schedules::{self, Installation, Installed, NewSchedule, Payload},
    queue::{Carries, IntoQueue, Queue, QueueName},
    store::{AsStore, Store},
    timing::{Missed, ScheduleTime, Timing},
};

/// The version of a schedule that doesn't set one.
const FIRST_VERSION: u32 = 1;
/// Maximum length of a name, in bytes.
const LONGEST_NAME: usize = 128;

/// Starts a schedule: a name, and the queue that it sends to.
///
/// # Shape
/// Set its time with [`cron`](Schedule::cron) or [`every`](Schedule::every), and its message with
/// [`message`](Schedule::message), in any order; then [`install`](Schedule::install) it. From then on it is in the
/// database, and is fired by any process that runs a [consumer](crate::consumer()) of any queue, or a
/// [`Store::scheduler`](crate::Store::scheduler).
///
/// # Units
/// A name has 1 to 128 bytes, no control characters, and no white space at either end. It is unique in the database,
/// whatever the queue.
///
/// # Example
/// ```no_run
/// use std::time::Duration;
/// use pgqrs::{Queue, cron};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Report {
///     kind: String,
/// }
///
/// const REPORTS: Queue<Report> = Queue::new("reports");
///
/// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
/// pgqrs::schedule("daily-report", REPORTS)
///     .cron(cron!("0 9 * * MON-FRI"))
///     .zone("Europe/Berlin")
///     .message(&Report { kind: "daily".into() })
///     .version(3)
///     .install(&store)
///     .await?;
/// pgqrs::schedule("poll", "feeds").every(Duration::from_secs(30)).message(&"all").install(&store).await?;
/// # Ok(())
/// # }
/// ```
pub fn schedule<Q: IntoQueue>(name: impl Into<String>, queue: Q) -> Schedule<Q::Carries> {
    Schedule {
        name: name.into(),
        queue: queue.into_name(),
        options: Options::default(),
        time: Untimed(()),
        message: WithoutMessage(()),
        carries: PhantomData,
    }
}

/// Builder of a schedule; made by [`schedule`].
///
/// Its methods can be called in any order, each as long as it is available:
///
/// | methods | are available |
/// |---|---|
/// | [`cron`](Self::cron), [`every`](Self::every) | until one of them was called |
/// | [`message`](Self::message) | until it was called |
/// | all other settings | always; the last call counts |
/// | [`install`](Self::install), [`spec`](Self::spec) | once there are a time and a message |
///
/// What doesn't compile:
///
/// ```compile_fail,E0277
/// # async fn example(store: pgqrs::Store) {
/// pgqrs::schedule("poll", "feeds").message(&1).install(&store); // no time
/// # }
/// ```
/// ```compile_fail,E0277
/// # async fn example(store: pgqrs::Store) {
/// pgqrs::schedule("poll", "feeds").cron(pgqrs::cron!("@daily")).install(&store); // no message
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a schedule does nothing until `.install(&store).await`"]
pub struct Schedule<C, T = Untimed, M = WithoutMessage> {
    name: String,
    queue: Result<QueueName>,
    options: Options,
    time: T,
    message: M,
    carries: PhantomData<fn() -> C>,
}

/// What a schedule needn't set.
#[derive(Debug)]
struct Options {
    version: u32,
    zone: String,
    missed: Missed,
    skip_if_unfinished: bool,
    priority: Priority,
    expires_in: Option<Duration>,
    headers: NewHeaders,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: FIRST_VERSION,
            zone: "UTC".to_owned(),
            missed: Missed::default(),
            skip_if_unfinished: false,
            priority: Priority::default(),
            expires_in: None,
            headers: NewHeaders::default(),
        }
    }
}

impl<C, T, M> Schedule<C, T, M> {
    /// Sets the times by a cron expression: a literal in [`cron!`](crate::cron!), or one from configuration, by
    /// [`Cron::parse`].
    ///
    /// Available until a time is set. See [`Cron`] for what happens when clocks change.
    pub fn cron(self, cron: Cron) -> Schedule<C, Timed, M>
    where
        T: ScheduleHasNoTime,
    {
        self.with_time(Ok(ScheduleTime::Cron(cron)))
    }

    /// Sets the times by an interval. The first one is an interval after the installation, and the next ones follow at
    /// that interval, whenever their messages are sent or handled.
    ///
    /// Available until a time is set.
    ///
    /// # Units
    /// From 100 milliseconds to 100 years, in whole milliseconds.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] from [`install`](Self::install).
    pub fn every(self, interval: Duration) -> Schedule<C, Timed, M>
    where
        T: ScheduleHasNoTime,
    {
        self.with_time(ScheduleTime::every(interval))
    }

    fn with_time(self, time: Result<ScheduleTime>) -> Schedule<C, Timed, M> {
        Schedule {
            time: Timed(time),
            name: self.name,
            queue: self.queue,
            options: self.options,
            message: self.message,
            carries: PhantomData,
        }
    }

    /// Sets the message that is sent each time. It is serialised now, once.
    ///
    /// Available until it is set. If the queue carries a type, it must be of that type.
    ///
    /// # Errors
    /// A payload that can't be serialised is reported by [`install`](Self::install).
    pub fn message<P>(self, payload: &P) -> Schedule<C, T, WithMessage>
    where
        M: ScheduleHasNoMessage,
        Queue<C>: Carries<P>,
        P: Serialize + ?Sized,
    {
        Schedule {
            message: WithMessage(encode(0, payload).map(NewMessage::new)),
            name: self.name,
            queue: self.queue,
            options: self.options,
            time: self.time,
            carries: PhantomData,
        }
    }

    /// Sets the zone of a cron expression, by its name in the tz database; defaults to `"UTC"`.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] from [`install`](Self::install) for an unknown zone.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.options.zone = zone.into();
        self
    }

    /// Sets the version; defaults to 1. A schedule of that name that is installed already is replaced only by a higher
    /// version, so that of two deployments that run side by side the newer one's stays, whichever starts last.
    pub fn version(mut self, version: u32) -> Self {
        self.options.version = version;
        self
    }

    /// Sets what happens to times that passed while no process ran; defaults to [`Missed::Once`].
    pub fn missed(mut self, missed: Missed) -> Self {
        self.options.missed = missed;
        self
    }

    /// Sends no message while the last one is unfinished: until it was acknowledged, archived, or has become a dead
    /// letter. That time is left out.
    ///
    /// # Source
    /// Its messages have a key of their own, of which `pgqrs.messages` holds one.
    pub fn skip_if_unfinished(mut self) -> Self {
        self.options.skip_if_unfinished = true;
        self
    }

    /// Sets the priority of its messages; defaults to [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// Sets how long after it was sent a message expires, if no handler has started on it.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] from [`install`](Self::install) for zero, or more than 100 years.
    pub fn expires_in(mut self, after: Duration) -> Self {
        self.options.expires_in = Some(after);
        self
    }

    /// Sets a header of its messages, as [`Enqueue::header`](crate::Enqueue::header) does.
    ///
    /// # Errors
    /// [`Error::InvalidHeader`] from [`install`](Self::install).
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.headers.set(name.into(), value.into());
        self
    }

    /// Sets several headers of its messages, as [`header`](Self::header) does each.
    ///
    /// # Errors
    /// As for [`header`](Self::header).
    pub fn headers<N, V>(mut self, headers: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        for (name, value) in headers {
            self.options.headers.set(name.into(), value.into());
            // An iterator may be endless.
            if self.options.headers.is_invalid() {
                break;
            }
        }
        self
    }

    /// Returns the schedule as a value, whatever its queue carries: for [`Store::schedules`](crate::Store::schedules)
    /// and [`Admin::set_schedule`](crate::Admin::set_schedule).
    ///
    /// Available once there are a time and a message. Mistakes in its settings are reported when it is installed.
    pub fn spec(self) -> ScheduleSpec
    where
        T: ScheduleHasTime,
        M: ScheduleHasMessage,
    {
        ScheduleSpec(self.check())
    }

    fn check(self) -> Result<NewSchedule>
    where
        T: ScheduleHasTime,
        M: ScheduleHasMessage,
    {
        let options = self.options;
        let name = check_name("schedule", self.name)?;
        let time = self.time.into_time()?;
        // Both are known before anything is sent.
        Timing::new(&time, &options.zone)?;
        let longest = Duration::from_secs(100 * 366 * 24 * 60 * 60);
        if let Some(after) = options.expires_in
            && (after.is_zero() || after > longest)
        {
            return Err(Error::InvalidSetting {
                setting: "expires_in",
                value: format!("{after:?}"),
                expected: "more than zero, and at most 100 years",
            });
        }
        Ok(NewSchedule {
            name,
            queue: self.queue?,
            version: check_version(options.version)?,
            time,
            zone: options.zone,
            missed: options.missed.check()?,
            skip_if_unfinished: options.skip_if_unfinished,
            priority: options.priority,
            expires_in: options.expires_in,
            headers: options.headers.finish()?,
            payload: Payload(self.message.into_message()?.into_payload()),
        })
    }

    /// Installs the schedule, and returns what that changed: nothing, if one of that name and of the same or a higher
    /// version is there already.
    ///
    /// Available once there are a time and a message. Of one that is replaced, the next time stays as it is if neither
    /// expression, interval nor zone has changed, so that frequent deployments don't put it off. One that is paused
    /// stays so.
    ///
    /// # Errors
    /// - [`Error::InvalidSetting`], [`Error::InvalidHeader`], [`Error::InvalidQueueName`], [`Error::Serialize`],
    ///   [`Error::PayloadTooLarge`], [`Error::PayloadTooDeep`]: before anything is sent;
    /// - [`Error::QueueNotFound`], [`Error::NotInstalled`];
    /// - [`Error::ScheduleTaken`] if one of that name has an [owner](crate::Store::schedules).
    ///
    /// # Source
    /// The database's time is read, from which the next time is computed; then `insert into pgqrs.schedules … on conflict
    /// do update … where version < excluded.version`.
    pub async fn install<S: AsStore + ?Sized>(self, store: &S) -> Result<ScheduleChange>
    where
        T: ScheduleHasTime,
        M: ScheduleHasMessage,
    {
        self.spec().install(store).await
    }
}

/// What an installation has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScheduleChange {
    /// There was no schedule of that name.
    Created,
    /// There was one of a lower version.
    Replaced,
    /// There is one of the same or a higher version, which was left as it is.
    Unchanged,
}

impl ScheduleChange {
    pub(crate) fn of(installed: &Installed) -> Self {
        if !installed.created.is_empty() {
            Self::Created
        } else if !installed.replaced.is_empty() {
            Self::Replaced
        } else {
            Self::Unchanged
        }
    }
}

/// A schedule as a value, whatever its queue carries; made by [`Schedule::spec`].
#[derive(Debug, Clone)]
pub struct ScheduleSpec(pub(crate) Result<NewSchedule>);

impl ScheduleSpec {
    /// Installs the schedule, as [`Schedule::install`] does.
    ///
    /// # Errors
    /// Those of [`Schedule::install`].
    pub async fn install<S: AsStore + ?Sized>(self, store: &S) -> Result<ScheduleChange> {
        let schedules = vec![self.0?];
        let installed = install(store.as_store(), schedules, Settings::default()).await?;
        Ok(ScheduleChange::of(&installed))
    }
}

/// How schedules are installed.
#[derive(Debug, Default)]
pub(crate) struct Settings<'a> {
    pub(crate) owner: Option<&'a str>,
    pub(crate) overwrites: bool,
    pub(crate) is_all_of_version: Option<i32>,
}

/// Installs schedules together, and wakes the tasks that fire them.
pub(crate) async fn install(
    store: &Store,
    new: Vec<NewSchedule>,
    settings: Settings<'_>,
) -> Result<Installed> {
    for (index, schedule) in new.iter().enumerate() {
        let bytes = schedule.payload.0.len();
        if bytes > store.payload_limit() {
            return Err(Error::PayloadTooLarge {
                index,
                bytes,
                limit: store.payload_limit(),
            });
        }
    }
    let mut installed = store
        .run(async |connection| {
            let now = schedules::now(connection).await?;
            let mut with_times = Vec::with_capacity(new.len());
            for schedule in new {
                let next_at = Timing::new(&schedule.time, &schedule.zone)?.first(now);
                // One that never fires was refused before.
                with_times.push((schedule, next_at.unwrap_or(now)));
            }
            let installation = Installation {
                owner: settings.owner,
                schedules: &with_times,
                overwrites: settings.overwrites,
                is_all_of_version: settings.is_all_of_version,
            };
            schedules::install(connection, &installation).await
        })
        .await?;
    schedules::refusal(&mut installed)?;
    store.notifier().wake(&QueueName::SCHEDULES);
    Ok(installed)
}

/// A name of a schedule or of an owner.
pub(crate) fn check_name(setting: &'static str, name: String) -> Result<String> {
    // The same rule as for queues.
    if name.len() <= LONGEST_NAME && QueueName::new(name.clone()).is_ok() {
        return Ok(name);
    }
    Err(Error::InvalidSetting {
        setting,
        value: format!("{name:?}"),
        expected: "a name of 1 to 128 bytes without control characters, or white space at either end",
    })
}

pub(crate) fn check_version(version: u32) -> Result<i32> {
    i32::try_from(version).map_err(|_| Error::InvalidSetting {
        setting: "version",
        value: version.to_string(),
        expected: "at most 2,147,483,647",
    })
}
