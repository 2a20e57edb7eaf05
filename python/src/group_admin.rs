//! What an operator does with groups, for Python's `Admin`.

use std::time::Duration;

use pgqrs::Rate;
use pyo3::prelude::*;

use crate::{
    answer::Mode,
    rows::{group_order, group_row, rows},
    store::Store,
};

/// Administration of groups.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
pub(crate) struct GroupAdmin {
    store: Py<Store>,
}

#[pymethods]
impl GroupAdmin {
    /// Lists groups of a queue.
    fn groups<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        order: &str,
        limit: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        let order = group_order(order);
        mode.answer(py, async move {
            Ok(rows(admin.groups(queue, order, limit).await?, group_row))
        })
    }

    /// Returns a group.
    fn group<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        group: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            Ok(admin.group(queue, group).await?.map(group_row))
        })
    }

    /// Promotes parked messages of all groups of a queue.
    fn promote_groups<'py>(&self, py: Python<'py>, queue: String) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.promote_groups(queue).await })
    }

    /// Stops a group.
    fn stop_group<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        group: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.stop_group(queue, group).await })
    }

    /// Resumes a group.
    fn resume_group<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        group: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.resume_group(queue, group).await })
    }

    /// Sets a group's own limit.
    #[pyo3(signature = (queue, group, at_once))]
    fn set_group_limit<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        group: String,
        at_once: Option<u32>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move {
            admin.set_group_limit(queue, group, at_once).await
        })
    }

    /// Sets a group's own rate.
    #[pyo3(signature = (queue, group, rate))]
    fn set_group_rate<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        group: String,
        rate: Option<(u32, Duration)>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        let rate = rate.map(|(messages, per)| Rate::new(messages, per));
        mode.answer(
            py,
            async move { admin.set_group_rate(queue, group, rate).await },
        )
    }

    /// Deletes what is parked of a group.
    fn purge_group<'py>(
        &self,
        py: Python<'py>,
        queue: String,
        group: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (mode, admin) = self.get(py)?;
        mode.answer(py, async move { admin.purge_group(queue, group).await })
    }
}

impl GroupAdmin {
    pub(crate) fn new(store: Py<Store>) -> Self {
        Self { store }
    }

    fn get(&self, py: Python<'_>) -> PyResult<(Mode, pgqrs::Admin)> {
        let store = self.store.get();
        Ok((store.mode(), pgqrs::admin(&store.get(py)?)))
    }
}
