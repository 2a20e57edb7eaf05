//! What calls on several messages do in the model.

use std::collections::BTreeSet;

use super::*;

/// How many messages were changed, and how many stay as they were since others have their keys.
type Changed = Returned<(u64, u64)>;

impl World {
    pub(crate) fn cancel_many(&mut self, queue: &str, ids: &BTreeSet<MessageId>) -> Changed {
        let mut many = 0;
        for id in ids {
            many += u64::from(self.cancel(queue, *id, false)?.is_some());
        }
        self.happened("several cancelled at once", usize::from(many > 1));
        Ok((many, 0))
    }

    pub(crate) fn reschedule_many(
        &mut self,
        time: usize,
        queue: &str,
        ids: &BTreeSet<MessageId>,
        wait: Wait,
    ) -> Changed {
        let mut many = 0;
        for id in ids {
            many += u64::from(self.reschedule(time, queue, *id, wait)?);
        }
        self.happened("several moved at once", usize::from(many > 1));
        Ok((many, 0))
    }

    pub(crate) fn requeue_many(
        &mut self,
        time: usize,
        queue: &str,
        ids: &BTreeSet<MessageId>,
    ) -> Changed {
        let mut all = (0, 0);
        for id in ids {
            let (back, held) = self.requeue(time, queue, *id)?;
            all = (all.0 + back, all.1 + held);
        }
        self.happened("several requeued at once", usize::from(all.0 > 1));
        Ok(all)
    }

    pub(crate) fn delete_dead(&mut self, queue: &str, ids: &BTreeSet<MessageId>) -> Changed {
        let queue = self.queue(queue)?;
        let before = queue.dead.len();
        queue.dead.retain(|id, _| !ids.contains(id));
        let many = before - queue.dead.len();
        self.happened("dead letters deleted", many);
        Ok((many as u64, 0))
    }
}
