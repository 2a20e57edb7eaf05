//! A queue beside a model of it: whatever is done, and in whatever order, both must tell the same.
//!
//! The model knows neither SQL nor clocks. Its time is the number of the step, and what lies in the future
//! stays there until a step lets it come.

use std::{collections::BTreeMap, env, iter, sync::Mutex, time::Duration};

use chrono::TimeDelta;
use pgqrs::{Consumer, Delivery, Error, MessageId, Priority, QueueOptions, Store, Unsettled};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::Value;
use sqlx::PgPool;

use crate::support::{TestResult, expire, with_queues};

const MAX_ATTEMPTS: u32 = 2;
/// A wait, or a lease, that doesn't end by itself while the test runs.
const LONG: Duration = Duration::from_secs(3_600);

#[derive(Debug, Clone)]
enum Step {
    Send {
        priority: Priority,
        messages: usize,
        delayed: bool,
    },
    Claim {
        limit: u32,
        /// Through the consumer, or by nobody in particular.
        worker: bool,
    },
    /// With one of the deliveries at hand, whether or not its lease still runs.
    Settle(Index, Settlement),
    Extend(Index),
    /// Whoever had the delivery is gone.
    Crash(Index),
    /// A message's lease, or its wait, comes to its end.
    TimePasses(Index),
    Release,
    Cancel(Index),
    Reschedule(Index, Wait),
    Requeue(Index),
    RequeueAll,
}

#[derive(Debug, Clone, Copy)]
enum Settlement {
    Ack,
    Archive,
    Nack,
    RetryIn(Wait),
    DeadLetter,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Wait {
    None,
    Long,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let priority = prop::sample::select(vec![
        Priority::Urgent,
        Priority::High,
        Priority::Normal,
        Priority::Low,
    ]);
    let wait = || prop::sample::select(vec![Wait::None, Wait::Long]);
    let settlement = prop_oneof![
        2 => Just(Settlement::Ack),
        1 => Just(Settlement::Archive),
        3 => Just(Settlement::Nack),
        3 => wait().prop_map(Settlement::RetryIn),
        4 => Just(Settlement::DeadLetter),
    ];
    let which = any::<Index>;
    let step = prop_oneof![
        6 => (priority, 1..4_usize, prop::bool::weighted(0.2)).prop_map(
            |(priority, messages, delayed)| Step::Send { priority, messages, delayed }
        ),
        8 => (1..5_u32, any::<bool>()).prop_map(|(limit, worker)| Step::Claim { limit, worker }),
        10 => (which(), settlement).prop_map(|(which, settlement)| Step::Settle(which, settlement)),
        4 => which().prop_map(Step::Extend),
        1 => which().prop_map(Step::Crash),
        8 => which().prop_map(Step::TimePasses),
        2 => Just(Step::Release),
        1 => which().prop_map(Step::Cancel),
        1 => (which(), wait()).prop_map(|(which, wait)| Step::Reschedule(which, wait)),
        3 => which().prop_map(Step::Requeue),
        2 => Just(Step::RequeueAll),
    ];
    let first = Step::Send {
        priority: Priority::Normal,
        messages: 4,
        delayed: false,
    };
    vec(step, 20..40).prop_map(move |rest| iter::once(first.clone()).chain(rest).collect())
}

/// When a message can be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Visible {
    /// Since this step.
    Since(usize),
    Later,
}

#[derive(Debug, Clone)]
struct Entry {
    priority: Priority,
    payload: usize,
    attempt: u32,
    visible: Visible,
    /// The step of the claim under which it was delivered.
    lease: Option<usize>,
    /// Whether that was through the consumer.
    worker: bool,
}

impl Entry {
    fn is_held(&self) -> bool {
        self.lease.is_some() && self.visible == Visible::Later
    }

    fn put_back(&mut self, visible: Visible) {
        (self.visible, self.lease, self.worker) = (visible, None, false);
    }
}

