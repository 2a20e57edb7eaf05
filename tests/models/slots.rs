//! How claims of a queue that limits what runs count the slots that are taken.
//!
//! # What happens
//!
//! A claim locks its queue's row of slots, counts those whose messages are still leased under the token of the slot, leases
//! at most as many messages as are free, and takes a slot for each, in one transaction. It may fail at any point, or its
//! process or session may be killed. Meanwhile messages are settled or put back, or their leases run out and are extended late,
//! without a word to the slots. The limit may be lowered.
//!
//! The rules are [`Rule`], and the tests show what each is needed for.
//!
//! # What is promised
//!
//! - No more messages are leased than the limit says, but for those that were leased before it was lowered.
//! - No slot is lost: once nothing is leased, a claim finds all of them free.
//!
//! # What is not modelled
//!
//! - Crashes of the server: a claim and its slots are undone together, or not at all.

use stateright::{Model, Property};

use crate::{breaks, holds};

/// A rule of the protocol, each of which can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A claim holds the lock until its transaction ends.
    Lock,
    /// A claim counts once it has the lock, and not when its statement begins.
    CountAfterTheLock,
    /// Messages are leased and slots are taken in one transaction.
    OneTransaction,
    /// A slot is taken as long as its message has the token of the slot, and no longer.
    CompareTheLease,
    /// A claim takes the token away from messages whose leases have run out.
    Revoke,
}

const MESSAGES: usize = 3;
const CLAIMS: usize = 2;
/// How often a message can be leased.
const LEASES: u8 = 2;
const LIMIT: usize = 2;

#[derive(Debug, Clone)]
struct Protocol {
    without: Option<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    limit: usize,
    messages: [Message; MESSAGES],
    /// Of each message the token that a slot was taken for.
    slots: [Option<u8>; MESSAGES],
    claims: [Claim; CLAIMS],
    /// The claim that holds the lock.
    lock: Option<usize>,
    /// More were leased than the limit said at that time.
    is_exceeded: bool,
    /// A claim found fewer free slots than there were, with nothing leased.
    is_lost: bool,
}

/// Its leases so far, whose number is their token, and whether the last one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Message {
    leases: u8,
    is_leased: bool,
    /// The lease has run out, and can still be extended.
    has_lapsed: bool,
    is_gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Claim {
    Idle,
    /// Its statement has begun, and saw this many free slots.
    Begun(usize),
    /// It has counted, and revoked these leases.
    Counted {
        free: usize,
        revoked: [bool; MESSAGES],
    },
    /// It has leased these, and taken no slot yet.
    Leased([bool; MESSAGES]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin(usize),
    Count(usize),
    /// Leases and commits,
    Commit(usize),
    /// and takes the slots in another transaction, unless they are one.
    Take(usize),
    Fail(usize),
    Settle(usize),
    PutBack(usize),
    /// The lease runs out,
    Lapse(usize),
    /// and is extended late.
    Extend(usize),
    Lower,
}

const LIMITED: &str = "no more messages are leased than the limit says";
const NONE_LOST: &str = "once nothing is leased, all slots are free";

impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn free(&self, state: &State) -> usize {
        let taken = (0..MESSAGES).filter(|at| {
            let message = state.messages[*at];
            state.slots[*at].is_some_and(|token| {
                let holds = message.is_leased || message.has_lapsed && self.keeps(Rule::Revoke);
                holds && token == message.leases || !self.keeps(Rule::CompareTheLease)
            })
        });
        state.limit.saturating_sub(taken.count())
    }
}

