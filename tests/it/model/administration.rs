//! What an administrator does in the model: to messages, queues and workers.

use pgqrs::Cancelled;

use super::*;

impl Queue {
    /// Returns whether it is back; `None` if there is no such dead letter.
    fn revive(&mut self, time: usize, id: MessageId) -> Option<bool> {
        let key = self.dead.get(&id)?.0.key;
        if key.is_some_and(|key| self.holder(key).is_some()) {
            return Some(false);
        }
        let (mut entry, _) = self.dead.remove(&id)?;
        (entry.attempt, entry.snoozes, entry.expiry) = (0, 0, None);
        entry.put_back(Visible::Since(time));
        entry.go_to_the_front();
        self.messages.insert(id, entry);
        Some(true)
    }
}

impl World {
    pub(crate) fn cancel(
        &mut self,
        queue: &str,
        id: MessageId,
        archive: bool,
    ) -> Returned<Option<Cancelled>> {
        let queue = self.queue(queue)?;
        let Some(entry) = queue.messages.remove(&id) else {
            self.happened("not cancelled", 1);
            return Ok(None);
        };
        // Even if its lease has run out: its handler may be at work.
        let was = match entry.lease {
            Some(_) => Cancelled::Running,
            None => Cancelled::Waiting,
        };
        if archive {
            queue.archive.insert(id, entry);
        }
        let what = match was {
            Cancelled::Waiting => "cancelled while it waited",
            Cancelled::Running => "cancelled while it ran",
        };
        self.happened(what, 1);
        Ok(Some(was))
    }

    pub(crate) fn pause(&mut self, queue: &str, is_paused: bool) -> Returned {
        let queue = self.queue(queue)?;
        queue.is_paused = is_paused;
        // An operator's word counts more than that of a handler.
        queue.rate.is_slowed &= is_paused;
        Ok(())
    }

    pub(crate) fn close(&mut self, queue: &str, is_closed: bool) -> Returned {
        self.queue(queue)?.is_closed = is_closed;
        Ok(())
    }

    pub(crate) fn reschedule(
        &mut self,
        time: usize,
        queue: &str,
        id: MessageId,
        wait: Wait,
    ) -> Returned<bool> {
        self.queue(queue)?;
        let free = self.is_free(queue, id);
        if let Some(queue) = self.queues.get_mut(queue)
            && let Some(entry) = queue.messages.get_mut(&id)
            && free
        {
            let visible = match wait {
                Wait::None => Visible::Since(time),
                Wait::Long => Visible::Later,
            };
            if !entry.put_off(visible) {
                entry.put_back(visible);
            }
        }
        self.happened(if free { "moved" } else { "not moved" }, 1);
        Ok(free)
    }

    /// How many are back, and how many stay dead letters since others have their keys.
    pub(crate) fn requeue(
        &mut self,
        time: usize,
        queue: &str,
        id: MessageId,
    ) -> Returned<(u64, u64)> {
        let revived = self.queue(queue)?.revive(time, id);
        let (what, requeued) = match revived {
            Some(true) => ("requeued", (1, 0)),
            Some(false) => ("a requeued one's key held", (0, 1)),
            None => ("not requeued", (0, 0)),
        };
        self.happened(what, 1);
        Ok(requeued)
    }

    pub(crate) fn requeue_all(&mut self, time: usize, queue: &str) -> Returned<(u64, u64)> {
        let queue = self.queue(queue)?;
        let dead: Vec<_> = queue.dead.keys().copied().collect();
        let back = dead
            .iter()
            .filter(|id| queue.revive(time, **id) == Some(true));
        let back = back.count() as u64;
        let held = dead.len() as u64 - back;
        self.happened("a requeued one's key held", held as usize);
        Ok((back, held))
    }

    pub(crate) fn purge(&mut self, queue: &str, place: Place) -> Returned<u64> {
        let queue = self.queue(queue)?;
        let purged = match place {
            Place::Queue => std::mem::take(&mut queue.messages).len(),
            Place::DeadLetters => std::mem::take(&mut queue.dead).len(),
            Place::Archive => std::mem::take(&mut queue.archive).len(),
        };
        self.happened("purged", purged);
        Ok(purged as u64)
    }

    pub(crate) fn create_queue(&mut self, time: usize, queue: &'static str) -> Returned {
        if self.queues.contains_key(queue) {
            return Err("QueueExists");
        }
        self.queues.insert(queue, Queue::new(time));
        Ok(())
    }

    pub(crate) fn delete_queue(&mut self, queue: &str) -> Returned {
        if !self.queue(queue)?.messages.is_empty() {
            return Err("QueueNotEmpty");
        }
        self.queues.remove(queue);
        self.seen.retain(|(of, _), _| *of != queue);
        self.workers.retain(|_, worker| worker.queue != queue);
        self.happened("a queue deleted", 1);
        Ok(())
    }

