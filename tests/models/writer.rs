//! How a send is stored exactly once though answers get lost.
//!
//! # What happens
//!
//! A writer of the store has batches to send, one statement for each. A statement inserts the messages under
//! ids that were reserved before, and in the same breath moves its writer's own row on to its number; where
//! the row is there already, it does nothing. So the same statement can be sent as often as it takes: the
//! first try to commit stores it, and all others find its number taken.
//!
//! The network may lose, delay and reorder what is sent, up to [`LATE`] ticks; with [`Faults::repeats`] it
//! also hands the same request over again. The server runs tries at the same time, kept apart by the lock on
//! the writer's row; it may turn a try away, break it off, take its time, and refuse a message today that it
//! takes tomorrow (a queue that is being created, a producer that is being resumed). It crashes; it is
//! replaced by another that lacks the last of its log. A pruner removes the rows of old tokens. The writer
//! waits and tries again at any moment; after [`GIVE_UP`] ticks its callers have their answer.
//!
//! The rules are [`Rule`], and what they are good for is told by the tests at the end.
//!
//! # An edition of a statement
//!
//! When a message is refused, the rest of its batch is sent again without it. That is another statement under
//! the same number: an *edition*. If an earlier try is still on its way, the two compete, and "the number is
//! taken" doesn't tell which of them took it. So the row holds the edition too, and the answer brings it
//! back: only then is it known what became of the refused message. In SQL this is still one number: each
//! batch begins at a number of its own, its editions count on from there, and
//! `on conflict … set sequence = $edition where w.sequence < $first_edition`.
//!
//! # What is not modelled
//!
//! - The primary key of the messages: a consumer may have taken a message at once, and then nothing stops a
//!   second one under the same id.
//! - Where ids come from. That no two writers hold the same ones is taken for granted here.
//! - Other writers: each has a token of its own, so that they share nothing.
//! - What a fail-over loses after it was acknowledged. Whoever wants that kept has to make the server wait for
//!   its standby. Also, a request to the old server never reaches the new one: it ends with its connection.
//! - A transaction of the caller's own, which is sent once and never again.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use crate::{breaks, holds};

/// A rule of the protocol, each of which can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A statement stores only where its writer's row is behind its number.
    Guard,
    /// A try holds its writer's row until it ends, and another waits for that before it looks.
    RowLock,
    /// What is sent again carries the same number,
    SameNumber,
    /// and the same ids.
    SameIds,
    /// A statement stores all of its messages, or none of them.
    AllOrNone,
    /// One that stores nothing leaves its writer's row where it was.
    FailureAdvancesNothing,
    /// The commit has reached the disk before it is answered.
    CommitBeforeAnswer,
    /// The next number is taken when the fate of the last one is known.
    OneInFlight,
    /// A failed try says nothing while the fate of an earlier one is open.
    DoubtOutlivesAFailure,
    /// The answer says which edition of the statement took its number.
    AnswerNamesTheEdition,
    /// The writer gives up in time.
    GiveUpInTime,
    /// It then says that it doesn't know,
    SayUnknown,
    /// and goes on with a new token.
    NewTokenAfterwards,
    /// A token older than [`TOKEN_AGE`] isn't used for another statement.
    TokensRetire,
    /// A row is pruned only when no try of its token can arrive any more.
    PruneLate,
}

/// How long a writer tries.
const GIVE_UP: u8 = 1;
/// How long after it was sent a try may still arrive or run. Without such a limit no row could ever be pruned.
const LATE: u8 = 1;
/// How old a token may be when a statement begins to use it.
const TOKEN_AGE: u8 = 1;
/// How old a row must be for the pruner: the sum of the other three, since the last try of a token that was
/// used until its last moment is sent when its writer gives up, and may then be late.
const PRUNE_AGE: u8 = TOKEN_AGE + GIVE_UP + LATE;
/// When the model ends: what a pruner makes possible has happened by then.
const END: u8 = PRUNE_AGE + 1;
/// Messages as a set of bits.
type Messages = u8;
const A: Messages = 0b001;
const B: Messages = 0b010;
const C: Messages = 0b100;
/// What the server may refuse.
const REFUSABLE: Messages = B;
const MESSAGES: usize = 3;

