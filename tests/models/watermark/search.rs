//! Which steps are possible in a state, and what must hold in each.

use super::*;

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let process = Process {
            watermark: BEGINNING,
            rescanned_at: None,
            rescans: 0,
            goes_on_behind: None,
        };
        vec![State {
            now: 1,
            messages: vec![Message::Unsent; self.messages],
            processes: [process; 2],
            claims: [None; 2],
            claimed: 0,
            released: false,
            rolled_back: false,
            overlooked: false,
            hidden: false,
            skipped: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.is_over() {
            return;
        }
        let unsent = |message: &Message| *message == Message::Unsent;
        steps.extend(state.messages.iter().position(unsent).map(Step::Send));
        for (index, message) in state.messages.iter().enumerate() {
            match message {
                Message::Open { .. } => steps.push(Step::Store(index)),
                Message::Stored { .. } if state.is_leased(index) && !state.is_locked(index) => {
                    steps.push(Step::Acknowledge(index));
                    if !state.released {
                        steps.push(Step::Release(index));
                    }
                }
                _ => {}
            }
        }
        for (index, claim) in state.claims.iter().enumerate() {
            if claim.is_none() && state.claimed < self.claims {
                steps.push(Step::Claim(index));
            }
            if claim.is_some() {
                steps.push(Step::Commit(index));
                if !state.rolled_back {
                    steps.push(Step::Rollback(index));
                }
            }
        }
        if state.now < self.end {
            steps.push(Step::Tick);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        let now = state.now;
        match step {
            Step::Send(index) => next.messages[index] = Message::Open { visible_at: now },
            Step::Store(index) => {
                if let Message::Open { visible_at } = state.messages[index] {
                    next.messages[index] = Message::Stored {
                        visible_at,
                        lease_until: 0,
                        ready_since: now,
                        excused: now > visible_at + SLACK,
                    };
                }
            }
            Step::Claim(index) => self.claim(&mut next, index),
            Step::Commit(index) => self.commit(&mut next, index),
            Step::Rollback(index) => {
                next.rolled_back = true;
                let claim = next.claims[index].take()?;
                if claim.is_rescan {
                    next.processes[self.claimers[index]].rescanned_at = None;
                }
                if let Some(Message::Stored {
                    ready_since,
                    excused,
                    ..
                }) = claim
                    .locked
                    .and_then(|locked| next.messages.get_mut(locked))
                {
                    (*ready_since, *excused) = (now, true);
                }
            }
            Step::Acknowledge(index) => next.messages[index] = Message::Gone,
            Step::Release(index) => {
                next.released = true;
                if let Message::Stored {
                    visible_at,
                    lease_until,
                    ready_since,
                    excused,
                } = &mut next.messages[index]
                {
                    if self.keeps(Rule::ReleasedIsOfNow) {
                        *visible_at = now;
                    }
                    (*lease_until, *ready_since, *excused) = (0, now, false);
                }
            }
            Step::Tick => next.now += 1,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FOUND, |_, state: &State| !state.overlooked),
            Property::always(SOON, |_, state: &State| !state.hidden),
            Property::always(GOES_ON, |_, state: &State| !state.skipped),
            // Ensures that the model isn't vacuous: each of these happens.
            Property::sometimes(
                "a rescan finds what is below the watermark",
                |model: &Self, state: &State| {
                    let watermarks = state.processes.map(|process| process.watermark);
                    state.claims.iter().enumerate().any(|(index, claim)| {
                        let below = |last| last < watermarks[model.claimers[index]];
                        let last = claim.and_then(|claim| state.position(claim.locked?));
                        last.is_some_and(below)
                    })
                },
            ),
            Property::sometimes(
                "a watermark is past what is in flight",
                |_, state: &State| {
                    let highest = state.processes[0].watermark;
                    let mut all = 0..state.messages.len();
                    all.any(|index| {
                        state.is_leased(index)
                            && state.position(index).is_some_and(|at| at < highest)
                    })
                },
            ),
            Property::sometimes("everything is settled", |_, state: &State| state.is_over()),
        ]
    }
}
