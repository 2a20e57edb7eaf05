//! Groups in the model: of each, one message is on its way, and the others are parked.

use super::*;

/// What puts a dead letter in front of all that were never one.
const FRONT: i64 = 1 << 62;

/// What a settlement lets in is ready after what the call itself makes ready.
const LET_IN: usize = 4;

/// A message's place in its group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Member {
    group: usize,
    place: i64,
    /// When it would be visible, if it is parked.
    parked: Option<Visible>,
}

impl Entry {
    pub(super) fn is_parked(&self) -> bool {
        self.group.is_some_and(|member| member.parked.is_some())
    }

    pub(super) fn group(&self) -> Option<usize> {
        self.group.map(|member| member.group)
    }

    pub(super) fn in_group(&self) -> String {
        self.group
            .map_or("none".to_owned(), |member| member.group.to_string())
    }

    fn park(&mut self) {
        if let Some(member) = &mut self.group {
            member.parked = Some(self.visible);
            self.visible = Visible::Later;
        }
    }

    /// It was a dead letter.
    pub(super) fn go_to_the_front(&mut self) {
        self.park();
        if let Some(member) = &mut self.group
            && member.place > 0
        {
            member.place -= FRONT;
        }
    }

    /// Another time for one that is parked; `false` if it isn't.
    pub(super) fn put_off(&mut self, visible: Visible) -> bool {
        let Some(parked) = self.group.as_mut().and_then(|it| it.parked.as_mut()) else {
            return false;
        };
        *parked = visible;
        true
    }
}

impl Queue {
    fn members(&self, group: usize) -> impl Iterator<Item = (i64, MessageId, bool)> {
        let entries = self.messages.iter();
        let members = entries.filter_map(|(id, entry)| Some((*id, entry.group?)));
        members
            .filter(move |(_, member)| member.group == group)
            .map(|(id, member)| (member.place, id, member.parked.is_some()))
    }

    /// Lets the next ones in, and forgets groups without messages. Returns how many were let in, and how many of them a rate
    /// holds back.
    fn let_in(&mut self, time: usize) -> [usize; 2] {
        let groups: std::collections::BTreeSet<_> = self
            .messages
            .values()
            .filter_map(|entry| Some(entry.group?.group))
            .collect();
        let [mut let_in, mut held_back] = [0, 0];
        for group in &groups {
            if self.members(*group).any(|(.., is_parked)| !is_parked) {
                continue;
            }
            let next = self.members(*group).min();
            let Some((_, id, _)) = next else {
                continue;
            };
            let due = match self.messages.get(&id).and_then(|entry| entry.group?.parked) {
                Some(Visible::Since(_)) => Visible::Since(time + LET_IN),
                _ => Visible::Later,
            };
            let visible = self.draw(Some(*group), due, false);
            held_back += usize::from(visible == Visible::Later && due != Visible::Later);
            if let Some(entry) = self.messages.get_mut(&id)
                && let Some(member) = &mut entry.group
            {
                (entry.visible, member.parked) = (visible, None);
                let_in += 1;
            }
        }
        self.groups.retain(|group, _| groups.contains(group));
        [let_in, held_back]
    }
}

impl World {
    pub(super) fn is_member(&self, queue: &str, id: MessageId) -> bool {
        let queue = self.queues.get(queue);
        let entry = queue.and_then(|queue| queue.messages.get(&id));
        entry.is_some_and(|entry| entry.group.is_some())
    }

    /// A message that was just sent belongs to a group.
    pub(super) fn join(&mut self, queue: &str, id: MessageId, group: usize) -> Returned {
        let queue = self.queue(queue)?;
        let is_first = queue.members(group).next().is_none();
        let sent = queue.groups.entry(group).or_default();
        *sent += 1;
        let place = *sent;
        let Some(wanted) = queue.messages.get(&id).map(|entry| entry.visible) else {
            return Ok(());
        };
        let visible = if is_first {
            queue.draw(Some(group), wanted, false)
        } else {
            wanted
        };
        if let Some(entry) = queue.messages.get_mut(&id) {
            entry.visible = visible;
            entry.group = Some(Member {
                group,
                place,
                parked: None,
            });
            if !is_first {
                entry.park();
                self.happened("parked", 1);
            } else if visible != wanted && visible == Visible::Later {
                self.happened("held back by its group's rate", 1);
            }
        }
        Ok(())
    }

    /// After each call: wherever a group's message has gone, the next one is let in.
    pub(crate) fn let_in(&mut self, time: usize) {
        let counts: Vec<_> = (self.queues.values_mut())
            .map(|queue| queue.let_in(time))
            .collect();
        for [let_in, held_back] in counts {
            self.happened("let in", let_in);
            self.happened("held back by its group's rate", held_back);
        }
    }

    /// Each group of a queue, with how many are on their way and how many are parked.
    pub(super) fn group_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, queue) in &self.queues {
            let mut counts = BTreeMap::<usize, (u32, u32)>::new();
            for member in queue.messages.values().filter_map(|entry| entry.group) {
                let (live, parked) = counts.entry(member.group).or_default();
                *match member.parked {
                    None => live,
                    Some(_) => parked,
                } += 1;
            }
            for (group, (live, parked)) in counts {
                lines.push(format!("group {name} {group} {live} {parked}"));
            }
        }
        lines
    }
}
