//! A delivery of a consumer's loop, for Python's `Delivery`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use pgqrs::{Execute, Headers, Outcome, Priority, Unsettled};
use pyo3::{exceptions::PyValueError, prelude::*};
use tokio::sync::{oneshot, watch};

use super::{
    Raw, Verdict,
    ack_statement::{AckStatement, Pending, Reserved},
    lock,
    stage::{Stage, advance},
};
use crate::{answer::Mode, errors, process::Here};

/// A message that is leased to this process. Its lease is extended until it is settled, or dropped.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Delivery {
    ticket: u64,
    held: Here<HeldDelivery>,
    mode: Mode,
}

struct HeldDelivery {
    about: About,
    store: pgqrs::Store,
    /// `None` once it is settled. Locked while a statement about it is under way.
    delivery: Arc<tokio::sync::Mutex<Option<pgqrs::Delivery<Raw>>>>,
    /// Whether it is settled, or is being settled.
    settled: Arc<AtomicBool>,
    /// The channel for the verdict that the loop waits for.
    verdict: Arc<Mutex<Option<oneshot::Sender<Verdict>>>>,
    stage: Arc<watch::Sender<Stage>>,
    /// Whether it is acknowledged in a transaction of its handler's, or is about to be.
    in_transaction: Arc<AtomicBool>,
    /// Whether a handler has it, that reports its outcome; and not an iteration.
    by_handler: Arc<AtomicBool>,
}

/// What remains available after it is settled.
pub(super) struct About {
    pub(super) id: i64,
    pub(super) payload: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) scheduled_for: Option<DateTime<Utc>>,
    pub(super) priority: &'static str,
    pub(super) attempt: u32,
    pub(super) max_attempts: u32,
    pub(super) snoozes: u32,
    pub(super) group: Option<String>,
    pub(super) enqueued_at: DateTime<Utc>,
}

impl About {
    pub(super) fn of(delivery: &pgqrs::Delivery<Raw>) -> Self {
        Self {
            id: delivery.id().get(),
            payload: delivery.raw_payload().to_owned(),
            headers: texts(delivery.headers()),
            scheduled_for: delivery.scheduled_for(),
            priority: priority_name(delivery.priority()),
            attempt: delivery.attempt(),
            max_attempts: delivery.max_attempts(),
            snoozes: delivery.snoozes(),
            group: delivery.group().map(str::to_owned),
            enqueued_at: delivery.enqueued_at(),
        }
    }
}

