//! Message ids drawn ahead, so that a send knows its ids before its statement.

use std::collections::VecDeque;

use super::pending::PendingSend;

/// The first block is small, since a store may never send. Later blocks last for a few statements, within these bounds.
pub(super) const FIRST_BLOCK: usize = 64;
const MIN_BLOCK: usize = 1_000;
const MAX_BLOCK: usize = 4_000;

/// Ids that no message has yet.
#[derive(Default)]
pub(super) struct IdPool {
    drawn: VecDeque<i64>,
    /// Start time of the server that drew them: another server may draw the same ids again.
    server: i64,
}

impl IdPool {
    pub(super) fn put(&mut self, drawn: Vec<i64>, server: i64) {
        self.drawn.extend(drawn);
        self.server = server;
    }

    pub(super) fn clear(&mut self) {
        self.drawn.clear();
    }

    /// Discards ids that another server has drawn.
    pub(super) fn keep_only(&mut self, server: i64) {
        if self.server != server {
            self.drawn.clear();
        }
    }

    /// How many ids to draw so that `group` can have its ids.
    pub(super) fn missing(&self, group: &[PendingSend], draw_ahead: bool) -> usize {
        let without = group.iter().filter(|pending| pending.ids.is_empty());
        block(
            without.map(|pending| pending.messages.len()).sum(),
            self.drawn.len(),
            draw_ahead,
        )
    }

    /// Assigns ids to those that have none yet. There must be enough.
    pub(super) fn assign(&mut self, group: &mut [PendingSend]) {
        for pending in group.iter_mut().filter(|pending| pending.ids.is_empty()) {
            let count = pending.messages.len().min(self.drawn.len());
            pending.ids = self.drawn.drain(..count).collect();
        }
    }
}

/// How many ids to draw if `needed` are required and `drawn` are available.
fn block(needed: usize, drawn: usize, draw_ahead: bool) -> usize {
    if drawn >= needed {
        0
    } else if draw_ahead {
        (needed * 4).clamp(MIN_BLOCK, MAX_BLOCK).max(needed)
    } else {
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_drawn_for_a_few_statements_at_a_time() {
        assert_eq!(block(1, 1, true), 0);
        assert_eq!(block(1, 0, true), MIN_BLOCK);
        assert_eq!(block(900, 0, true), 3_600);
        assert_eq!(block(9_000, 0, true), 9_000);
        assert_eq!(block(3, 0, false), 3);
    }
}
