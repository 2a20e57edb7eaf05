//! How processes without a leader fire a schedule.
//!
//! # What happens
//!
//! A process looks at the schedule, by the database's clock. If its next time has come, it plans: messages for the times
//! that have passed, and the time that follows. Its statement moves the schedule to that time and stores the messages.
//! Between the look and the statement anything may happen: another process fires the same, an operator pauses or resumes
//! the schedule, a deployment replaces it by one with other headers, the process is stopped for as long as you like, or
//! crashes. Requests may be lost, and executed in any order. Processes keep nothing from one look to the next, so it makes
//! no difference how many there are, and a request that is executed without an answer is like any other.
//!
//! The rules are [`Rule`], and the tests show what each is needed for.
//!
//! # What is promised
//!
//! - Each time of the schedule has one message, unless it passed while the schedule was paused.
//! - While it is paused, nothing is sent.
//! - A message is as the version has it that is installed when it is stored.
//!
//! # What is not modelled
//!
//! - Crashes of the server: the statement's changes are undone together or not at all, and a log that is cut after them
//!   has them. A message that was delivered and not acknowledged before the crash is delivered again, as any other.
//! - A replacement with other times: its next time is after the present, and so it is none that anybody has planned for.
//! - The policies that leave out times that were missed: here, all are made up for.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::{breaks, holds};

/// A rule of the protocol, each of which can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The statement changes the schedule only if its next time is the one that was planned for,
    CompareTheTime,
    /// only if it is of the version that was looked at,
    CompareTheVersion,
    /// and only if it isn't paused.
    CompareThePause,
    /// What is compared is locked until it is written.
    RowLock,
    /// The messages are stored in the statement that moves the schedule.
    OneStatement,
}

/// The end of the model's time.
const END: u8 = 4;
/// Maximum number of concurrent requests. A lost request makes room.
const ON_THE_WAY: usize = 2;

#[derive(Debug, Clone)]
struct Protocol {
    without: Option<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    row: Row,
    /// Messages, for each time.
    sent: [u8; END as usize + 2],
    /// Times that needn't have a message.
    excused: BTreeSet<u8>,
    /// Requests in transit to the server.
    requests: BTreeSet<Request>,
    /// Statements that have compared and not yet written; none with the row's lock.
    compared: BTreeSet<Request>,
    /// Messages to be stored by a statement of their own.
    unsent: BTreeSet<Request>,
    has_paused: bool,
    /// Whether a message was stored during a pause.
    meddled: bool,
    /// Whether a message was stored as a version had it that was replaced.
    is_outdated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    version: u8,
    next_at: u8,
    is_paused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Request {
    version: u8,
    /// The next time that was looked at, which is the first that has passed,
    due: u8,
    /// and the one to follow.
    next_at: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Tick,
    /// A process looks, plans and sends its statement.
    Look,
    Lose(Request),
    Execute(Request),
    /// Writes what was compared.
    Write(Request),
    /// Stores the messages, in a statement of its own,
    Send(Request),
    /// unless the process has crashed.
    Crash(Request),
    Pause,
    Resume,
    Replace,
}

const ONE_MESSAGE: &str = "no time has two messages";
const NONE_LOST: &str = "each time that is over has a message";
const QUIET: &str = "while it is paused nothing is sent";
const UP_TO_DATE: &str = "a message is as the installed version has it";

impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn agrees(&self, row: Row, request: Request) -> bool {
        (row.next_at == request.due || !self.keeps(Rule::CompareTheTime))
            && (row.version == request.version || !self.keeps(Rule::CompareTheVersion))
            && (!row.is_paused || !self.keeps(Rule::CompareThePause))
    }

    fn write(&self, state: &mut State, request: Request) {
        state.row.next_at = request.next_at;
        if self.keeps(Rule::OneStatement) {
            Self::send(state, request);
        } else {
            state.unsent.insert(request);
        }
    }

    fn send(state: &mut State, request: Request) {
        state.meddled |= state.row.is_paused;
        state.is_outdated |= state.row.version != request.version;
        for time in request.due..request.next_at {
            state.sent[time as usize] += 1;
        }
    }
}