    pub(crate) fn configure(&mut self, queue: &str, max_attempts: u32) -> Returned {
        self.queue(queue)?.max_attempts = max_attempts;
        Ok(())
    }

    /// `id` is the one that the database has assigned, if it has.
    pub(crate) fn register(
        &mut self,
        kind: WorkerKind,
        queue: &'static str,
        port: u16,
        id: Option<WorkerId>,
    ) -> Returned {
        self.queue(queue)?;
        let is_same = |worker: &Worker| {
            (worker.kind, worker.queue, worker.port) == (kind, queue, port)
                && worker.status != WorkerStatus::Stopped
        };
        if port != 0 && self.workers.values().any(is_same) {
            return Err("WorkerExists");
        }
        if let Some(id) = id {
            let status = WorkerStatus::Ready;
            let worker = Worker {
                kind,
                queue,
                port,
                status,
            };
            self.workers.insert(id, worker);
        }
        Ok(())
    }

    /// What a worker's handle returns. Without a worker to stop, others return that there is none.
    pub(crate) fn step(&mut self, worker: WorkerId, transition: Transition) -> Returned {
        let Some(worker) = self.workers.get_mut(&worker) else {
            return Err("WorkerStopped");
        };
        worker.status = match (transition, worker.status) {
            (Transition::Suspend, WorkerStatus::Ready) => WorkerStatus::Suspended,
            (Transition::Resume, WorkerStatus::Suspended) => WorkerStatus::Ready,
            (Transition::Shutdown, _) => WorkerStatus::Stopped,
            _ => return Err("InvalidTransition"),
        };
        self.happened("a worker's step", 1);
        Ok(())
    }

    pub(crate) fn heartbeat(&self, worker: WorkerId) -> Returned {
        match self.status(worker) {
            WorkerStatus::Stopped => Err("WorkerStopped"),
            WorkerStatus::Ready | WorkerStatus::Suspended => Ok(()),
        }
    }

    /// One that is gone is stopped.
    pub(crate) fn status(&self, worker: WorkerId) -> WorkerStatus {
        let worker = self.workers.get(&worker);
        worker.map_or(WorkerStatus::Stopped, |worker| worker.status)
    }

    pub(crate) fn remove_worker(&mut self, worker: WorkerId) -> Returned {
        let removed = self.workers.remove(&worker);
        removed.map(drop).ok_or("WorkerNotFound")
    }

    pub(crate) fn remove_ended_workers(&mut self) -> Returned<u64> {
        let before = self.workers.len();
        self.workers
            .retain(|_, worker| worker.status != WorkerStatus::Stopped);
        Ok((before - self.workers.len()) as u64)
    }

    /// The messages that a worker holds, by key.
    pub(crate) fn held(&self, worker: WorkerId) -> Returned<Vec<MessageId>> {
        let found = self.workers.get(&worker).ok_or("WorkerNotFound")?;
        let entries = self
            .queues
            .get(found.queue)
            .map(|queue| queue.messages.iter());
        let held = entries.into_iter().flatten();
        let held = held.filter(|(_, entry)| entry.is_held() && entry.consumer == Some(worker));
        Ok(held.map(|(id, _)| *id).collect())
    }

    pub(crate) fn release(&mut self, time: usize, worker: WorkerId) -> Returned<u64> {
        let held = self.held(worker)?;
        let messages = self
            .queues
            .values_mut()
            .flat_map(|queue| &mut queue.messages);
        for (_, entry) in messages.filter(|(id, _)| held.contains(id)) {
            entry.put_back(Visible::Since(time));
        }
        self.happened("released", held.len());
        Ok(held.len() as u64)
    }

    /// Ready, delayed, leased; dead letters; and the attempts that there are.
    pub(crate) fn counts(&mut self, queue: &str) -> Returned<(u64, u64, u64, u64, u32)> {
        let queue = self.queue(queue)?;
        let count = |state| {
            let entries = queue.messages.values();
            entries.filter(|entry| entry.state() == state).count() as u64
        };
        Ok((
            queue.ready().len() as u64,
            count("delayed"),
            count("leased"),
            queue.dead.len() as u64,
            queue.max_attempts,
        ))
    }

    /// What administration lists of a queue.
    pub(crate) fn list(&self, queue: &str) -> Returned<Vec<String>> {
        let queue = self.queues.get(queue).ok_or("QueueNotFound")?;
        let messages = queue.messages.iter().map(|(id, entry)| {
            let (attempt, held, content) = (entry.attempt, entry.is_held(), entry.content());
            format!("message {id} {attempt} {held} {content}")
        });
        let dead = queue.dead.iter().map(|(id, (entry, reason))| {
            let (attempt, content) = (entry.attempt, entry.content());
            format!("dead {id} {attempt} {content} {reason}")
        });
        let archive = queue
            .archive
            .iter()
            .map(|(id, entry)| format!("archived {id} {} {}", entry.attempt, entry.content()));
        Ok(messages.chain(dead).chain(archive).collect())
    }
}
