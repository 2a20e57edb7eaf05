//! How messages of a group with a rate draw places in time.
//!
//! # What happens
//!
//! A statement that lets a message in, or puts one back, locks its group, reads the clock, and moves the group's arrival
//! time on by an interval: that is the message's place, before which it can't start. It starts once a consumer has come for
//! it, which may be late. Its handler may ask for a pause, by the statement that puts the message back. A statement may wait
//! long for the lock, fail at any point, or be part of a transaction that is rolled back, and its process or session may be
//! killed. A message that waits for its place may be cancelled. Time passes meanwhile, and the rate may be raised.
//!
//! The rules are [`Rule`], and the tests show what each is needed for.
//!
//! # What is promised
//!
//! - Within the rate's time at most `n + burst - 1 + at_once` attempts of the group start, wherever that time begins: those
//!   that have their places in it, and those that have waited for a consumer.
//! - A place that is drawn after a pause was asked for is after its end.
//! - A place isn't further ahead of the clock, or of a pause's end, than what can be on its way takes.
//!
//! # What is not modelled
//!
//! - Which message is let in: the model of groups has that. Here, there is always another one.
//! - Deliveries after a lost lease, which draw no place, and what an operator moves to another time.
//! - Crashes of the server: a message and its place are undone together, or not at all.

mod broken;
mod variants;

use stateright::{Model, Property};

use self::variants::{ONE, RAISED, SLOWED, TWO};
use crate::holds;

/// A rule of the protocol, each of which can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A statement holds the group's lock until its transaction ends.
    Lock,
    /// It reads the clock once it has the lock, and not when it begins.
    ClockAfterTheLock,
    /// A message gets its place, and the arrival time is moved on, in one transaction.
    OneTransaction,
    /// A message that is put back draws another place.
    DrawAgain,
    /// An arrival time that is past counts as the present.
    SaveNoMoreThanABurst,
    /// One that is further ahead than all that can be on its way counts as so far ahead.
    NoFurtherThanOnTheWay,
    /// The end of a pause is kept beside the arrival time, which is cut.
    KeepThePause,
    /// Of several pauses, the one that ends last counts.
    LongestPause,
}

const STATEMENTS: usize = 2;
/// Two attempts within four units of time, and two at once.
const N: u8 = 2;
const BURST: u8 = 2;
const INTERVAL: u8 = 2;
const PER: usize = (N * INTERVAL) as usize;
/// Before it is raised, so that the arrival time is further ahead.
const SLOW_INTERVAL: u8 = 6;
const SHORT_PAUSE: u8 = 1;
/// Longer than all that can be on its way takes.
const LONG_PAUSE: u8 = 12;
const MOST_AT_ONCE: usize = 2;

#[derive(Debug, Clone)]
struct Protocol {
    without: Option<Rule>,
    /// How many messages of the group are on their way.
    at_once: usize,
    /// Whether the rate is lower at first.
    is_raised: bool,
    /// When time ends.
    end: u8,
    /// How many attempts start in all.
    attempts: u8,
    /// How often handlers ask for a pause.
    pauses: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    interval: u8,
    bucket: Bucket,
    messages: [Message; MOST_AT_ONCE],
    statements: [Statement; STATEMENTS],
    /// The statement that holds the lock.
    lock: Option<usize>,
    /// How many attempts have started at each of the last times, the present first, since the rate is what it is.
    started: [u8; PER],
    left: u8,
    pauses: u8,
    /// The end of the pause that ends last, of those that were asked for.
    paused_until: u8,
    /// A place before the end of a pause.
    is_too_early: bool,
    /// A place that is too far ahead.
    is_too_far: bool,
}

/// The group's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Bucket {
    arrives_at: u8,
    paused_until: u8,
}

