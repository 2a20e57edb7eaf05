//! The queues as they ought to be, for tests to hold the real ones against. The model knows neither SQL nor
//! clocks: its time is a number that grows with each call, and what lies in the future stays there until
//! something lets it come. A refused call returns the name of the error.

mod administration;
mod claims;
mod groups;
mod keys;
mod lines;
mod many;
mod rates;

use std::{collections::BTreeMap, time::Duration};

use pgqrs::{MessageId, Priority, WorkerId, WorkerKind, WorkerStatus};

use self::{
    groups::Member,
    keys::{Expiry, Key},
    rates::{GroupRate, QueueRate},
};
pub(crate) use self::{
    keys::{Asks, KeyKind},
    lines::LINES,
    rates::Bucket,
};

/// A wait, or a lease, that doesn't end by itself while a test runs.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);
pub(crate) const USED_UP: &str = "attempts used up";
const EXPIRED: &str = "expired";

/// What a call returns.
pub(crate) type Returned<T = ()> = Result<T, &'static str>;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wait {
    None,
    Long,
}

impl Wait {
    /// When it is over that begins with the call of this number.
    fn from(self, time: usize) -> Visible {
        match self {
            Self::None => Visible::Since(time),
            Self::Long => Visible::Later,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Settlement {
    Ack,
    Archive,
    Nack,
    RetryIn(Wait),
    Later(Wait),
    SlowDown(Wait),
    DeadLetter,
}

/// A step of a worker's life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Transition {
    Suspend,
    Resume,
    Shutdown,
}

/// Where messages are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Place {
    Queue,
    DeadLetters,
    Archive,
}

/// When a message can be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Visible {
    /// Since the call of this number.
    Since(usize),
    Later,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) priority: Priority,
    pub(crate) payload: usize,
    /// What follows it, if the payload is an array.
    appended: Option<Vec<usize>>,
    /// What its header says, if it has one.
    pub(crate) header: Option<usize>,
    pub(crate) attempt: u32,
    pub(crate) snoozes: u32,
    pub(crate) visible: Visible,
    /// The number of the claim under which it was delivered.
    pub(crate) lease: Option<usize>,
    pub(crate) producer: Option<WorkerId>,
    pub(crate) consumer: Option<WorkerId>,
    /// Instead of the queue's.
    max_attempts: Option<u32>,
    key: Option<Key>,
    expiry: Option<Expiry>,
    group: Option<Member>,
}

impl Entry {
    /// Its payload and its header.
    fn content(&self) -> String {
        let header = self.header.map_or("none".to_owned(), |n| n.to_string());
        match &self.appended {
            None => format!("{} {header}", self.payload),
            Some(appended) => {
                let rest: String = appended.iter().map(|number| format!(",{number}")).collect();
                format!("[{}{rest}] {header}", self.payload)
            }
        }
    }

    fn is_held(&self) -> bool {
        self.lease.is_some() && self.visible == Visible::Later
    }

    fn state(&self) -> &'static str {
        match (self.visible, self.lease) {
            (Visible::Since(_), None) => "ready",
            (Visible::Since(_), Some(_)) => "given-up",
            (Visible::Later, Some(_)) => "leased",
            (Visible::Later, None) => "delayed",
        }
    }

    /// Whether it isn't to be delivered again, and why.
    fn is_over(&self, max_attempts: u32) -> Option<&'static str> {
        if self.attempt >= self.max_attempts.unwrap_or(max_attempts) {
            return Some(USED_UP);
        }
        let is_expired = self.expiry.is_some_and(|expiry| expiry.is_over);
        (self.attempt == 0 && is_expired).then_some(EXPIRED)
    }

    fn put_back(&mut self, visible: Visible) {
        (self.visible, self.lease, self.consumer) = (visible, None, None);
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) max_attempts: u32,
    pub(crate) is_paused: bool,
    pub(crate) is_closed: bool,
    pub(crate) messages: BTreeMap<MessageId, Entry>,
    pub(crate) dead: BTreeMap<MessageId, (Entry, &'static str)>,
    pub(crate) archive: BTreeMap<MessageId, Entry>,
    /// The last place of each group that has messages.
    groups: BTreeMap<usize, i64>,
    /// When it was created.
    created: usize,
    rate: QueueRate,
    group_rates: BTreeMap<usize, GroupRate>,
}

