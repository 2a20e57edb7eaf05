//! Who runs a writer: the caller itself while no other send is under way, or else a task.

use std::{mem, sync::Arc};

use tokio::{runtime::Handle, task::yield_now};

use super::{Batcher, LaneId};
use crate::{
    pool::runtime_ended,
    send::{pending::PendingSend, writer::Writer},
};

/// A caller that found no writer running, and acts as its own: a task would cost it two thread switches. It sends its
/// own messages only and no other call waits for it, since its future may be left unpolled for long, or be dropped.
pub(in crate::send) struct DirectSend<'a> {
    batcher: &'a Arc<Batcher>,
    lane: LaneId,
}

impl<'a> DirectSend<'a> {
    /// Returns `None` if other sends are under way.
    pub(in crate::send) fn begin(
        batcher: &'a Arc<Batcher>,
        is_keyed: bool,
    ) -> Option<(Self, Writer)> {
        let id = LaneId::current(is_keyed);
        let mut state = batcher.lock();
        let lane = state.lane(id);
        if lane.is_in_use() {
            return None;
        }
        lane.is_direct = true;
        let writer = lane.idle.pop().unwrap_or_default();
        Some((Self { batcher, lane: id }, writer))
    }

    /// Answers the calls that the writer has stored, and parks it.
    pub(in crate::send) fn finish(self, writer: Writer, mut stored: Vec<PendingSend>) {
        self.batcher.stored(&mut stored);
        let parked = {
            let mut state = self.batcher.lock();
            self.batcher.park(self.lane, state.lane(self.lane), writer)
        };
        parked.finish();
    }
}

/// If the caller left in the middle of a statement, its writer's state is unknown, so it isn't used again.
impl Drop for DirectSend<'_> {
    fn drop(&mut self) {
        self.batcher.lock().lane(self.lane).is_direct = false;
    }
}

/// The task of a writer, which ends when nothing is pending.
pub(in crate::send) struct WriterTask {
    batcher: Arc<Batcher>,
    lane: LaneId,
    /// `None` once it is parked.
    writer: Option<Writer>,
    /// How many calls it is sending.
    calls: usize,
}

impl WriterTask {
    /// Adds a pending send. Returns a task to run for it, if another writer may run.
    pub(in crate::send) fn for_pending(
        batcher: &Arc<Batcher>,
        pending: PendingSend,
    ) -> Option<Self> {
        let id = LaneId::current(pending.is_keyed());
        let mut state = batcher.lock();
        let most = batcher.max_writers(state.commit_time);
        let lane = state.lane(id);
        lane.pending.push_back(pending);
        if lane.running >= most {
            return None;
        }
        lane.running += 1;
        Some(Self {
            batcher: Arc::clone(batcher),
            lane: id,
            writer: Some(lane.idle.pop().unwrap_or_default()),
            calls: 0,
        })
    }

    pub(in crate::send) async fn run(mut self) {
        let batcher = Arc::clone(&self.batcher);
        loop {
            batcher.gather(self.lane).await;
            let group = batcher.next_group(self.lane, &mut self.writer);
            let (Some(group), Some(writer)) = (group, &mut self.writer) else {
                return;
            };
            self.calls = group.len();
            let key_timeout = batcher.key_timeout(self.lane);
            let delivered = writer.deliver(&batcher, group, key_timeout).await;
            self.finish_calls();
            batcher.put_back(self.lane, delivered.held);
            let mut stored = delivered.stored;
            batcher.stored(&mut stored);
            // Callers that were just answered are about to send again, and their sends go out together.
            yield_now().await;
            batcher.finished.notify_waiters();
        }
    }

    fn finish_calls(&mut self) {
        self.batcher.lock().lane(self.lane).in_flight -= mem::take(&mut self.calls);
    }
}

impl Drop for WriterTask {
    fn drop(&mut self) {
        if self.writer.is_none() {
            return;
        }
        // The runtime has ended while the task was running. What is pending on it was not sent.
        self.finish_calls();
        let pending = {
            let mut state = self.batcher.lock();
            let lane = state.lane(self.lane);
            lane.running -= 1;
            if lane.running > 0 {
                return;
            }
            mem::take(&mut lane.pending)
        };
        for pending in pending {
            pending.not_stored(&runtime_ended());
        }
    }
}

impl LaneId {
    /// That of the runtime that calls this.
    fn current(is_keyed: bool) -> Self {
        Self {
            runtime: Handle::try_current().ok().map(|runtime| runtime.id()),
            is_keyed,
        }
    }
}
