//! How the messages of a group are counted, parked and let in.
//!
//! # What happens
//!
//! A send locks the group's row, and stores its message as one that is live if there is room, and parked otherwise. A
//! settlement locks the row, deletes its message, counts it, and lets as many of those that are parked in as there is room
//! for. Either may be part of a transaction that stays open, is rolled back, or whose process or session is killed at any
//! point. A lease may run out, and then another consumer has the message, while the first one still settles it. Statements
//! may be lost, or executed long after they were sent. An operator raises the limit.
//!
//! The rules are [`Rule`], and the tests show what each is needed for.
//!
//! # What is promised
//!
//! - No more messages are live than the limit says.
//! - Messages are let in in the order in which their sends have committed.
//! - While messages are parked, one is live, so that its settlement lets the next one in: nothing needs to be repaired.
//! - The row has the number of messages that there are.
//!
//! # What is not modelled
//!
//! - Several groups: their rows are locked in one order, and no statement of one reads another's.
//! - Stopped groups, which let nothing in on purpose.
//! - Crashes of the server: the changes of a transaction are undone together or not at all.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::{breaks, holds};

/// A rule of the protocol, each of which can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A send or a settlement holds the row's lock until its transaction ends.
    RowLock,
    /// A settlement looks for what is parked once it has the lock, and not when its statement begins.
    LookAfterTheLock,
    /// A message is deleted, counted, and followed by others in one transaction.
    OneTransaction,
    /// Only the lease that a message was delivered under settles it.
    CompareTheLease,
    /// A message's place is drawn under the lock.
    PlaceUnderTheLock,
    /// A message that is sent while others are parked is parked, even if there is room.
    NoOvertaking,
}

const MESSAGES: usize = 3;
/// How often a message can be claimed.
const CLAIMS: u8 = 2;

#[derive(Debug, Clone)]
struct Protocol {
    without: Option<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    limit: u8,
    row: Row,
    messages: [Message; MESSAGES],
    /// The places that are drawn.
    drawn: u8,
    /// The sends that have committed.
    committed: u8,
    /// Who holds the row's lock.
    lock: Option<Holder>,
    /// Settlements on their way to the server, or waiting there for the lock.
    asked: BTreeSet<Settlement>,
    /// The one that was executed, in a transaction that is open.
    open: Option<Settlement>,
    /// Messages that were deleted and not counted yet.
    uncounted: BTreeSet<usize>,
    /// A message was let in before one that was sent before it.
    has_overtaken: bool,
    has_promoted: bool,
}

/// The group's row, as it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    live: u8,
    parked: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Message {
    Unsent,
    /// Its place is drawn before its send begins.
    Drawn(u8),
    /// In a transaction that is open, which has read this row.
    Open {
        place: u8,
        is_parked: bool,
        read: Row,
    },
    Parked {
        place: u8,
        commit: u8,
    },
    /// How often it was claimed, and whether the last lease still runs.
    Live {
        claims: u8,
        is_leased: bool,
    },
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    Send(usize),
    Settlement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Settlement {
    message: usize,
    /// The claim that its lease comes from.
    claim: u8,
    /// What was parked when the statement began.
    saw: [bool; MESSAGES],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Draw(usize),
    /// A send executes its statement,
    Send(usize),
    /// and its transaction ends.
    CommitSend(usize),
    RollBackSend(usize),
    Claim(usize),
    Expire(usize),
    /// A consumer sends a settlement, for the claim of this number.
    Ask(usize, u8),
    Lose(Settlement),
    Execute(Settlement),
    CommitSettlement,
    RollBackSettlement,
    /// Counts a deleted message in a transaction of its own,
    Count(usize),
    /// unless the process has crashed.
    Crash(usize),
    Raise,
}

const LIMITED: &str = "no more messages are live than the limit says";
const IN_ORDER: &str = "messages are let in as their sends were committed";
const NONE_STUCK: &str = "a parked message waits for one that is live";
const COUNTED: &str = "the row has the number of messages that there are";

impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Deletes the message, counts it, and lets others in.
    fn settle(&self, state: &mut State, settlement: Settlement) {
        state.messages[settlement.message] = Message::Gone;
        if self.keeps(Rule::OneTransaction) {
            let saw = (!self.keeps(Rule::LookAfterTheLock)).then_some(settlement.saw);
            Self::count(state, saw);
        } else {
            state.uncounted.insert(settlement.message);
        }
    }

    fn count(state: &mut State, saw: Option<[bool; MESSAGES]>) {
        state.row.live = state.row.live.saturating_sub(1);
        while state.row.live < state.limit && state.row.parked > 0 {
            let parked = (0..MESSAGES).filter(|at| saw.is_none_or(|saw| saw[*at]));
            let next = parked
                .filter_map(|at| match state.messages[at] {
                    Message::Parked { place, .. } => Some((place, at)),
                    _ => None,
                })
                .min();
            let Some((_, next)) = next else {
                return;
            };
            state.let_in(next);
            state.has_promoted = true;
            state.row.live += 1;
            state.row.parked -= 1;
        }
    }

    /// Whether a settlement finds its message.
    fn finds(&self, state: &State, settlement: Settlement) -> bool {
        match state.messages[settlement.message] {
            Message::Live { claims, is_leased } => {
                claims == settlement.claim && is_leased || !self.keeps(Rule::CompareTheLease)
            }
            // Without the comparison, it counts what it doesn't find.
            Message::Gone => !self.keeps(Rule::CompareTheLease),
            _ => false,
        }
    }
}