impl Queue {
    fn new(created: usize) -> Self {
        Self {
            // What a new queue has.
            max_attempts: 20,
            is_paused: false,
            is_closed: false,
            messages: BTreeMap::new(),
            dead: BTreeMap::new(),
            archive: BTreeMap::new(),
            groups: BTreeMap::new(),
            created,
            rate: QueueRate::default(),
            group_rates: BTreeMap::new(),
        }
    }

    fn ready(&self) -> Vec<MessageId> {
        let entries = self.messages.iter();
        let ready = entries.filter(|(_, entry)| entry.visible != Visible::Later);
        let mut ready: Vec<_> = ready
            .map(|(id, entry)| (entry.priority, entry.visible, *id))
            .collect();
        ready.sort_unstable();
        ready.into_iter().map(|(_, _, id)| id).collect()
    }

    fn dead_letter(&mut self, id: MessageId, reason: &'static str) {
        if let Some(entry) = self.messages.remove(&id) {
            self.dead.insert(id, (entry, reason));
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) kind: WorkerKind,
    pub(crate) queue: &'static str,
    /// 0 is anonymous.
    pub(crate) port: u16,
    pub(crate) status: WorkerStatus,
}

/// What messages of one send have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope {
    pub(crate) queue: &'static str,
    pub(crate) producer: Option<WorkerId>,
    pub(crate) priority: Priority,
    pub(crate) delayed: bool,
    pub(crate) header: Option<usize>,
}

/// A message as it is delivered: its key, which attempt, how often it was put off, and its payload.
pub(crate) type Delivered = (MessageId, u32, u32, usize);

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) queues: BTreeMap<&'static str, Queue>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    /// Keys that no other message can have for a time, with the message that had it and its payload.
    seen: BTreeMap<(&'static str, usize), (MessageId, usize)>,
    /// What has happened, and how often.
    pub(crate) happened: BTreeMap<&'static str, usize>,
}

impl World {
    pub(crate) fn happened(&mut self, what: &'static str, times: usize) {
        *self.happened.entry(what).or_default() += times;
    }

    fn queue(&mut self, queue: &str) -> Returned<&mut Queue> {
        self.queues.get_mut(queue).ok_or("QueueNotFound")
    }

    /// Whether something may go through a worker.
    fn through(&self, worker: WorkerId) -> Returned {
        match self.workers.get(&worker).map(|worker| worker.status) {
            None | Some(WorkerStatus::Stopped) => Err("WorkerStopped"),
            Some(WorkerStatus::Suspended) => Err("WorkerSuspended"),
            Some(WorkerStatus::Ready) => Ok(()),
        }
    }

    /// Whether a queue accepts sends. A closed one refuses also those that would store nothing, since another message has
    /// their key.
    fn accepts(&mut self, queue: &str) -> Returned {
        if self.queue(queue)?.is_closed {
            self.happened("refused by a closed queue", 1);
            return Err("QueueClosed");
        }
        Ok(())
    }

    pub(crate) fn send(
        &mut self,
        time: usize,
        envelope: &Envelope,
        messages: &[(MessageId, usize)],
    ) -> Returned<Vec<MessageId>> {
        if let Some(producer) = envelope.producer {
            self.through(producer)?;
        }
        self.accepts(envelope.queue)?;
        let queue = self.queue(envelope.queue)?;
        for (id, payload) in messages {
            let entry = Entry {
                priority: envelope.priority,
                payload: *payload,
                appended: None,
                header: envelope.header,
                attempt: 0,
                snoozes: 0,
                visible: if envelope.delayed {
                    Visible::Later
                } else {
                    Visible::Since(time)
                },
                lease: None,
                producer: envelope.producer,
                consumer: None,
                max_attempts: None,
                key: None,
                expiry: None,
                group: None,
            };
            queue.messages.insert(*id, entry);
        }
        Ok(messages.iter().map(|(id, _)| *id).collect())
    }

    /// Whether the delivery of that claim still holds its message.
    pub(crate) fn holds(&self, queue: &str, id: MessageId, claim: usize) -> bool {
        let queue = self.queues.get(queue);
        let entry = queue.and_then(|queue| queue.messages.get(&id));
        entry.is_some_and(|entry| entry.lease == Some(claim))
    }