#[pymethods]
impl Delivery {
    /// The ticket of this delivery in the loop.
    #[getter]
    fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The message's id.
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.held.get(py)?.about.id)
    }

    /// The payload as it was sent.
    #[getter]
    fn raw_payload(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.held.get(py)?.about.payload.clone())
    }

    /// The headers.
    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<BTreeMap<String, String>> {
        Ok(self.held.get(py)?.about.headers.clone())
    }

    /// The time that a schedule has sent the message for.
    #[getter]
    fn scheduled_for(&self, py: Python<'_>) -> PyResult<Option<DateTime<Utc>>> {
        Ok(self.held.get(py)?.about.scheduled_for)
    }

    /// Its priority.
    #[getter]
    fn priority(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.held.get(py)?.about.priority)
    }

    /// The attempt: 1 for the first delivery of the message.
    #[getter]
    fn attempt(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.held.get(py)?.about.attempt)
    }

    /// After how many attempts the message becomes a dead letter.
    #[getter]
    fn max_attempts(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.held.get(py)?.about.max_attempts)
    }

    /// The group that it belongs to.
    #[getter]
    fn group(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.held.get(py)?.about.group.clone())
    }

    /// How often a handler has put it off.
    #[getter]
    fn snoozes(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.held.get(py)?.about.snoozes)
    }

    /// When the message was enqueued.
    #[getter]
    fn enqueued_at(&self, py: Python<'_>) -> PyResult<DateTime<Utc>> {
        Ok(self.held.get(py)?.about.enqueued_at)
    }

    /// When the lease runs out; `None` if it is settled, or if a statement about it is under way.
    #[getter]
    fn lease_expires_at(&self, py: Python<'_>) -> PyResult<Option<DateTime<Utc>>> {
        let held = self.held.get(py)?;
        let delivery = held.delivery.try_lock();
        Ok(delivery
            .ok()
            .and_then(|delivery| delivery.as_ref().map(pgqrs::Delivery::lease_expires_at)))
    }

    /// Whether it is settled, or is being settled.
    #[getter]
    fn is_settled(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.held.get(py)?.settled.load(Ordering::Acquire))
    }

    /// Acknowledges the message.
    fn ack<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, |delivery, store| delivery.try_ack(store))
    }

    /// The acknowledgement as SQL.
    fn ack_statement<'py>(&self, py: Python<'py>, blocking: bool) -> PyResult<Bound<'py, PyAny>> {
        let held = self.held.get(py)?;
        let message = held.about.id;
        if held.settled.swap(true, Ordering::AcqRel) {
            return Err(errors::already_settled(py, message));
        }
        let reserved = Reserved::new(&held.settled, &held.in_transaction);
        let delivery = Arc::clone(&held.delivery);
        let verdict = Arc::clone(&held.verdict);
        let by_handler = Arc::clone(&held.by_handler);
        // By the kind of the connection, which needn't be that of the consumer.
        Mode::new(blocking).answer(py, async move {
            let mut place = delivery.lock_owned().await;
            match place.take() {
                Some(delivery) => Ok(AckStatement::new(delivery.ack_statement(), |statement| {
                    Pending {
                        statement: Some(statement),
                        place,
                        reserved,
                        verdict: Some(verdict).filter(|_| !by_handler.load(Ordering::Acquire)),
                    }
                })),
                None => Err(pgqrs::Error::LeaseLost {
                    message: message.into(),
                }),
            }
        })
    }

    /// Archives the message.
    fn archive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, |delivery, store| delivery.try_archive(store))
    }

    /// Fails this attempt: the message is retried after this delay, or by the consumer's policy.
    fn nack<'py>(&self, py: Python<'py>, delay: Option<Duration>) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, move |delivery, store| match delay {
            Some(delay) => delivery.try_retry_in(delay, store),
            None => delivery.try_nack(store),
        })
    }

    /// Puts the message off: it is delivered again after this delay, and no attempt is used.
    fn later<'py>(&self, py: Python<'py>, delay: Duration) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, move |delivery, store| delivery.try_later(delay, store))
    }

    /// Puts the message off, and slows its queue down.
    fn slow_down<'py>(&self, py: Python<'py>, delay: Duration) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, move |delivery, store| {
            delivery.try_slow_down(delay, store)
        })
    }

    /// Makes the message a dead letter.
    fn dead_letter<'py>(&self, py: Python<'py>, reason: String) -> PyResult<Bound<'py, PyAny>> {
        self.settle(py, move |delivery, store| {
            delivery.try_dead_letter(reason, store)
        })
    }

    /// Extends the lease to this duration from now on.
    fn extend<'py>(&self, py: Python<'py>, lease: Duration) -> PyResult<Bound<'py, PyAny>> {
        let held = self.held.get(py)?;
        let message = held.about.id;
        if held.settled.load(Ordering::Acquire) {
            return Err(errors::already_settled(py, message));
        }
        let delivery = Arc::clone(&held.delivery);
        self.mode.answer(py, async move {
            match &*delivery.lock().await {
                Some(delivery) => delivery.extend(lease).await,
                // It was settled a moment ago.
                None => Err(pgqrs::Error::LeaseLost {
                    message: message.into(),
                }),
            }
        })
    }

    /// Whether the message was cancelled.
    #[getter]
    fn is_cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        let held = self.held.get(py)?;
        let delivery = held.delivery.try_lock();
        Ok(delivery
            .is_ok_and(|delivery| delivery.as_ref().is_some_and(pgqrs::Delivery::is_cancelled)))
    }

    /// Waits until the message was cancelled, at most for this time; whether it was.
    fn cancelled<'py>(
        &self,
        py: Python<'py>,
        limit: Option<Duration>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let delivery = Arc::clone(&self.held.get(py)?.delivery);
        self.mode.answer(py, async move {
            let cancelled = delivery
                .lock()
                .await
                .as_ref()
                .map(pgqrs::Delivery::cancelled);
            // It is settled.
            let Some(cancelled) = cancelled else {
                return Ok(false);
            };
            let Some(limit) = limit else {
                cancelled.await;
                return Ok(true);
            };
            Ok(tokio::time::timeout(limit, cancelled).await.is_ok())
        })
    }

    /// Starts the handler's time limit; `false` if the handler must not start, since the loop has abandoned the
    /// delivery. An iteration has no handler.
    #[pyo3(signature = (by_handler=true))]
    fn begin(&self, py: Python<'_>, by_handler: bool) -> PyResult<bool> {
        let held = self.held.get(py)?;
        held.by_handler.store(by_handler, Ordering::Release);
        Ok(advance(&held.stage, Stage::Waiting, Stage::Begun))
    }

    /// Reports the handler's outcome to the loop, which settles in batches. Does nothing if the delivery is settled
    /// already. If it was acknowledged in a transaction, the loop learns whether the handler has failed nevertheless.
    #[pyo3(signature = (outcome, delay=None, reason=None))]
    fn finish(
        &self,
        py: Python<'_>,
        outcome: &str,
        delay: Option<Duration>,
        reason: Option<String>,
    ) -> PyResult<()> {
        let held = self.held.get(py)?;
        let verdict = verdict_of(outcome, delay, reason)?;
        let is_settled = held.settled.swap(true, Ordering::AcqRel);
        if (!is_settled || held.in_transaction.load(Ordering::Acquire))
            && let Some(verdict_sender) = lock(&held.verdict).take()
        {
            // The loop may have ended.
            let _ = verdict_sender.send(verdict);
        }
        Ok(())
    }
}

