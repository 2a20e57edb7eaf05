//! Schedules, for Python's `Store` and `Admin`. Rows are returned as tuples, in the order of the fields of Python's
//! classes.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use pgqrs::{
    Cron, MessageId, Missed, ScheduleChange, ScheduleFiring, ScheduleInfo, ScheduleSpec,
    ScheduleTime,
};
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::{
    consumer::{priority_name, texts},
    encode::encode_raw,
    errors,
    process::Here,
    producer::to_priority,
};

/// A schedule that is to be installed.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Schedule {
    pub(crate) spec: ScheduleSpec,
}

#[pymethods]
impl Schedule {
    #[new]
    #[pyo3(signature = (
        name, queue, payload, *, cron, every, zone, version, missed, priority, headers, unique,
        skip_if_unfinished, max_attempts, expires_in, drop_if_expired
    ))]
    #[expect(clippy::too_many_arguments, reason = "callers pass them by name")]
    fn new(
        py: Python<'_>,
        name: String,
        queue: String,
        payload: &Bound<'_, PyAny>,
        cron: Option<String>,
        every: Option<Duration>,
        zone: String,
        version: u32,
        missed: (String, Option<Duration>, Option<u32>),
        priority: &str,
        headers: Vec<(String, String)>,
        unique: Option<String>,
        skip_if_unfinished: bool,
        max_attempts: Option<u32>,
        expires_in: Option<Duration>,
        drop_if_expired: bool,
    ) -> PyResult<Self> {
        let payload = encode_raw(payload, 0, false)?;
        let mut schedule = pgqrs::schedule(name, queue)
            .message(&payload)
            .zone(zone)
            .version(version)
            .missed(to_missed(missed)?)
            .priority(to_priority(priority)?)
            .headers(headers);
        if let Some(key) = unique {
            schedule = schedule.unique(key);
        }
        if skip_if_unfinished {
            schedule = schedule.skip_if_unfinished();
        }
        if let Some(attempts) = max_attempts {
            schedule = schedule.max_attempts(attempts);
        }
        if let Some(time) = expires_in {
            schedule = schedule.expires_in(time);
        }
        if drop_if_expired {
            schedule = schedule.drop_if_expired();
        }
        let spec = match (cron, every) {
            (Some(cron), None) => {
                let cron = Cron::parse(cron).map_err(pgqrs::Error::from);
                let cron = cron.map_err(|error| errors::raised(py, &error))?;
                schedule.cron(cron).spec()
            }
            (None, Some(every)) => schedule.every(every).spec(),
            _ => return Err(PyValueError::new_err("cron, every: pass one of the two")),
        };
        Ok(Self { spec })
    }
}

fn to_missed(
    (kind, older_than, at_most): (String, Option<Duration>, Option<u32>),
) -> PyResult<Missed> {
    match (kind.as_str(), older_than, at_most) {
        ("once", ..) => Ok(Missed::Once),
        ("skip", Some(older_than), _) => Ok(Missed::Skip { older_than }),
        ("all", _, Some(at_most)) => Ok(Missed::All { at_most }),
        _ => Err(PyValueError::new_err(format!("missed: {kind:?} is none"))),
    }
}

pub(crate) fn change_name(change: ScheduleChange) -> &'static str {
    match change {
        ScheduleChange::Created => "created",
        ScheduleChange::Replaced => "replaced",
        ScheduleChange::Unchanged => "unchanged",
    }
}

/// Fires schedules until it is stopped.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Scheduler {
    held: Here<std::sync::Mutex<Option<pgqrs::Scheduler>>>,
}

impl Scheduler {
    pub(crate) fn new(scheduler: pgqrs::Scheduler) -> Self {
        Self {
            held: Here::new(std::sync::Mutex::new(Some(scheduler))),
        }
    }
}

#[pymethods]
impl Scheduler {
    /// Stops it.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let held = self.held.get(py)?;
        let scheduler = held
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        drop(scheduler);
        Ok(())
    }
}

type TimeRow = (Option<String>, Option<Duration>, String);
type PolicyRow = (&'static str, Option<Duration>, Option<u32>);
type LimitsRow = (Option<String>, Option<u32>, Option<Duration>, bool);
type TimesRow = (
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
);
pub(crate) type ScheduleRow = (
    String,
    String,
    Option<String>,
    u32,
    TimeRow,
    PolicyRow,
    &'static str,
    LimitsRow,
    BTreeMap<String, String>,
    TimesRow,
);

fn schedule_row(schedule: ScheduleInfo) -> ScheduleRow {
    let (cron, every) = match schedule.time {
        ScheduleTime::Cron(cron) => (Some(cron.as_str().to_owned()), None),
        ScheduleTime::Every(every) => (None, Some(every)),
        _ => (None, None),
    };
    let missed = match schedule.missed {
        Missed::Once => ("once", None, None),
        Missed::Skip { older_than } => ("skip", Some(older_than), None),
        Missed::All { at_most } => ("all", None, Some(at_most)),
    };
    (
        schedule.name,
        schedule.queue.as_str().to_owned(),
        schedule.owner,
        schedule.version,
        (cron, every, schedule.zone),
        missed,
        priority_name(schedule.priority),
        (
            schedule.unique_key,
            schedule.max_attempts,
            schedule.expires_in,
            schedule.drop_if_expired,
        ),
        texts(&schedule.headers),
        (
            schedule.next_at,
            schedule.last_at,
            schedule.last_fired_at,
            schedule.paused_at,
        ),
    )
}

pub(crate) type FiringRow = (
    Option<DateTime<Utc>>,
    DateTime<Utc>,
    String,
    Option<i64>,
    String,
);

pub(crate) fn firing_row(firing: ScheduleFiring) -> FiringRow {
    (
        firing.scheduled_for,
        firing.fired_at,
        firing.queue.as_str().to_owned(),
        firing.message.map(MessageId::get),
        firing.outcome.to_string(),
    )
}

/// A schedule after its next times; its next one alone if they can't be computed.
pub(crate) fn with_upcoming(schedule: ScheduleInfo) -> (Vec<DateTime<Utc>>, ScheduleRow) {
    let upcoming = schedule.upcoming(5);
    let upcoming = upcoming.unwrap_or_else(|_| vec![schedule.next_at]);
    (upcoming, schedule_row(schedule))
}
