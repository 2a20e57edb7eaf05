//! Operations of an operator on schema, queues, workers, dead letters and archive, for Python's `Admin`. Rows are
//! returned as tuples, in the order of the fields of Python's classes.

mod rows;

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgqrs::{Fillfactor, MessageId, Page, QueueName, QueueOptions, WorkerFilter};
use pyo3::{exceptions::PyValueError, prelude::*};

pub(crate) use self::rows::{VersionRow, WorkerRow, version, worker_row};
use self::rows::{archived_row, dead_row, held_row, message_row, queue_row};
use crate::{
    answer::Mode,
    health::{health_row, stats_row},
    schedule::{Schedule, ScheduleRow, change_name, schedule_row},
    store::Store,
};

/// Administration of the schema, queues, messages and workers.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Admin {
    store: Py<Store>,
}

#[pymethods]
impl Admin {
    #[new]
    fn new(store: Py<Store>) -> Self {
        Self { store }
    }

    /// Creates or upgrades the schema.
    fn install<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.install().await })
    }

    /// Compares the schema's version: returns the status, the version in the database, and the version of this build.
    fn verify<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { Ok(version(admin.verify().await?)) })
    }

    /// Sets how far inserts fill pages, in percent.
    fn set_fillfactor<'py>(&self, py: Python<'py>, percent: i64) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        let fillfactor = match percent {
            50 => Fillfactor::Percent50,
            60 => Fillfactor::Percent60,
            70 => Fillfactor::Percent70,
            80 => Fillfactor::Percent80,
            90 => Fillfactor::Percent90,
            100 => Fillfactor::Percent100,
            other => {
                let wrong = format!("percent: expected 50, 60, 70, 80, 90 or 100, not {other}");
                return Err(PyValueError::new_err(wrong));
            }
        };
        mode.answer(py, async move { admin.set_fillfactor(fillfactor).await })
    }

    /// Creates a queue.
    fn create_queue<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(queue_row(admin.create_queue(queue).await?))
        })
    }

    /// Returns a queue.
    fn queue<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { Ok(queue_row(admin.queue(queue).await?)) })
    }

    /// Returns all queues.
    fn queues<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(
            py,
            async move { Ok(rows(admin.queues().await?, queue_row)) },
        )
    }

    /// Deletes an empty queue.
    fn delete_queue<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.delete_queue(queue).await })
    }

    /// Deletes all messages of a queue.
    fn purge_queue<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.purge_queue(queue).await })
    }

    /// Returns the database's and the queues' health.
    fn health<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { Ok(health_row(admin.health().await?)) })
    }

    /// Returns how many messages are ready, delayed, leased and dead, counted up to a limit.
    fn queue_stats<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(stats_row(&admin.queue_stats(queue).await?))
        })
    }

    /// The same of all queues.
    fn all_queue_stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            let all = admin.all_queue_stats().await?;
            Ok(all.iter().map(stats_row).collect::<Vec<_>>())
        })
    }

    /// The same, counted exactly.
    fn exact_queue_stats<'py>(
        &self,
        py: Python<'py>,
        queue: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(stats_row(&admin.exact_queue_stats(queue).await?))
        })
    }

    /// Changes a queue's settings.
    #[pyo3(signature = (queue, max_attempts))]
    fn configure_queue<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        max_attempts: Option<u32>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        let options = match max_attempts {
            Some(attempts) => QueueOptions::builder().max_attempts(attempts).build(),
            None => QueueOptions::default(),
        };
        mode.answer(py, async move {
            Ok(queue_row(admin.configure_queue(queue, options).await?))
        })
    }

    /// Lists messages of a queue.
    #[pyo3(signature = (queue, after, limit, payload))]
    fn messages<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        after: Option<i64>,
        limit: u32,
        payload: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        let page = page(after, limit, payload);
        mode.answer(py, async move {
            Ok(rows(admin.messages(queue, page).await?, message_row))
        })
    }

    /// Cancels a message that isn't leased.
    fn cancel<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        message: i64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.cancel(queue, message.into()).await })
    }

    /// Reschedules a message that isn't leased.
    fn reschedule<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        message: i64,
        time: DateTime<Utc>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            admin.reschedule(queue, message.into(), time).await
        })
    }

    /// Lists dead letters of a queue.
    #[pyo3(signature = (queue, after, limit, payload))]
    fn dead_letters<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        after: Option<i64>,
        limit: u32,
        payload: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        let page = page(after, limit, payload);
        mode.answer(py, async move {
            Ok(rows(admin.dead_letters(queue, page).await?, dead_row))
        })
    }

    /// Returns the number of dead letters.
    fn dead_letter_count<'py>(
        &self,
        py: Python<'py>,
        queue: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.dead_letter_count(queue).await })
    }

    /// Requeues a dead letter.
    fn requeue<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        message: i64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(
            py,
            async move { admin.requeue(queue, message.into()).await },
        )
    }

    /// Requeues all dead letters of this age.
    fn requeue_all<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        older_than: Duration,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(
            py,
            async move { admin.requeue_all(queue, older_than).await },
        )
    }

    /// Deletes dead letters of this age.
    fn purge_dead_letters<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        older_than: Duration,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            admin.purge_dead_letters(queue, older_than).await
        })
    }

    /// Lists archived messages of a queue.
    #[pyo3(signature = (queue, after, limit, payload))]
    fn archived<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        after: Option<i64>,
        limit: u32,
        payload: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        let page = page(after, limit, payload);
        mode.answer(py, async move {
            Ok(rows(admin.archived(queue, page).await?, archived_row))
        })
    }

    /// Deletes archived messages of this age.
    fn purge_archive<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        older_than: Duration,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(
            py,
            async move { admin.purge_archive(queue, older_than).await },
        )
    }

    /// Lists schedules, each after its next times.
    fn schedules<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(rows(admin.schedules().await?, with_upcoming))
        })
    }

    /// Returns a schedule, after its next times.
    fn schedule<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(with_upcoming(admin.schedule(&name).await?))
        })
    }

    /// Installs or overwrites a schedule without an owner.
    fn set_schedule<'py>(
        &self,
        py: Python<'py>,
        schedule: &Schedule,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        let spec = schedule.spec.clone();
        mode.answer(py, async move {
            Ok(change_name(admin.set_schedule(spec).await?))
        })
    }

    /// Pauses a schedule.
    fn pause_schedule<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.pause_schedule(&name).await })
    }

    /// Resumes a schedule.
    fn resume_schedule<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.resume_schedule(&name).await })
    }

    /// Sends a schedule's message now.
    fn fire_schedule<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(admin.fire_schedule(&name).await?.map(MessageId::get))
        })
    }

    /// Deletes a schedule.
    fn delete_schedule<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.delete_schedule(&name).await })
    }

    /// Lists workers, optionally of one queue.
    #[pyo3(signature = (queue))]
    fn workers<'py>(&self, py: Python<'py>, queue: Option<String>) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(rows(admin.workers(&filter(queue)?).await?, worker_row))
        })
    }

    /// Returns a worker.
    fn worker<'py>(&self, py: Python<'py>, worker: i64) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(worker_row(admin.worker(worker.into()).await?))
        })
    }

    /// Suspends a worker.
    fn suspend_worker<'py>(&self, py: Python<'py>, worker: i64) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.suspend_worker(worker.into()).await })
    }

    /// Resumes a worker.
    fn resume_worker<'py>(&self, py: Python<'py>, worker: i64) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.resume_worker(worker.into()).await })
    }

    /// Stops a worker.
    fn stop_worker<'py>(&self, py: Python<'py>, worker: i64) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.stop_worker(worker.into()).await })
    }

    /// Removes a worker that has stopped or crashed.
    fn remove_worker<'py>(&self, py: Python<'py>, worker: i64) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.remove_worker(worker.into()).await })
    }

    /// Removes workers that stopped or crashed this long ago.
    fn remove_ended_workers<'py>(
        &self,
        py: Python<'py>,
        older_than: Duration,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(
            py,
            async move { admin.remove_ended_workers(older_than).await },
        )
    }

    /// Returns the messages that a worker holds.
    fn held_messages<'py>(&self, py: Python<'py>, worker: i64) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(rows(admin.held_messages(worker.into()).await?, held_row))
        })
    }

    /// Releases the messages that a worker holds.
    fn release<'py>(&self, py: Python<'py>, worker: i64) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.release(worker.into()).await })
    }
}