impl State {
    fn live(&self) -> usize {
        let is_live = |message: &&Message| matches!(message, Message::Live { .. });
        self.messages.iter().filter(is_live).count()
    }

    fn parked(&self) -> usize {
        let is_parked = |message: &&Message| matches!(message, Message::Parked { .. });
        self.messages.iter().filter(is_parked).count()
    }

    fn let_in(&mut self, at: usize) {
        let commit = match self.messages[at] {
            Message::Parked { commit, .. } => commit,
            _ => self.committed,
        };
        self.has_overtaken |= self.messages.iter().any(
            |other| matches!(other, Message::Parked { commit: before, .. } if *before < commit),
        );
        self.messages[at] = Message::Live {
            claims: 0,
            is_leased: false,
        };
    }

    /// Whether nobody is at work on the row.
    fn is_quiet(&self) -> bool {
        let is_open = |message: &Message| matches!(message, Message::Open { .. });
        self.open.is_none() && self.uncounted.is_empty() && !self.messages.iter().any(is_open)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            limit: 1,
            row: Row { live: 0, parked: 0 },
            messages: [Message::Unsent; MESSAGES],
            drawn: 0,
            committed: 0,
            lock: None,
            asked: BTreeSet::new(),
            open: None,
            uncounted: BTreeSet::new(),
            has_overtaken: false,
            has_promoted: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        let is_free = state.lock.is_none() || !self.keeps(Rule::RowLock);
        for (at, message) in state.messages.iter().enumerate() {
            match *message {
                Message::Unsent if self.keeps(Rule::PlaceUnderTheLock) => {
                    actions.extend(is_free.then_some(Step::Send(at)));
                }
                Message::Unsent => actions.push(Step::Draw(at)),
                Message::Drawn(_) => actions.extend(is_free.then_some(Step::Send(at))),
                Message::Open { .. } => {
                    actions.push(Step::CommitSend(at));
                    actions.push(Step::RollBackSend(at));
                }
                Message::Live { claims, is_leased } => {
                    let is_locked = state.open.is_some_and(|open| open.message == at);
                    if is_leased {
                        actions.push(Step::Expire(at));
                    } else if claims < CLAIMS && !is_locked {
                        actions.push(Step::Claim(at));
                    }
                    actions.extend((1..=claims).map(|claim| Step::Ask(at, claim)));
                }
                Message::Parked { .. } | Message::Gone => {}
            }
        }
        for settlement in &state.asked {
            actions.push(Step::Lose(*settlement));
            if is_free && state.open.is_none() {
                actions.push(Step::Execute(*settlement));
            }
        }
        if state.open.is_some() {
            actions.push(Step::CommitSettlement);
            actions.push(Step::RollBackSettlement);
        }
        for at in &state.uncounted {
            actions.extend(is_free.then_some(Step::Count(*at)));
            actions.push(Step::Crash(*at));
        }
        if state.limit == 1 && is_free {
            actions.push(Step::Raise);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Draw(at) => {
                state.drawn += 1;
                state.messages[at] = Message::Drawn(state.drawn);
            }
            Step::Send(at) => {
                let place = match state.messages[at] {
                    Message::Drawn(place) => place,
                    _ => {
                        state.drawn += 1;
                        state.drawn
                    }
                };
                let read = state.row;
                let has_room = read.live < state.limit;
                let waits = read.parked > 0 && self.keeps(Rule::NoOvertaking);
                state.messages[at] = Message::Open {
                    place,
                    is_parked: !has_room || waits,
                    read,
                };
                state.lock = Some(Holder::Send(at));
            }
            Step::CommitSend(at) => {
                let Message::Open {
                    place,
                    is_parked,
                    read,
                } = state.messages[at]
                else {
                    return None;
                };
                state.committed += 1;
                state.row = read;
                if is_parked {
                    state.row.parked += 1;
                    state.messages[at] = Message::Parked {
                        place,
                        commit: state.committed,
                    };
                } else {
                    state.row.live += 1;
                    state.let_in(at);
                }
                state.lock = state.lock.filter(|holder| *holder != Holder::Send(at));
            }
            Step::RollBackSend(at) => {
                // It isn't sent again: as if another message was.
                state.messages[at] = Message::Gone;
                state.lock = state.lock.filter(|holder| *holder != Holder::Send(at));
            }
            Step::Claim(at) => {
                if let Message::Live { claims, is_leased } = &mut state.messages[at] {
                    *claims += 1;
                    *is_leased = true;
                }
            }
            Step::Expire(at) => {
                if let Message::Live { is_leased, .. } = &mut state.messages[at] {
                    *is_leased = false;
                }
            }
            Step::Ask(at, claim) => {
                let parked = state
                    .messages
                    .map(|it| matches!(it, Message::Parked { .. }));
                state.asked.insert(Settlement {
                    message: at,
                    claim,
                    saw: parked,
                });
            }
            Step::Lose(settlement) => {
                state.asked.remove(&settlement);
            }
            Step::Execute(settlement) => {
                state.asked.remove(&settlement);
                if !self.finds(&state, settlement) {
                    return Some(state);
                }
                state.open = Some(settlement);
                state.lock = Some(Holder::Settlement);
            }
            Step::CommitSettlement => {
                let settlement = state.open.take()?;
                self.settle(&mut state, settlement);
                state.lock = state.lock.filter(|holder| *holder != Holder::Settlement);
            }
            Step::RollBackSettlement => {
                state.open = None;
                state.lock = state.lock.filter(|holder| *holder != Holder::Settlement);
            }
            Step::Count(at) => {
                state.uncounted.remove(&at);
                Self::count(&mut state, None);
            }
            Step::Crash(at) => {
                state.uncounted.remove(&at);
            }
            Step::Raise => state.limit = 2,
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LIMITED, |_, state: &State| {
                state.live() <= state.limit as usize
            }),
            Property::always(IN_ORDER, |_, state: &State| !state.has_overtaken),
            Property::always(NONE_STUCK, |_, state: &State| {
                state.parked() == 0 || state.live() > 0 || !state.is_quiet()
            }),
            Property::always(COUNTED, |_, state: &State| {
                let row = (state.row.live as usize, state.row.parked as usize);
                row == (state.live(), state.parked()) || !state.is_quiet()
            }),
            Property::sometimes("all messages are done", |_, state: &State| {
                let is_gone = |message: &Message| *message == Message::Gone;
                state.committed as usize == MESSAGES && state.messages.iter().all(is_gone)
            }),
            Property::sometimes("a message is let in by another", |_, state: &State| {
                state.has_promoted
            }),
            Property::sometimes(
                "two are live after the limit was raised",
                |_, state: &State| state.live() == 2,
            ),
        ]
    }
}