#[derive(Debug, Clone)]
struct Protocol {
    without: Option<Rule>,
    batches: Vec<Messages>,
    /// How often a statement is sent, at most.
    tries: u8,
    faults: Faults,
}

/// What may go wrong beside losses, delays and failed statements.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// The network hands a request over more than once. TCP doesn't, but what stands in between may.
    repeats: bool,
    crashes: u8,
    failovers: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    writer: Writer,
    sends: Vec<Send>,
    /// What the callers were told of each message.
    told: [Told; MESSAGES],
    /// On the way to the server.
    requests: BTreeSet<Try>,
    /// Begun by the server, and not committed.
    running: BTreeSet<Try>,
    /// On the way to the writer. Those of earlier tries went down with their connections.
    answers: BTreeSet<Answer>,
    server: Database,
    /// What a crash leaves.
    disk: Database,
    /// What a fail-over leaves.
    standby: Database,
    crashes: u8,
    failovers: u8,
    /// Stored and answered, and then lost with the old server: no promise holds for these.
    excused: Messages,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Writer {
    token: u8,
    /// When the token was first used.
    since: Option<u8>,
    /// The last one used.
    number: u8,
}

/// A batch, as its writer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Send {
    Waiting,
    InFlight {
        token: u8,
        number: u8,
        edition: u8,
        since: u8,
        /// Which try this is.
        place: u8,
        /// Whether the try has failed, or a message of it was refused: it is over, without having stored.
        failed: bool,
        /// Whether an earlier try has no answer, and so may still be on its way.
        doubt: bool,
    },
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Told {
    Nothing,
    Stored { ids: u8 },
    NotStored,
    Unknown,
}

