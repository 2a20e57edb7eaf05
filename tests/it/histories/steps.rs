//! The steps of a history: calls, and disruptions of them. Drawn at random.

use pgqrs::{Outcome, Priority, WorkerKind};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use super::{QUEUES, STORES};
use crate::{
    model::{Asks, KeyKind, LONG, Place, Settlement, Transition, Wait},
    support::proxy::Fault,
};

#[derive(Debug, Clone)]
pub(super) struct Step {
    /// Whose call it is.
    pub(super) store: usize,
    pub(super) call: Call,
    pub(super) disruption: Option<Disruption>,
}

#[derive(Debug, Clone)]
pub(super) enum Call {
    Send {
        way: Way,
        priority: Priority,
        messages: usize,
        delayed: bool,
        on: On,
    },
    /// Messages with keys and limits of their own.
    SendEach {
        queue: &'static str,
        priority: Priority,
        messages: Vec<Asks>,
        delayed: bool,
        on: On,
    },
    /// The time is over for which a key is taken.
    WindowPasses(Index),
    /// A message isn't of use any longer.
    Expires(Index),
    Import {
        queue: &'static str,
        messages: usize,
    },
    Claim {
        way: Way,
        limit: u32,
    },
    /// With one of the deliveries at hand, whether or not its lease still runs.
    Settle(Index, Settlement, On),
    AckAll(usize),
    /// Acknowledges, and sends on, in one transaction.
    Work {
        which: Index,
        queue: &'static str,
        commits: bool,
    },
    Extend(Index),
    /// The holder of the delivery is gone.
    Forget(Index),
    /// A message's lease, or its wait, comes to its end.
    TimePasses(Index),
    /// A consumer's loop, until there is nothing ready any more.
    Run(&'static str),
    /// The same, for one message, whose handler may ask for a pause.
    RunOne(&'static str),
    /// Sets a queue's rate, or removes it.
    Rate(&'static str, bool),
    RateGroups(&'static str, bool),
    RateGroup(&'static str, usize, bool),
    /// A rate lets another attempt start.
    TokenComes(Index),
    SlowDownEnds(Index),
    Cancel(Index, bool),
    Pause(&'static str, bool),
    Close(&'static str, bool),
    Reschedule(Index, Wait),
    Requeue(Index),
    RequeueAll(&'static str),
    Purge(&'static str, Place),
    /// One call on several messages of a queue.
    OnMany {
        queue: &'static str,
        which: Vec<Index>,
        act: ManyAct,
    },
    CreateQueue(&'static str),
    EnsureQueue(&'static str),
    DeleteQueue(&'static str),
    Configure(&'static str, u32),
    List(&'static str),
    LookAround,
    Register(WorkerKind, &'static str, u16),
    Change(Index, Transition, By),
    Beat(Index),
    RemoveWorker(Index),
    RemoveEndedWorkers,
    Release(Index),
}

/// By a queue's name, or through one of the workers at hand.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Queue(&'static str),
    Worker(Index),
}

/// What a call runs on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum On {
    Store,
    Pool,
    Connection,
    Commit,
    Rollback,
}

/// What is done to several messages at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum ManyAct {
    Cancel,
    Reschedule(Wait),
    Requeue,
    DeleteDead,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum By {
    Handle,
    Admin,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Disruption {
    /// The connection that the call uses breaks, after this number of bytes.
    Strike(Fault, usize),
    /// All sessions are ended, before the call or beside it.
    Terminate { beside: bool },
    /// The server restarts, before the call or beside it.
    Restart { mode: &'static str, beside: bool },
}

fn calls() -> impl Strategy<Value = Call> {
    let queue = || prop_oneof![6 => Just(QUEUES[0]), 3 => Just(QUEUES[1]), 2 => Just(QUEUES[2])];
    let which = any::<Index>;
    let way =
        move || prop_oneof![2 => queue().prop_map(Way::Queue), 1 => which().prop_map(Way::Worker)];
    let priority = || {
        select(vec![
            Priority::Urgent,
            Priority::High,
            Priority::Normal,
            Priority::Low,
        ])
    };
    let wait = || select(vec![Wait::None, Wait::Long]);
    let on = || {
        prop_oneof![
            5 => Just(On::Store),
            1 => Just(On::Pool),
            1 => Just(On::Connection),
            1 => Just(On::Commit),
            1 => Just(On::Rollback),
        ]
    };
    let settlement = prop_oneof![
        2 => Just(Settlement::Ack),
        1 => Just(Settlement::Archive),
        3 => Just(Settlement::Nack),
        3 => wait().prop_map(Settlement::RetryIn),
        3 => wait().prop_map(Settlement::Later),
        5 => wait().prop_map(Settlement::SlowDown),
        4 => Just(Settlement::DeadLetter),
    ];
    let place = select(vec![Place::Queue, Place::DeadLetters, Place::Archive]);
    let kind = select(vec![WorkerKind::Producer, WorkerKind::Consumer]);
    let transition = select(vec![
        Transition::Suspend,
        Transition::Resume,
        Transition::Resume,
        Transition::Shutdown,
    ]);
    let by = select(vec![By::Handle, By::Admin]);
    // One statement carries a thousand.
    let imported = prop_oneof![40 => 1..6_usize, 1 => Just(1_003)];
    let send = (
        way(),
        priority(),
        1..4_usize,
        prop::bool::weighted(0.2),
        on(),
    );
    let send_each = (
        queue(),
        priority(),
        vec(asks(), 1..4),
        prop::bool::weighted(0.3),
        on(),
    );
    // Of one queue, so that they meet, and its rates.
    let send_grouped = (priority(), vec(0..2_usize, 1..4), on());
    prop_oneof![
        8 => send_grouped.prop_map(|(priority, groups, on)| {
            let messages = groups.into_iter().map(Asks::of_group).collect();
            Call::SendEach { queue: QUEUES[0], priority, messages, delayed: false, on }
        }),
        12 => send_each.prop_map(|(queue, priority, messages, delayed, on)| {
            Call::SendEach { queue, priority, messages, delayed, on }
        }),
        1 => which().prop_map(Call::WindowPasses),
        4 => which().prop_map(Call::Expires),
        12 => send.prop_map(|(way, priority, messages, delayed, on)| {
            Call::Send { way, priority, messages, delayed, on }
        }),
        2 => (queue(), imported).prop_map(|(queue, messages)| Call::Import { queue, messages }),
        16 => (way(), 1..5_u32).prop_map(|(way, limit)| Call::Claim { way, limit }),
        18 => (which(), settlement, on()).prop_map(|(which, how, on)| Call::Settle(which, how, on)),
        2 => (1..5_usize).prop_map(Call::AckAll),
        3 => (which(), queue(), prop::bool::weighted(0.7))
            .prop_map(|(which, queue, commits)| Call::Work { which, queue, commits }),
        4 => which().prop_map(Call::Extend),
        1 => which().prop_map(Call::Forget),
        14 => which().prop_map(Call::TimePasses),
        2 => queue().prop_map(Call::Run),
        3 => queue().prop_map(Call::RunOne),
        10 => about_rates(queue()),
        4 => (which(), any::<bool>()).prop_map(|(which, archive)| Call::Cancel(which, archive)),
        2 => (queue(), prop::bool::weighted(0.3)).prop_map(|(queue, pauses)| Call::Pause(queue, pauses)),
        2 => (queue(), prop::bool::weighted(0.3)).prop_map(|(queue, closes)| Call::Close(queue, closes)),
        2 => (which(), wait()).prop_map(|(which, wait)| Call::Reschedule(which, wait)),
        4 => which().prop_map(Call::Requeue),
        2 => queue().prop_map(Call::RequeueAll),
        1 => (queue(), place).prop_map(|(queue, place)| Call::Purge(queue, place)),
        4 => on_many(queue()),
        1 => queue().prop_map(Call::CreateQueue),
        2 => queue().prop_map(Call::EnsureQueue),
        2 => queue().prop_map(Call::DeleteQueue),
        2 => (queue(), 1..4_u32).prop_map(|(queue, attempts)| Call::Configure(queue, attempts)),
        2 => queue().prop_map(Call::List),
        1 => Just(Call::LookAround),
        5 => (kind, queue(), 0..3_u16).prop_map(|(kind, queue, port)| Call::Register(kind, queue, port)),
        4 => (which(), transition, by).prop_map(|(which, step, by)| Call::Change(which, step, by)),
        1 => which().prop_map(Call::Beat),
        1 => which().prop_map(Call::RemoveWorker),
        1 => Just(Call::RemoveEndedWorkers),
        3 => which().prop_map(Call::Release),
    ]
}

fn about_rates(queue: impl Strategy<Value = &'static str> + Clone) -> impl Strategy<Value = Call> {
    let (is_set, which) = (|| prop::bool::weighted(0.4), any::<Index>);
    prop_oneof![
        2 => (queue.clone(), is_set()).prop_map(|(queue, is_set)| Call::Rate(queue, is_set)),
        2 => (queue.clone(), is_set()).prop_map(|(queue, is_set)| Call::RateGroups(queue, is_set)),
        3 => (queue, 0..2_usize, is_set()).prop_map(|(queue, group, is_set)| Call::RateGroup(queue, group, is_set)),
        6 => which().prop_map(Call::TokenComes),
        6 => which().prop_map(Call::SlowDownEnds),
    ]
}

fn on_many(queue: impl Strategy<Value = &'static str>) -> impl Strategy<Value = Call> {
    let act = select(vec![
        ManyAct::Cancel,
        ManyAct::Reschedule(Wait::None),
        ManyAct::Reschedule(Wait::Long),
        ManyAct::Requeue,
        ManyAct::Requeue,
        ManyAct::DeleteDead,
        ManyAct::DeleteDead,
    ]);
    (queue, vec(any::<Index>(), 1..10), act).prop_map(|(queue, which, act)| Call::OnMany {
        queue,
        which,
        act,
    })
}

/// Few keys, so that they meet.
fn asks() -> impl Strategy<Value = Asks> {
    let kind = select(vec![
        KeyKind::Unique,
        KeyKind::Unique,
        KeyKind::Waiting,
        KeyKind::Replaces,
        KeyKind::Postpones,
        KeyKind::Appends,
        KeyKind::Within,
    ]);
    let key = prop::option::weighted(0.6, (kind, 0..2_usize));
    let group = prop::option::weighted(0.7, 0..2_usize);
    let max_attempts = prop::option::weighted(0.3, 1..4_u32);
    let expires = prop::option::weighted(0.3, any::<bool>());
    (key, group, max_attempts, expires).prop_map(|(key, group, max_attempts, expires)| Asks {
        key,
        // One or the other.
        group: group.filter(|_| key.is_none()),
        max_attempts,
        expires,
    })
}

fn disruptions() -> impl Strategy<Value = Disruption> {
    let fault = select(vec![
        Fault::CutRequest,
        Fault::CutAnswer,
        Fault::SwallowAnswer,
        Fault::SwallowAnswer,
        Fault::Delay,
    ]);
    let mode = select(vec!["fast", "immediate", "immediate"]);
    prop_oneof![
        // Few bytes meet the answer to a statement that the connection knows, more of them a new one's.
        40 => (fault, prop_oneof![0..8_usize, 0..64_usize, 0..600_usize]).prop_map(|(fault, bytes)| Disruption::Strike(fault, bytes)),
        8 => any::<bool>().prop_map(|beside| Disruption::Terminate { beside }),
        2 => (mode, any::<bool>()).prop_map(|(mode, beside)| Disruption::Restart { mode, beside }),
    ]
}

pub(super) fn histories() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..STORES,
        calls(),
        prop::option::weighted(0.25, disruptions()),
    );
    let step = step.prop_map(|(store, call, disruption)| Step {
        store,
        call,
        disruption,
    });
    let first = |call| Step {
        store: 0,
        call,
        disruption: None,
    };
    let beginning = [
        Call::CreateQueue(QUEUES[0]),
        Call::Configure(QUEUES[0], 2),
        Call::CreateQueue(QUEUES[1]),
        Call::Register(WorkerKind::Producer, QUEUES[0], 1),
        Call::Register(WorkerKind::Consumer, QUEUES[0], 1),
        Call::Import {
            queue: QUEUES[0],
            messages: 4,
        },
    ]
    .map(first);
    // From the beginning, for some of them: else few messages are sent while there is a rate.
    let rates = (prop::bool::weighted(0.2), prop::bool::weighted(0.4));
    (rates, vec(step, 30..60)).prop_map(move |(rates, rest)| {
        let calls = [
            Call::Rate(QUEUES[0], true),
            Call::RateGroups(QUEUES[0], true),
        ];
        let rates = calls.into_iter().zip([rates.0, rates.1]);
        let rates = rates.filter_map(|(call, is_set)| is_set.then(|| first(call)));
        let beginning = beginning.iter().cloned().chain(rates);
        beginning.chain(rest).collect()
    })
}

/// What the loop's handler says of a payload.
pub(super) fn verdict(payload: usize) -> Settlement {
    match payload % 5 {
        0 => Settlement::Archive,
        1 => Settlement::RetryIn(Wait::Long),
        2 => Settlement::DeadLetter,
        3 => Settlement::Later(Wait::Long),
        _ => Settlement::Ack,
    }
}

/// The same, of a loop for one message: more of them ask for a pause.
pub(super) fn slowing_verdict(payload: usize) -> Settlement {
    match payload % 3 {
        0 => Settlement::SlowDown(Wait::Long),
        _ => verdict(payload),
    }
}

pub(super) fn outcome(payload: usize) -> Outcome {
    as_outcome(verdict(payload))
}

pub(super) fn slowing_outcome(payload: usize) -> Outcome {
    as_outcome(slowing_verdict(payload))
}

fn as_outcome(verdict: Settlement) -> Outcome {
    match verdict {
        Settlement::Ack => Outcome::Done,
        Settlement::Archive => Outcome::Archive,
        Settlement::RetryIn(_) | Settlement::Nack => Outcome::RetryIn(LONG, "again".to_owned()),
        Settlement::Later(_) => Outcome::Later(LONG),
        Settlement::SlowDown(_) => Outcome::SlowDown(LONG),
        Settlement::DeadLetter => Outcome::DeadLetter("a reason".to_owned()),
    }
}
