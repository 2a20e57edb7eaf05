//! Operations of an operator on schema, queues, workers, dead letters and archive, for Python's `Admin`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgqrs::{MessageId, QueueOptions};
use pyo3::prelude::*;

use crate::{
    answer::Mode,
    group_admin::GroupAdmin,
    health::{health_row, stats_row},
    rows::{
        Limits, archived_row, cancelled_name, counts, dead_row, fillfactor, filter, held_row,
        limits_options, message_row, page, queue_row, rows, version, worker_row,
    },
    schedule::{Schedule, change_name, firing_row, with_upcoming},
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
        let fillfactor = fillfactor(percent)?;
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

    /// Changes a queue's settings. A duration is left as it is by `None`, and unset by a tuple with `None`.
    #[pyo3(signature = (
        queue, *, max_attempts, lease, retry_min, retry_max, archive_on_ack, archive_for, dead_letters_for, sensitive,
        limits
    ))]
    #[expect(clippy::too_many_arguments, reason = "callers pass them by name")]
    fn configure_queue<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        max_attempts: Option<u32>,
        lease: Option<(Option<Duration>,)>,
        retry_min: Option<(Option<Duration>,)>,
        retry_max: Option<(Option<Duration>,)>,
        archive_on_ack: Option<bool>,
        archive_for: Option<(Option<Duration>,)>,
        dead_letters_for: Option<(Option<Duration>,)>,
        sensitive: Option<bool>,
        limits: Limits,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        let changes = [
            max_attempts.map(|attempts| QueueOptions::builder().max_attempts(attempts).build()),
            lease.map(|(lease,)| QueueOptions::builder().lease(lease).build()),
            retry_min.map(|(wait,)| QueueOptions::builder().retry_min(wait).build()),
            retry_max.map(|(wait,)| QueueOptions::builder().retry_max(wait).build()),
            archive_on_ack.map(|archive| QueueOptions::builder().archive_on_ack(archive).build()),
            archive_for.map(|time| QueueOptions::builder().archive_for(time.0).build()),
            dead_letters_for.map(|time| QueueOptions::builder().dead_letters_for(time.0).build()),
            sensitive.map(|hidden| QueueOptions::builder().sensitive(hidden).build()),
            Some(limits_options(limits)),
        ];
        let options: QueueOptions = changes.into_iter().flatten().collect();
        mode.answer(py, async move {
            Ok(queue_row(admin.configure_queue(queue, options).await?))
        })
    }

    /// Pauses a queue, until it is resumed or until this time.
    #[pyo3(signature = (queue, until))]
    fn pause_queue<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        until: Option<DateTime<Utc>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            match until {
                Some(time) => admin.pause_until(queue, time).await,
                None => admin.pause_queue(queue).await,
            }
        })
    }

    /// Resumes a paused queue.
    fn resume_queue<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.resume_queue(queue).await })
    }

    /// Has a queue refuse sends.
    fn close_queue<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.close_queue(queue).await })
    }

    /// Has a closed queue accept sends again.
    fn reopen_queue<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.reopen_queue(queue).await })
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

    /// Cancels a message; returns what it was, if there was one.
    fn cancel<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        message: i64,
        archive: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            let cancelled = admin.cancel(queue, message.into()).archive(archive).await?;
            Ok(cancelled.map(cancelled_name))
        })
    }

    /// Cancels the messages with a key; returns the id of each, and what it was.
    fn cancel_by_key<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        key: String,
        archive: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            let cancelled = admin.cancel_by_key(queue, key).archive(archive).await?;
            let cancelled = cancelled
                .into_iter()
                .map(|(id, was)| (id.get(), cancelled_name(was)));
            Ok(cancelled.collect::<Vec<_>>())
        })
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
        mode.answer(py, async move {
            admin.requeue(queue, message.into()).await.map(counts)
        })
    }

    /// Requeues all dead letters of this age.
    fn requeue_all<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        older_than: Duration,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            admin.requeue_all(queue, older_than).await.map(counts)
        })
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

    /// The calls about groups.
    fn of_groups(&self, py: Python<'_>) -> GroupAdmin {
        GroupAdmin::new(self.store.clone_ref(py))
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

    /// Returns a schedule's last firings.
    fn schedule_history<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(rows(admin.schedule_history(&name).await?, firing_row))
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
