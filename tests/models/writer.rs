//! How a send is stored exactly once although answers get lost: query the outcome, and fence the attempt.
//!
//! # What happens
//!
//! A writer of the store has batches to send. Each *attempt* to send a batch has an even number of its own, two more
//! than the last, and is one statement: it inserts the messages and advances its writer's row to its number, or does
//! neither. It does so only if the row exists and is behind that number. The row is created before the first attempt,
//! by a statement that has to be answered.
//!
//! If the answer to attempt `n` is lost, the attempt may have been executed, may be under way, or may arrive late. The
//! writer doesn't repeat it but *settles* it, with another statement: if the row is behind `n` it is advanced to
//! `n + 1`, and its number is the answer. If that is `n`, the messages are stored. If it is `n + 1`, they are not and never
//! will be, since the attempt finds its number taken whenever it arrives. An attempt under way holds the row's lock,
//! and is waited for. Settling may be repeated, get lost and arrive late, in any order: it changes nothing if the row
//! is at `n` or beyond.
//!
//! Only messages that are settled as not stored are sent again, by an attempt with the next number, with what is left
//! of the batch: some messages were refused meanwhile, some callers have gone. If time runs out before, the callers get
//! the error that the outcome is unknown.
//!
//! A large batch is a transaction of several statements with consecutive numbers, two here; the last one's number
//! decides for all.
//!
//! With keys, an attempt skips a message if another message has its key when it commits. It writes into its writer's row,
//! in the same transaction, which messages it skipped, and settling returns them: so a caller gets the same outcome whether
//! or not the first answer was lost. The other message comes and goes as it likes.
//!
//! The network may lose, delay and reorder requests, by up to [`LATE`] ticks. The server may reject an attempt, abort
//! it, take its time, and refuse a message today that it accepts tomorrow (a queue that is being created, a producer
//! that is being resumed). It crashes; it is replaced by another that lacks the end of its log. A pruner deletes the
//! rows of old tokens. The writer may time out at any moment; after [`GIVE_UP`] ticks its callers have their answer.
//!
//! The rules are [`Rule`], and the tests show what each is needed for.
//!
//! # Why not repeat the same statement
//!
//! It could be repeated with its number until one of the attempts is answered. But a retry that is refused proves
//! nothing about the attempts before it, so no refusal could be reported, nor the rest sent without the refused
//! messages, before all of them are over. Here the number itself shows which of the two happened.
//!
//! # What is not modelled
//!
//! - A network that delivers the same request twice: an attempt that was refused could arrive once more. TCP doesn't do
//!   that, nor does a pooler.
//! - How a row is created: at once here. If that isn't answered, the token is never used.
//! - How ids are drawn. Each attempt stores under ids of its own here.
//! - The primary key of the messages: a consumer may have taken a message at once, and then the key doesn't prevent a
//!   second one.
//! - Other writers: each has its own token, so they share nothing.
//! - What a fail-over loses after it was acknowledged. To keep that, the server has to wait for its standby.
//! - A transaction of the caller's own, which is sent once and never repeated.

mod broken;
mod protocol;
mod search;

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use crate::{breaks, holds};

/// A rule of the protocol, each of which can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// An attempt stores only if its writer's row is behind its number.
    Guard,
    /// An attempt doesn't create that row itself: one that is so late that its row is deleted stores nothing.
    RowFirst,
    /// It stores all of its messages, or none of them.
    AllOrNone,
    /// An attempt that stores nothing leaves the row as it was.
    RefusalAdvancesNothing,
    /// The statements of a large batch are one transaction.
    OneTransaction,
    /// An attempt is flushed to disk before it is answered.
    AttemptOnDisk,
    /// Each attempt has a number of its own.
    FreshNumber,
    /// The next attempt is sent once the outcome of the last one is known.
    SettleFirst,
    /// Settling waits for the row's lock, and so for an attempt under way.
    SettleWaits,
    /// Settling takes the number of an attempt that hasn't stored, instead of only reading the row,
    SettleForbids,
    /// with another number than the attempt would leave there.
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
    /// An attempt records which messages it skipped, since others have their keys.
    RecordSkipped,
    /// It does so in the transaction that stores the others, and not by looking again when it is settled.
    RecordWhenStored,
    /// The second statement of a large batch keeps what the first one has recorded.
    RecordOfBoth,
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
/// Messages with a key.
const KEYED: Messages = A;

