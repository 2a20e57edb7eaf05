//! How a message is delivered under a lease, until it is settled.
//!
//! # What happens
//!
//! One message waits, and two consumers want it; messages share nothing, so one is enough. A claim puts a lease on it:
//! it writes when the lease ends, and a token that only the claim knows. With that token the
//! holder extends the lease, acknowledges the message (which deletes it), or fails it (which makes it ready at once).
//! If the holder does nothing more, because it has crashed or lost its connection, the message becomes ready for others
//! when the lease runs out.
//!
//! The network may lose, delay and reorder requests, without any limit: a claim may be executed when its consumer has
//! long sent another, an acknowledgement when the message is leased to another consumer. A consumer without an answer
//! to an acknowledgement or a failure tries again. A consumer may crash at any time. The server may crash, and then
//! loses commits whose flush was not waited for: some of the last ones, in their order, since its log is cut at one
//! place.
//!
//! The rules are [`Rule`], and the tests at the end show what each is needed for.
//!
//! # What is promised
//!
//! - A live lease has one holder, as far as consumers know: no consumer works on a message in the belief that its lease
//!   still runs while another does. The exception are claims that a crash of the server undid, since a claim doesn't
//!   wait for the disk: the message is delivered again, beside its first delivery.
//! - A consumer's statement affects its own delivery and never another's, also after such a crash.
//! - A message whose acknowledgement was answered never comes back, whatever crashes.
//!
//! # What is not modelled
//!
//! - Acknowledgements that travel with the next claim of a loop. They are not reported one by one, and they don't wait
//!   for the disk: a crash of the server may undo them like a claim.
//! - Clocks that run at different speeds. A consumer needs its own only for the length of a lease.
//! - The choice among several messages, priorities, attempts that are used up.
//! - A fail-over to a server that lacks the end of its log: that is a crash which also loses flushed commits, so
//!   acknowledged messages may come back.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::{breaks, holds};

/// A rule of the protocol, each of which can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A claim takes only messages whose lease has run out, and so only those that no consumer holds.
    ClaimWhatIsFree,
    /// Of two concurrent claims one gets the row's lock, and the other skips the row.
    RowLock,
    /// Each claim has a token that no other ever has. (Without the rule: the number of the attempt.)
    TokenOfItsOwn,
    /// An acknowledgement or a failure is executed only with the token of the lease,
    SettleUnderTheToken,
    /// and so is an extension.
    ExtendUnderTheToken,
    /// A failure removes the token from the message.
    FailureClearsTheToken,
    /// An acknowledgement that finds no message with its token is answered with "lease lost".
    NothingFoundIsLost,
    /// An acknowledgement is flushed to disk before it is answered,
    AcknowledgeOnDisk,
    /// and so has an extension.
    ExtendOnDisk,
    /// A consumer counts its lease from when it sent the claim, not from when it received the answer.
    CountFromTheSending,
}

/// The duration of a lease.
const LEASE: u8 = 2;
/// The end of the model: a second lease has begun to run after the first one ran out.
const END: u8 = LEASE + 1;
/// Maximum number of concurrent requests. A lost request makes room.
const ON_THE_WAY: usize = 2;

#[derive(Debug, Clone)]
struct Protocol {
    without: Option<Rule>,
    /// Number of claims. The holder of the third one only works: there is no consumer left that it could affect.
    claims: u8,
    /// How often a settling statement is sent, at most.
    tries: u8,
    /// Crashes of the server; consumers crash any number of times.
    crashes: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    consumers: [Consumer; 2],
    /// Requests in transit to the server.
    requests: BTreeSet<Request>,
    /// Claims that have read the row and not yet written it; none if the row is locked meanwhile.
    looked: BTreeSet<Request>,
    /// Answers in transit to the consumers.
    answers: BTreeSet<Answer>,
    /// The table's states since the last flushed commit. A crash reverts to one of these.
    log: Vec<Table>,
    claims: u8,
    /// Whether an extension was sent. The model has at most one.
    extended: bool,
    crashes: u8,
    /// The claims that a crash undid.
    undone: BTreeSet<u8>,
    /// Whether a consumer received the answer that its acknowledgement was executed.
    acknowledged: bool,
    /// Whether a statement affected another consumer's delivery.
    meddled: bool,
}