impl State {
    fn leased(&self) -> usize {
        let leased = self.messages.iter().filter(|message| message.is_leased);
        leased.count()
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let ready = Message {
            leases: 0,
            is_leased: false,
            has_lapsed: false,
            is_gone: false,
        };
        vec![State {
            limit: LIMIT,
            messages: [ready; MESSAGES],
            slots: [None; MESSAGES],
            claims: [Claim::Idle; CLAIMS],
            lock: None,
            is_exceeded: false,
            is_lost: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        let is_free = state.lock.is_none() || !self.keeps(Rule::Lock);
        for (at, claim) in state.claims.iter().enumerate() {
            match claim {
                Claim::Idle => actions.push(Step::Begin(at)),
                Claim::Begun(_) => actions.extend(is_free.then_some(Step::Count(at))),
                Claim::Counted { .. } => actions.extend([Step::Commit(at), Step::Fail(at)]),
                Claim::Leased(_) => actions.extend([Step::Take(at), Step::Fail(at)]),
            }
        }
        for (at, message) in state.messages.iter().enumerate() {
            if message.is_leased {
                actions.extend([Step::Settle(at), Step::PutBack(at), Step::Lapse(at)]);
            }
            actions.extend(message.has_lapsed.then_some(Step::Extend(at)));
        }
        if state.limit > 1 {
            actions.push(Step::Lower);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Begin(at) => state.claims[at] = Claim::Begun(self.free(last)),
            Step::Count(at) => {
                let Claim::Begun(saw) = state.claims[at] else {
                    return None;
                };
                let mut revoked = [false; MESSAGES];
                if self.keeps(Rule::Revoke) {
                    revoked = state.messages.map(|message| message.has_lapsed);
                    for message in &mut state.messages {
                        message.has_lapsed = false;
                    }
                }
                let free = if self.keeps(Rule::CountAfterTheLock) {
                    self.free(&state)
                } else {
                    saw
                };
                state.is_lost |= state.leased() == 0 && self.free(&state) < last.limit;
                state.claims[at] = Claim::Counted { free, revoked };
                state.lock = Some(at);
            }
            Step::Commit(at) => {
                let Claim::Counted { free, .. } = state.claims[at] else {
                    return None;
                };
                let mut leased = [false; MESSAGES];
                let before = state.leased();
                let mut left = free;
                for (place, message) in state.messages.iter_mut().enumerate() {
                    let is_ready = !message.is_leased && !message.is_gone;
                    if left > 0 && is_ready && message.leases < LEASES {
                        message.leases += 1;
                        message.is_leased = true;
                        message.has_lapsed = false;
                        leased[place] = true;
                        left -= 1;
                    }
                }
                let now = state.leased();
                state.is_exceeded |= now > before && now > state.limit;
                state.claims[at] = Claim::Leased(leased);
                state.lock = state.lock.filter(|holder| *holder != at);
                if self.keeps(Rule::OneTransaction) {
                    return self.next_state(&state, Step::Take(at));
                }
            }
            Step::Take(at) => {
                let Claim::Leased(leased) = state.claims[at] else {
                    return None;
                };
                for place in (0..MESSAGES).filter(|place| leased[*place]) {
                    state.slots[place] = Some(state.messages[place].leases);
                }
                state.claims[at] = Claim::Idle;
            }
            Step::Fail(at) => {
                if let Claim::Counted { revoked, .. } = state.claims[at] {
                    for (message, revoked) in state.messages.iter_mut().zip(revoked) {
                        message.has_lapsed |= revoked;
                    }
                }
                state.claims[at] = Claim::Idle;
                state.lock = state.lock.filter(|holder| *holder != at);
            }
            Step::Settle(at) => {
                state.messages[at].is_leased = false;
                state.messages[at].is_gone = true;
            }
            Step::PutBack(at) => state.messages[at].is_leased = false,
            Step::Lapse(at) => {
                state.messages[at].is_leased = false;
                state.messages[at].has_lapsed = true;
            }
            Step::Extend(at) => {
                state.messages[at].is_leased = true;
                state.messages[at].has_lapsed = false;
                // Lowered or not: what has a slot keeps it.
                state.is_exceeded |= state.leased() > LIMIT;
            }
            Step::Lower => {
                // A claim under way has read the limit before.
                if state.claims.iter().any(|claim| *claim != Claim::Idle) {
                    return None;
                }
                state.limit = 1;
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LIMITED, |_, state: &State| !state.is_exceeded),
            Property::always(NONE_LOST, |_, state: &State| !state.is_lost),
            Property::sometimes("all slots are taken", |_, state: &State| {
                state.leased() == LIMIT && state.limit == LIMIT
            }),
            Property::sometimes("all messages are done", |_, state: &State| {
                state.messages.iter().all(|message| message.is_gone)
            }),
        ]
    }
}

fn without(rule: Rule, promise: &'static str) {
    let model = Protocol {
        without: Some(rule),
    };
    breaks(&format!("slots without {rule:?}"), model, promise);
}

#[test]
fn no_more_run_than_the_limit_says_and_no_slot_is_lost() {
    holds("slots", Protocol { without: None });
}

#[test]
fn claims_that_count_at_the_same_time_take_the_same_slot() {
    without(Rule::Lock, LIMITED);
}

#[test]
fn a_claim_that_counted_before_it_had_the_lock_takes_a_slot_that_is_taken() {
    without(Rule::CountAfterTheLock, LIMITED);
}

#[test]
fn a_claim_that_is_killed_before_it_took_its_slots_runs_uncounted() {
    without(Rule::OneTransaction, LIMITED);
}

#[test]
fn slots_that_don_t_look_at_their_leases_are_lost() {
    without(Rule::CompareTheLease, NONE_LOST);
}

#[test]
fn a_lease_that_ran_out_and_is_extended_late_runs_without_a_slot() {
    without(Rule::Revoke, LIMITED);
}
