//! Values that belong to one process, for every class that Python holds. After a fork the child has a copy of the
//! parent's memory, but neither its threads nor a connection that it could use without disturbing the parent: so a
//! value that was created before is neither used nor dropped there.

use std::{mem, process};

use pyo3::prelude::*;

use crate::errors;

/// A value that only the process that created it can use.
pub(crate) struct Here<T> {
    process: u32,
    /// Always there, except while it is dropped.
    value: Option<T>,
}

impl<T> Here<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            process: process::id(),
            value: Some(value),
        }
    }

    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&T> {
        self.here().ok_or_else(|| errors::forked(py, self.process))
    }

    pub(crate) fn here(&self) -> Option<&T> {
        let is_here = self.process == process::id();
        self.value.as_ref().filter(|_| is_here)
    }
}

impl<T> Drop for Here<T> {
    fn drop(&mut self) {
        // One of the parent's threads, which don't exist here, may hold a lock in it.
        if self.process != process::id() {
            mem::forget(self.value.take());
        }
    }
}