/// A statement on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Try {
    batch: usize,
    place: u8,
    token: u8,
    number: u8,
    edition: u8,
    /// Which ids it carries. A second set is used only where [`Rule::SameIds`] is left out.
    ids: u8,
    sent: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Answer {
    batch: usize,
    place: u8,
    ids: u8,
    says: Says,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Says {
    /// The number is taken by this edition; by this try, or `already`.
    Taken {
        edition: u8,
        already: bool,
        failovers: u8,
    },
    /// Nothing was stored, because of a message.
    Refused,
    /// Nothing was stored, for a reason that passes.
    Failed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Database {
    /// `pgqrs.writers`, by token.
    writers: BTreeMap<u8, Row>,
    /// How often each message was stored, under each set of ids. Consumers may have taken it since.
    stored: [[u8; 2]; MESSAGES],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    number: u8,
    edition: u8,
    since: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The writer sends a batch for the first time.
    Begin(usize),
    /// It waits no longer for an answer, or has had one that tells too little.
    SendAgain(usize),
    /// It hears an answer.
    Hear(Answer),
    /// It ends a send that has failed, for certain, instead of trying again.
    ReportFailure(usize),
    GiveUp(usize),
    /// The server begins to execute a request, or finds its number taken.
    Execute(Try),
    Commit(Try),
    /// It stores nothing, since a message can't be stored now.
    Refuse(Try),
    /// It turns a request away: no connection left, the lock took too long.
    TurnAway(Try),
    /// It breaks a statement off: a time-out, an administrator.
    BreakOff(Try),
    Crash,
    /// What was committed reaches the disk; needed only where it isn't waited for.
    Flush,
    Replicate,
    FailOver,
    Prune(u8),
    Tick,
}

impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// The messages of an edition.
    fn edition(&self, batch: usize, edition: u8) -> Messages {
        match edition {
            0 => self.batches[batch],
            _ => self.batches[batch] & !REFUSABLE,
        }
    }

    fn prune_age(&self) -> u8 {
        match self.keeps(Rule::PruneLate) {
            true => PRUNE_AGE,
            // A tick sooner: the sum is tight.
            false => PRUNE_AGE - 1,
        }
    }

    fn begin(&self, state: &mut State, batch: usize) {
        let writer = &mut state.writer;
        let age = writer.since.map_or(0, |since| state.now - since);
        if age > TOKEN_AGE && self.keeps(Rule::TokensRetire) {
            *writer = writer.successor();
        }
        writer.since.get_or_insert(state.now);
        writer.number += 1;
        state.sends[batch] = Send::InFlight {
            token: writer.token,
            number: writer.number,
            edition: 0,
            since: state.now,
            place: 0,
            failed: false,
            // Where the network repeats, even a try that was answered may arrive once more.
            doubt: self.faults.repeats,
        };
        self.post(state, batch);
    }

    fn send_again(&self, state: &mut State, batch: usize) {
        if let Send::InFlight {
            number,
            place,
            failed,
            doubt,
            ..
        } = &mut state.sends[batch]
        {
            *place += 1;
            *doubt |= !*failed;
            *failed = false;
            if !self.keeps(Rule::SameNumber) {
                state.writer.number += 1;
                *number = state.writer.number;
            }
        }
        state.answers.retain(|answer| answer.batch != batch);
        self.post(state, batch);
    }

    fn post(&self, state: &mut State, batch: usize) {
        if let Send::InFlight {
            token,
            number,
            edition,
            place,
            ..
        } = state.sends[batch]
        {
            let ids = if self.keeps(Rule::SameIds) {
                0
            } else {
                place % 2
            };
            state.requests.insert(Try {
                batch,
                place,
                token,
                number,
                edition,
                ids,
                sent: state.now,
            });
        }
    }

    fn hear(&self, state: &mut State, answer: Answer) {
        let batch = answer.batch;
        state.answers.remove(&answer);
        let own = self.batches[batch];
        let Send::InFlight {
            edition,
            failed,
            doubt,
            ..
        } = &mut state.sends[batch]
        else {
            return;
        };
        match answer.says {
            Says::Taken {
                edition: taken,
                failovers,
                ..
            } => {
                let taken = match self.keeps(Rule::AnswerNamesTheEdition) {
                    true => taken,
                    false => *edition,
                };
                let stored = self.edition(batch, taken);
                state.tell(stored, Told::Stored { ids: answer.ids });
                state.tell(own & !stored, Told::NotStored);
                if failovers < state.failovers {
                    state.excuse(stored);
                }
                state.end(batch);
            }
            Says::Refused => {
                *edition = 1;
                *failed = true;
                if !*doubt || !self.keeps(Rule::DoubtOutlivesAFailure) {
                    let rest = self.edition(batch, 1);
                    state.tell(own & !rest, Told::NotStored);
                    if rest == 0 {
                        state.end(batch);
                    }
                }
            }
            Says::Failed => *failed = true,
        }
    }

    fn give_up(&self, state: &mut State, batch: usize) {
        let Send::InFlight { failed, doubt, .. } = state.sends[batch] else {
            return;
        };
        let certain = failed && !doubt;
        let told = match certain || !self.keeps(Rule::SayUnknown) {
            true => Told::NotStored,
            false => Told::Unknown,
        };
        state.tell(self.batches[batch], told);
        state.end(batch);
        if !certain {
            match self.keeps(Rule::NewTokenAfterwards) {
                true => state.writer = state.writer.successor(),
                // As if nothing had been sent.
                false => state.writer.number -= 1,
            }
        }
    }

    fn execute(&self, state: &mut State, request: Try) {
        self.received(state, request);
        let row = state.server.writers.get(&request.token).copied();
        match row.filter(|row| row.number >= request.number && self.keeps(Rule::Guard)) {
            Some(row) => {
                // A row further on is a mistake of the writer's; it then reads its own edition from it.
                let edition = match row.number == request.number {
                    true => row.edition,
                    false => request.edition,
                };
                state.answer(
                    request,
                    Says::Taken {
                        edition,
                        already: true,
                        failovers: state.failovers,
                    },
                );
            }
            None => {
                state.running.insert(request);
            }
        }
    }

    fn commit(&self, state: &mut State, request: Try) {
        state.running.remove(&request);
        state.server.advance(request, state.now);
        state
            .server
            .store(self.edition(request.batch, request.edition), request.ids);
        self.settle(state);
        state.answer(
            request,
            Says::Taken {
                edition: request.edition,
                already: false,
                failovers: state.failovers,
            },
        );
    }

    fn refuse(&self, state: &mut State, request: Try) {
        self.received(state, request);
        if !self.keeps(Rule::AllOrNone) {
            state.server.advance(request, state.now);
            state
                .server
                .store(self.edition(request.batch, 1), request.ids);
        }
        if !self.keeps(Rule::FailureAdvancesNothing) {
            state.server.advance(request, state.now);
        }
        self.settle(state);
        state.answer(request, Says::Refused);
    }

    fn received(&self, state: &mut State, request: Try) {
        if !self.faults.repeats {
            state.requests.remove(&request);
        }
    }

    fn settle(&self, state: &mut State) {
        if self.keeps(Rule::CommitBeforeAnswer) {
            state.disk = state.server.clone();
        }
    }
}

impl Writer {
    fn successor(&self) -> Writer {
        Writer {
            token: self.token + 1,
            since: None,
            number: 0,
        }
    }
}

impl State {
    /// Each message is spoken of once.
    fn tell(&mut self, messages: Messages, told: Told) {
        for message in each(messages) {
            if self.told[message] == Told::Nothing {
                self.told[message] = told;
            }
        }
    }

    fn end(&mut self, batch: usize) {
        self.sends[batch] = Send::Done;
        self.answers.retain(|answer| answer.batch != batch);
    }

    /// Answers a try, if its connection still stands.
    fn answer(&mut self, request: Try, says: Says) {
        if self.awaited(&request) {
            self.answers.insert(Answer {
                batch: request.batch,
                place: request.place,
                ids: request.ids,
                says,
            });
        }
    }

    fn awaited(&self, request: &Try) -> bool {
        match self.sends[request.batch] {
            Send::InFlight { place, failed, .. } => place == request.place && !failed,
            _ => false,
        }
    }

    fn excuse(&mut self, messages: Messages) {
        for message in each(messages) {
            if self.server.count(message) == 0 {
                self.excused |= 1 << message;
            }
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        let now = self.now;
        self.requests.retain(|request| request.sent + LATE >= now);
        self.running.retain(|request| request.sent + LATE >= now);
    }

    fn locked(&self, token: u8) -> bool {
        self.running.iter().any(|running| running.token == token)
    }
}

impl Database {
    fn advance(&mut self, request: Try, now: u8) {
        let row = self.writers.entry(request.token).or_insert(Row {
            number: 0,
            edition: 0,
            since: now,
        });
        row.number = request.number;
        row.edition = request.edition;
    }

    fn store(&mut self, messages: Messages, ids: u8) {
        for message in each(messages) {
            let count = &mut self.stored[message][usize::from(ids)];
            *count = (*count + 1).min(2);
        }
    }

    fn count(&self, message: usize) -> u8 {
        self.stored[message].iter().sum()
    }
}

fn each(messages: Messages) -> impl Iterator<Item = usize> {
    (0..MESSAGES).filter(move |message| messages & 1 << message != 0)
}

const NONE_TWICE: &str = "no message is stored twice";
const NONE_LOST: &str = "what is acknowledged is stored, under its id";
const NONE_REFUSED: &str = "what is refused is not stored";
const NONE_WAITS: &str = "each send ends in time";

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            writer: Writer {
                token: 0,
                since: None,
                number: 0,
            },
            sends: vec![Send::Waiting; self.batches.len()],
            told: [Told::Nothing; MESSAGES],
            requests: BTreeSet::new(),
            running: BTreeSet::new(),
            answers: BTreeSet::new(),
            server: Database::default(),
            disk: Database::default(),
            standby: Database::default(),
            crashes: 0,
            failovers: 0,
            excused: 0,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let mut in_flight = 0;
        let mut overdue = false;
        for (batch, send) in state.sends.iter().enumerate() {
            let Send::InFlight {
                since,
                place,
                failed,
                doubt,
                ..
            } = *send
            else {
                continue;
            };
            in_flight += 1;
            if state.now - since >= GIVE_UP {
                overdue = true;
                steps.push(Step::GiveUp(batch));
            }
            if place + 1 < self.tries {
                steps.push(Step::SendAgain(batch));
            }
            if failed && (!doubt || !self.keeps(Rule::DoubtOutlivesAFailure)) {
                steps.push(Step::ReportFailure(batch));
            }
        }
        let next = state.sends.iter().position(|send| *send == Send::Waiting);
        if let Some(batch) = next
            && (in_flight == 0 || !self.keeps(Rule::OneInFlight))
        {
            steps.push(Step::Begin(batch));
        }
        steps.extend(state.answers.iter().copied().map(Step::Hear));

        for request in &state.requests {
            // A connection does one thing at a time.
            if state.running.contains(request) {
                continue;
            }
            // Of a try that nobody waits for, this would be one more that got lost.
            if state.awaited(request) {
                steps.push(Step::TurnAway(*request));
            }
            if state.locked(request.token) && self.keeps(Rule::RowLock) {
                continue;
            }
            steps.push(Step::Execute(*request));
            let behind = state
                .server
                .writers
                .get(&request.token)
                .is_none_or(|row| row.number < request.number);
            if self.edition(request.batch, request.edition) & REFUSABLE != 0 && behind {
                steps.push(Step::Refuse(*request));
            }
        }
        for running in &state.running {
            steps.extend([Step::Commit(*running), Step::BreakOff(*running)]);
        }
        for (token, row) in &state.server.writers {
            if state.now - row.since > self.prune_age() && !state.locked(*token) {
                steps.push(Step::Prune(*token));
            }
        }
        if state.crashes < self.faults.crashes {
            steps.push(Step::Crash);
        }
        if state.server != state.disk {
            steps.push(Step::Flush);
        }
        if state.failovers < self.faults.failovers {
            steps.extend([Step::Replicate, Step::FailOver]);
        }
        if state.now < END && (!overdue || !self.keeps(Rule::GiveUpInTime)) {
            steps.push(Step::Tick);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Begin(batch) => self.begin(&mut next, batch),
            Step::SendAgain(batch) => self.send_again(&mut next, batch),
            Step::Hear(answer) => self.hear(&mut next, answer),
            Step::ReportFailure(batch) => {
                next.tell(self.batches[batch], Told::NotStored);
                next.end(batch);
            }
            Step::GiveUp(batch) => self.give_up(&mut next, batch),
            Step::Execute(request) => self.execute(&mut next, request),
            Step::Commit(request) => self.commit(&mut next, request),
            Step::Refuse(request) => self.refuse(&mut next, request),
            Step::TurnAway(request) => {
                self.received(&mut next, request);
                next.answer(request, Says::Failed);
            }
            Step::BreakOff(request) => {
                next.running.remove(&request);
                next.answer(request, Says::Failed);
            }
            Step::Crash => {
                next.crashes += 1;
                next.running.clear();
                next.server = next.disk.clone();
            }
            Step::Flush => next.disk = next.server.clone(),
            Step::Replicate => next.standby = next.disk.clone(),
            Step::FailOver => {
                next.failovers += 1;
                next.requests.clear();
                next.running.clear();
                next.server = next.standby.clone();
                next.disk = next.standby.clone();
                let acknowledged = (0..MESSAGES)
                    .filter(|message| matches!(next.told[*message], Told::Stored { .. }))
                    .fold(0, |all, message| all | 1 << message);
                next.excuse(acknowledged);
            }
            Step::Prune(token) => {
                next.server.writers.remove(&token);
                self.settle(&mut next);
            }
            Step::Tick => next.tick(),
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NONE_TWICE, |_, state: &State| {
                (0..MESSAGES).all(|message| state.server.count(message) <= 1)
            }),
            Property::always(NONE_LOST, |_, state: &State| {
                (0..MESSAGES).all(|message| match state.told[message] {
                    Told::Stored { ids } => {
                        state.server.stored[message][usize::from(ids)] == 1
                            || state.excused & 1 << message != 0
                    }
                    _ => true,
                })
            }),
            Property::always(NONE_REFUSED, |_, state: &State| {
                (0..MESSAGES).all(|message| {
                    state.told[message] != Told::NotStored || state.server.count(message) == 0
                })
            }),
            Property::always(NONE_WAITS, |_, state: &State| {
                state.sends.iter().all(|send| match send {
                    Send::InFlight { since, .. } => state.now <= since + GIVE_UP,
                    _ => true,
                })
            }),
            // That the model isn't true for want of anything that happens.
            Property::sometimes(
                "a retry finds its number taken already",
                |_, state: &State| {
                    state
                        .answers
                        .iter()
                        .any(|answer| matches!(answer.says, Says::Taken { already: true, .. }))
                },
            ),
            Property::sometimes("a retry waits for the try before", |_, state: &State| {
                state.requests.iter().any(|request| {
                    state.running.iter().any(|running| {
                        running.batch == request.batch && running.place < request.place
                    })
                })
            }),
            Property::sometimes("a try overtakes the one before", |_, state: &State| {
                state.running.iter().any(|running| {
                    state.requests.iter().any(|request| {
                        running.batch == request.batch && running.place > request.place
                    })
                })
            }),
            Property::sometimes("an unknown outcome was stored", |_, state: &State| {
                (0..MESSAGES).any(|message| {
                    state.told[message] == Told::Unknown && state.server.count(message) == 1
                })
            }),
            Property::sometimes("an unknown outcome was not stored", |_, state: &State| {
                state.now == END
                    && (0..MESSAGES).any(|message| {
                        state.told[message] == Told::Unknown && state.server.count(message) == 0
                    })
            }),
            Property::sometimes(
                "a try arrives after its writer gave up",
                |model: &Protocol, state: &State| {
                    state.running.iter().any(|running| {
                        each(model.batches[running.batch])
                            .any(|message| state.told[message] == Told::Unknown)
                    })
                },
            ),
            Property::sometimes("a row is pruned", |_, state: &State| {
                state.now == END && state.server.writers.is_empty() && state.server.count(2) == 1
            }),
        ];
        if self.batches.contains(&(A | B)) {
            properties.push(Property::sometimes(
                "a message is refused, and the rest is stored",
                |_, state: &State| {
                    state.told[1] == Told::NotStored && matches!(state.told[0], Told::Stored { .. })
                },
            ));
        }
        // An earlier try is on its way, one is refused, and a third finds out.
        if self.batches.iter().any(|batch| batch & REFUSABLE != 0)
            && (self.tries > 2 || self.faults.repeats)
        {
            properties.push(Property::sometimes(
                "a message that was refused turns out to be stored",
                |_, state: &State| {
                    state.answers.iter().any(|answer| {
                        let whole = matches!(answer.says, Says::Taken { edition: 0, .. });
                        let sent = state.sends[answer.batch];
                        whole && matches!(sent, Send::InFlight { edition: 1, .. })
                    })
                },
            ));
        }
        if self.faults.failovers > 0 {
            properties.push(Property::sometimes(
                "a fail-over takes what was acknowledged",
                |_, state: &State| state.excused != 0,
            ));
            properties.push(Property::sometimes(
                "what a fail-over took is stored again before it is acknowledged",
                |_, state: &State| {
                    state.failovers > 0
                        && state.standby.count(2) == 0
                        && matches!(state.told[2], Told::Stored { .. })
                        && state.server.count(2) == 1
                },
            ));
        }
        properties
    }
}

