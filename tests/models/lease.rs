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
//! The rules are [`Rule`], and the tests show what each is needed for.
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

mod protocol;
mod search;

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
    sends: u8,
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

const ONE_HOLDER: &str = "a live lease has one holder";
const OWN_DELIVERY: &str = "no consumer changes another's delivery";
const GONE_FOR_GOOD: &str = "what was acknowledged is not delivered again";

fn protocol(claims: u8, sends: u8, crashes: u8) -> Protocol {
    Protocol {
        without: None,
        claims,
        sends,
        crashes,
    }
}

/// Finds a way to break a promise if a rule is left out.
fn without(rule: Rule, promise: &'static str) {
    let crashes = match rule {
        Rule::TokenOfItsOwn | Rule::AcknowledgeOnDisk | Rule::ExtendOnDisk => 1,
        _ => 0,
    };
    let sends = match rule {
        Rule::NothingFoundIsLost => 2,
        _ => 1,
    };
    let model = Protocol {
        without: Some(rule),
        ..protocol(3 - crashes, sends, crashes)
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
