//! The rules, as steps of writers, requests and servers.

use super::*;

impl Protocol {
    pub(super) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    pub(super) fn prune_age(&self) -> u8 {
        if self.keeps(Rule::PruneLate) {
            PRUNE_AGE
        } else {
            // One tick less: the sum is tight.
            PRUNE_AGE - 1
        }
    }

    pub(super) fn is_large(&self, messages: Messages) -> bool {
        self.large && messages.count_ones() > 1
    }

    /// The numbers of an attempt, one for each statement.
    pub(super) fn numbers(&self, messages: Messages) -> u8 {
        if self.is_large(messages) { 4 } else { 2 }
    }

    /// Merges states that differ in nothing that matters: removes requests whose answer isn't waited for and that
    /// find their number taken whenever they arrive, since their row exists for longer.
    pub(super) fn tidy(&self, state: &mut State) {
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
    pub(super) fn is_behind(&self, server: &Database, request: &Request) -> bool {
        match (server.writers.get(&request.token), request.verb) {
            (Some(row), _) => row.number < request.number,
            (None, Verb::Attempt { .. }) => !self.keeps(Rule::RowFirst),
            (None, Verb::Settle { .. }) => true,
        }
    }

    pub(super) fn begin(&self, state: &mut State) {
        if self.keeps(Rule::RetireBeforeUse) {
            state.retire();
        }
        state.writer.since.get_or_insert(state.now);
        let group = Group {
            messages: self.batches[state.begun],
            began: state.now,
            attempts: 0,
            asked: 0,
        };
        state.begun += 1;
        self.make_an_attempt(state, group);
    }

    pub(super) fn make_an_attempt(&self, state: &mut State, mut group: Group) {
        if !state.writer.has_row {
            state.writer.has_row = true;
            state.server.advance(state.writer.token, 0, state.now);
            state.on_disk(true);
        }
        let writer = &mut state.writer;
        if group.attempts == 0 || self.keeps(Rule::FreshNumber) {
            writer.number += self.numbers(group.messages);
        }
        let request = Request {
            token: writer.token,
            number: writer.number,
            verb: Verb::Attempt {
                place: group.attempts,
                messages: group.messages,
            },
            sent: state.now,
        };
        group.attempts += 1;
        group.asked = if self.keeps(Rule::LastNumberResolves) {
            writer.number
        } else {
            writer.number + 2 - self.numbers(group.messages)
        };
        writer.task = Task::Attempting(group);
        state.requests.insert(request);
    }

    pub(super) fn settle(&self, state: &mut State, group: Group, place: u8) {
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
    pub(super) fn answer(&self, state: &mut State, to: Request, reply: Reply) {
        if !state.awaits(&to) {
            return;
        }
        let (Task::Attempting(mut group) | Task::Settling(mut group, _)) = state.writer.task else {
            return;
        };
        let stored = match reply {
            Reply::Stored(skipped) => Some(skipped),
            Reply::Number(number, skipped) => (number == to.number).then_some(skipped),
            Reply::Failed => None,
            Reply::Refused(messages) => {
                state.complete(messages, Returned::Refused);
                group.messages &= !messages;
                None
            }
        };
        if let Some(skipped) = stored {
            let Writer { token, number, .. } = state.writer;
            let (duplicates, new) = (group.messages & skipped, group.messages & !skipped);
            state.complete(duplicates, Returned::Duplicate { token, number });
            state.complete(new, Returned::Stored { token, number });
            group.messages = 0;
        }
        match group.messages {
            0 => self.end(state),
            _ => state.writer.task = Task::Free(group),
        }
    }

    pub(super) fn end(&self, state: &mut State) {
        state.writer.task = Task::Idle;
        if !self.keeps(Rule::RetireBeforeUse) {
            state.retire();
        }
    }

    pub(super) fn give_up(&self, state: &mut State, group: Group) {
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

    pub(super) fn execute(&self, state: &mut State, request: Request, answered: bool) {
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
                    let row = state.server.writers.get(&request.token);
                    let skipped = if self.keeps(Rule::RecordWhenStored) {
                        row.map_or(0, |row| row.skipped)
                    } else {
                        state.server.held()
                    };
                    self.answer(state, request, Reply::Number(number, skipped));
                }
            }
            Verb::Attempt { messages, .. } if behind || !self.keeps(Rule::Guard) => {
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
            Verb::Attempt { messages, .. } => self.answer(state, request, Reply::Refused(messages)),
        }
    }

    pub(super) fn commit(&self, state: &mut State, running: Running) {
        state.running.remove(&running);
        let stored_before = if self.is_large(running.messages) && !self.keeps(Rule::OneTransaction)
        {
            A
        } else {
            0
        };
        let request = running.request;
        let skipped = self.store(state, request, running.messages & !stored_before);
        self.answer(state, request, Reply::Stored(skipped));
    }

    pub(super) fn refuse(&self, state: &mut State, request: Request, messages: Messages) {
        state.requests.remove(&request);
        if !self.keeps(Rule::AllOrNone) {
            self.store(state, request, messages & !REFUSABLE);
        }
        if !self.keeps(Rule::RefusalAdvancesNothing) {
            self.store(state, request, 0);
        }
        self.answer(state, request, Reply::Refused(messages & REFUSABLE));
    }

    /// Returns the messages that it didn't store, since another has their key.
    pub(super) fn store(
        &self,
        state: &mut State,
        request: Request,
        messages: Messages,
    ) -> Messages {
        state
            .server
            .advance(request.token, request.number, state.now);
        let skipped = messages & state.server.held();
        // The keyed message is in the first statement of a large batch.
        let forgets = self.is_large(messages) && !self.keeps(Rule::RecordOfBoth);
        if self.keeps(Rule::RecordSkipped)
            && let Some(row) = state.server.writers.get_mut(&request.token)
        {
            row.skipped = if forgets { 0 } else { skipped };
        }
        for message in each(skipped) {
            let skipped = (message, request.token, request.number);
            state.server.skipped.insert(skipped);
        }
        for message in each(messages & !skipped) {
            let stored = (message, request.token, request.number);
            state.server.stored.insert(stored);
        }
        state.on_disk(self.keeps(Rule::AttemptOnDisk));
        skipped
    }
}

/// What a request can do on arrival. One that does nothing and has no answer waited for counts as lost.
impl Protocol {
    pub(super) fn arrivals(&self, state: &State, request: Request, steps: &mut Vec<Step>) {
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
            Verb::Attempt { .. } if locked => {}
            // It stores nothing and its writer learns nothing: the same as if it had been lost.
            Verb::Attempt { .. }
                if !state.server.writers.contains_key(&request.token) && !behind => {}
            Verb::Attempt { messages, .. } => {
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
    pub(super) fn successor(&self) -> Writer {
        Writer {
            token: self.token + 1,
            since: None,
            number: 0,
            has_row: false,
            task: self.task,
        }
    }

    pub(super) fn group(&self) -> Option<Group> {
        match self.task {
            Task::Idle => None,
            Task::Attempting(group) | Task::Settling(group, _) | Task::Free(group) => Some(group),
        }
    }
}

impl Running {
    /// Whether it is the attempt that this request queries.
    pub(super) fn is_attempt(&self, settling: &Request) -> bool {
        let of = |request: &Request| (request.token, request.number);
        of(settling) == of(&self.request)
    }
}

impl State {
    /// Each message is answered once.
    pub(super) fn complete(&mut self, messages: Messages, returned: Returned) {
        for message in each(messages) {
            self.returned[message] = returned;
        }
    }

    pub(super) fn retire(&mut self) {
        let age = self.writer.since.map_or(0, |since| self.now - since);
        if age > TOKEN_AGE {
            self.writer = self.writer.successor();
        }
    }

    /// Whether the writer is waiting for the answer to this.
    pub(super) fn awaits(&self, request: &Request) -> bool {
        let waits = match (self.writer.task, request.verb) {
            (Task::Attempting(group), Verb::Attempt { place, .. }) => {
                place + 1 == group.attempts && request.number == self.writer.number
            }
            (Task::Settling(group, _), Verb::Settle { .. }) => request.number == group.asked,
            _ => false,
        };
        waits && request.token == self.writer.token
    }

    pub(super) fn on_disk(&mut self, waited_for: bool) {
        if waited_for {
            self.disk = self.server.clone();
        }
    }

    pub(super) fn excuse(&mut self, messages: Messages) {
        for message in each(messages) {
            if self.server.count(message) == 0 {
                self.excused |= 1 << message;
            }
        }
    }

    pub(super) fn fail_over(&mut self, requests_end: bool) {
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

    pub(super) fn tick(&mut self) {
        self.now += 1;
        let now = self.now;
        let in_time = |request: &Request| request.sent + LATE >= now;
        self.requests.retain(in_time);
        self.running.retain(|running| in_time(&running.request));
    }

    pub(super) fn settling(&self) -> impl Iterator<Item = &Request> {
        self.requests
            .iter()
            .filter(|request| matches!(request.verb, Verb::Settle { .. }))
    }

    pub(super) fn locked(&self, token: u8) -> bool {
        self.running
            .iter()
            .any(|running| running.request.token == token)
    }
}

impl Database {
    pub(super) fn advance(&mut self, token: u8, number: u8, now: u8) {
        let row = Row {
            number,
            since: now,
            skipped: 0,
        };
        self.writers.entry(token).or_insert(row).number = number;
    }

    /// The messages whose key another has.
    pub(super) fn held(&self) -> Messages {
        if self.is_held { KEYED } else { 0 }
    }

    pub(super) fn count(&self, message: usize) -> usize {
        self.stored
            .iter()
            .filter(|stored| stored.0 == message)
            .count()
    }
}