impl Delivery {
    pub(super) fn new(
        ticket: u64,
        delivery: pgqrs::Delivery<Raw>,
        verdict: oneshot::Sender<Verdict>,
        stage: Arc<watch::Sender<Stage>>,
        store: pgqrs::Store,
        mode: Mode,
    ) -> Self {
        let about = About::of(&delivery);
        Self {
            ticket,
            held: Here::new(HeldDelivery {
                about,
                store,
                delivery: Arc::new(Some(delivery).into()),
                settled: Arc::default(),
                verdict: Arc::new(Mutex::new(Some(verdict))),
                stage,
                in_transaction: Arc::default(),
                by_handler: Arc::default(),
            }),
            mode,
        }
    }

    pub(super) fn release(&self) {
        let Some(held) = self.held.here() else {
            return;
        };
        if let Some(verdict_sender) = lock(&held.verdict).take() {
            let _ = verdict_sender.send(Ok(Outcome::Release));
        }
    }

    /// Settles the delivery itself, at once.
    fn settle<'py, F>(&self, py: Python<'py>, verb: F) -> PyResult<Bound<'py, PyAny>>
    where
        F: for<'a> FnOnce(
                pgqrs::Delivery<Raw>,
                &'a pgqrs::Store,
            ) -> Execute<'a, Result<(), Unsettled<Raw>>>
            + Send
            + 'static,
    {
        let held = self.held.get(py)?;
        if held.settled.swap(true, Ordering::AcqRel) {
            return Err(errors::already_settled(py, held.about.id));
        }
        let (store, message) = (held.store.clone(), held.about.id);
        let (delivery, settled) = (Arc::clone(&held.delivery), Arc::clone(&held.settled));
        let verdict = Arc::clone(&held.verdict);
        self.mode.answer(py, async move {
            let mut place = delivery.lock().await;
            let Some(held) = place.take() else {
                return Err(pgqrs::Error::LeaseLost {
                    message: message.into(),
                });
            };
            if let Err(unsettled) = verb(held, &store).await {
                let error = unsettled.error().clone();
                *place = Some(unsettled.into_delivery());
                settled.store(false, Ordering::Release);
                return Err(error);
            }
            if let Some(verdict_sender) = lock(&verdict).take() {
                // The delivery knows that it is settled, so the loop only continues.
                let _ = verdict_sender.send(Ok(Outcome::Done));
            }
            Ok(())
        })
    }
}

/// How a handler, or a part of it, has ended.
pub(super) fn verdict_of(
    outcome: &str,
    delay: Option<Duration>,
    reason: Option<String>,
) -> PyResult<Verdict> {
    let reason = reason.unwrap_or_default();
    Ok(match (outcome, delay) {
        ("done", _) => Ok(Outcome::Done),
        ("archive", _) => Ok(Outcome::Archive),
        ("retry", Some(delay)) => Ok(Outcome::RetryIn(delay, reason)),
        ("retry", None) => Ok(Outcome::Retry(reason)),
        ("slow_down", delay) => Ok(Outcome::SlowDown(delay.unwrap_or_default())),
        ("later", delay) => Ok(Outcome::Later(delay.unwrap_or_default())),
        ("undecodable", _) => Ok(Outcome::Undecodable(reason)),
        ("dead_letter", _) => Ok(Outcome::DeadLetter(reason)),
        ("release", _) => Ok(Outcome::Release),
        ("failed", _) => Err(reason),
        (other, _) => {
            return Err(PyValueError::new_err(format!(
                "{other:?} is not an outcome"
            )));
        }
    })
}

/// Headers as Python's `dict`.
pub(crate) fn texts(headers: &Headers) -> BTreeMap<String, String> {
    let texts = headers.iter();
    texts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

pub(crate) fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Urgent => "urgent",
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}