fn protocol(batches: [Messages; 2], tries: u8, faults: Faults) -> Protocol {
    Protocol {
        without: None,
        batches: batches.to_vec(),
        tries,
        faults,
    }
}

/// Finds the way in which a promise is broken once a rule is left out.
fn without(rule: Rule, promise: &'static str) {
    let faults = match rule {
        Rule::CommitBeforeAnswer => Faults {
            crashes: 1,
            ..Faults::default()
        },
        _ => Faults::default(),
    };
    let tries = match rule {
        Rule::AnswerNamesTheEdition => 3,
        _ => 2,
    };
    let model = Protocol {
        without: Some(rule),
        ..protocol([A | B, C], tries, faults)
    };
    breaks(&format!("writer without {rule:?}"), model, promise);
}

#[test]
fn sends_are_stored_exactly_once() {
    holds("writer", protocol([A | B, C], 3, Faults::default()));
}

#[test]
fn sends_are_stored_exactly_once_where_nothing_is_left_after_a_refusal() {
    holds(
        "writer, refused whole",
        protocol([B, C], 2, Faults::default()),
    );
}

#[test]
fn sends_are_stored_exactly_once_where_the_network_repeats() {
    let faults = Faults {
        repeats: true,
        ..Faults::default()
    };
    holds("writer, network repeats", protocol([A | B, C], 2, faults));
}