/// The queue as it ought to be.
#[derive(Debug, Default)]
struct Model {
    messages: BTreeMap<MessageId, Entry>,
    dead: BTreeMap<MessageId, (Entry, &'static str)>,
    archive: BTreeMap<MessageId, u32>,
    sent: usize,
    /// What has happened, and how often.
    happened: BTreeMap<&'static str, usize>,
}

impl Model {
    /// What a claim gives: the message, its attempt and its payload, in order.
    fn claim(&mut self, step: usize, limit: u32, worker: bool) -> Vec<(MessageId, u32, usize)> {
        let mut ready: Vec<_> = self
            .messages
            .iter()
            .filter(|(_, entry)| entry.visible != Visible::Later)
            .map(|(id, entry)| (entry.priority, entry.visible, *id))
            .collect();
        ready.sort_unstable();
        let mut claimed = Vec::new();
        for (taken, (_, _, id)) in ready.into_iter().enumerate() {
            // What it buries counts for its limit; but it goes on where it would have nothing to give.
            if taken % limit as usize == 0 && !claimed.is_empty() {
                break;
            }
            let Some(entry) = self.messages.get_mut(&id) else {
                continue;
            };
            // Its consumers crashed without a word: a claim buries it.
            if entry.attempt >= MAX_ATTEMPTS {
                self.bury(id, "attempts used up");
                self.happened("buried by a claim", 1);
                continue;
            }
            entry.attempt += 1;
            (entry.visible, entry.lease, entry.worker) = (Visible::Later, Some(step), worker);
            claimed.push((id, entry.attempt, entry.payload));
        }
        let again = claimed.iter().filter(|(_, attempt, _)| *attempt > 1);
        self.happened("delivered again", again.count());
        self.happened("several delivered at once", usize::from(claimed.len() > 1));
        claimed
    }

    fn happened(&mut self, what: &'static str, times: usize) {
        *self.happened.entry(what).or_default() += times;
    }

    /// Whether the delivery of that claim still holds its message.
    fn holds(&self, id: MessageId, claim: usize) -> bool {
        self.messages
            .get(&id)
            .is_some_and(|entry| entry.lease == Some(claim))
    }

    fn settle(&mut self, step: usize, id: MessageId, settlement: Settlement) {
        let Some(entry) = self.messages.get_mut(&id) else {
            return;
        };
        let used_up = entry.attempt >= MAX_ATTEMPTS;
        match settlement {
            Settlement::Ack => drop(self.messages.remove(&id)),
            Settlement::Archive => {
                self.archive.insert(id, entry.attempt);
                self.messages.remove(&id);
            }
            Settlement::DeadLetter => self.bury(id, "a reason"),
            Settlement::Nack | Settlement::RetryIn(_) if used_up => {
                self.bury(id, "attempts used up");
                self.happened("buried after a failure", 1);
            }
            Settlement::RetryIn(Wait::None) => entry.put_back(Visible::Since(step)),
            Settlement::Nack | Settlement::RetryIn(Wait::Long) => entry.put_back(Visible::Later),
        }
    }

    fn bury(&mut self, id: MessageId, reason: &'static str) {
        if let Some(entry) = self.messages.remove(&id) {
            self.dead.insert(id, (entry, reason));
        }
    }

    fn release(&mut self, step: usize) -> u64 {
        let held = self.messages.values_mut();
        let held = held.filter(|entry| entry.worker && entry.is_held());
        held.map(|entry| entry.put_back(Visible::Since(step)))
            .count() as u64
    }

    fn is_free(&self, id: MessageId) -> bool {
        self.messages.get(&id).is_some_and(|entry| !entry.is_held())
    }

    fn requeue(&mut self, step: usize, id: MessageId) -> bool {
        let Some((mut entry, _)) = self.dead.remove(&id) else {
            return false;
        };
        entry.attempt = 0;
        entry.put_back(Visible::Since(step));
        self.messages.insert(id, entry);
        true
    }

    /// Any message that there ever was and that is not done for good.
    fn known(&self) -> Vec<MessageId> {
        let known = self
            .messages
            .keys()
            .chain(self.dead.keys())
            .chain(self.archive.keys());
        known.copied().collect()
    }