/// What is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Message {
    None,
    /// It waits for its place.
    Placed(u8),
    Running,
    /// A statement has begun to let it in, or to put it back.
    Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Statement {
    Idle,
    /// It has begun then: to let a message in, or to put one back that runs, whose handler may ask for a pause.
    Begun {
        at: u8,
        puts_back: Option<usize>,
        pause: u8,
    },
    /// In a transaction that is open.
    Drawn {
        message: usize,
        puts_back: bool,
        place: u8,
        bucket: Bucket,
    },
    /// It has given the message its place, and not moved the arrival time on yet.
    Placed {
        bucket: Bucket,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Tick,
    Raise,
    /// A statement begins that lets a message in,
    LetIn(usize),
    /// or one that puts this message back, with a pause or none.
    PutBack(usize, usize, u8),
    Draw(usize),
    /// Gives the message its place and commits,
    Commit(usize),
    /// and moves the arrival time on in another transaction, unless they are one.
    Move(usize),
    Fail(usize),
    Start(usize),
    /// The last one is done, and none follows it.
    Done(usize),
    Cancel(usize),
}

const LIMITED: &str = "no more attempts start within the time than the rate allows";
const PAUSED: &str = "a place that is drawn during a pause is after it";
const SOON: &str = "a place is no further ahead than what can be on its way takes";

impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// When a statement begins, if that matters.
    fn begin(&self, state: &State) -> u8 {
        if self.keeps(Rule::ClockAfterTheLock) {
            0
        } else {
            state.now
        }
    }

    /// How long a time is past makes no difference: so there are fewer states.
    fn forget_the_past(&self, state: &mut State) {
        for message in &mut state.messages {
            if let Message::Placed(place) = message {
                *place = (*place).max(state.now);
            }
        }
        if self.keeps(Rule::ClockAfterTheLock) && self.keeps(Rule::SaveNoMoreThanABurst) {
            state.bucket.arrives_at = state.bucket.arrives_at.max(state.now);
        }
    }

    fn furthest(&self, state: &State) -> u8 {
        (BURST + u8::try_from(self.at_once).unwrap_or(0)) * state.interval
    }

    /// The place that a message gets, and the bucket afterwards.
    fn draw(&self, state: &State, clock: u8, pause: u8) -> (u8, Bucket) {
        let tolerance = (BURST - 1) * state.interval;
        let kept = state.bucket.paused_until;
        let asked = if pause > 0 { clock + pause } else { 0 };
        let paused_until = if pause == 0 || self.keeps(Rule::LongestPause) {
            kept.max(asked)
        } else {
            asked
        };
        let counts = if self.keeps(Rule::KeepThePause) {
            paused_until
        } else {
            asked
        };
        let after_pause = if counts > 0 { counts + tolerance } else { 0 };
        let free_at = clock.max(after_pause);
        let mut arrives_at = state.bucket.arrives_at;
        if self.keeps(Rule::NoFurtherThanOnTheWay) {
            arrives_at = arrives_at.min(free_at + self.furthest(state));
        }
        if self.keeps(Rule::SaveNoMoreThanABurst) {
            arrives_at = arrives_at.max(free_at);
        } else {
            arrives_at = arrives_at.max(after_pause);
        }
        let bucket = Bucket {
            arrives_at: arrives_at + state.interval,
            paused_until,
        };
        (arrives_at.saturating_sub(tolerance), bucket)
    }
}

