//! Collects measurements in memory, and passes them on from a thread of its own, at most ten times a second.

use std::{
    collections::HashMap,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    binding::{self, is_measuring},
    samples::{self, Sampled},
    series::{Measured, Series},
};
use crate::telemetry::{
    names::{Id, Kind, METRICS},
    stores::recorder_panicked,
    value::Value,
};

/// The thread rests for this long after it has passed on what there was.
const REST: Duration = Duration::from_millis(100);
/// How often gauges are read.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Measurements that wait. Further ones are dropped, and counted.
const MAX_WAITING: usize = 1 << 16;
/// Names of queues that are distinguished. Further ones have one name in common.
pub(crate) const MAX_SUBJECTS: usize = 2_000;
pub(crate) const OTHERS: &str = "_other";
/// How long [`flush`] waits for the recorder.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// Measurements with the same attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    metric: Id,
    subject: u32,
    label: &'static str,
    error: &'static str,
}

#[derive(Default)]
struct Collector {
    state: Mutex<State>,
    changed: Condvar,
    /// How often the thread has passed on what there was.
    passed: AtomicU64,
    has_panicked: AtomicBool,
}

#[derive(Default)]
struct State {
    subjects: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
    /// The one that was measured last: mostly the next one, too.
    last: u32,
    waiting: Vec<(Key, f64)>,
    dropped: u64,
    is_urgent: bool,
}

impl State {
    fn subject(&mut self, name: &str) -> u32 {
        let last = self.names.get(self.last as usize);
        if last.is_some_and(|last| **last == *name) {
            return self.last;
        }
        if let Some(subject) = self.subjects.get(name) {
            self.last = *subject;
            return *subject;
        }
        let name = if self.names.len() < MAX_SUBJECTS || name == OTHERS {
            Arc::from(name)
        } else {
            return self.subject(OTHERS);
        };
        let subject = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(Arc::clone(&name));
        self.subjects.insert(name, subject);
        subject
    }
}

static COLLECTOR: OnceLock<Collector> = OnceLock::new();
static STARTED: OnceLock<bool> = OnceLock::new();

/// The collector, with its thread.
fn collector() -> &'static Collector {
    let collector = COLLECTOR.get_or_init(Collector::default);
    STARTED.get_or_init(|| {
        let thread = thread::Builder::new().name("pgqrs-metrics".to_owned());
        // Without it, measurements are dropped when too many of them wait.
        thread.spawn(|| collector.pass_on()).is_ok()
    });
    collector
}

pub(super) fn record(values: &[Value<'_>]) {
    if is_measuring() {
        collector().record(values);
    }
}

/// Reads the gauges of this one for as long as it is alive.
pub(crate) fn watch(sampled: Weak<dyn Sampled>) {
    if !is_measuring() {
        return;
    }
    samples::add(sampled);
    let collector = collector();
    // The thread holds this lock between looking whether there are any and waiting.
    drop(collector.lock());
    collector.changed.notify_one();
}

/// Waits until what was measured before is passed on, or until its time is over.
pub(super) async fn flush() {
    if !is_measuring() {
        return;
    }
    let collector = collector();
    let before = {
        let mut state = collector.lock();
        if state.waiting.is_empty() {
            return;
        }
        state.is_urgent = true;
        collector.passed.load(Ordering::Acquire)
    };
    collector.changed.notify_one();
    let until = Instant::now() + FLUSH_TIMEOUT;
    // One round may be under way that began before.
    while collector.passed.load(Ordering::Acquire) < before + 2 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if collector.lock().waiting.is_empty() && collector.passed.load(Ordering::Acquire) > before
        {
            return;
        }
    }
}