    /// As [`Queue::tables`] tells it.
    fn tables(&self) -> Vec<Row> {
        let messages = self.messages.iter().map(|(id, entry)| {
            let state = match (entry.visible, entry.lease) {
                (Visible::Since(_), _) => "ready",
                (Visible::Later, Some(_)) => "leased",
                (Visible::Later, None) => "delayed",
            };
            (
                id.get(),
                state.to_owned(),
                entry.attempt as i32,
                entry.payload.to_string(),
            )
        });
        let dead = self.dead.iter().map(|(id, (entry, reason))| {
            let state = format!("dead: {reason}");
            (
                id.get(),
                state,
                entry.attempt as i32,
                entry.payload.to_string(),
            )
        });
        let archive = self.archive.iter().map(|(id, attempt)| {
            (
                id.get(),
                "archived".to_owned(),
                *attempt as i32,
                String::new(),
            )
        });
        let mut rows: Vec<_> = messages.chain(dead).chain(archive).collect();
        rows.sort_unstable();
        rows
    }
}

/// Key, where it is, attempt, payload.
type Row = (i64, String, i32, String);

/// The queue as it is, and the deliveries at hand with the steps of their claims.
struct Queue<'a> {
    pool: &'a PgPool,
    store: &'a Store,
    consumer: &'a Consumer,
    at_hand: Vec<(usize, Delivery<Value>)>,
}

type Checked<T = ()> = Result<T, TestCaseError>;

fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