#[test]
fn sends_are_stored_exactly_once_where_the_server_crashes() {
    let faults = Faults {
        crashes: 1,
        ..Faults::default()
    };
    holds("writer, server crashes", protocol([A, C], 2, faults));
}

#[test]
fn sends_are_stored_exactly_once_where_another_server_takes_over() {
    let faults = Faults {
        failovers: 1,
        ..Faults::default()
    };
    holds("writer, fail-over", protocol([A, C], 2, faults));
}

#[test]
fn without_the_guard_a_retry_stores_again() {
    without(Rule::Guard, NONE_TWICE);
}

#[test]
fn without_the_lock_two_tries_both_store() {
    without(Rule::RowLock, NONE_TWICE);
}

#[test]
fn a_retry_under_a_new_number_stores_again() {
    without(Rule::SameNumber, NONE_TWICE);
}

#[test]
fn a_retry_with_new_ids_reports_ids_that_are_not_there() {
    without(Rule::SameIds, NONE_LOST);
}

#[test]
fn a_statement_that_stores_a_part_acknowledges_what_it_left_out() {
    without(Rule::AllOrNone, NONE_LOST);
}

#[test]
fn a_failure_that_takes_its_number_acknowledges_what_is_lost() {
    without(Rule::FailureAdvancesNothing, NONE_LOST);
}

