//! An acknowledgement as SQL, for connections of Python's own drivers. For `ack_in`.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use pgqrs::Outcome;
use pyo3::prelude::*;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::{Raw, Verdict, lock};
use crate::{errors, process::Here};

/// An acknowledgement as SQL. Until it is checked or withdrawn, nothing else is done with the delivery.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct AckStatement {
    held: Here<Held>,
}

struct Held {
    message: i64,
    sql: &'static str,
    /// The values of `$1` to `$3`.
    parameters: (i32, i64, i64),
    /// `None` once it is checked or withdrawn.
    pending: Mutex<Option<Pending>>,
}

/// A statement that may be under way. When it is dropped, the delivery can be settled otherwise.
pub(super) struct Pending {
    /// `None` once it is checked.
    pub(super) statement: Option<pgqrs::AckStatement<Raw>>,
    /// Where the delivery was taken from.
    pub(super) place: OwnedMutexGuard<Option<pgqrs::Delivery<Raw>>>,
    pub(super) reserved: Reserved,
    /// The channel for the verdict, if no handler reports it.
    pub(super) verdict: Option<Arc<Mutex<Option<oneshot::Sender<Verdict>>>>>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(statement) = self.statement.take() {
            *self.place = Some(statement.into_delivery());
        }
    }
}

/// A delivery's flags, as long as its acknowledgement is under way.
pub(super) struct Reserved {
    settled: Arc<AtomicBool>,
    in_transaction: Arc<AtomicBool>,
    is_acknowledged: bool,
}

impl Reserved {
    pub(super) fn new(settled: &Arc<AtomicBool>, in_transaction: &Arc<AtomicBool>) -> Self {
        in_transaction.store(true, Ordering::Release);
        Self {
            settled: Arc::clone(settled),
            in_transaction: Arc::clone(in_transaction),
            is_acknowledged: false,
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.is_acknowledged {
            self.in_transaction.store(false, Ordering::Release);
            self.settled.store(false, Ordering::Release);
        }
    }
}

#[pymethods]
impl AckStatement {
    /// The text, with `$1` to `$3`.
    #[getter]
    fn sql(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.held.get(py)?.sql)
    }

    /// The values of the parameters.
    #[getter]
    fn parameters(&self, py: Python<'_>) -> PyResult<(i32, i64, i64)> {
        Ok(self.held.get(py)?.parameters)
    }

    /// Settles the delivery, from the rows that the statement returned. Raises if its lease is lost.
    fn check(&self, py: Python<'_>, rows: Vec<i64>) -> PyResult<()> {
        let held = self.held.get(py)?;
        let pending = lock(&held.pending).take();
        let checked = pending.and_then(|pending| pending.check(rows));
        match checked {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(errors::raised(py, &error)),
            None => Err(errors::already_settled(py, held.message)),
        }
    }

    /// Gives the delivery back, unless the statement was checked.
    fn withdraw(&self, py: Python<'_>) -> PyResult<()> {
        let pending = lock(&self.held.get(py)?.pending).take();
        drop(pending);
        Ok(())
    }
}

impl AckStatement {
    pub(super) fn new(
        statement: pgqrs::AckStatement<Raw>,
        take: impl FnOnce(pgqrs::AckStatement<Raw>) -> Pending,
    ) -> Self {
        Self {
            held: Here::new(Held {
                message: statement.id().get(),
                sql: statement.sql(),
                parameters: (
                    statement.queue_id(),
                    statement.id().get(),
                    statement.lease_token(),
                ),
                pending: Mutex::new(Some(take(statement))),
            }),
        }
    }
}

impl Pending {
    /// `None` if it was checked already.
    fn check(mut self, rows: Vec<i64>) -> Option<pgqrs::Result<()>> {
        let checked = self.statement.take()?.try_check(rows);
        Some(match checked {
            Ok(()) => {
                self.reserved.is_acknowledged = true;
                let verdict = self.verdict.take();
                if let Some(verdict_sender) = verdict.and_then(|verdict| lock(&verdict).take()) {
                    // The delivery knows that it is settled, so the loop only continues.
                    let _ = verdict_sender.send(Ok(Outcome::Done));
                }
                Ok(())
            }
            Err(unsettled) => {
                let error = unsettled.error().clone();
                *self.place = Some(unsettled.into_delivery());
                Err(error)
            }
        })
    }
}