impl Queue<'_> {
    async fn tables(&self) -> sqlx::Result<Vec<Row>> {
        sqlx::query_as(
            "select id,
                 case when visible_at <= clock_timestamp() then 'ready'
                     when lease_token is not null then 'leased' else 'delayed' end as state,
                 attempt, payload::text
             from pgqrs.messages
             union all select id, 'dead: ' || reason, attempt, payload::text from pgqrs.dead_letters
             union all select id, 'archived', attempt, '' from pgqrs.archive
             order by id",
        )
        .fetch_all(self.pool)
        .await
    }

    fn take(&mut self, which: Index) -> Option<(usize, Delivery<Value>)> {
        match self.at_hand.len() {
            0 => None,
            deliveries => Some(self.at_hand.swap_remove(which.index(deliveries))),
        }
    }

    async fn settle(
        &self,
        delivery: Delivery<Value>,
        settlement: Settlement,
    ) -> Result<(), Unsettled<Value>> {
        let id = delivery.id();
        match settlement {
            Settlement::Ack => delivery.ack(self.store).await,
            Settlement::Archive => delivery.archive(self.store).await,
            Settlement::RetryIn(Wait::None) => delivery.retry_in(Duration::ZERO, self.store).await,
            Settlement::RetryIn(Wait::Long) => delivery.retry_in(LONG, self.store).await,
            Settlement::DeadLetter => delivery.dead_letter("a reason", self.store).await,
            Settlement::Nack => {
                delivery.nack(self.store).await?;
                // The policy's first wait could end within the test, on a slow machine.
                sqlx::query("update pgqrs.messages set visible_at = visible_at + interval '1 hour' where id = $1")
                    .bind(id.get())
                    .execute(self.pool)
                    .await
                    .expect("the database is there");
                Ok(())
            }
        }
    }

    /// Does the same here and in the model, and compares what both give.
    async fn step(&mut self, model: &mut Model, number: usize, step: Step) -> Checked {
        let admin = pgqrs::admin(self.store);
        let some = |which: Index| {
            let known = model.known();
            (!known.is_empty()).then(|| *which.get(&known))
        };
        match step {
            Step::Send {
                priority,
                messages,
                delayed,
            } => {
                let payloads: Vec<_> = (model.sent..model.sent + messages).collect();
                let enqueue = pgqrs::enqueue()
                    .messages(&payloads)
                    .to("tasks")
                    .priority(priority);
                let ids = match delayed {
                    true => enqueue.delay(LONG).execute(self.store).await,
                    false => enqueue.execute(self.store).await,
                };
                let visible = match delayed {
                    true => Visible::Later,
                    false => Visible::Since(number),
                };
                for (id, payload) in ids.map_err(failed)?.into_iter().zip(payloads) {
                    let (attempt, lease, worker) = (0, None, false);
                    let entry = Entry {
                        priority,
                        payload,
                        attempt,
                        visible,
                        lease,
                        worker,
                    };
                    model.messages.insert(id, entry);
                }
                model.sent += messages;
            }
            Step::Claim { limit, worker } => {
                let dequeue = match worker {
                    true => pgqrs::dequeue().worker(self.consumer),
                    false => pgqrs::dequeue().from("tasks"),
                };
                let claim = dequeue.limit(limit).lease(LONG).execute(self.store);
                let claimed = claim.await.map_err(failed)?;
                let told = claimed.iter().map(|delivery| {
                    let payload = delivery.raw_payload().parse().unwrap_or(usize::MAX);
                    (delivery.id(), delivery.attempt(), payload)
                });
                prop_assert_eq!(told.collect::<Vec<_>>(), model.claim(number, limit, worker));
                self.at_hand
                    .extend(claimed.into_iter().map(|delivery| (number, delivery)));
            }
            Step::Settle(which, settlement) => {
                let Some((claim, delivery)) = self.take(which) else {
                    return Ok(());
                };
                let id = delivery.id();
                match self.settle(delivery, settlement).await {
                    Ok(()) => {
                        prop_assert!(model.holds(id, claim), "it was lost");
                        model.settle(number, id, settlement);
                        model.happened("settled", 1);
                    }
                    Err(unsettled) => {
                        let lost = matches!(unsettled.error(), Error::LeaseLost { .. });
                        prop_assert!(lost, "{:?}", unsettled);
                        prop_assert!(!model.holds(id, claim), "it was held");
                        model.happened("settled too late", 1);
                    }
                }
            }
            Step::Extend(which) => {
                let Some((claim, delivery)) = self.take(which) else {
                    return Ok(());
                };
                let extended = delivery.extend(LONG * 2).await.is_ok();
                prop_assert_eq!(extended, model.holds(delivery.id(), claim));
                model.happened(
                    if extended {
                        "extended"
                    } else {
                        "extended too late"
                    },
                    1,
                );
                if let Some(entry) = model.messages.get_mut(&delivery.id())
                    && extended
                {
                    entry.visible = Visible::Later;
                }
                self.at_hand.push((claim, delivery));
            }
            Step::Crash(which) => drop(self.take(which)),
            Step::TimePasses(which) => {
                let waiting = model.messages.iter_mut();
                let mut waiting: Vec<_> = waiting
                    .filter(|(_, entry)| entry.visible == Visible::Later)
                    .collect();
                if waiting.is_empty() {
                    return Ok(());
                }
                let (id, entry) = waiting.swap_remove(which.index(waiting.len()));
                expire(self.pool, *id).await.map_err(failed)?;
                entry.visible = Visible::Since(number);
            }
            Step::Release => {
                let released = admin.release(self.consumer.id()).await.map_err(failed)?;
                prop_assert_eq!(released, model.release(number));
                model.happened("released", usize::from(released > 0));
            }
            Step::Cancel(which) => {
                let Some(id) = some(which) else { return Ok(()) };
                let cancelled = admin.cancel("tasks", id).await.map_err(failed)?;
                prop_assert_eq!(cancelled, model.is_free(id));
                model.happened(
                    if cancelled {
                        "cancelled"
                    } else {
                        "neither moved nor cancelled"
                    },
                    1,
                );
                if cancelled {
                    model.messages.remove(&id);
                }
            }
            Step::Reschedule(which, wait) => {
                let Some(id) = some(which) else { return Ok(()) };
                let days = if wait == Wait::Long { 1 } else { -1 };
                let time = chrono::Utc::now() + TimeDelta::days(days);
                let moved = admin.reschedule("tasks", id, time).await.map_err(failed)?;
                prop_assert_eq!(moved, model.is_free(id));
                model.happened(
                    if moved {
                        "moved"
                    } else {
                        "neither moved nor cancelled"
                    },
                    1,
                );
                if let Some(entry) = model.messages.get_mut(&id)
                    && moved
                {
                    entry.put_back(match wait {
                        Wait::None => Visible::Since(number),
                        Wait::Long => Visible::Later,
                    });
                }
            }
            Step::Requeue(which) => {
                // Half of the time one that can be.
                let dead: Vec<_> = model.dead.keys().copied().collect();
                let Some(id) = (match which.index(2) {
                    0 if !dead.is_empty() => Some(*which.get(&dead)),
                    _ => some(which),
                }) else {
                    return Ok(());
                };
                let requeued = admin.requeue("tasks", id).await.map_err(failed)?;
                prop_assert_eq!(requeued, model.requeue(number, id));
                model.happened(if requeued { "requeued" } else { "not requeued" }, 1);
            }
            Step::RequeueAll => {
                let requeued = admin.requeue_all("tasks", Duration::ZERO);
                let ids: Vec<_> = model.dead.keys().copied().collect();
                prop_assert_eq!(requeued.await.map_err(failed)?, ids.len() as u64);
                for id in ids {
                    model.requeue(number, id);
                }
            }
        }
        prop_assert_eq!(self.tables().await.map_err(failed)?, model.tables());
        Ok(())
    }
}

