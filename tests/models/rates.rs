//! How claims of a queue with a rate draw their tokens from the queue's bucket.
//!
//! # What happens
//!
//! A claim locks its queue's bucket, reads the clock, sees how many tokens there are, leases at most as many messages, and
//! moves the bucket's arrival time on by an interval for each, in one transaction. It may fail at any point, or its process
//! or session may be killed. Time passes meanwhile; the rate may be raised, and the clock set back.
//!
//! The rules are [`Rule`], and the tests show what each is needed for.
//!
//! # What is promised
//!
//! - Within the rate's time at most `n + burst - 1` attempts start, wherever that time begins. An attempt starts when its
//!   claim has been granted the bucket.
//! - The bucket is never further ahead of the clock than a whole burst: so a claim waits for an interval at most, unless
//!   others come before it.
//!
//! # What is not modelled
//!
//! - Crashes of the server: a claim and its tokens are undone together, or not at all.
//! - Slow-downs, which only move the arrival time further ahead.

use stateright::{Model, Property};

use crate::{breaks, holds};

/// A rule of the protocol, each of which can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A claim holds the bucket's lock until its transaction ends.
    Lock,
    /// A claim reads the clock once it has the lock, and not when its transaction begins.
    ClockAfterTheLock,
    /// Messages are leased and tokens are taken in one transaction.
    OneTransaction,
    /// An arrival time that is past counts as the present.
    SaveNoMoreThanABurst,
    /// An arrival time that is further ahead than a burst counts as a burst ahead.
    NoFurtherThanABurst,
}

const CLAIMS: usize = 2;
/// Two attempts within four units of time, and two at once.
const N: u8 = 2;
const BURST: u8 = 2;
const INTERVAL: u8 = 2;
const PER: usize = (N * INTERVAL) as usize;
/// Before it is raised, so that the arrival time is further ahead.
const SLOW_INTERVAL: u8 = 6;
const END: u8 = 8;
/// How many attempts start in all.
const MESSAGES: u8 = 5;

