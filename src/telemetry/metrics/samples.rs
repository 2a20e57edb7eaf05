//! Gauges: read once a second from what is alive, so that no message pays for them.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError, Weak},
};

use crate::telemetry::names::Id;

/// What has gauges: a store, a consumer.
pub(crate) trait Sampled: Send + Sync {
    /// Adds its values.
    fn sample(&self, samples: &mut Samples);
}

/// Gauges by their attributes.
#[derive(Debug, Default)]
pub(crate) struct Samples(HashMap<(Id, String, &'static str), f64>);

impl Samples {
    /// Adds a value to those of the same attributes. `subject` and `label` are values of the attributes that the metric
    /// names.
    pub(crate) fn add(&mut self, metric: Id, subject: &str, label: &'static str, value: usize) {
        let key = (metric, subject.to_owned(), label);
        *self.0.entry(key).or_default() += value as f64;
    }

    /// Sets a value that others of the same attributes may have read too, such as the messages of a queue: the largest
    /// one counts.
    pub(crate) fn read(&mut self, metric: Id, subject: &str, label: &'static str, value: f64) {
        let key = (metric, subject.to_owned(), label);
        let known = self.0.entry(key).or_default();
        *known = known.max(value);
    }
}

static WATCHED: Mutex<Watched> = Mutex::new(Watched {
    alive: Vec::new(),
    last: None,
});

struct Watched {
    alive: Vec<Weak<dyn Sampled>>,
    /// Those of the last time: a gauge whose consumer has ended is set to 0.
    last: Option<Samples>,
}

fn lock() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn add(sampled: Weak<dyn Sampled>) {
    lock().alive.push(sampled);
}

/// Whether there is nothing to read.
pub(super) fn is_empty() -> bool {
    let watched = lock();
    watched.alive.is_empty() && watched.last.is_none()
}

/// Reads all gauges.
pub(super) fn read(mut emit: impl FnMut(Id, &str, &'static str, f64)) {
    let mut alive = Vec::new();
    let last = {
        let mut watched = lock();
        watched.alive.retain(|one| match one.upgrade() {
            Some(one) => {
                alive.push(one);
                true
            }
            None => false,
        });
        watched.last.take()
    };
    let mut samples = Samples::default();
    for one in alive {
        // This may be the last reference to a store, and dropping it outside of a runtime can panic.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            one.sample(&mut samples);
            drop(one);
        }));
    }
    for key in last.unwrap_or_default().0.into_keys() {
        samples.0.entry(key).or_default();
    }
    for ((metric, subject, label), value) in &samples.0 {
        emit(*metric, subject, label, *value);
    }
    samples.0.retain(|_, value| *value != 0.0);
    if !samples.0.is_empty() {
        lock().last = Some(samples);
    }
}
