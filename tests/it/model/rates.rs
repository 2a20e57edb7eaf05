//! Rates and slow-downs in the model. A rate lets one attempt start, and then none for as long as a test runs: until the
//! test says that its token has come.

use super::*;

/// What limits how many attempts of a queue start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QueueRate {
    is_set: bool,
    /// Its token is taken.
    is_empty: bool,
    /// A handler has asked for a pause.
    pub(super) is_slowed: bool,
    /// Each group has a rate.
    is_of_groups: bool,
}

/// What limits how many attempts of a group start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GroupRate {
    is_own: bool,
    is_empty: bool,
    is_slowed: bool,
}

/// What has a rate, or can be slowed down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bucket {
    Queue(&'static str),
    Group(&'static str, usize),
}

impl Queue {
    /// How many messages can be claimed at most.
    pub(super) fn free(&self) -> usize {
        if self.is_paused || self.rate.is_slowed || self.rate.is_set && self.rate.is_empty {
            0
        } else if self.rate.is_set {
            1
        } else {
            usize::MAX
        }
    }

    pub(super) fn has_rate(&self) -> bool {
        self.rate.is_set
    }

    pub(super) fn take_token(&mut self) -> bool {
        self.rate.is_empty |= self.rate.is_set;
        self.rate.is_set
    }

    /// Whether a group of it has a rate.
    pub(super) fn has_group_rates(&self) -> bool {
        self.rate.is_of_groups || self.group_rates.values().any(|rate| rate.is_own)
    }

    fn is_rated(&self, group: usize) -> bool {
        let own = self.group_rates.get(&group).is_some_and(|rate| rate.is_own);
        self.rate.is_of_groups || own
    }

    /// When a message starts that is let in or put back, and would be visible at this time without a rate. `slows`: its
    /// handler has asked for a pause.
    pub(super) fn draw(&mut self, group: Option<usize>, visible: Visible, slows: bool) -> Visible {
        let Some(group) = group.filter(|group| self.is_rated(*group)) else {
            return visible;
        };
        let rate = self.group_rates.entry(group).or_default();
        rate.is_slowed |= slows;
        let is_free = !rate.is_empty && !rate.is_slowed;
        rate.is_empty = true;
        match visible {
            // Places are drawn group by group, after the statement's time.
            Visible::Since(time) if is_free => Visible::Since(time + 1 + group),
            _ => Visible::Later,
        }
    }

    pub(super) fn slows_group(&self, id: MessageId) -> bool {
        let group = self.messages.get(&id).and_then(Entry::group);
        group.is_some_and(|group| self.is_rated(group))
    }

    /// Puts a message back that was delivered. `slows`: its handler has asked for a pause.
    pub(super) fn put_back(&mut self, id: MessageId, visible: Visible, slows: bool) {
        let group = self.messages.get(&id).and_then(Entry::group);
        self.rate.is_slowed |= slows && !self.slows_group(id);
        let visible = self.draw(group, visible, slows);
        if let Some(entry) = self.messages.get_mut(&id) {
            entry.put_back(visible);
        }
    }

    /// What is known of groups is forgotten with the last of their rates.
    fn forget_rates(&mut self) {
        if !self.has_group_rates() {
            self.group_rates.clear();
        }
    }
}

impl World {
    pub(crate) fn rate(&mut self, queue: &str, is_set: bool) -> Returned {
        self.queue(queue)?.rate.is_set = is_set;
        Ok(())
    }

    pub(crate) fn rate_groups(&mut self, queue: &str, is_set: bool) -> Returned {
        let queue = self.queue(queue)?;
        queue.rate.is_of_groups = is_set;
        queue.forget_rates();
        Ok(())
    }

    pub(crate) fn rate_group(&mut self, queue: &str, group: usize, is_set: bool) -> Returned {
        let queue = self.queue(queue)?;
        queue.group_rates.entry(group).or_default().is_own = is_set;
        queue.forget_rates();
        Ok(())
    }

    /// A handler that has lost its lease has asked for a pause: the group of its message isn't known any more.
    pub(super) fn slow_down_too_late(&mut self, queue: &str, claim: usize) {
        if let Some(queue) = self.queues.get_mut(queue)
            // And not another queue of this name.
            && claim > queue.created
            && !queue.has_group_rates()
        {
            queue.rate.is_slowed = true;
            self.happened("a queue slowed down too late", 1);
        }
    }

    fn buckets(
        &self,
        of_queue: impl Fn(&QueueRate) -> bool,
        of_group: impl Fn(&GroupRate) -> bool,
    ) -> Vec<Bucket> {
        let mut buckets = Vec::new();
        for (name, queue) in &self.queues {
            buckets.extend(of_queue(&queue.rate).then_some(Bucket::Queue(name)));
            let groups = queue.group_rates.iter();
            let groups = groups.filter(|(_, rate)| of_group(rate));
            buckets.extend(groups.map(|(group, _)| Bucket::Group(name, *group)));
        }
        buckets
    }

    /// Whose tokens are taken.
    pub(crate) fn empty_buckets(&self) -> Vec<Bucket> {
        self.buckets(|queue| queue.is_empty, |group| group.is_empty)
    }

    /// What is slowed down.
    pub(crate) fn slowed(&self) -> Vec<Bucket> {
        self.buckets(|queue| queue.is_slowed, |group| group.is_slowed)
    }

    pub(crate) fn token_comes(&mut self, bucket: Bucket) {
        self.change(
            bucket,
            |queue| queue.is_empty = false,
            |group| group.is_empty = false,
        );
        self.happened("a token came", 1);
    }

    pub(crate) fn slow_down_ends(&mut self, bucket: Bucket) {
        self.change(
            bucket,
            |queue| queue.is_slowed = false,
            |group| group.is_slowed = false,
        );
        self.happened("a slow-down ended", 1);
    }

    fn change(
        &mut self,
        bucket: Bucket,
        of_queue: impl Fn(&mut QueueRate),
        of_group: impl Fn(&mut GroupRate),
    ) {
        let (Bucket::Queue(queue) | Bucket::Group(queue, _)) = bucket;
        let Some(queue) = self.queues.get_mut(queue) else {
            return;
        };
        match bucket {
            Bucket::Queue(_) => of_queue(&mut queue.rate),
            Bucket::Group(_, group) => of_group(queue.group_rates.entry(group).or_default()),
        }
    }

    /// The queues that something is known of that holds messages back, or that have rates; and their groups.
    pub(super) fn rate_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, queue) in &self.queues {
            let QueueRate {
                is_set,
                is_empty,
                is_slowed,
                ..
            } = queue.rate;
            let are_groups_rated = queue.has_group_rates();
            if is_set || is_empty || is_slowed || are_groups_rated {
                let flags = [is_set, is_empty, is_slowed, are_groups_rated].map(flag);
                lines.push(format!("rate {name} {}", flags.join(" ")));
            }
            for (group, rate) in &queue.group_rates {
                if rate.is_own || rate.is_empty || rate.is_slowed {
                    let flags = [rate.is_own, rate.is_empty, rate.is_slowed].map(flag);
                    lines.push(format!("group-rate {name} {group} {}", flags.join(" ")));
                }
            }
        }
        lines
    }
}

fn flag(is_true: bool) -> &'static str {
    if is_true { "t" } else { "f" }
}