#[derive(Debug, Clone)]
struct Protocol {
    without: Option<Rule>,
    /// Whether the rate is lower at first.
    is_raised: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    interval: u8,
    arrives_at: u8,
    claims: [Claim; CLAIMS],
    /// The claim that holds the lock.
    lock: Option<usize>,
    /// How many attempts have started at each time, since the rate is what it is.
    started: [u8; END as usize + 1],
    left: u8,
    /// A bucket that was further ahead than a burst.
    is_too_far: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Claim {
    Idle,
    /// Its transaction has begun then.
    Begun(u8),
    /// It was granted the bucket at one time, and has read the clock at another.
    Asked {
        granted: u8,
        clock: u8,
        tokens: u8,
    },
    /// It has leased as many, and taken no token yet.
    Leased {
        clock: u8,
        messages: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Tick,
    Raise,
    Begin(usize),
    Ask(usize),
    /// Leases this many and commits,
    Commit(usize, u8),
    /// and takes the tokens in another transaction, unless they are one.
    Take(usize),
    Fail(usize),
}

const LIMITED: &str = "no more attempts start within the time than the rate allows";
const SOON: &str = "the bucket is never further ahead than a burst";

impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// The arrival time as a claim takes it.
    fn arrives_at(&self, state: &State, clock: u8) -> u8 {
        let mut arrives_at = state.arrives_at;
        if self.keeps(Rule::NoFurtherThanABurst) {
            arrives_at = arrives_at.min(clock + BURST * state.interval);
        }
        if self.keeps(Rule::SaveNoMoreThanABurst) {
            arrives_at = arrives_at.max(clock);
        }
        arrives_at
    }

    fn tokens(&self, state: &State, clock: u8) -> u8 {
        let furthest = clock + (BURST - 1) * state.interval;
        let arrives_at = self.arrives_at(state, clock);
        if arrives_at > furthest {
            0
        } else {
            (furthest - arrives_at) / state.interval + 1
        }
    }
}

impl State {
    fn is_exceeded(&self) -> bool {
        let mut windows = self.started.windows(PER);
        windows.any(|window| window.iter().sum::<u8>() > N + BURST - 1)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            interval: if self.is_raised {
                SLOW_INTERVAL
            } else {
                INTERVAL
            },
            arrives_at: 0,
            claims: [Claim::Idle; CLAIMS],
            lock: None,
            started: [0; END as usize + 1],
            left: MESSAGES,
            is_too_far: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        let is_free = state.lock.is_none() || !self.keeps(Rule::Lock);
        for (at, claim) in state.claims.iter().enumerate() {
            match claim {
                Claim::Idle => actions.push(Step::Begin(at)),
                Claim::Begun(_) => actions.extend(is_free.then_some(Step::Ask(at))),
                Claim::Asked { tokens, .. } => {
                    let most = (*tokens).min(state.left);
                    actions.extend((0..=most).map(|messages| Step::Commit(at, messages)));
                    actions.push(Step::Fail(at));
                }
                Claim::Leased { .. } => actions.extend([Step::Take(at), Step::Fail(at)]),
            }
        }
        if state.now < END {
            actions.push(Step::Tick);
        }
        if state.interval != INTERVAL {
            actions.push(Step::Raise);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Tick => state.now += 1,
            Step::Raise => {
                // A claim under way has read the rate before.
                if state.claims.iter().any(|claim| *claim != Claim::Idle) {
                    return None;
                }
                state.interval = INTERVAL;
                state.started = [0; END as usize + 1];
            }
            Step::Begin(at) => state.claims[at] = Claim::Begun(state.now),
            Step::Ask(at) => {
                let Claim::Begun(begun) = state.claims[at] else {
                    return None;
                };
                let clock = if self.keeps(Rule::ClockAfterTheLock) {
                    state.now
                } else {
                    begun
                };
                let arrives_at = self.arrives_at(last, clock);
                state.is_too_far |= arrives_at > clock + BURST * state.interval;
                state.claims[at] = Claim::Asked {
                    granted: state.now,
                    clock,
                    tokens: self.tokens(last, clock),
                };
                state.lock = Some(at);
            }
            Step::Commit(at, messages) => {
                let Claim::Asked { granted, clock, .. } = state.claims[at] else {
                    return None;
                };
                state.started[usize::from(granted)] += messages;
                state.left -= messages;
                state.claims[at] = Claim::Leased { clock, messages };
                state.lock = state.lock.filter(|holder| *holder != at);
                if self.keeps(Rule::OneTransaction) {
                    return self.next_state(&state, Step::Take(at));
                }
            }
            Step::Take(at) => {
                let Claim::Leased { clock, messages } = state.claims[at] else {
                    return None;
                };
                let arrives_at = self.arrives_at(&state, clock);
                state.arrives_at = arrives_at + messages * state.interval;
                state.claims[at] = Claim::Idle;
            }
            Step::Fail(at) => {
                state.claims[at] = Claim::Idle;
                state.lock = state.lock.filter(|holder| *holder != at);
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LIMITED, |_, state: &State| !state.is_exceeded()),
            Property::always(SOON, |_, state: &State| !state.is_too_far),
            Property::sometimes("a burst starts at once", |_, state: &State| {
                state.started.contains(&BURST)
            }),
            Property::sometimes("all messages have started", |_, state: &State| {
                state.left == 0
            }),
        ]
    }
}

fn without(rule: Rule, promise: &'static str) {
    for is_raised in [false, true] {
        if is_raised == (rule == Rule::NoFurtherThanABurst) {
            let model = Protocol {
                without: Some(rule),
                is_raised,
            };
            breaks(&format!("rates without {rule:?}"), model, promise);
        }
    }
}

#[test]
fn no_more_attempts_start_than_the_rate_allows() {
    for is_raised in [false, true] {
        let model = Protocol {
            without: None,
            is_raised,
        };
        holds("rates", model);
    }
}

#[test]
fn claims_that_ask_at_the_same_time_get_the_same_tokens() {
    without(Rule::Lock, LIMITED);
}

#[test]
fn a_claim_that_waited_for_the_lock_with_an_old_time_leaves_tokens_that_it_has_taken() {
    without(Rule::ClockAfterTheLock, LIMITED);
}

#[test]
fn a_claim_that_is_killed_before_it_took_its_tokens_starts_more() {
    without(Rule::OneTransaction, LIMITED);
}

#[test]
fn tokens_that_are_saved_up_for_ever_start_too_many_at_once() {
    without(Rule::SaveNoMoreThanABurst, LIMITED);
}

#[test]
fn a_rate_that_is_raised_waits_for_the_old_one_s_time() {
    without(Rule::NoFurtherThanABurst, SOON);
}