fn without(rule: Rule, promise: &'static str) {
    let model = Protocol {
        without: Some(rule),
    };
    breaks(&format!("groups without {rule:?}"), model, promise);
}

#[test]
fn messages_of_a_group_are_let_in_in_order_and_none_is_forgotten() {
    holds("groups", Protocol { without: None });
}

#[test]
fn without_the_lock_a_settlement_and_a_send_overwrite_each_other_s_counts() {
    without(Rule::RowLock, COUNTED);
    without(Rule::RowLock, NONE_STUCK);
}

#[test]
fn a_settlement_that_looked_before_it_had_the_lock_forgets_what_was_parked_meanwhile() {
    without(Rule::LookAfterTheLock, NONE_STUCK);
}

#[test]
fn a_process_that_crashes_between_deleting_and_counting_leaves_the_others_parked() {
    without(Rule::OneTransaction, NONE_STUCK);
}

#[test]
fn a_lost_lease_that_settles_counts_twice() {
    without(Rule::CompareTheLease, LIMITED);
}

#[test]
fn places_that_are_drawn_before_the_lock_are_not_in_the_order_of_the_commits() {
    without(Rule::PlaceUnderTheLock, IN_ORDER);
}

#[test]
fn a_send_that_takes_free_room_overtakes_what_is_parked() {
    without(Rule::NoOvertaking, IN_ORDER);
}