    pub(crate) fn settle(
        &mut self,
        time: usize,
        (queue, id, claim): (&str, MessageId, usize),
        settlement: Settlement,
    ) -> Returned {
        if !self.holds(queue, id, claim) {
            self.happened("settled too late", 1);
            if settlement == Settlement::SlowDown(Wait::Long) {
                self.slow_down_too_late(queue, claim);
            }
            return Err("LeaseLost");
        }
        let queue = self.queue(queue)?;
        let Some(entry) = queue.messages.get_mut(&id) else {
            return Err("LeaseLost");
        };
        let used_up = entry.attempt >= entry.max_attempts.unwrap_or(queue.max_attempts);
        let mut what = "settled";
        match settlement {
            Settlement::Ack => drop(queue.messages.remove(&id)),
            Settlement::Archive => {
                queue.archive.insert(id, entry.clone());
                queue.messages.remove(&id);
            }
            Settlement::DeadLetter => queue.dead_letter(id, "a reason"),
            Settlement::Nack | Settlement::RetryIn(_) if used_up => {
                queue.dead_letter(id, USED_UP);
                what = "dead-lettered after a failure";
            }
            Settlement::Nack => queue.put_back(id, Visible::Later, false),
            Settlement::RetryIn(wait) => queue.put_back(id, wait.from(time), false),
            Settlement::Later(wait) | Settlement::SlowDown(wait) => {
                entry.attempt -= 1;
                entry.snoozes += 1;
                let is_slowing = settlement == Settlement::SlowDown(wait) && wait == Wait::Long;
                let slows_group = queue.slows_group(id);
                queue.put_back(id, wait.from(time), is_slowing);
                what = match (is_slowing, slows_group) {
                    (false, _) => "put off",
                    (true, false) => "a queue slowed down",
                    (true, true) => "a group slowed down",
                };
            }
        }
        self.happened(what, 1);
        Ok(())
    }

    pub(crate) fn extend(&mut self, (queue, id, claim): (&str, MessageId, usize)) -> Returned {
        if !self.holds(queue, id, claim) {
            self.happened("extended too late", 1);
            return Err("LeaseLost");
        }
        self.happened("extended", 1);
        if let Some(entry) = self.queue(queue)?.messages.get_mut(&id) {
            entry.visible = Visible::Later;
        }
        Ok(())
    }

    /// All that is ready is handled by a consumer of its own, which ends then; or one message.
    pub(crate) fn run(
        &mut self,
        time: usize,
        queue: &'static str,
        worker: WorkerId,
        most: usize,
        verdict: impl Fn(usize) -> Settlement,
    ) -> Returned {
        self.register(WorkerKind::Consumer, queue, 0, Some(worker))?;
        loop {
            let (claimed, _) = self.claim(time, queue, Some(worker), most);
            let claimed = claimed?;
            for (id, .., payload) in &claimed {
                self.settle(time, (queue, *id, time), verdict(*payload))?;
                self.happened("handled by a loop", 1);
            }
            self.let_in(time);
            let queue = self.queue(queue)?;
            // What was let in is handled too.
            if most == 1 && !claimed.is_empty() || queue.ready().is_empty() || queue.free() == 0 {
                break;
            }
        }
        self.step(worker, Transition::Shutdown)
    }

    fn is_free(&self, queue: &str, id: MessageId) -> bool {
        let queue = self.queues.get(queue);
        let entry = queue.and_then(|queue| queue.messages.get(&id));
        entry.is_some_and(|entry| !entry.is_held())
    }

    /// Any message that there ever was and that is not done for good.
    pub(crate) fn known(&self) -> Vec<(&'static str, MessageId)> {
        let of = |(name, queue): (&&'static str, &Queue)| {
            let known = queue.messages.keys().chain(queue.dead.keys());
            let known = known.chain(queue.archive.keys());
            known.map(|id| (*name, *id)).collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(of).collect()
    }

    pub(crate) fn dead(&self) -> Vec<(&'static str, MessageId)> {
        let of = |(name, queue): (&&'static str, &Queue)| {
            queue.dead.keys().map(|id| (*name, *id)).collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(of).collect()
    }

    /// Messages that wait for their time, or for their lease to run out.
    pub(crate) fn waiting(&self) -> Vec<(&'static str, MessageId)> {
        let of = |(name, queue): (&&'static str, &Queue)| {
            let entries = queue.messages.iter();
            let waiting =
                entries.filter(|(_, entry)| entry.visible == Visible::Later && !entry.is_parked());
            waiting.map(|(id, _)| (*name, *id)).collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(of).collect()
    }

    pub(crate) fn time_passes(&mut self, time: usize, queue: &str, id: MessageId) {
        if let Some(queue) = self.queues.get_mut(queue)
            && let Some(entry) = queue.messages.get_mut(&id)
        {
            entry.visible = Visible::Since(time);
        }
    }
}