/// Gives what has happened.
async fn check(
    pool: &PgPool,
    store: &Store,
    consumer: &Consumer,
    steps: Vec<Step>,
) -> Checked<BTreeMap<&'static str, usize>> {
    sqlx::query("truncate pgqrs.messages, pgqrs.dead_letters, pgqrs.archive")
        .execute(pool)
        .await
        .map_err(failed)?;
    let (mut model, at_hand) = (Model::default(), Vec::new());
    let mut queue = Queue {
        pool,
        store,
        consumer,
        at_hand,
    };
    for (number, step) in steps.into_iter().enumerate() {
        queue.step(&mut model, number, step).await?;
    }
    // All that is left, in order.
    let everything = Step::Claim {
        limit: 10_000,
        worker: false,
    };
    queue.step(&mut model, usize::MAX, everything).await?;
    Ok(model.happened)
}

/// `PROPTEST_CASES` says how many, 64 unless told. To see a failure again, set `PROPTEST_RNG_SEED` to what
/// the test has printed.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn whatever_is_done_the_queue_is_as_its_model(pool: PgPool) -> TestResult {
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    let options = QueueOptions::builder().max_attempts(MAX_ATTEMPTS).build();
    pgqrs::admin(&store)
        .configure_queue("tasks", options)
        .await?;
    let consumer = pgqrs::consumer("my-service", 3001, "tasks")
        .create(&store)
        .await?;
    let mut config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 64;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(rand::random());
    }
    println!("PROPTEST_RNG_SEED: {:?}", config.rng_seed);
    let cases = config.cases;
    // Proptest knows nothing of futures: it has a thread of its own, which waits for what runs here.
    let runtime = tokio::runtime::Handle::current();
    let run = tokio::task::spawn_blocking(move || {
        let happened = Mutex::new(BTreeMap::new());
        let outcome = TestRunner::new(config).run(&steps(), |steps| {
            let case = runtime.block_on(check(&pool, &store, &consumer, steps))?;
            let mut happened = happened.lock().expect("not poisoned");
            for (what, times) in case {
                *happened.entry(what).or_insert(0) += times;
            }
            Ok(())
        });
        outcome.map(|()| happened.into_inner().expect("not poisoned"))
    });
    let happened = run.await?.map_err(|failure| failure.to_string())?;
    println!("{happened:#?}");
    // Otherwise the steps would be of no use.
    assert!(cases < 64 || happened.values().all(|times| *times > 0));
    Ok(())
}
