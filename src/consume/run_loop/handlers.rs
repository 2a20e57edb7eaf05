//! When the tasks of handlers are started, and when they are aborted.

use std::sync::Arc;

use tokio::time::Instant;

use super::RunLoop;
use crate::{consume::handlers::Work, telemetry};

impl<W: Work> RunLoop<W> {
    pub(super) fn start_handlers(&mut self) {
        let is_full = self.claims == 0 && self.load().is_full();
        let due = self.in_flight.due_chunks(self.chunk, is_full);
        for _ in 0..due.min(self.idle_handlers()) {
            let (work, shared) = (Arc::clone(&self.work), Arc::clone(&self.shared));
            self.handlers.spawn(async move { work.work(&shared).await });
        }
    }

    pub(super) fn idle_handlers(&self) -> usize {
        (self.options.concurrency).saturating_sub(self.handlers.len())
    }

    pub(super) fn abort_late_handlers(&mut self) {
        if let Some(ending) = &mut self.ending
            && !ending.is_aborted
            && ending.abort_at <= Instant::now()
        {
            ending.is_aborted = true;
            let running = self.in_flight.running();
            if running > 0 {
                telemetry::handlers_aborted(self.worker, &self.queue, running);
            }
            self.handlers.abort_all();
        }
    }
}
