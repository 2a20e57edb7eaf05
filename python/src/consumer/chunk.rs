//! A chunk of a consumer's loop, for Python's `Chunk`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use pgqrs::Outcome;
use pyo3::prelude::*;
use tokio::sync::{oneshot, watch};

use super::{
    Raw, Verdict,
    delivery::{About, verdict_of},
    lock,
    stage::{Stage, advance},
};
use crate::process::Here;

/// Messages that are leased to this process, and handled by one call.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct Chunk {
    ticket: u64,
    held: Here<HeldChunk>,
}

struct HeldChunk {
    messages: Vec<About>,
    /// `None` once the handler has ended.
    chunk: Mutex<Option<pgqrs::Chunk<Raw>>>,
    /// The channel for the verdict that the loop waits for.
    verdict: Mutex<Option<oneshot::Sender<Verdict>>>,
    stage: Arc<watch::Sender<Stage>>,
}

/// Id, payload, headers, priority, attempt, time of the enqueue.
type Fields = (
    i64,
    String,
    BTreeMap<String, String>,
    &'static str,
    u32,
    DateTime<Utc>,
);

#[pymethods]
impl Chunk {
    /// The ticket of this chunk in the loop.
    #[getter]
    fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The messages' fields: id, payload as it was sent, headers, priority, attempt, time of the enqueue.
    fn messages(&self, py: Python<'_>) -> PyResult<Vec<Fields>> {
        let messages = self.held.get(py)?.messages.iter();
        let fields = messages.map(|about| {
            (
                about.id,
                about.payload.clone(),
                about.headers.clone(),
                about.priority,
                about.attempt,
                about.enqueued_at,
            )
        });
        Ok(fields.collect())
    }

    /// Whether a message was cancelled, by its index; `false` once the handler has ended.
    fn is_cancelled(&self, py: Python<'_>, index: usize) -> PyResult<bool> {
        let chunk = lock(&self.held.get(py)?.chunk);
        let delivery = chunk.as_ref().and_then(|chunk| chunk.get(index));
        Ok(delivery.is_some_and(pgqrs::Delivery::is_cancelled))
    }

    /// Settles one message when the handler ends, by its index. Does nothing once the handler has ended.
    #[pyo3(signature = (index, outcome, delay=None, reason=None))]
    fn settle(
        &self,
        py: Python<'_>,
        index: usize,
        outcome: &str,
        delay: Option<Duration>,
        reason: Option<String>,
    ) -> PyResult<()> {
        let verdict = verdict_of(outcome, delay, reason)?;
        if let Some(chunk) = &*lock(&self.held.get(py)?.chunk) {
            match verdict {
                Ok(outcome) => chunk.settle(index, outcome),
                Err(reason) => chunk.nack(index, reason),
            }
        }
        Ok(())
    }

    /// Starts the handler's time limit; `false` if the handler must not start, since the loop has abandoned the chunk.
    fn begin(&self, py: Python<'_>) -> PyResult<bool> {
        let held = self.held.get(py)?;
        Ok(advance(&held.stage, Stage::Waiting, Stage::Begun))
    }

    /// Reports the handler's outcome to the loop, for all messages that aren't settled one by one.
    #[pyo3(signature = (outcome, delay=None, reason=None))]
    fn finish(
        &self,
        py: Python<'_>,
        outcome: &str,
        delay: Option<Duration>,
        reason: Option<String>,
    ) -> PyResult<()> {
        let verdict = verdict_of(outcome, delay, reason)?;
        self.held.get(py)?.finish(verdict);
        Ok(())
    }
}

impl Chunk {
    pub(super) fn new(
        ticket: u64,
        chunk: pgqrs::Chunk<Raw>,
        verdict: oneshot::Sender<Verdict>,
        stage: Arc<watch::Sender<Stage>>,
    ) -> Self {
        Self {
            ticket,
            held: Here::new(HeldChunk {
                messages: chunk.iter().map(About::of).collect(),
                chunk: Mutex::new(Some(chunk)),
                verdict: Mutex::new(Some(verdict)),
                stage,
            }),
        }
    }

    pub(super) fn release(&self) {
        if let Some(held) = self.held.here() {
            held.finish(Ok(Outcome::Release));
        }
    }
}

impl HeldChunk {
    fn finish(&self, verdict: Verdict) {
        lock(&self.chunk).take();
        if let Some(sender) = lock(&self.verdict).take() {
            // The loop may have ended.
            let _ = sender.send(verdict);
        }
    }
}