/// The message, until it is deleted.
type Table = Option<Row>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    lease_until: u8,
    attempt: u8,
    lease_token: Option<u8>,
    /// Which claim this lease is from. Not a column: the token represents it.
    claim: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Consumer {
    Idle,
    Claiming {
        claim: u8,
        sent: u8,
    },
    Working {
        lease: Lease,
        /// When it sent an extension, while it waits for its answer.
        extending: Option<u8>,
    },
    Settling {
        lease: Lease,
        verdict: Verb,
        place: u8,
    },
}

/// A lease, as its holder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Lease {
    claim: u8,
    token: u8,
    until: u8,
    extended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Verb {
    Claim,
    Extend,
    Acknowledge,
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Request {
    verb: Verb,
    claim: u8,
    /// The token, for requests under a lease.
    token: Option<u8>,
    place: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Answer {
    to: Request,
    reply: Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Reply {
    /// The claim got the message, with this token.
    Leased { token: u8 },
    /// The statement was executed.
    Done,
    /// There is no message with this token.
    LeaseLost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Claim(usize),
    Extend(usize),
    Settle(usize, Verb),
    /// Sends the same settling statement again.
    SettleAgain(usize),
    /// Stops waiting, or crashes and restarts: it has lost all its state.
    Forget(usize),
    Receive(Answer),
    Lose(Request),
    /// The server executes a statement.
    Execute(Request),
    /// The server writes what a claim has read; a separate step only without the row's lock.
    Write(Request),
    /// The server crashes, and loses this many of the last commits.
    Crash(usize),
    Tick,
}

impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Merges states that differ in nothing that matters: times that are over, and requests that can't do anything any
    /// more and whose consumer doesn't wait, so that their arrival makes no difference.
    fn tidy(&self, state: &mut State) {
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

    fn execute(&self, state: &mut State, request: Request) {
        state.requests.remove(&request);
        match request.verb {
            Verb::Claim => self.claim(state, request),
            Verb::Extend => self.extend(state, request),
            Verb::Acknowledge | Verb::Fail => self.settle(state, request),
        }
    }

    fn claim(&self, state: &mut State, request: Request) {
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

    fn write(&self, state: &mut State, request: Request) {
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

    fn extend(&self, state: &mut State, request: Request) {
        let guarded = self.keeps(Rule::ExtendUnderTheToken);
        let Some(mut row) = state.found(request, guarded) else {
            return state.answer(request, Reply::LeaseLost);
        };
        row.lease_until = state.now + LEASE;
        state.commit(Some(row), self.keeps(Rule::ExtendOnDisk));
        state.answer(request, Reply::Done);
    }

    fn settle(&self, state: &mut State, request: Request) {
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

    fn receive(&self, state: &mut State, Answer { to, reply }: Answer) {
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
    fn awaits(&self, request: &Request) -> bool {
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
    fn table(&self) -> Table {
        self.log.last().copied().flatten()
    }

    /// The message with the request's token, or whichever it is if the statement has no guard.
    fn found(&mut self, request: Request, guarded: bool) -> Table {
        // As in SQL, a null token equals no other.
        let held = |row: &Row| row.lease_token.is_some() && row.lease_token == request.token;
        let found = self.table().filter(|row| held(row) || !guarded)?;
        self.meddled |= found.claim != Some(request.claim);
        Some(found)
    }

    fn commit(&mut self, table: Table, on_disk: bool) {
        // Waiting for a commit means waiting for all of the log before it.
        if on_disk {
            self.log.clear();
        }
        self.log.push(table);
    }

    fn post(&mut self, verb: Verb, lease: Lease, place: u8) {
        self.requests.insert(Request {
            verb,
            claim: lease.claim,
            token: Some(lease.token),
            place,
        });
    }

    fn answer(&mut self, to: Request, reply: Reply) {
        self.answers.insert(Answer { to, reply });
        self.forget_answers();
    }

    /// Removes answers that no consumer waits for.
    fn forget_answers(&mut self) {
        let consumers = self.consumers;
        self.answers
            .retain(|answer| consumers.iter().any(|consumer| consumer.awaits(&answer.to)));
    }

    fn crash(&mut self, commits: usize) {
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
    fn holders(&self) -> impl Iterator<Item = Lease> {
        self.consumers.iter().filter_map(|consumer| match consumer {
            Consumer::Working { lease, .. } if self.now < lease.until => Some(*lease),
            _ => None,
        })
    }
}

const ONE_HOLDER: &str = "a live lease has one holder";
const OWN_DELIVERY: &str = "no consumer changes another's delivery";
const GONE_FOR_GOOD: &str = "what was acknowledged is not delivered again";

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            consumers: [Consumer::Idle; 2],
            requests: BTreeSet::new(),
            looked: BTreeSet::new(),
            answers: BTreeSet::new(),
            log: vec![Some(Row {
                lease_until: 0,
                attempt: 0,
                lease_token: None,
                claim: None,
            })],
            claims: 0,
            extended: false,
            crashes: 0,
            undone: BTreeSet::new(),
            acknowledged: false,
            meddled: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let room = state.requests.len() < ON_THE_WAY;
        // Idle consumers are interchangeable, so it is enough if the first of them claims.
        let idle = |consumer: &Consumer| *consumer == Consumer::Idle;
        let gone = state.log.iter().all(Option::is_none);
        if let Some(index) = state.consumers.iter().position(idle)
            && state.claims < self.claims
            && room
            && !gone
        {
            steps.push(Step::Claim(index));
        }
        for (index, consumer) in state.consumers.iter().enumerate() {
            match *consumer {
                Consumer::Idle => continue,
                Consumer::Working { lease, .. } if room && lease.claim < 3 => {
                    if !state.extended {
                        steps.push(Step::Extend(index));
                    }
                    // Also when the lease has run out: a handler may take longer than it should.
                    steps.push(Step::Settle(index, Verb::Acknowledge));
                    steps.push(Step::Settle(index, Verb::Fail));
                }
                Consumer::Settling { place, .. } if room && place + 1 < self.tries => {
                    steps.push(Step::SettleAgain(index));
                }
                _ => {}
            }
            steps.push(Step::Forget(index));
        }
        if !room {
            steps.extend(state.requests.iter().copied().map(Step::Lose));
        }
        steps.extend(state.requests.iter().copied().map(Step::Execute));
        steps.extend(state.looked.iter().copied().map(Step::Write));
        steps.extend(state.answers.iter().copied().map(Step::Receive));
        if state.crashes < self.crashes {
            steps.extend((0..state.log.len()).map(Step::Crash));
        }
        if state.now < END {
            steps.push(Step::Tick);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Claim(index) => {
                next.claims += 1;
                next.consumers[index] = Consumer::Claiming {
                    claim: next.claims,
                    sent: next.now,
                };
                next.requests.insert(Request {
                    verb: Verb::Claim,
                    claim: next.claims,
                    token: None,
                    place: 0,
                });
            }
            Step::Extend(index) => {
                if let Consumer::Working { lease, extending } = &mut next.consumers[index] {
                    next.extended = true;
                    *extending = Some(state.now);
                    let lease = *lease;
                    next.post(Verb::Extend, lease, 0);
                }
            }
            Step::Settle(index, verdict) => {
                if let Consumer::Working { lease, .. } = state.consumers[index] {
                    next.consumers[index] = Consumer::Settling {
                        lease,
                        verdict,
                        place: 0,
                    };
                    next.post(verdict, lease, 0);
                    next.forget_answers();
                }
            }
            Step::SettleAgain(index) => {
                if let Consumer::Settling {
                    lease,
                    verdict,
                    place,
                } = &mut next.consumers[index]
                {
                    *place += 1;
                    let (lease, verdict, place) = (*lease, *verdict, *place);
                    next.post(verdict, lease, place);
                    next.forget_answers();
                }
            }
            Step::Forget(index) => {
                next.consumers[index] = Consumer::Idle;
                next.forget_answers();
            }
            Step::Receive(answer) => self.receive(&mut next, answer),
            Step::Lose(request) => {
                next.requests.remove(&request);
            }
            Step::Execute(request) => self.execute(&mut next, request),
            Step::Write(request) => self.write(&mut next, request),
            Step::Crash(commits) => next.crash(commits),
            Step::Tick => next.now += 1,
        }
        self.tidy(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_HOLDER, |_, state: &State| {
                let standing = |lease: &Lease| !state.undone.contains(&lease.claim);
                state.holders().filter(standing).count() <= 1
            }),
            Property::always(OWN_DELIVERY, |_, state: &State| !state.meddled),
            Property::always(GONE_FOR_GOOD, |_, state: &State| {
                !state.acknowledged || state.table().is_none()
            }),
            // Ensures that the model isn't vacuous: each of these happens.
            Property::sometimes("a message is acknowledged", |_, state: &State| {
                state.acknowledged
            }),
            Property::sometimes(
                "a message is delivered again when its lease ran out",
                |_, state: &State| {
                    let expired = |consumer: &Consumer| matches!(consumer, Consumer::Working { lease, .. } if lease.until <= state.now);
                    state.holders().count() == 1 && state.consumers.iter().any(expired)
                },
            ),
            Property::sometimes("a lease is extended in time", |_, state: &State| {
                state.holders().any(|lease| lease.extended)
            }),
            Property::sometimes("an acknowledgement comes too late", |_, state: &State| {
                state.table().is_some()
                    && state.answers.iter().any(|answer| {
                        answer.to.verb == Verb::Acknowledge && answer.reply == Reply::LeaseLost
                    })
            }),
            Property::sometimes(
                "a late claim takes a lease without a holder",
                |_, state: &State| {
                    // While its consumer has sent a new claim.
                    matches!(state.consumers, [Consumer::Claiming { claim: 2, .. }, _])
                        && state.table().is_some_and(|row| row.claim == Some(1))
                        && !state.requests.iter().any(|request| request.claim == 1)
                },
            ),
        ];
        if self.tries > 1 {
            properties.push(Property::sometimes(
                "an acknowledgement that was carried out is lost on its second try",
                |_, state: &State| {
                    state.claims == 1
                        && state.table().is_none()
                        && state.answers.iter().any(|answer| {
                            answer.to.verb == Verb::Acknowledge && answer.reply == Reply::LeaseLost
                        })
                },
            ));
        }
        if self.crashes > 0 {
            properties.push(Property::sometimes(
                "a claim that a crash undid is delivered a second time beside",
                |_, state: &State| state.holders().count() == 2,
            ));
        }
        properties
    }
}

fn protocol(claims: u8, tries: u8, crashes: u8) -> Protocol {
    Protocol {
        without: None,
        claims,
        tries,
        crashes,
    }
}

/// Finds a way to break a promise if a rule is left out.
fn without(rule: Rule, promise: &'static str) {
    let crashes = match rule {
        Rule::TokenOfItsOwn | Rule::AcknowledgeOnDisk | Rule::ExtendOnDisk => 1,
        _ => 0,
    };
    let tries = match rule {
        Rule::NothingFoundIsLost => 2,
        _ => 1,
    };
    let model = Protocol {
        without: Some(rule),
        ..protocol(3 - crashes, tries, crashes)
    };
    breaks(&format!("lease without {rule:?}"), model, promise);
}

#[test]
fn a_lease_has_one_holder_until_it_is_settled() {
    holds("lease", protocol(3, 1, 0));
}

#[test]
fn a_lease_has_one_holder_if_it_is_settled_again() {
    holds("lease, settled again", protocol(2, 2, 0));
}

#[test]
fn a_lease_has_one_holder_if_the_server_crashes() {
    holds("lease, server crashes", protocol(2, 1, 1));
}

#[test]
fn a_claim_of_what_is_leased_has_two_holders() {
    without(Rule::ClaimWhatIsFree, ONE_HOLDER);
}

#[test]
fn without_the_lock_two_claims_hold_the_same() {
    without(Rule::RowLock, ONE_HOLDER);
}

#[test]
fn a_token_that_repeats_after_a_crash_settles_anothers_delivery() {
    without(Rule::TokenOfItsOwn, OWN_DELIVERY);
}

#[test]
fn settling_without_the_token_takes_anothers_delivery() {
    without(Rule::SettleUnderTheToken, OWN_DELIVERY);
}

#[test]
fn failing_late_without_the_token_makes_two_holders() {
    without(Rule::SettleUnderTheToken, ONE_HOLDER);
}

#[test]
fn extending_without_the_token_keeps_anothers_delivery() {
    without(Rule::ExtendUnderTheToken, OWN_DELIVERY);
}

#[test]
fn a_token_left_after_a_failure_lets_a_late_extension_hold_a_free_message() {
    without(Rule::FailureClearsTheToken, OWN_DELIVERY);
}

#[test]
fn taking_nothing_found_for_done_delivers_what_is_acknowledged() {
    without(Rule::NothingFoundIsLost, GONE_FOR_GOOD);
}

#[test]
fn an_acknowledgement_that_a_crash_undoes_is_delivered_again() {
    without(Rule::AcknowledgeOnDisk, GONE_FOR_GOOD);
}

#[test]
fn an_extension_that_a_crash_undoes_makes_two_holders() {
    without(Rule::ExtendOnDisk, ONE_HOLDER);
}

#[test]
fn a_lease_counted_from_its_answer_outlives_itself() {
    without(Rule::CountFromTheSending, ONE_HOLDER);
}