impl State {
    /// Moves the schedule to its first time after now, without a message.
    fn skip(&mut self) {
        let next = self.row.next_at.max(self.now + 1);
        self.excused.extend(self.row.next_at..next);
        self.row.next_at = next;
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            row: Row {
                version: 1,
                next_at: 1,
                is_paused: false,
            },
            sent: [0; END as usize + 2],
            excused: BTreeSet::from([0]),
            requests: BTreeSet::new(),
            compared: BTreeSet::new(),
            unsent: BTreeSet::new(),
            has_paused: false,
            meddled: false,
            is_outdated: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        if state.now < END {
            actions.push(Step::Tick);
        }
        let is_due = state.row.next_at <= state.now && !state.row.is_paused;
        if is_due && state.requests.len() < ON_THE_WAY {
            actions.push(Step::Look);
        }
        for request in &state.requests {
            actions.push(Step::Lose(*request));
            actions.push(Step::Execute(*request));
        }
        actions.extend(state.compared.iter().map(|request| Step::Write(*request)));
        for request in &state.unsent {
            actions.push(Step::Send(*request));
            actions.push(Step::Crash(*request));
        }
        if state.row.is_paused {
            actions.push(Step::Resume);
        } else if !state.has_paused {
            actions.push(Step::Pause);
        }
        if state.row.version == 1 {
            actions.push(Step::Replace);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Tick => state.now += 1,
            Step::Look => {
                let row = state.row;
                state.requests.insert(Request {
                    version: row.version,
                    due: row.next_at,
                    next_at: state.now + 1,
                });
            }
            Step::Lose(request) => {
                state.requests.remove(&request);
            }
            Step::Execute(request) => {
                if !self.agrees(state.row, request) {
                    state.requests.remove(&request);
                } else if self.keeps(Rule::RowLock) {
                    // It stays: another process may have sent the same.
                    self.write(&mut state, request);
                } else {
                    state.compared.insert(request);
                }
            }
            Step::Write(request) => {
                state.compared.remove(&request);
                self.write(&mut state, request);
            }
            Step::Send(request) => {
                state.unsent.remove(&request);
                Self::send(&mut state, request);
            }
            Step::Crash(request) => {
                state.unsent.remove(&request);
            }
            Step::Pause => {
                state.row.is_paused = true;
                state.has_paused = true;
            }
            Step::Resume => {
                state.row.is_paused = false;
                state.skip();
            }
            Step::Replace => state.row.version = 2,
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_MESSAGE, |_, state: &State| {
                state.sent.iter().all(|sent| *sent <= 1)
            }),
            Property::always(NONE_LOST, |_, state: &State| {
                (0..state.row.next_at).all(|time| {
                    state.sent[time as usize] > 0
                        || state.excused.contains(&time)
                        // Its statement has moved the schedule and not stored the message yet.
                        || state.unsent.iter().any(|request| (request.due..request.next_at).contains(&time))
                })
            }),
            Property::always(QUIET, |_, state: &State| !state.meddled),
            Property::always(UP_TO_DATE, |_, state: &State| !state.is_outdated),
            Property::sometimes("several times are made up for", |_, state: &State| {
                state
                    .requests
                    .iter()
                    .any(|request| request.next_at > request.due + 2)
            }),
            Property::sometimes("all times are sent", |_, state: &State| {
                state.sent[1..=END as usize].iter().all(|sent| *sent == 1)
            }),
            Property::sometimes("a replaced one is fired", |_, state: &State| {
                state.row.version == 2 && state.sent[END as usize] == 1
            }),
        ]
    }
}

fn without(rule: Rule, promise: &'static str) {
    let model = Protocol {
        without: Some(rule),
    };
    breaks(&format!("schedule without {rule:?}"), model, promise);
}

#[test]
fn each_time_of_a_schedule_has_one_message() {
    holds("schedule", Protocol { without: None });
}

#[test]
fn a_statement_that_does_not_compare_the_time_sends_twice() {
    without(Rule::CompareTheTime, ONE_MESSAGE);
}

#[test]
fn a_statement_that_does_not_compare_the_version_sends_what_was_replaced() {
    without(Rule::CompareTheVersion, UP_TO_DATE);
}

#[test]
fn a_statement_that_does_not_compare_the_pause_sends_during_it() {
    without(Rule::CompareThePause, QUIET);
}

#[test]
fn without_the_lock_two_processes_send_twice() {
    without(Rule::RowLock, ONE_MESSAGE);
}

#[test]
fn messages_in_a_statement_of_their_own_are_lost_with_their_process() {
    without(Rule::OneStatement, NONE_LOST);
}
