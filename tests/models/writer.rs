//! How a send is stored exactly once although answers get lost: query the outcome, and fence the attempt.
//!
//! # What happens
//!
//! A writer of the store has batches to send. Each *try* of a batch (an attempt, in the library) has an even number of
//! its own, two more than the last, and is one statement: it inserts the messages and advances its writer's row to its
//! number, or does neither. It does so only if the row exists and is behind that number. The row is created before the
//! first try, by a statement that has to be answered.
//!
//! If the answer to try `n` is lost, the try may have been executed, may be under way, or may arrive late. The writer
//! doesn't repeat it but *settles* it, with another statement: if the row is behind `n` it is advanced to `n + 1`, and
//! its number is the answer. If that is `n`, the messages are stored. If it is `n + 1`, they are not and never will be,
//! since the try finds its number taken whenever it arrives. A try under way holds the row's lock, and is waited for.
//! Settling may be repeated, get lost and arrive late, in any order: it changes nothing if the row is at `n` or beyond.
//!
//! Only messages that are settled as not stored are sent again, by a try with the next number, with what is left of the
//! batch: some messages were refused meanwhile, some callers have gone. If time runs out before, the callers get the
//! error that the outcome is unknown.
//!
//! A large batch is a transaction of several statements with consecutive numbers, two here; the last one's number
//! decides for all.
//!
//! The network may lose, delay and reorder requests, by up to [`LATE`] ticks. The server may reject a try, abort it,
//! take its time, and refuse a message today that it accepts tomorrow (a queue that is being created, a producer that
//! is being resumed). It crashes; it is replaced by another that lacks the end of its log. A pruner deletes the rows of
//! old tokens. The writer may time out at any moment; after [`GIVE_UP`] ticks its callers have their answer.
//!
//! The rules are [`Rule`], and the tests at the end show what each is needed for.
//!
//! # Why not repeat the same statement
//!
//! It could be repeated with its number until one of the tries is answered. But a retry that is refused proves nothing
//! about the tries before it, so no refusal could be reported, nor the rest sent without the refused messages, before
//! all of them are over. Here the number itself shows which of the two happened.
//!
//! # What is not modelled
//!
//! - A network that delivers the same request twice: a try that was refused could arrive once more. TCP doesn't do
//!   that, nor does a pooler.
//! - How a row is created: at once here. If that isn't answered, the token is never used.
//! - How ids are drawn. Each try stores under ids of its own here.
//! - The primary key of the messages: a consumer may have taken a message at once, and then the key doesn't prevent a
//!   second one.
//! - Other writers: each has its own token, so they share nothing.
//! - What a fail-over loses after it was acknowledged. To keep that, the server has to wait for its standby.
//! - A transaction of the caller's own, which is sent once and never repeated.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use crate::{breaks, holds};

/// A rule of the protocol, each of which can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A try stores only if its writer's row is behind its number.
    Guard,
    /// A try doesn't create that row itself: one that is so late that its row is deleted stores nothing.
    RowFirst,
    /// It stores all of its messages, or none of them.
    AllOrNone,
    /// A try that stores nothing leaves the row as it was.
    RefusalAdvancesNothing,
    /// The statements of a large batch are one transaction.
    OneTransaction,
    /// A try is flushed to disk before it is answered.
    TryOnDisk,
    /// Each try has a number of its own.
    FreshNumber,
    /// The next try is sent once the outcome of the last one is known.
    SettleFirst,
    /// Settling waits for the row's lock, and so for a try under way.
    SettleWaits,
    /// Settling takes the number of a try that hasn't stored, instead of only reading the row,
    SettleForbids,
    /// with another number than the try would leave there.
    NumbersApart,
    /// Settling is flushed to disk before it is answered.
    SettleOnDisk,
    /// A large batch is settled by its last number.
    LastNumberResolves,
    /// The writer gives up in time, and ignores any answer that arrives later.
    GiveUpInTime,
    /// It then reports that the outcome is unknown,
    ReturnUnknown,
    /// and continues with a new token.
    NewTokenAfterwards,
    /// A token older than [`TOKEN_AGE`] isn't used for another send. Its age is checked before use: a writer may have
    /// been idle for long.
    RetireBeforeUse,
    /// A row is pruned only when no request that was sent with its token matters any more.
    PruneLate,
    /// Requests to a server end with it, and don't reach its successor.
    EndWithTheServer,
}

