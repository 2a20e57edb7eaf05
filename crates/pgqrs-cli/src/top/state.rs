//! What the view shows: samples, the queue that is selected, the order. Without a terminal.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use pgqrs::{Admin, DeadLetterReason, Health, QueueInfo, QueueName, QueueStats, WorkerInfo};
use pgqrs_web::{History, Rates};

use crate::queues::state as state_of;

/// How many samples are kept of a queue.
const HISTORY: usize = 120;

/// How often it is looked at what consumers were done with: they report it more rarely.
const RATES_EVERY: Duration = Duration::from_secs(5);

/// All queues at one time.
pub(super) struct Sample {
    queues: Vec<(QueueInfo, QueueStats)>,
}

impl Sample {
    pub(super) async fn read(admin: &Admin) -> pgqrs::Result<Self> {
        let infos = admin.queues().await?;
        let mut stats: BTreeMap<QueueName, QueueStats> = admin
            .all_queue_stats()
            .await?
            .into_iter()
            .map(|stats| (stats.queue.clone(), stats))
            .collect();
        let queues = infos.into_iter().filter_map(|info| {
            let stats = stats.remove(&info.name)?;
            Some((info, stats))
        });
        Ok(Self {
            queues: queues.collect(),
        })
    }
}

/// More of the selected queue.
pub(super) struct Detail {
    pub(super) reasons: Vec<DeadLetterReason>,
    pub(super) workers: Vec<WorkerInfo>,
}

/// A queue, as a line of the view.
pub(super) struct Line {
    pub(super) name: QueueName,
    pub(super) state: String,
    pub(super) stats: QueueStats,
    pub(super) rates: Rates,
    /// How the number of ready messages has changed since the sample before, if both are exact.
    pub(super) change: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Name,
    Ready,
    Dead,
    Oldest,
}

impl Order {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Ready => "ready",
            Self::Dead => "dead",
            Self::Oldest => "oldest ready",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Name => Self::Ready,
            Self::Ready => Self::Dead,
            Self::Dead => Self::Oldest,
            Self::Oldest => Self::Name,
        }
    }
}

pub(super) struct State {
    pub(super) place: String,
    pub(super) lines: Vec<Line>,
    pub(super) order: Order,
    pub(super) detail: Option<Detail>,
    /// Why the last look has failed.
    pub(super) error: Option<String>,
    /// Ready messages of each queue, oldest sample first.
    history: BTreeMap<QueueName, VecDeque<u64>>,
    /// For messages per minute, and when it was added to.
    throughput: History,
    throughput_at: Option<Instant>,
    selected: Option<QueueName>,
    is_paused: bool,
}

impl State {
    pub(super) fn new(place: String) -> Self {
        Self {
            place,
            lines: Vec::new(),
            order: Order::Name,
            detail: None,
            error: None,
            history: BTreeMap::new(),
            throughput: History::default(),
            throughput_at: None,
            selected: None,
            is_paused: false,
        }
    }

    pub(super) fn show(&mut self, sample: Sample) {
        self.error = None;
        let before: BTreeMap<QueueName, QueueStats> = self
            .lines
            .drain(..)
            .map(|line| (line.name, line.stats))
            .collect();
        let lines = sample.queues.into_iter().map(|(info, stats)| Line {
            rates: self.throughput.rates(info.name.as_str()),
            change: before
                .get(&info.name)
                .and_then(|before| change(before, &stats)),
            state: state_of(&info),
            name: info.name,
            stats,
        });
        self.lines = lines.collect();
        for line in &self.lines {
            let history = self.history.entry(line.name.clone()).or_default();
            history.push_back(line.stats.ready.value);
            if history.len() > HISTORY {
                history.pop_front();
            }
        }
        let is_there = |name: &QueueName| self.lines.iter().any(|line| line.name == *name);
        self.history.retain(|name, _| is_there(name));
        if !self.selected.as_ref().is_some_and(is_there) {
            self.detail = None;
            self.selected = self.lines.first().map(|line| line.name.clone());
        }
        self.sort();
    }

    /// Whether it is time to look at what consumers were done with.
    pub(super) fn wants_rates(&self) -> bool {
        self.throughput_at
            .is_none_or(|at| at.elapsed() >= RATES_EVERY)
    }

    pub(super) fn add(&mut self, health: &Health) {
        self.throughput.add(health);
        self.throughput_at = Some(Instant::now());
    }

    pub(super) fn show_detail(&mut self, detail: Detail) {
        self.detail = Some(detail);
    }

    pub(super) fn forget_detail(&mut self) {
        self.detail = None;
    }

    pub(super) fn fail(&mut self, error: String) {
        self.error = Some(error);
    }

    pub(super) fn selected(&self) -> Option<&QueueName> {
        self.selected.as_ref()
    }

    pub(super) fn position(&self) -> Option<usize> {
        self.lines
            .iter()
            .position(|line| Some(&line.name) == self.selected.as_ref())
    }

    pub(super) fn history(&self) -> Vec<u64> {
        let selected = self.selected.as_ref();
        let history = selected.and_then(|name| self.history.get(name));
        history.map_or(Vec::new(), |history| history.iter().copied().collect())
    }

    pub(super) fn select_next(&mut self) {
        self.select(self.position().map_or(0, |at| at + 1));
    }

    pub(super) fn select_previous(&mut self) {
        self.select(self.position().map_or(0, |at| at.saturating_sub(1)));
    }

    fn select(&mut self, at: usize) {
        if let Some(line) = self.lines.get(at) {
            self.selected = Some(line.name.clone());
        }
    }

    pub(super) fn change_order(&mut self) {
        self.order = self.order.next();
        self.sort();
    }

    pub(super) fn toggle_pause(&mut self) {
        self.is_paused = !self.is_paused;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    fn sort(&mut self) {
        let order = self.order;
        self.lines.sort_by(|one, other| {
            let by = match order {
                Order::Name => std::cmp::Ordering::Equal,
                Order::Ready => other.stats.ready.value.cmp(&one.stats.ready.value),
                Order::Dead => other.stats.dead.value.cmp(&one.stats.dead.value),
                Order::Oldest => other.stats.oldest_ready.cmp(&one.stats.oldest_ready),
            };
            by.then_with(|| one.name.cmp(&other.name))
        });
    }
}

fn change(before: &QueueStats, now: &QueueStats) -> Option<i64> {
    if before.ready.at_least || now.ready.at_least {
        return None;
    }
    let (before, now) = (before.ready.value, now.ready.value);
    i64::try_from(now)
        .ok()?
        .checked_sub(i64::try_from(before).ok()?)
}
