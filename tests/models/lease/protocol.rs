//! The rules, as steps of consumers, requests and the table.

use super::*;

impl Protocol {
    pub(super) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Merges states that differ in nothing that matters: times that are over, and requests that can't do anything any
    /// more and whose consumer doesn't wait, so that their arrival makes no difference.
    pub(super) fn tidy(&self, state: &mut State) {
        for row in state.log.iter_mut().flatten() {
            if row.lease_until <= state.now {
                row.lease_until = 0;
            }
        }
        for consumer in &mut state.consumers {
            let over = match consumer {
                Consumer::Working { lease, .. } if lease.until <= state.now => lease,
                // A consumer that settles no longer works.
                Consumer::Settling { lease, .. } => lease,
                _ => continue,
            };
            (over.until, over.extended) = (0, false);
        }
        let guarded = [
            Rule::TokenOfItsOwn,
            Rule::SettleUnderTheToken,
            Rule::ExtendUnderTheToken,
        ];
        if guarded.iter().all(|rule| self.keeps(*rule)) {
            let (log, consumers) = (&state.log, &state.consumers);
            let found = |token| log.iter().flatten().any(|row| row.lease_token == token);
            state.requests.retain(|request| {
                request.verb == Verb::Claim
                    || found(request.token)
                    || consumers.iter().any(|consumer| consumer.awaits(request))
            });
        }
    }

    pub(super) fn execute(&self, state: &mut State, request: Request) {
        state.requests.remove(&request);
        match request.verb {
            Verb::Claim => self.claim(state, request),
            Verb::Extend => self.extend(state, request),
            Verb::Acknowledge | Verb::Fail => self.settle(state, request),
        }
    }

    pub(super) fn claim(&self, state: &mut State, request: Request) {
        let is_free = |row: Row| row.lease_until <= state.now;
        match state.table() {
            Some(row) if is_free(row) || !self.keeps(Rule::ClaimWhatIsFree) => {
                state.looked.insert(request);
                if self.keeps(Rule::RowLock) {
                    self.write(state, request);
                }
            }
            // Nothing is ready. It makes no difference whether the consumer receives the answer.
            _ => {}
        }
    }

    pub(super) fn write(&self, state: &mut State, request: Request) {
        state.looked.remove(&request);
        let Some(row) = state.table() else {
            return;
        };
        let attempt = row.attempt + 1;
        let token = if self.keeps(Rule::TokenOfItsOwn) {
            request.claim
        } else {
            attempt
        };
        let leased = Row {
            lease_until: state.now + LEASE,
            // Kept only if it is used, which reduces the number of states.
            attempt: if self.keeps(Rule::TokenOfItsOwn) {
                0
            } else {
                attempt
            },
            lease_token: Some(token),
            claim: Some(request.claim),
        };
        // Not flushed.
        state.log.push(Some(leased));
        state.answer(request, Reply::Leased { token });
    }

    pub(super) fn extend(&self, state: &mut State, request: Request) {
        let guarded = self.keeps(Rule::ExtendUnderTheToken);
        let Some(mut row) = state.found(request, guarded) else {
            return state.answer(request, Reply::LeaseLost);
        };
        row.lease_until = state.now + LEASE;
        state.commit(Some(row), self.keeps(Rule::ExtendOnDisk));
        state.answer(request, Reply::Done);
    }

    pub(super) fn settle(&self, state: &mut State, request: Request) {
        let guarded = self.keeps(Rule::SettleUnderTheToken);
        let Some(mut row) = state.found(request, guarded) else {
            let reply = if self.keeps(Rule::NothingFoundIsLost) {
                Reply::LeaseLost
            } else {
                Reply::Done
            };
            return state.answer(request, reply);
        };
        let on_disk = self.keeps(Rule::AcknowledgeOnDisk);
        if request.verb == Verb::Acknowledge {
            state.commit(None, on_disk);
        } else {
            row.lease_until = state.now;
            row.claim = None;
            if self.keeps(Rule::FailureClearsTheToken) {
                row.lease_token = None;
            }
            state.commit(Some(row), true);
        }
        state.answer(request, Reply::Done);
    }