/// How long a writer retries.
const GIVE_UP: u8 = 1;
/// How long after it was sent a request may still arrive or run. Without such a limit no row could ever be pruned.
const LATE: u8 = 1;
/// How old a token may be when a send begins to use it.
const TOKEN_AGE: u8 = 1;
/// How old a row must be to be pruned: until then its writer may query it. A request that arrives later finds no row.
const PRUNE_AGE: u8 = TOKEN_AGE + GIVE_UP;
/// The end of the model: what a pruner makes possible has happened by then, and late requests have arrived.
const END: u8 = PRUNE_AGE + 1 + LATE;
/// A set of messages, as bits.
type Messages = u8;
const A: Messages = 0b001;
const B: Messages = 0b010;
const C: Messages = 0b100;
const MESSAGES: usize = 3;
/// Messages that the server may refuse.
const REFUSABLE: Messages = B;
/// Messages whose caller has an earlier deadline than the others of its batch.
const HASTY: Messages = A;

#[derive(Debug, Clone)]
struct Protocol {
    without: Option<Rule>,
    batches: &'static [Messages],
    /// Whether a batch of two messages takes two statements.
    large: bool,
    /// Maximum number of tries of a batch.
    tries: u8,
    /// How often a try is settled, at most.
    settles: u8,
    crashes: u8,
    failovers: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    writer: Writer,
    /// Number of batches that the writer has begun.
    begun: usize,
    /// The outcome that was returned for each message.
    returned: [Returned; MESSAGES],
    /// Requests in transit to the server.
    requests: BTreeSet<Request>,
    /// Tries that the server is executing, and has not committed. They hold their row's lock.
    running: BTreeSet<Running>,
    server: Database,
    /// The state after a crash.
    disk: Database,
    /// The state after a fail-over.
    standby: Database,
    crashes: u8,
    failovers: u8,
    /// Acknowledged, and lost with the old server: no promise holds for these.
    excused: Messages,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Writer {
    token: u8,
    /// When the token was first used.
    since: Option<u8>,
    /// The number of the last try.
    number: u8,
    /// Whether its row was created.
    has_row: bool,
    task: Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Task {
    Idle,
    /// Waits for the answer to its last try.
    Trying(Group),
    /// Waits for the outcome of its last try, which it has queried this many times.
    Settling(Group, u8),
    /// Knows that none of the tries has stored anything, or will.
    Free(Group),
}

/// What is left of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Group {
    messages: Messages,
    began: u8,
    tries: u8,
    /// The number with which the last try is settled.
    asked: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Returned {
    Nothing,
    /// The number stands for the ids.
    Stored {
        token: u8,
        number: u8,
    },
    Refused,
    NotStored,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Request {
    token: u8,
    /// The last one, of a large batch.
    number: u8,
    verb: Verb,
    sent: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Verb {
    Try { place: u8, messages: Messages },
    Settle { place: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Running {
    request: Request,
    messages: Messages,
    /// The first of two statements is done.
    halfway: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Reply {
    Stored,
    /// Nothing was stored, because of these messages. A number that is already taken looks the same, but that doesn't
    /// happen to a try with its own number.
    Refused(Messages),
    /// Nothing was stored, for a transient reason.
    Failed,
    /// The number of the row, after settling.
    Number(u8),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Database {
    /// `pgqrs.writers`, by token.
    writers: BTreeMap<u8, Row>,
    /// Each message, with the token and the number that stored it. Consumers may have taken it since.
    stored: BTreeSet<(usize, u8, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    number: u8,
    since: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The writer makes the first try of the next batch.
    Begin,
    /// It stops waiting for an answer, and queries the outcome of its try; perhaps once more.
    Settle,
    /// It sends another try.
    Again,
    /// It answers a caller whose deadline has passed while others of the batch have time left.
    AnswerHasty,
    /// It ends a send of which certainly nothing is stored, instead of retrying.
    ReturnNotStored,
    GiveUp,
    /// The server executes a request: of a try only the statement; the commit is a separate step.
    Execute(Request),
    /// It settles a try, and the answer is lost.
    ExecuteAnswerLost(Request),
    /// It executes the second statement of a large batch.
    Continue(Running),
    Commit(Running),
    /// It stores nothing, since a message can't be stored now.
    Refuse(Request),
    /// It aborts a try: a time-out, an administrator. To its writer this looks like a rejection.
    BreakOff(Running),
    Crash,
    /// Commits are flushed to disk; a separate step only if they don't wait for it.
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

    fn prune_age(&self) -> u8 {
        if self.keeps(Rule::PruneLate) {
            PRUNE_AGE
        } else {
            // One tick less: the sum is tight.
            PRUNE_AGE - 1
        }
    }

    fn is_large(&self, messages: Messages) -> bool {
        self.large && messages.count_ones() > 1
    }

    /// The numbers of a try, one for each statement.
    fn numbers(&self, messages: Messages) -> u8 {
        if self.is_large(messages) { 4 } else { 2 }
    }

    /// Merges states that differ in nothing that matters: removes requests whose answer isn't waited for and that
    /// find their number taken whenever they arrive, since their row exists for longer.
    fn tidy(&self, state: &mut State) {
        if self.batches.len() == 1
            || !self.keeps(Rule::Guard)
            || !self.keeps(Rule::EndWithTheServer)
        {
            return;
        }
        let before = state.clone();
        let overtaken = |database: &Database, request: &Request| {
            database.writers.get(&request.token).is_some_and(|row| {
                row.number >= request.number && request.sent + LATE <= row.since + self.prune_age()
            })
        };
        state.requests.retain(|request| {
            before.awaits(request)
                || !overtaken(&before.server, request)
                || !overtaken(&before.disk, request)
        });
        if state.begun == self.batches.len() {
            state.writer.since = None;
        }
    }

    /// Whether a request finds its number unused.
    fn is_behind(&self, server: &Database, request: &Request) -> bool {
        match (server.writers.get(&request.token), request.verb) {
            (Some(row), _) => row.number < request.number,
            (None, Verb::Try { .. }) => !self.keeps(Rule::RowFirst),
            (None, Verb::Settle { .. }) => true,
        }
    }

    fn begin(&self, state: &mut State) {
        if self.keeps(Rule::RetireBeforeUse) {
            state.retire();
        }
        state.writer.since.get_or_insert(state.now);
        let group = Group {
            messages: self.batches[state.begun],
            began: state.now,
            tries: 0,
            asked: 0,
        };
        state.begun += 1;
        self.make_a_try(state, group);
    }

    fn make_a_try(&self, state: &mut State, mut group: Group) {
        if !state.writer.has_row {
            state.writer.has_row = true;
            state.server.advance(state.writer.token, 0, state.now);
            state.on_disk(true);
        }
        let writer = &mut state.writer;
        if group.tries == 0 || self.keeps(Rule::FreshNumber) {
            writer.number += self.numbers(group.messages);
        }
        let request = Request {
            token: writer.token,
            number: writer.number,
            verb: Verb::Try {
                place: group.tries,
                messages: group.messages,
            },
            sent: state.now,
        };
        group.tries += 1;
        group.asked = if self.keeps(Rule::LastNumberResolves) {
            writer.number
        } else {
            writer.number + 2 - self.numbers(group.messages)
        };
        writer.task = Task::Trying(group);
        state.requests.insert(request);
    }

    fn settle(&self, state: &mut State, group: Group, place: u8) {
        let request = Request {
            token: state.writer.token,
            number: group.asked,
            verb: Verb::Settle { place },
            sent: state.now,
        };
        state.writer.task = Task::Settling(group, place + 1);
        state.requests.insert(request);
    }

    /// Answers a request if its connection is still open. The writer receives it at once: an answer that it receives
    /// later is the same as one that it acts on later, and one that it never receives is the same as one after its
    /// time-out.
    fn answer(&self, state: &mut State, to: Request, reply: Reply) {
        if !state.awaits(&to) {
            return;
        }
        let (Task::Trying(mut group) | Task::Settling(mut group, _)) = state.writer.task else {
            return;
        };
        let stored = match reply {
            Reply::Stored => true,
            Reply::Number(number) => number == to.number,
            Reply::Failed => false,
            Reply::Refused(messages) => {
                state.complete(messages, Returned::Refused);
                group.messages &= !messages;
                false
            }
        };
        if stored {
            let Writer { token, number, .. } = state.writer;
            state.complete(group.messages, Returned::Stored { token, number });
            group.messages = 0;
        }
        match group.messages {
            0 => self.end(state),
            _ => state.writer.task = Task::Free(group),
        }
    }

    fn end(&self, state: &mut State) {
        state.writer.task = Task::Idle;
        if !self.keeps(Rule::RetireBeforeUse) {
            state.retire();
        }
    }

    fn give_up(&self, state: &mut State, group: Group) {
        let returned = if self.keeps(Rule::ReturnUnknown) {
            Returned::Unknown
        } else {
            Returned::NotStored
        };
        state.complete(group.messages, returned);
        self.end(state);
        if !self.keeps(Rule::FreshNumber) {
            // As if nothing had been sent.
            state.writer.number -= self.numbers(group.messages);
        } else if self.keeps(Rule::NewTokenAfterwards) {
            state.writer = state.writer.successor();
        }
    }

    fn execute(&self, state: &mut State, request: Request, answered: bool) {
        state.requests.remove(&request);
        let behind = self.is_behind(&state.server, &request);
        match request.verb {
            Verb::Settle { .. } => {
                let forbidden = if self.keeps(Rule::NumbersApart) {
                    request.number + 1
                } else {
                    request.number
                };
                let number = match state.server.writers.get(&request.token) {
                    Some(row) if !behind => row.number,
                    _ => forbidden,
                };
                // A statement that doesn't wait for the lock can't write either.
                if behind && self.keeps(Rule::SettleForbids) && !state.locked(request.token) {
                    state.server.advance(request.token, forbidden, state.now);
                }
                // Written in any case, so that the answer, and everything before it, is flushed to disk.
                state.on_disk(self.keeps(Rule::SettleOnDisk));
                if answered {
                    self.answer(state, request, Reply::Number(number));
                }
            }
            Verb::Try { messages, .. } if behind || !self.keeps(Rule::Guard) => {
                let halfway = self.is_large(messages);
                state.running.insert(Running {
                    request,
                    messages,
                    halfway,
                });
                if halfway && !self.keeps(Rule::OneTransaction) {
                    let first = Request {
                        number: request.number - 2,
                        ..request
                    };
                    self.store(state, first, messages & A);
                }
            }
            Verb::Try { messages, .. } => self.answer(state, request, Reply::Refused(messages)),
        }
    }

    fn commit(&self, state: &mut State, running: Running) {
        state.running.remove(&running);
        let stored_before = if self.is_large(running.messages) && !self.keeps(Rule::OneTransaction)
        {
            A
        } else {
            0
        };
        let request = running.request;
        self.store(state, request, running.messages & !stored_before);
        self.answer(state, request, Reply::Stored);
    }

    fn refuse(&self, state: &mut State, request: Request, messages: Messages) {
        state.requests.remove(&request);
        if !self.keeps(Rule::AllOrNone) {
            self.store(state, request, messages & !REFUSABLE);
        }
        if !self.keeps(Rule::RefusalAdvancesNothing) {
            self.store(state, request, 0);
        }
        self.answer(state, request, Reply::Refused(messages & REFUSABLE));
    }

    fn store(&self, state: &mut State, request: Request, messages: Messages) {
        state
            .server
            .advance(request.token, request.number, state.now);
        for message in each(messages) {
            let stored = (message, request.token, request.number);
            state.server.stored.insert(stored);
        }
        state.on_disk(self.keeps(Rule::TryOnDisk));
    }
}

/// What a request can do on arrival. One that does nothing and has no answer waited for counts as lost.
impl Protocol {
    fn arrivals(&self, state: &State, request: Request, steps: &mut Vec<Step>) {
        let behind = self.is_behind(&state.server, &request);
        let awaited = state.awaits(&request);
        let locked = state.locked(request.token);
        match request.verb {
            Verb::Settle { .. } if locked && self.keeps(Rule::SettleWaits) => {}
            Verb::Settle { .. } => {
                if awaited {
                    steps.push(Step::Execute(request));
                }
                if behind {
                    steps.push(Step::ExecuteAnswerLost(request));
                }
            }
            Verb::Try { .. } if locked => {}
            // It stores nothing and its writer learns nothing: the same as if it had been lost.
            Verb::Try { .. } if !state.server.writers.contains_key(&request.token) && !behind => {}
            Verb::Try { messages, .. } => {
                if awaited || behind || !self.keeps(Rule::Guard) {
                    steps.push(Step::Execute(request));
                }
                let does_nothing =
                    self.keeps(Rule::AllOrNone) && self.keeps(Rule::RefusalAdvancesNothing);
                if messages & REFUSABLE != 0 && behind && (awaited || !does_nothing) {
                    steps.push(Step::Refuse(request));
                }
            }
        }
    }
}

impl Writer {
    fn successor(&self) -> Writer {
        Writer {
            token: self.token + 1,
            since: None,
            number: 0,
            has_row: false,
            task: self.task,
        }
    }

    fn group(&self) -> Option<Group> {
        match self.task {
            Task::Idle => None,
            Task::Trying(group) | Task::Settling(group, _) | Task::Free(group) => Some(group),
        }
    }
}

impl Running {
    /// Whether it is the try that this request queries.
    fn is_try(&self, settling: &Request) -> bool {
        let of = |request: &Request| (request.token, request.number);
        of(settling) == of(&self.request)
    }
}

impl State {
    /// Each message is answered once.
    fn complete(&mut self, messages: Messages, returned: Returned) {
        for message in each(messages) {
            self.returned[message] = returned;
        }
    }

    fn retire(&mut self) {
        let age = self.writer.since.map_or(0, |since| self.now - since);
        if age > TOKEN_AGE {
            self.writer = self.writer.successor();
        }
    }

    /// Whether the writer is waiting for the answer to this.
    fn awaits(&self, request: &Request) -> bool {
        let waits = match (self.writer.task, request.verb) {
            (Task::Trying(group), Verb::Try { place, .. }) => {
                place + 1 == group.tries && request.number == self.writer.number
            }
            (Task::Settling(group, _), Verb::Settle { .. }) => request.number == group.asked,
            _ => false,
        };
        waits && request.token == self.writer.token
    }

    fn on_disk(&mut self, waited_for: bool) {
        if waited_for {
            self.disk = self.server.clone();
        }
    }

    fn excuse(&mut self, messages: Messages) {
        for message in each(messages) {
            if self.server.count(message) == 0 {
                self.excused |= 1 << message;
            }
        }
    }

    fn fail_over(&mut self, requests_end: bool) {
        self.failovers += 1;
        if requests_end {
            self.requests.clear();
        }
        self.running.clear();
        self.server = self.standby.clone();
        self.disk = self.standby.clone();
        let acknowledged = (0..MESSAGES)
            .filter(|message| matches!(self.returned[*message], Returned::Stored { .. }))
            .fold(0, |all, message| all | 1 << message);
        self.excuse(acknowledged);
    }

    fn tick(&mut self) {
        self.now += 1;
        let now = self.now;
        let in_time = |request: &Request| request.sent + LATE >= now;
        self.requests.retain(in_time);
        self.running.retain(|running| in_time(&running.request));
    }

    fn settling(&self) -> impl Iterator<Item = &Request> {
        self.requests
            .iter()
            .filter(|request| matches!(request.verb, Verb::Settle { .. }))
    }

    fn locked(&self, token: u8) -> bool {
        self.running
            .iter()
            .any(|running| running.request.token == token)
    }
}

impl Database {
    fn advance(&mut self, token: u8, number: u8, now: u8) {
        let row = Row { number, since: now };
        self.writers.entry(token).or_insert(row).number = number;
    }

    fn count(&self, message: usize) -> usize {
        self.stored
            .iter()
            .filter(|stored| stored.0 == message)
            .count()
    }
}

fn each(messages: Messages) -> impl Iterator<Item = usize> {
    (0..MESSAGES).filter(move |message| messages & 1 << message != 0)
}

const NONE_TWICE: &str = "no message is stored twice";
const NONE_LOST: &str = "what is acknowledged is stored, under its id";
const NOT_STORED: &str = "what is said not to be stored is not stored";
const REASONS_ARE_TRUE: &str = "only what the server doesn't take is refused";
const ALL_END: &str = "each send ends in time";
const NONE_QUEUES: &str = "no try waits for another";

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
                has_row: false,
                task: Task::Idle,
            },
            begun: 0,
            returned: [Returned::Nothing; MESSAGES],
            requests: BTreeSet::new(),
            running: BTreeSet::new(),
            server: Database::default(),
            disk: Database::default(),
            standby: Database::default(),
            crashes: 0,
            failovers: 0,
            excused: 0,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let group = state.writer.group();
        let overdue = group.is_some_and(|group| state.now - group.began >= GIVE_UP);
        let more = group.is_some_and(|group| group.tries < self.tries);
        match state.writer.task {
            Task::Idle if state.begun < self.batches.len() => steps.push(Step::Begin),
            Task::Idle => {}
            Task::Trying(_) => {
                steps.push(Step::Settle);
                if more && !self.keeps(Rule::SettleFirst) {
                    steps.push(Step::Again);
                }
            }
            Task::Settling(_, settles) => {
                if settles < self.settles {
                    steps.push(Step::Settle);
                }
            }
            Task::Free(_) => {
                steps.push(Step::ReturnNotStored);
                if more {
                    steps.push(Step::Again);
                }
            }
        }
        match state.writer.task {
            Task::Settling(group, _) if group.messages & HASTY != 0 && group.messages != HASTY => {
                steps.push(Step::AnswerHasty);
            }
            _ => {}
        }
        if overdue && !matches!(state.writer.task, Task::Free(_)) {
            steps.push(Step::GiveUp);
        }

        for request in &state.requests {
            self.arrivals(state, *request, steps);
        }
        for running in &state.running {
            steps.push(if running.halfway {
                Step::Continue(*running)
            } else {
                Step::Commit(*running)
            });
            steps.push(Step::BreakOff(*running));
        }
        for (token, row) in &state.server.writers {
            if state.now - row.since > self.prune_age() && !state.locked(*token) {
                steps.push(Step::Prune(*token));
            }
        }
        if state.crashes < self.crashes {
            steps.push(Step::Crash);
        }
        if state.server != state.disk {
            steps.push(Step::Flush);
        }
        if state.failovers < self.failovers {
            steps.extend([Step::Replicate, Step::FailOver]);
        }
        if state.begun > 0 && state.now < END && (!overdue || !self.keeps(Rule::GiveUpInTime)) {
            steps.push(Step::Tick);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        let group = state.writer.group();
        match step {
            Step::Begin => self.begin(&mut next),
            Step::Settle => match state.writer.task {
                Task::Settling(group, place) => self.settle(&mut next, group, place),
                _ => self.settle(&mut next, group?, 0),
            },
            Step::Again => self.make_a_try(&mut next, group?),
            Step::AnswerHasty => {
                if let Task::Settling(group, _) = &mut next.writer.task {
                    group.messages &= !HASTY;
                    next.complete(HASTY, Returned::Unknown);
                }
            }
            Step::ReturnNotStored => {
                next.complete(group?.messages, Returned::NotStored);
                self.end(&mut next);
            }
            Step::GiveUp => self.give_up(&mut next, group?),
            Step::Execute(request) => self.execute(&mut next, request, true),
            Step::ExecuteAnswerLost(request) => self.execute(&mut next, request, false),
            Step::Continue(running) => {
                next.running.remove(&running);
                next.running.insert(Running {
                    halfway: false,
                    ..running
                });
            }
            Step::Commit(running) => self.commit(&mut next, running),
            Step::Refuse(request) => {
                if let Verb::Try { messages, .. } = request.verb {
                    self.refuse(&mut next, request, messages);
                }
            }
            Step::BreakOff(running) => {
                next.running.remove(&running);
                self.answer(&mut next, running.request, Reply::Failed);
            }
            Step::Crash => {
                next.crashes += 1;
                next.running.clear();
                next.server = next.disk.clone();
            }
            Step::Flush => next.disk = next.server.clone(),
            Step::Replicate => next.standby = next.disk.clone(),
            Step::FailOver => next.fail_over(self.keeps(Rule::EndWithTheServer)),
            Step::Prune(token) => {
                next.server.writers.remove(&token);
                next.on_disk(true);
            }
            Step::Tick => next.tick(),
        }
        self.tidy(&mut next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NONE_TWICE, |_, state: &State| {
                (0..MESSAGES).all(|message| state.server.count(message) <= 1)
            }),
            Property::always(NONE_LOST, |_, state: &State| {
                (0..MESSAGES).all(|message| match state.returned[message] {
                    Returned::Stored { token, number } => {
                        // A large batch has a number for each of its statements, and one transaction.
                        (number - 2..=number)
                            .any(|number| state.server.stored.contains(&(message, token, number)))
                            || state.excused & 1 << message != 0
                    }
                    _ => true,
                })
            }),
            Property::always(NOT_STORED, |_, state: &State| {
                (0..MESSAGES).all(|message| {
                    !matches!(
                        state.returned[message],
                        Returned::Refused | Returned::NotStored
                    ) || state.server.count(message) == 0
                })
            }),
            Property::always(REASONS_ARE_TRUE, |_, state: &State| {
                (0..MESSAGES).all(|message| {
                    state.returned[message] != Returned::Refused || REFUSABLE & 1 << message != 0
                })
            }),
            Property::always(ALL_END, |_, state: &State| {
                let group = state.writer.group();
                group.is_none_or(|group| state.now <= group.began + GIVE_UP)
            }),
            Property::always(NONE_QUEUES, |_, state: &State| {
                !state.requests.iter().any(|request| {
                    matches!(request.verb, Verb::Try { .. })
                        && state.awaits(request)
                        && state.locked(request.token)
                })
            }),
        ];
        properties.extend(self.happenings());
        properties
    }
}

/// Ensures that the model isn't vacuous.
impl Protocol {
    fn happenings(&self) -> Vec<Property<Self>> {
        if self.batches.len() > 1 {
            return vec![
                Property::sometimes("a row is pruned", |_, state: &State| {
                    state.server.writers.is_empty() && !state.server.stored.is_empty()
                }),
                Property::sometimes(
                    "one token sends twice",
                    |_, state: &State| matches!(state.returned[2], Returned::Stored { token: 0, number } if number > 2),
                ),
                Property::sometimes("a token retires", |_, state: &State| {
                    matches!(state.returned[0], Returned::Stored { token: 0, .. })
                        && matches!(state.returned[2], Returned::Stored { token: 1, .. })
                }),
            ];
        }
        let mut happenings = vec![
            Property::sometimes("a try is settled before it arrives", |_, state: &State| {
                state.requests.iter().any(|request| {
                    let row = state.server.writers.get(&request.token);
                    matches!(request.verb, Verb::Try { .. })
                        && row.is_some_and(|row| row.number == request.number + 1)
                })
            }),
            Property::sometimes("settling waits for a try", |_, state: &State| {
                state.settling().any(|request| {
                    state
                        .running
                        .iter()
                        .any(|running| running.is_try(request) && !running.halfway)
                })
            }),
            Property::sometimes("settling finds a try stored", |_, state: &State| {
                state.settling().any(|request| {
                    let row = state.server.writers.get(&request.token);
                    state.awaits(request) && row.is_some_and(|row| row.number == request.number)
                })
            }),
            Property::sometimes(
                "a try is settled as not stored, and another stores",
                |_, state: &State| matches!(state.returned[0], Returned::Stored { number, .. } if number > 2),
            ),
            Property::sometimes("settling is under way twice", |_, state: &State| {
                state.settling().filter(|one| state.awaits(one)).count() == 2
            }),
            Property::sometimes(
                "settling comes when its writer has moved on",
                |_, state: &State| {
                    state.settling().any(|request| {
                        let row = state.server.writers.get(&request.token);
                        row.is_some_and(|row| row.number > request.number + 1)
                    })
                },
            ),
            Property::sometimes("an unknown outcome was stored", |_, state: &State| {
                (0..MESSAGES).any(|message| {
                    state.returned[message] == Returned::Unknown && state.server.count(message) == 1
                })
            }),
            Property::sometimes("an unknown outcome was not stored", |_, state: &State| {
                state.now == END
                    && (0..MESSAGES).any(|message| {
                        state.returned[message] == Returned::Unknown
                            && state.server.count(message) == 0
                    })
            }),
            Property::sometimes(
                "a try arrives after its writer gave up",
                |_, state: &State| {
                    state.running.iter().any(|running| {
                        each(running.messages)
                            .all(|message| state.returned[message] == Returned::Unknown)
                    })
                },
            ),
        ];
        if self.batches.contains(&(A | B)) {
            happenings.push(Property::sometimes(
                "a message is refused, and the rest is stored",
                |_, state: &State| {
                    state.returned[1] == Returned::Refused
                        && matches!(state.returned[0], Returned::Stored { .. })
                },
            ));
            happenings.push(Property::sometimes(
                "a caller has gone, and the rest is stored",
                |_, state: &State| {
                    state.returned[0] == Returned::Unknown
                        && matches!(state.returned[1], Returned::Stored { .. })
                },
            ));
        }
        if self.large {
            happenings.push(Property::sometimes(
                "settling waits for half of a batch",
                |_, state: &State| {
                    state.settling().any(|request| {
                        state
                            .running
                            .iter()
                            .any(|running| running.is_try(request) && running.halfway)
                    })
                },
            ));
        }
        if self.failovers > 0 {
            happenings.push(Property::sometimes(
                "a fail-over takes what was acknowledged",
                |_, state: &State| state.excused != 0,
            ));
            happenings.push(Property::sometimes(
                "what a fail-over took is stored again before it is acknowledged",
                |_, state: &State| {
                    state.failovers > 0
                        && state.standby.count(0) == 0
                        && matches!(state.returned[0], Returned::Stored { number, .. } if number > 2)
                        && state.server.count(0) == 1
                },
            ));
        }
        happenings
    }
}

/// One batch, retried repeatedly.
const ONE_SEND: Protocol = Protocol {
    without: None,
    batches: &[A | B],
    large: false,
    tries: 2,
    settles: 2,
    crashes: 0,
    failovers: 0,
};

/// Two batches, the second possibly long after the first.
const TWO_SENDS: Protocol = Protocol {
    batches: &[A, C],
    settles: 1,
    ..ONE_SEND
};

/// Finds a way to break a promise if a rule is left out.
fn without(rule: Rule, promise: &'static str) {
    let without = Some(rule);
    let model = match rule {
        Rule::OneTransaction | Rule::LastNumberResolves => Protocol {
            without,
            large: true,
            ..ONE_SEND
        },
        Rule::TryOnDisk | Rule::SettleOnDisk => Protocol {
            without,
            crashes: 1,
            ..ONE_SEND
        },
        Rule::EndWithTheServer => Protocol {
            without,
            failovers: 1,
            ..ONE_SEND
        },
        Rule::FreshNumber | Rule::NewTokenAfterwards | Rule::RetireBeforeUse => Protocol {
            without,
            ..TWO_SENDS
        },
        // The first try of the second send fails, the second is late, and the third stores.
        Rule::PruneLate | Rule::RowFirst => Protocol {
            without,
            tries: 3,
            ..TWO_SENDS
        },
        _ => Protocol {
            without,
            ..ONE_SEND
        },
    };
    breaks(&format!("writer without {rule:?}"), model, promise);
}

#[test]
fn a_send_is_stored_exactly_once() {
    let model = Protocol {
        tries: 3,
        ..ONE_SEND
    };
    holds("writer", model);
}

#[test]
fn one_send_after_another_is_stored_exactly_once() {
    let model = Protocol {
        tries: 3,
        ..TWO_SENDS
    };
    holds("writer, two sends", model);
}

#[test]
fn a_large_batch_is_stored_exactly_once() {
    let model = Protocol {
        large: true,
        ..ONE_SEND
    };
    holds("writer, large batch", model);
}

#[test]
fn a_large_batch_is_stored_exactly_once_if_the_server_crashes() {
    let model = Protocol {
        large: true,
        crashes: 1,
        ..ONE_SEND
    };
    holds("writer, large batch, server crashes", model);
}

#[test]
fn a_send_is_stored_exactly_once_if_the_server_crashes() {
    let model = Protocol {
        batches: &[A],
        crashes: 1,
        ..ONE_SEND
    };
    holds("writer, server crashes", model);
}

#[test]
fn a_send_is_stored_exactly_once_if_another_server_takes_over() {
    let model = Protocol {
        failovers: 1,
        ..ONE_SEND
    };
    holds("writer, fail-over", model);
}

#[test]
fn without_the_guard_a_late_try_stores_again() {
    without(Rule::Guard, NONE_TWICE);
}

#[test]
fn a_statement_that_stores_a_part_is_settled_as_stored_and_lacks_the_rest() {
    without(Rule::AllOrNone, NONE_LOST);
}

#[test]
fn a_refusal_that_takes_its_number_is_settled_as_stored_and_lost() {
    without(Rule::RefusalAdvancesNothing, NONE_LOST);
}

#[test]
fn half_a_large_batch_that_is_committed_alone_is_stored_again() {
    without(Rule::OneTransaction, NONE_TWICE);
}

#[test]
fn a_try_answered_before_it_is_on_disk_acknowledges_what_a_crash_loses() {
    without(Rule::TryOnDisk, NONE_LOST);
}

#[test]
fn a_number_used_for_a_second_try_is_refused_for_no_reason() {
    without(Rule::FreshNumber, REASONS_ARE_TRUE);
}

#[test]
fn a_number_used_again_after_giving_up_is_acknowledged_and_lost() {
    without(Rule::FreshNumber, NONE_LOST);
}

#[test]
fn a_next_try_before_the_last_is_settled_stores_again() {
    without(Rule::SettleFirst, NONE_TWICE);
}

#[test]
fn a_refusal_returned_before_the_last_try_is_settled_is_stored_all_the_same() {
    without(Rule::SettleFirst, NOT_STORED);
}

#[test]
fn settling_without_the_lock_overlooks_a_try_that_is_under_way() {
    without(Rule::SettleWaits, NONE_TWICE);
}

#[test]
fn settling_by_only_looking_lets_a_late_try_store_again() {
    without(Rule::SettleForbids, NONE_TWICE);
}

#[test]
fn forbidding_with_the_number_of_the_try_acknowledges_what_is_not_stored() {
    without(Rule::NumbersApart, NONE_LOST);
}

#[test]
fn settling_that_a_crash_undoes_lets_a_late_try_store_again() {
    without(Rule::SettleOnDisk, NONE_TWICE);
}

#[test]
fn a_large_batch_settled_by_its_first_number_is_stored_again() {
    without(Rule::LastNumberResolves, NONE_TWICE);
}

#[test]
fn a_writer_that_never_gives_up_leaves_its_callers_waiting() {
    without(Rule::GiveUpInTime, ALL_END);
}

#[test]
fn settling_believed_after_its_row_was_pruned_stores_again() {
    without(Rule::GiveUpInTime, NONE_TWICE);
}

#[test]
fn giving_up_with_a_failure_denies_what_a_late_try_stores() {
    without(Rule::ReturnUnknown, NOT_STORED);
}

#[test]
fn a_token_kept_after_giving_up_makes_the_next_send_wait_for_the_stuck_one() {
    without(Rule::NewTokenAfterwards, NONE_QUEUES);
}

#[test]
fn a_token_used_after_long_idleness_loses_its_row_before_it_is_settled() {
    without(Rule::RetireBeforeUse, NONE_TWICE);
}

#[test]
fn a_row_pruned_too_early_is_settled_as_not_stored_and_sent_again() {
    without(Rule::PruneLate, NONE_TWICE);
}

#[test]
fn a_try_that_makes_its_own_row_stores_again_when_it_is_later_than_the_pruner() {
    without(Rule::RowFirst, NONE_TWICE);
}

#[test]
fn a_try_that_outlives_its_server_stores_again_on_the_next() {
    without(Rule::EndWithTheServer, NONE_TWICE);
}
