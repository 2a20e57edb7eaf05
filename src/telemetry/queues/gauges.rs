//! The gauges of an observer: what it has read last, until it is dropped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use crate::{
    admin::rows::QueueStats,
    health::Horizon,
    telemetry::{
        metrics::{MAX_SUBJECTS, OTHERS, Sampled, Samples, watch},
        names::Id,
    },
};

/// What an observer has read last.
pub(crate) struct Gauges {
    server: String,
    state: Mutex<State>,
}

struct State {
    read_at: Instant,
    /// Of each queue by name; those of too many queues are added up.
    queues: HashMap<String, Queue>,
    horizon: Option<(f64, f64)>,
}

#[derive(Default)]
struct Queue {
    messages: [u64; 5],
    oldest_ready: f64,
    stopped_groups: u64,
}

const STATES: [&str; 5] = ["ready", "delayed", "parked", "leased", "dead"];

impl Gauges {
    /// Read regularly, from now on until the last reference is dropped.
    pub(crate) fn watched(server: String) -> Arc<Self> {
        let gauges = Arc::new(Self {
            server,
            state: Mutex::new(State {
                read_at: Instant::now(),
                queues: HashMap::new(),
                horizon: None,
            }),
        });
        watch(Arc::downgrade(&gauges) as _);
        gauges
    }

    pub(super) fn set(&self, stats: &[QueueStats], horizon: Option<&Horizon>) {
        let mut queues: HashMap<String, Queue> = HashMap::new();
        for (at, one) in stats.iter().enumerate() {
            let name = if at < MAX_SUBJECTS {
                one.queue.as_str()
            } else {
                OTHERS
            };
            let queue = queues.entry(name.to_owned()).or_default();
            let counts = [one.ready, one.delayed, one.parked, one.leased, one.dead];
            for (sum, count) in queue.messages.iter_mut().zip(counts) {
                *sum = sum.saturating_add(count.value);
            }
            let age = one.oldest_ready.unwrap_or_default().as_secs_f64();
            queue.oldest_ready = queue.oldest_ready.max(age);
            let stopped = one.stopped_groups.value;
            queue.stopped_groups = queue.stopped_groups.saturating_add(stopped);
        }
        let horizon = horizon.map(|horizon| {
            let age = horizon.held_for().as_secs_f64();
            (age, horizon.transactions() as f64)
        });
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State {
            read_at: Instant::now(),
            queues,
            horizon,
        };
    }
}

impl Sampled for Gauges {
    fn sample(&self, samples: &mut Samples) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, queue) in &state.queues {
            for (label, messages) in STATES.into_iter().zip(queue.messages) {
                samples.read(Id::QueueMessages, name, label, messages as f64);
            }
            samples.read(Id::OldestReadyAge, name, "", queue.oldest_ready);
            samples.read(Id::StoppedGroups, name, "", queue.stopped_groups as f64);
        }
        if let Some((age, transactions)) = state.horizon {
            samples.read(Id::HorizonAge, &self.server, "", age);
            samples.read(Id::HorizonTransactions, &self.server, "", transactions);
        }
        let age = state.read_at.elapsed().as_secs_f64();
        samples.read(Id::ObservationAge, &self.server, "", age);
    }
}