#[test]
fn an_answer_before_the_commit_is_on_disk_acknowledges_what_a_crash_loses() {
    without(Rule::CommitBeforeAnswer, NONE_LOST);
}

#[test]
fn a_number_overtaken_by_the_next_is_acknowledged_and_lost() {
    without(Rule::OneInFlight, NONE_LOST);
}

#[test]
fn a_failed_retry_taken_for_the_last_word_refuses_what_the_first_try_stores() {
    without(Rule::DoubtOutlivesAFailure, NONE_REFUSED);
}

#[test]
fn not_knowing_the_edition_refuses_what_an_earlier_try_stored() {
    without(Rule::AnswerNamesTheEdition, NONE_REFUSED);
}

#[test]
fn a_writer_that_never_gives_up_leaves_its_callers_waiting() {
    without(Rule::GiveUpInTime, NONE_WAITS);
}

#[test]
fn giving_up_with_a_failure_refuses_what_a_late_try_stores() {
    without(Rule::SayUnknown, NONE_REFUSED);
}

#[test]
fn a_number_used_again_after_giving_up_is_acknowledged_and_lost() {
    without(Rule::NewTokenAfterwards, NONE_LOST);
}

#[test]
fn a_token_used_until_its_row_is_pruned_lets_a_late_try_store_again() {
    without(Rule::TokensRetire, NONE_TWICE);
}

#[test]
fn a_row_pruned_too_early_lets_a_late_try_store_again() {
    without(Rule::PruneLate, NONE_TWICE);
}