impl Admin {
    fn get(&self, py: Python<'_>) -> PyResult<(Mode, pgqrs::Admin)> {
        let store = self.store.get();
        Ok((store.mode(), pgqrs::admin(&store.get(py)?)))
    }
}

fn rows<T, R>(found: Vec<T>, row: fn(T) -> R) -> Vec<R> {
    found.into_iter().map(row).collect()
}

/// A schedule after its next times; its next one alone if they can't be computed.
fn with_upcoming(schedule: pgqrs::ScheduleInfo) -> (Vec<DateTime<Utc>>, ScheduleRow) {
    let upcoming = schedule.upcoming(5);
    let upcoming = upcoming.unwrap_or_else(|_| vec![schedule.next_at]);
    (upcoming, schedule_row(schedule))
}

fn page(after: Option<i64>, limit: u32, payload: bool) -> Page {
    let page = Page::builder().limit(limit).payload(payload);
    match after {
        Some(after) => page.after(MessageId::from(after)).build(),
        None => page.build(),
    }
}

fn filter(queue: Option<String>) -> pgqrs::Result<WorkerFilter> {
    Ok(match queue {
        Some(queue) => WorkerFilter::builder()
            .queue(QueueName::new(queue)?)
            .build(),
        None => WorkerFilter::default(),
    })
}