#[derive(Debug, Clone)]
struct Protocol {
    without: Option<Rule>,
    batches: &'static [Messages],
    /// Whether a batch of two messages takes two statements.
    large: bool,
    /// Maximum number of attempts of a batch.
    attempts: u8,
    /// How often an attempt is settled, at most.
    settles: u8,
    crashes: u8,
    failovers: u8,
    /// How often a message comes, or goes, that has the key of [`KEYED`].
    holders: u8,
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
    /// Attempts that the server is executing, and has not committed. They hold their row's lock.
    running: BTreeSet<Running>,
    server: Database,
    /// The state after a crash.
    disk: Database,
    /// The state after a fail-over.
    standby: Database,
    crashes: u8,
    failovers: u8,
    holders: u8,
    /// Acknowledged, and lost with the old server: no promise holds for these.
    excused: Messages,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Writer {
    token: u8,
    /// When the token was first used.
    since: Option<u8>,
    /// The number of the last attempt.
    number: u8,
    /// Whether its row was created.
    has_row: bool,
    task: Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Task {
    Idle,
    /// Waits for the answer to its last attempt.
    Attempting(Group),
    /// Waits for the outcome of its last attempt, which it has queried this many times.
    Settling(Group, u8),
    /// Knows that none of the attempts has stored anything, or will.
    Free(Group),
}

/// What is left of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Group {
    messages: Messages,
    began: u8,
    attempts: u8,
    /// The number with which the last attempt is settled.
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
    /// Another message had its key.
    Duplicate {
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
    Attempt { place: u8, messages: Messages },
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
    /// All but these, which are duplicates.
    Stored(Messages),
    /// Nothing was stored, because of these messages. A number that is already taken looks the same, but that doesn't
    /// happen to an attempt with its own number.
    Refused(Messages),
    /// Nothing was stored, for a transient reason.
    Failed,
    /// The number of the row, after settling, and the messages that were skipped.
    Number(u8, Messages),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Database {
    /// `pgqrs.writers`, by token.
    writers: BTreeMap<u8, Row>,
    /// Each message, with the token and the number that stored it. Consumers may have taken it since.
    stored: BTreeSet<(usize, u8, u8)>,
    /// Each message that wasn't stored since another had its key, likewise: what should be returned.
    skipped: BTreeSet<(usize, u8, u8)>,
    /// Whether there is another message with the key of [`KEYED`].
    is_held: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    number: u8,
    since: u8,
    skipped: Messages,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The writer makes the first attempt of the next batch.
    Begin,
    /// It stops waiting for an answer, and queries the outcome of its attempt; perhaps once more.
    Settle,
    /// It sends another attempt.
    Again,
    /// It answers a caller whose deadline has passed while others of the batch have time left.
    AnswerHasty,
    /// It ends a send of which certainly nothing is stored, instead of retrying.
    ReturnNotStored,
    GiveUp,
    /// The server executes a request: of an attempt only the statement; the commit is a separate step.
    Execute(Request),
    /// It settles an attempt, and the answer is lost.
    ExecuteAnswerLost(Request),
    /// It executes the second statement of a large batch.
    Continue(Running),
    Commit(Running),
    /// It stores nothing, since a message can't be stored now.
    Refuse(Request),
    /// It aborts an attempt: a time-out, an administrator. To its writer this looks like a rejection.
    BreakOff(Running),
    Crash,
    /// Commits are flushed to disk; a separate step only if they don't wait for it.
    Flush,
    Replicate,
    FailOver,
    /// A message with the key of [`KEYED`] is stored by another, or is handled.
    Hold,
    Prune(u8),
    Tick,
}

fn each(messages: Messages) -> impl Iterator<Item = usize> {
    (0..MESSAGES).filter(move |message| messages & 1 << message != 0)
}

const NONE_TWICE: &str = "no message is stored twice";
const NONE_LOST: &str = "what is acknowledged is stored, under its id";
const DUPLICATES: &str = "what is said to be a duplicate is one";
const NOT_STORED: &str = "what is said not to be stored is not stored";
const REASONS_ARE_TRUE: &str = "only what the server doesn't take is refused";
const ALL_END: &str = "each send ends in time";
const NONE_QUEUES: &str = "no attempt waits for another";

/// One batch, retried repeatedly.
const ONE_SEND: Protocol = Protocol {
    without: None,
    batches: &[A | B],
    large: false,
    attempts: 2,
    settles: 2,
    crashes: 0,
    failovers: 0,
    holders: 0,
};

/// One batch with a key, which another message has now and then.
const KEYED_SEND: Protocol = Protocol {
    holders: 2,
    ..ONE_SEND
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
        Rule::AttemptOnDisk | Rule::SettleOnDisk => Protocol {
            without,
            crashes: 1,
            ..ONE_SEND
        },
        Rule::EndWithTheServer => Protocol {
            without,
            failovers: 1,
            ..ONE_SEND
        },
        Rule::RecordSkipped | Rule::RecordWhenStored => Protocol {
            without,
            ..KEYED_SEND
        },
        Rule::RecordOfBoth => Protocol {
            without,
            large: true,
            ..KEYED_SEND
        },
        Rule::FreshNumber | Rule::NewTokenAfterwards | Rule::RetireBeforeUse => Protocol {
            without,
            ..TWO_SENDS
        },
        // The first attempt of the second send fails, the second is late, and the third stores.
        Rule::PruneLate | Rule::RowFirst => Protocol {
            without,
            attempts: 3,
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
        attempts: 3,
        ..ONE_SEND
    };
    holds("writer", model);
}

#[test]
fn one_send_after_another_is_stored_exactly_once() {
    let model = Protocol {
        attempts: 3,
        ..TWO_SENDS
    };
    holds("writer, two sends", model);
}

#[test]
fn a_send_with_a_key_is_stored_once_or_known_to_be_a_duplicate() {
    holds("writer, key", KEYED_SEND);
}

#[test]
fn a_large_batch_with_a_key_is_stored_once_or_known_to_be_a_duplicate() {
    let model = Protocol {
        large: true,
        ..KEYED_SEND
    };
    holds("writer, key, large batch", model);
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
