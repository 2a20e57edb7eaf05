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
    enqueue::of_each::set_options,
    error::{Error, Result},
    executor::Execute,
    headers::NewHeaders,
    key::{Key, Lifetime},
    message::{MessageOptions, NewMessage, Priority},
    payload::encode,
    postgres::schedules::{self, Installation, Installed, NewSchedule},
    queue::{Carries, IntoQueue, KeyOf, KeyOfJson, Queue, QueueName},
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
        key_of: queue.key().map(KeyOf::erased),
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
    /// The key of its queue's messages.
    key_of: Option<KeyOfJson>,
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
    headers: NewHeaders,
    of_message: MessageOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: FIRST_VERSION,
            zone: "UTC".to_owned(),
            missed: Missed::default(),
            skip_if_unfinished: false,
            priority: Priority::default(),
            headers: NewHeaders::default(),
            of_message: MessageOptions::default(),
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
            key_of: self.key_of,
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
            key_of: self.key_of,
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

    /// Sends no message while the last one is unfinished: while it waits, runs, or is retried. That time is left out.
    ///
    /// # Source
    /// Its messages have the [unique](Self::unique) key `pgqrs-schedule-` with the schedule's name; or the one that the
    /// [queue](Queue::unique_by) computes, if it does.
    pub fn skip_if_unfinished(mut self) -> Self {
        self.options.skip_if_unfinished = true;
        self
    }

    /// As [`Enqueue::unique`](crate::Enqueue::unique), for its messages: none is sent while another of the queue has this
    /// key, and that time is left out. [`skip_if_unfinished`](Self::skip_if_unfinished) is the same with a key of the
    /// schedule's own.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] from [`install`](Self::install).
    pub fn unique(mut self, key: impl Into<String>) -> Self {
        self.options.of_message.key = Some(Key::new(key.into(), Lifetime::Unfinished));
        self
    }

    /// As [`Enqueue::priority`](crate::Enqueue::priority), for its messages.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// As [`Enqueue::max_attempts`](crate::Enqueue::max_attempts), for its messages.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] from [`install`](Self::install) for 0, and for more than 2,147,483,647.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.of_message.max_attempts = Some(attempts);
        self
    }

    /// As [`Enqueue::expires_in`](crate::Enqueue::expires_in), for its messages.
    ///
    /// # Errors
    /// [`Error::DelayTooLong`] from [`install`](Self::install) for more than 200,000 years.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.options.of_message.expires_in = Some(time);
        self
    }

    /// As [`Enqueue::drop_if_expired`](crate::Enqueue::drop_if_expired), for its messages.
    pub fn drop_if_expired(mut self) -> Self {
        self.options.of_message.drop_if_expired = true;
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
        let mut of_message = options.of_message;
        if options.skip_if_unfinished && of_message.key.is_none() && self.key_of.is_none() {
            let key = format!("pgqrs-schedule-{name}");
            of_message.key = Some(Key::new(key, Lifetime::Unfinished));
        }
        let mut messages = [self.message.into_message()?];
        set_options(&mut messages, &of_message, self.key_of.as_ref())?;
        let [message] = messages;
        if message.key().is_some_and(Key::is_group) {
            return Err(Error::InvalidSetting {
                setting: "schedule",
                value: "one of a queue with `group_by`".to_owned(),
                expected: "one of a queue without: schedules can't send messages of groups",
            });
        }
        Ok(NewSchedule {
            name,
            queue: self.queue?,
            version: check_version(options.version)?,
            time,
            zone: options.zone,
            missed: options.missed.check()?,
            priority: options.priority,
            headers: options.headers.finish()?,
            message,
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
    /// - [`Error::InvalidSetting`], [`Error::DelayTooLong`], [`Error::InvalidHeader`], [`Error::InvalidKey`],
    ///   [`Error::Unkeyed`], [`Error::InvalidQueueName`], [`Error::Serialize`], [`Error::PayloadTooLarge`],
    ///   [`Error::PayloadTooDeep`]: before anything is sent;
    /// - [`Error::QueueNotFound`], [`Error::NotInstalled`];
    /// - [`Error::ScheduleTaken`] if one of that name has an [owner](crate::Store::schedules).
    ///
    /// # Source
    /// The database's time is read, from which the next time is computed; then `insert into pgqrs.schedules … on conflict
    /// do update … where version < excluded.version`.
    pub fn install<S>(self, store: &S) -> Execute<'static, Result<ScheduleChange>>
    where
        T: ScheduleHasTime,
        M: ScheduleHasMessage,
        S: AsStore + ?Sized,
    {
        let (spec, store) = (self.spec(), store.as_store().clone());
        Execute::new(async move { spec.install(&store).await })
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
        schedule.message.check_size(index, store.payload_limit())?;
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