impl State {
    fn is_exceeded(&self, at_once: usize) -> bool {
        let most = usize::from(N + BURST - 1) + at_once;
        usize::from(self.started.iter().sum::<u8>()) > most
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
            bucket: Bucket {
                arrives_at: 0,
                paused_until: 0,
            },
            messages: [Message::None; MOST_AT_ONCE],
            statements: [Statement::Idle; STATEMENTS],
            lock: None,
            started: [0; PER],
            left: self.attempts,
            pauses: self.pauses,
            paused_until: 0,
            is_too_early: false,
            is_too_far: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        let is_free = state.lock.is_none() || !self.keeps(Rule::Lock);
        for (at, statement) in state.statements.iter().enumerate() {
            match statement {
                Statement::Idle => {
                    // Which of those that are idle doesn't matter.
                    let first = state
                        .statements
                        .iter()
                        .position(|it| *it == Statement::Idle);
                    if first != Some(at) {
                        continue;
                    }
                    actions.push(Step::LetIn(at));
                    for (of, message) in state.messages.iter().enumerate() {
                        if *message == Message::Running {
                            actions.push(Step::PutBack(at, of, 0));
                            if state.pauses > 0 {
                                actions.push(Step::PutBack(at, of, SHORT_PAUSE));
                                actions.push(Step::PutBack(at, of, LONG_PAUSE));
                            }
                        }
                    }
                }
                Statement::Begun { .. } => {
                    actions.extend(is_free.then_some(Step::Draw(at)));
                    actions.push(Step::Fail(at));
                }
                Statement::Drawn { .. } => actions.extend([Step::Commit(at), Step::Fail(at)]),
                Statement::Placed { .. } => actions.extend([Step::Move(at), Step::Fail(at)]),
            }
        }
        for (at, message) in state.messages.iter().enumerate() {
            match message {
                Message::Placed(place) => {
                    if *place <= state.now && state.left > 0 {
                        actions.push(Step::Start(at));
                    }
                    actions.push(Step::Cancel(at));
                }
                Message::Running => actions.push(Step::Done(at)),
                Message::None | Message::Asked => {}
            }
        }
        if state.now < self.end {
            actions.push(Step::Tick);
        }
        if state.interval != INTERVAL {
            actions.push(Step::Raise);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Tick => {
                state.now += 1;
                self.forget_the_past(&mut state);
                state.started.rotate_right(1);
                state.started[0] = 0;
            }
            Step::Raise => {
                // A statement under way has read the rate before.
                if state.statements.iter().any(|it| *it != Statement::Idle) {
                    return None;
                }
                state.interval = INTERVAL;
                state.started = [0; PER];
            }
            Step::LetIn(at) => {
                state.statements[at] = Statement::Begun {
                    at: self.begin(&state),
                    puts_back: None,
                    pause: 0,
                };
            }
            Step::PutBack(at, message, pause) => {
                state.pauses -= u8::from(pause > 0);
                if self.keeps(Rule::DrawAgain) {
                    state.messages[message] = Message::Asked;
                    state.statements[at] = Statement::Begun {
                        at: self.begin(&state),
                        puts_back: Some(message),
                        pause,
                    };
                } else {
                    state.messages[message] = Message::Placed(state.now);
                }
            }
            Step::Draw(at) => {
                let Statement::Begun {
                    at: begun,
                    puts_back,
                    pause,
                } = state.statements[at]
                else {
                    return None;
                };
                let mut room = state.messages[..self.at_once].iter();
                let room = room.position(|message| *message == Message::None);
                let Some(message) = puts_back.or(room) else {
                    // It is parked, and draws its place when it is let in.
                    state.statements[at] = Statement::Idle;
                    return Some(state);
                };
                let clock = if self.keeps(Rule::ClockAfterTheLock) {
                    state.now
                } else {
                    begun
                };
                let (place, bucket) = self.draw(last, clock, pause);
                state.is_too_early |= place < state.paused_until;
                let tolerance = (BURST - 1) * state.interval;
                let from = if bucket.paused_until > 0 {
                    clock.max(bucket.paused_until + tolerance)
                } else {
                    clock
                };
                state.is_too_far |= place + tolerance > from + self.furthest(last);
                state.messages[message] = Message::Asked;
                state.statements[at] = Statement::Drawn {
                    message,
                    puts_back: puts_back.is_some(),
                    place,
                    bucket,
                };
                state.lock = Some(at);
            }
            Step::Commit(at) => {
                let Statement::Drawn {
                    message,
                    place,
                    bucket,
                    ..
                } = state.statements[at]
                else {
                    return None;
                };
                state.messages[message] = Message::Placed(place);
                state.paused_until = state.paused_until.max(bucket.paused_until);
                state.statements[at] = Statement::Placed { bucket };
                state.lock = state.lock.filter(|holder| *holder != at);
                if self.keeps(Rule::OneTransaction) {
                    return self.next_state(&state, Step::Move(at));
                }
            }
            Step::Move(at) => {
                let Statement::Placed { bucket } = state.statements[at] else {
                    return None;
                };
                state.bucket = bucket;
                state.statements[at] = Statement::Idle;
            }
            Step::Fail(at) => {
                match state.statements[at] {
                    Statement::Begun {
                        puts_back: Some(message),
                        ..
                    }
                    | Statement::Drawn {
                        message,
                        puts_back: true,
                        ..
                    } => state.messages[message] = Message::Running,
                    Statement::Drawn { message, .. } => state.messages[message] = Message::None,
                    _ => {}
                }
                state.statements[at] = Statement::Idle;
                state.lock = state.lock.filter(|holder| *holder != at);
            }
            Step::Start(at) => {
                state.messages[at] = Message::Running;
                state.started[0] += 1;
                state.left -= 1;
            }
            Step::Done(at) | Step::Cancel(at) => state.messages[at] = Message::None,
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LIMITED, |model: &Self, state: &State| {
                !state.is_exceeded(model.at_once)
            }),
            Property::always(PAUSED, |_, state: &State| !state.is_too_early),
            Property::always(SOON, |_, state: &State| !state.is_too_far),
            Property::sometimes(
                "more attempts than a burst have started, or all",
                |model: &Self, state: &State| {
                    state.left == 0 || state.left + BURST < model.attempts
                },
            ),
            Property::sometimes("a message waits for its place", |_, state: &State| {
                let waits = |it: &Message| matches!(it, Message::Placed(at) if *at > state.now);
                state.messages.iter().any(waits)
            }),
        ]
    }
}

#[test]
fn no_more_attempts_of_a_group_start_than_its_rate_allows_and_none_during_a_pause() {
    for (name, model) in [
        ("one at once", ONE),
        ("two at once", TWO),
        ("a raised rate", RAISED),
        ("pauses", SLOWED),
    ] {
        holds(&format!("rates of groups, {name}"), model);
    }
}