impl Collector {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of the application's runs under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, values: &[Value<'_>]) {
        let mut state = self.lock();
        let is_first = state.waiting.is_empty();
        for value in values {
            if state.waiting.len() >= MAX_WAITING {
                state.dropped += 1;
                continue;
            }
            let key = Key {
                metric: value.metric,
                subject: state.subject(value.subject),
                label: value.label,
                error: value.error,
            };
            state.waiting.push((key, value.value));
        }
        drop(state);
        if is_first {
            self.changed.notify_one();
        }
    }

    fn pass_on(&self) {
        let mut sample_at = Instant::now();
        // What it has grown to is used again.
        let mut waiting = Vec::new();
        loop {
            let (names, dropped) = self.take(sample_at, &mut waiting);
            let mut series: HashMap<Key, Vec<f64>> = HashMap::new();
            for (key, value) in waiting.drain(..) {
                series.entry(key).or_default().push(value);
            }
            for (key, values) in &series {
                let subject = names.get(key.subject as usize).map_or("", |name| &**name);
                self.emit(key.metric, subject, key.label, key.error, values);
            }
            if dropped > 0 {
                self.emit(Id::Dropped, "", "", "", &[dropped as f64]);
            }
            if sample_at <= Instant::now() {
                sample_at = Instant::now() + SAMPLE_INTERVAL;
                samples::read(|metric, subject, label, value| {
                    self.emit(metric, subject, label, "", &[value]);
                });
            }
            self.passed.fetch_add(1, Ordering::Release);
            let state = self.lock();
            let rest = self
                .changed
                .wait_timeout_while(state, REST, |state| !state.is_urgent);
            rest.unwrap_or_else(PoisonError::into_inner).0.is_urgent = false;
        }
    }

    /// Waits until there is something to pass on, or gauges are to be read. `waiting` is empty, and gets what waits.
    fn take(&self, sample_at: Instant, waiting: &mut Vec<(Key, f64)>) -> (Vec<Arc<str>>, u64) {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            state = if samples::is_empty() {
                let woken = self.changed.wait(state);
                woken.unwrap_or_else(PoisonError::into_inner)
            } else {
                let Some(left) = sample_at.checked_duration_since(Instant::now()) else {
                    break;
                };
                let woken = self.changed.wait_timeout(state, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            };
        }
        mem::swap(&mut state.waiting, waiting);
        (state.names.clone(), mem::take(&mut state.dropped))
    }

    fn emit(
        &self,
        metric: Id,
        subject: &str,
        label: &'static str,
        error: &'static str,
        values: &[f64],
    ) {
        let mut metrics = METRICS.iter().enumerate();
        let Some((index, metric)) = metrics.find(|(_, one)| one.id == metric) else {
            return;
        };
        let series = Series {
            metric,
            index,
            subject,
            label,
            error,
        };
        let measured = match metric.kind {
            Kind::Counter => Measured::Sum(values.iter().sum::<f64>() as u64),
            Kind::Histogram(_) => Measured::Values(values),
            Kind::Gauge => Measured::Last(values.last().copied().unwrap_or_default()),
        };
        // Each by itself: what one of them does is no concern of the others.
        self.guarded(|| binding::emit(&series, &measured));
        #[cfg(feature = "metrics")]
        self.guarded(|| super::facade::emit(&series, &measured));
        #[cfg(feature = "opentelemetry")]
        self.guarded(|| super::meter::emit(&series, &measured));
    }

    fn guarded(&self, emit: impl FnOnce()) {
        let emitted = catch_unwind(AssertUnwindSafe(emit));
        if emitted.is_err() && !self.has_panicked.swap(true, Ordering::Relaxed) {
            recorder_panicked();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slow_recorder_leaves_waiting_is_bounded_and_the_rest_counted() {
        let collector = Collector::default();
        for _ in 0..MAX_WAITING {
            collector.record(&[Value::of(Id::EmptyClaims, 1.0, "tasks", "")]);
        }
        let more = [Value::of(Id::Retries, 1.0, "tasks", ""); 3];
        collector.record(&more);
        let later = Instant::now() + REST;
        let mut waiting = Vec::new();
        let (names, dropped) = collector.take(later, &mut waiting);
        assert_eq!((waiting.len(), dropped), (MAX_WAITING, 3));
        assert_eq!(names, [Arc::from("tasks")]);
        // There is room again, and what was dropped is counted once.
        collector.record(&more);
        waiting.clear();
        let (_, dropped) = collector.take(later, &mut waiting);
        assert_eq!((waiting.len(), dropped), (3, 0));
    }

    #[test]
    fn names_of_queues_are_bounded() {
        let collector = Collector::default();
        for queue in 0..MAX_SUBJECTS + 10 {
            collector.record(&[Value::of(Id::Retries, 1.0, &format!("queue-{queue}"), "")]);
        }
        let mut waiting = Vec::new();
        let (names, _) = collector.take(Instant::now() + REST, &mut waiting);
        assert_eq!(names.len(), MAX_SUBJECTS + 1);
        let of_others = waiting.iter().filter(|(key, _)| {
            let name = names.get(key.subject as usize);
            name.is_some_and(|name| &**name == OTHERS)
        });
        assert_eq!(of_others.count(), 10);
    }
}