    pub(super) fn receive(&self, state: &mut State, Answer { to, reply }: Answer) {
        let now = state.now;
        let from = |sent| {
            if self.keeps(Rule::CountFromTheSending) {
                sent
            } else {
                now
            }
        };
        let Some(consumer) = state
            .consumers
            .iter_mut()
            .find(|consumer| consumer.awaits(&to))
        else {
            return;
        };
        *consumer = match (*consumer, reply) {
            (Consumer::Claiming { claim, sent }, Reply::Leased { token }) => Consumer::Working {
                lease: Lease {
                    claim,
                    token,
                    until: from(sent) + LEASE,
                    extended: false,
                },
                extending: None,
            },
            (Consumer::Working { lease, extending }, Reply::Done) => Consumer::Working {
                lease: Lease {
                    until: extending.map_or(lease.until, |sent| from(sent) + LEASE),
                    extended: true,
                    ..lease
                },
                extending: None,
            },
            (Consumer::Settling { verdict, .. }, Reply::Done) => {
                state.acknowledged |= verdict == Verb::Acknowledge;
                Consumer::Idle
            }
            // The lease is lost.
            _ => Consumer::Idle,
        };
        state.forget_answers();
    }
}

impl Consumer {
    /// Whether it is waiting for the answer to this request.
    pub(super) fn awaits(&self, request: &Request) -> bool {
        let (verb, claim, place) = match *self {
            Consumer::Idle => return false,
            Consumer::Claiming { claim, .. } => (Verb::Claim, claim, 0),
            Consumer::Working {
                extending: None, ..
            } => return false,
            Consumer::Working { lease, .. } => (Verb::Extend, lease.claim, 0),
            Consumer::Settling {
                lease,
                verdict,
                place,
            } => (verdict, lease.claim, place),
        };
        (request.verb, request.claim, request.place) == (verb, claim, place)
    }
}

impl State {
    pub(super) fn table(&self) -> Table {
        self.log.last().copied().flatten()
    }

    /// The message with the request's token, or whichever it is if the statement has no guard.
    pub(super) fn found(&mut self, request: Request, guarded: bool) -> Table {
        // As in SQL, a null token equals no other.
        let held = |row: &Row| row.lease_token.is_some() && row.lease_token == request.token;
        let found = self.table().filter(|row| held(row) || !guarded)?;
        self.meddled |= found.claim != Some(request.claim);
        Some(found)
    }

    pub(super) fn commit(&mut self, table: Table, on_disk: bool) {
        // Waiting for a commit means waiting for all of the log before it.
        if on_disk {
            self.log.clear();
        }
        self.log.push(table);
    }

    pub(super) fn post(&mut self, verb: Verb, lease: Lease, place: u8) {
        self.requests.insert(Request {
            verb,
            claim: lease.claim,
            token: Some(lease.token),
            place,
        });
    }

    pub(super) fn answer(&mut self, to: Request, reply: Reply) {
        self.answers.insert(Answer { to, reply });
        self.forget_answers();
    }

    /// Removes answers that no consumer waits for.
    pub(super) fn forget_answers(&mut self) {
        let consumers = self.consumers;
        self.answers
            .retain(|answer| consumers.iter().any(|consumer| consumer.awaits(&answer.to)));
    }

    pub(super) fn crash(&mut self, commits: usize) {
        self.crashes += 1;
        self.looked.clear();
        let gone = self.log.split_off(self.log.len() - commits);
        let claim = |table: &Table| table.and_then(|row| row.claim);
        let kept = self.table().and_then(|row| row.claim);
        let undone = gone.iter().filter_map(claim);
        self.undone
            .extend(undone.filter(|claim| Some(*claim) != kept));
        self.log.drain(..self.log.len() - 1);
    }

    /// Consumers that work in the belief that their lease runs.
    pub(super) fn holders(&self) -> impl Iterator<Item = Lease> {
        self.consumers.iter().filter_map(|consumer| match consumer {
            Consumer::Working { lease, .. } if self.now < lease.until => Some(*lease),
            _ => None,
        })
    }
}
