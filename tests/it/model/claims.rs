//! Claims in the model.

use super::*;

impl World {
    /// What one claim returns, the state before it dead-letters what it has found used up, and whether it stopped at its
    /// limit, which counts those too.
    fn claim_once(
        &mut self,
        time: usize,
        name: &str,
        consumer: Option<WorkerId>,
        limit: usize,
    ) -> Returned<(Vec<Delivered>, Vec<Self>, bool)> {
        if let Some(consumer) = consumer {
            self.through(consumer)?;
        }
        let queue = self.queue(name)?;
        if queue.is_paused || queue.free() == 0 {
            let what = if queue.is_paused {
                "claimed from a paused queue"
            } else if queue.rate.is_slowed {
                "claimed from a queue that is slowed down"
            } else {
                "claimed without a token"
            };
            self.happened(what, 1);
            return Ok((Vec::new(), Vec::new(), false));
        }
        let free = queue.free();
        let ready: Vec<_> = queue.ready().into_iter().take(limit.min(free)).collect();
        let mut full = ready.len() == limit;
        let (mut claimed, mut over) = (Vec::new(), Vec::new());
        for id in ready {
            let max_attempts = queue.max_attempts;
            let Some(entry) = queue.messages.get_mut(&id) else {
                continue;
            };
            // Its consumers crashed without a word, or there were none in time.
            if let Some(why) = entry.is_over(max_attempts) {
                over.push((id, why));
                continue;
            }
            entry.attempt += 1;
            entry.key = entry.key.filter(|key| !key.ends_with_a_claim());
            (entry.visible, entry.lease, entry.consumer) = (Visible::Later, Some(time), consumer);
            claimed.push((id, entry.attempt, entry.snoozes, entry.payload));
        }
        // What is over has taken no token, which may be there for another.
        full |= queue.has_rate() && !over.is_empty();
        let tokens = usize::from(!claimed.is_empty() && queue.take_token());
        self.happened("a token taken", tokens);
        let again = claimed.iter().filter(|(_, attempt, ..)| *attempt > 1);
        self.happened("delivered again", again.count());
        self.happened("several delivered at once", usize::from(claimed.len() > 1));
        let mut before = Vec::new();
        // Those with groups are dead-lettered by a statement of their own, after the others.
        over.sort_by_key(|(id, _)| self.is_member(name, *id));
        let mut last = None;
        let expired = over.iter().filter(|(_, why)| *why == EXPIRED).count();
        self.happened("expired", expired);
        self.happened("dead-lettered by a claim", over.len() - expired);
        for (id, why) in over {
            let is_member = self.is_member(name, id);
            if last != Some(is_member) {
                before.insert(0, self.clone());
                last = Some(is_member);
            }
            let queue = self.queue(name)?;
            if why == EXPIRED
                && queue.messages[&id]
                    .expiry
                    .is_some_and(|expiry| expiry.drops)
            {
                queue.messages.remove(&id);
            } else {
                queue.dead_letter(id, why);
            }
        }
        self.let_in(time);
        Ok((claimed, before, full))
    }

    /// What a claim returns, in order; and the states between its statements, last first: it continues if one
    /// returns nothing, since all that it claimed had their attempts used up.
    pub(crate) fn claim(
        &mut self,
        time: usize,
        queue: &str,
        consumer: Option<WorkerId>,
        limit: usize,
    ) -> (Returned<Vec<Delivered>>, Vec<Self>) {
        let mut between = Vec::new();
        loop {
            match self.claim_once(time, queue, consumer, limit) {
                Ok((claimed, before, full)) => {
                    between.splice(0..0, before);
                    if !(claimed.is_empty() && full) {
                        return (Ok(claimed), between);
                    }
                    between.insert(0, self.clone());
                }
                Err(refused) => return (Err(refused), between),
            }
        }
    }

    /// The messages that the claim at this time still holds.
    pub(crate) fn claimed_at(&self, claim: usize) -> Vec<MessageId> {
        let messages = self.queues.values().flat_map(|queue| &queue.messages);
        let held = messages.filter(|(_, entry)| entry.lease == Some(claim));
        held.map(|(id, _)| *id).collect()
    }
}
