//! The calls of a history: each as it is made, beside what it does in the model.

mod administration;
mod keys;
mod many;
mod rates;
mod running;
mod statements;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use pgqrs::{
    Delivery, Enqueued, Error, Executor, Headers, MessageId, Page, Priority, Producer,
    QueueOptions, SchemaVersion, Store, Unchecked, Unsettled, Worker, WorkerFilter, WorkerId,
    WorkerKind, WorkerStatus, try_ack_all,
};
use proptest::{prelude::*, sample::Index};
use serde_json::Value;
use sqlx::{Postgres, Transaction};

use self::statements::{Sending, end, settle};
use super::{
    Base, CALL, Checked, Held, History, QUEUES, failed,
    steps::{By, Call, ManyAct, On, Way, outcome, slowing_outcome, slowing_verdict, verdict},
};
use crate::{
    model::{Bucket, Envelope, LONG, Place, Settlement, Transition, Wait, World},
    support::{expire, until_within},
};

/// The header that some sends have: a number.
const HEADER: &str = "n";

/// Of a send of these: every other one has a header.
fn header(payloads: &[usize]) -> Option<usize> {
    payloads.first().copied().filter(|first| first % 2 == 1)
}

impl History {
    /// The ids of those that are stored; in order.
    async fn stored(&mut self, payloads: &[usize]) -> Checked<Vec<MessageId>> {
        self.calm().await?;
        let payloads: Vec<_> = payloads.iter().map(usize::to_string).collect();
        let ids: Vec<i64> = sqlx::query_scalar(
            "select id from pgqrs.messages where payload::text = any ($1) order by payload::text::int",
        )
        .bind(payloads)
        .fetch_all(&self.direct)
        .await
        .map_err(failed)?;
        Ok(ids.into_iter().map(MessageId::from).collect())
    }

    /// A send of these, with what it returned.
    async fn compare_send(
        &mut self,
        envelope: Envelope,
        payloads: Vec<usize>,
        returned: Result<Vec<MessageId>, Error>,
        on: On,
    ) -> Checked {
        let time = self.time;
        let stored = self.stored(&payloads).await?;
        prop_assert!(
            stored.is_empty() || stored.len() == payloads.len(),
            "a part of it is stored: {:?}",
            stored
        );
        let with_ids = |ids: &[MessageId]| -> Vec<_> {
            ids.iter().copied().zip(payloads.iter().copied()).collect()
        };
        match (&returned, on) {
            (Err(Error::NotStored { .. }), _) => prop_assert!(stored.is_empty()),
            (Err(Error::OutcomeUnknown { ids, .. }), _) if !stored.is_empty() => {
                prop_assert_eq!(ids, &stored);
            }
            (Ok(ids), On::Rollback) => {
                prop_assert!(stored.is_empty());
                let (mut elsewhere, ids) = (self.world.clone(), ids.clone());
                let expected = elsewhere.send(time, &envelope, &with_ids(&ids));
                return self.compare(returned, |_| expected.clone()).await;
            }
            // It has all the time that it takes, whatever breaks.
            (Err(error), On::Store) => prop_assert!(!error.is_retryable(), "{:?}", error),
            _ => {}
        }
        let messages = with_ids(&stored);
        self.compare(returned, |world| world.send(time, &envelope, &messages))
            .await
    }

    fn new_payloads(&mut self, messages: usize) -> Vec<usize> {
        self.sent += messages;
        (self.sent - messages..self.sent).collect()
    }

    fn take(&mut self, which: Index) -> Option<Held> {
        match self.at_hand.len() {
            0 => None,
            deliveries => Some(self.at_hand.swap_remove(which.index(deliveries))),
        }
    }

    /// One of a group, if there is one.
    fn take_of_group(&mut self, which: Index) -> Option<Held> {
        let deliveries = self.at_hand.iter().enumerate();
        let of_groups = deliveries.filter(|(_, (_, _, delivery))| delivery.group().is_some());
        let places: Vec<_> = of_groups.map(|(place, _)| place).collect();
        if places.is_empty() {
            return self.take(which);
        }
        Some(self.at_hand.swap_remove(*which.get(&places)))
    }

    pub(super) async fn call(&mut self, store: &Store, call: Call) -> Checked {
        match call {
            Call::Send { .. } | Call::Import { .. } => self.call_sending(store, call).await,
            Call::OnMany { queue, which, act } => self.call_on_many(store, queue, which, act).await,
            Call::SendEach { .. } | Call::WindowPasses(_) | Call::Expires(_) => {
                self.call_about_keys(store, call).await
            }
            Call::Claim { .. }
            | Call::Settle(..)
            | Call::AckAll(_)
            | Call::Work { .. }
            | Call::Extend(_)
            | Call::Forget(_)
            | Call::TimePasses(_)
            | Call::Run(_)
            | Call::RunOne(_) => self.call_receiving(store, call).await,
            Call::Rate(..)
            | Call::RateGroups(..)
            | Call::RateGroup(..)
            | Call::TokenComes(_)
            | Call::SlowDownEnds(_) => self.call_about_rates(store, call).await,
            Call::Register(..)
            | Call::Change(..)
            | Call::Beat(_)
            | Call::RemoveWorker(_)
            | Call::RemoveEndedWorkers
            | Call::Release(_) => self.call_about_workers(store, call).await,
            _ => self.call_about_queues(store, call).await,
        }
    }

    async fn call_sending(&mut self, store: &Store, call: Call) -> Checked {
        match call {
            Call::Send {
                way,
                priority,
                messages,
                delayed,
                on,
            } => {
                let producer = match way {
                    Way::Worker(which) if !self.producers.is_empty() => {
                        Some(which.get(&self.producers).clone())
                    }
                    _ => None,
                };
                let queue = match (&producer, way) {
                    (Some(producer), _) => known_name(producer.queue().as_str()),
                    (None, Way::Queue(queue)) => queue,
                    (None, Way::Worker(_)) => QUEUES[0],
                };
                let payloads = self.new_payloads(messages);
                let envelope = Envelope {
                    queue,
                    producer: producer.as_ref().map(|producer| producer.id()),
                    priority,
                    delayed,
                    header: header(&payloads),
                };
                let sending = Sending {
                    envelope,
                    producer: producer.as_ref(),
                    payloads: &payloads,
                };
                let returned = match on {
                    On::Store => sending.execute(store).await,
                    On::Pool => sending.execute(store.pool()).await,
                    On::Connection => match store.pool().acquire().await {
                        Ok(mut connection) => sending.execute(&mut connection).await,
                        Err(error) => Err(error.into()),
                    },
                    On::Commit | On::Rollback => {
                        let whole = async {
                            let mut tx = store.pool().begin().await?;
                            let ids = sending.execute(&mut tx).await?;
                            end(tx, on == On::Commit).await?;
                            Ok(ids)
                        };
                        whole.await
                    }
                };
                let returned = returned.map(|ids| ids.to_vec());
                self.compare_send(envelope, payloads, returned, on).await
            }
            Call::Import { queue, messages } => {
                let payloads = self.new_payloads(messages);
                let envelope = Envelope {
                    queue,
                    producer: None,
                    priority: Priority::Normal,
                    delayed: false,
                    header: header(&payloads),
                };
                let enqueue = pgqrs::enqueue().to(queue).headers(envelope.headers());
                let mut import = enqueue.import(payloads.clone());
                // Each chunk is a call of its own.
                let mut left = &payloads[..];
                loop {
                    let next = import.next(store).await;
                    let (returned, chunk) = match next {
                        Ok(None) => break,
                        Ok(Some(ids)) => {
                            let chunk = left.len().min(ids.len());
                            (Ok(ids.to_vec()), chunk)
                        }
                        Err(error) => (Err(error), left.len().min(1_000)),
                    };
                    let over = returned.is_err();
                    let (chunk, rest) = left.split_at(chunk);
                    self.compare_send(envelope, chunk.to_vec(), returned, On::Store)
                        .await?;
                    self.time += CALL;
                    left = rest;
                    if over {
                        return Ok(());
                    }
                }
                prop_assert!(left.is_empty());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn call_receiving(&mut self, store: &Store, call: Call) -> Checked {
        let time = self.time;
        match call {
            Call::Claim { way, limit } => {
                let consumer = match &way {
                    Way::Worker(which) if !self.consumers.is_empty() => {
                        Some(which.get(&self.consumers))
                    }
                    _ => None,
                };
                let (queue, dequeue) = match (consumer, &way) {
                    (Some(consumer), _) => (
                        known_name(consumer.queue().as_str()),
                        pgqrs::dequeue().worker(consumer),
                    ),
                    (None, Way::Queue(queue)) => (*queue, pgqrs::dequeue().from(*queue)),
                    (None, Way::Worker(_)) => (QUEUES[0], pgqrs::dequeue().from(QUEUES[0])),
                };
                let consumer = consumer.map(|consumer| consumer.id());
                let returned = dequeue.limit(limit).lease(LONG).execute(store).await;
                let returned = returned.map(|claimed| {
                    let returned = claimed.iter().map(|delivery| {
                        let (id, attempt) = (delivery.id(), delivery.attempt());
                        (id, attempt, delivery.snoozes(), payload_of(delivery))
                    });
                    let returned: Vec<_> = returned.collect();
                    let held = claimed.into_iter().map(|delivery| (queue, time, delivery));
                    self.at_hand.extend(held);
                    returned
                });
                let effect = |world: &mut World| world.claim(time, queue, consumer, limit as usize);
                self.compare_all(returned, effect, true).await
            }
            Call::Settle(which, settlement, on) => {
                let taken = match settlement {
                    Settlement::SlowDown(_) => self.take_of_group(which),
                    _ => self.take(which),
                };
                let Some((queue, claim, delivery)) = taken else {
                    return Ok(());
                };
                let (id, attempt) = (delivery.id(), delivery.attempt());
                let mut rest = None;
                let mut keep = |unsettled: Unsettled<Value, Unchecked>| {
                    let error = unsettled.error().clone();
                    rest = Some(unsettled.into_delivery());
                    error
                };
                let returned = match on {
                    On::Store => settle(delivery, settlement, store).await.map_err(keep),
                    On::Pool => settle(delivery, settlement, store.pool())
                        .await
                        .map_err(keep),
                    On::Connection => match store.pool().acquire().await {
                        Ok(mut connection) => settle(delivery, settlement, &mut connection)
                            .await
                            .map_err(keep),
                        Err(error) => {
                            rest = Some(delivery);
                            Err(error.into())
                        }
                    },
                    On::Commit | On::Rollback => match store.pool().begin().await {
                        Ok(mut tx) => match settle(delivery, settlement, &mut tx).await {
                            Ok(()) => end(tx, on == On::Commit).await,
                            Err(unsettled) => Err(keep(unsettled)),
                        },
                        Err(error) => {
                            rest = Some(delivery);
                            Err(error.into())
                        }
                    },
                };
                let held = self.world.holds(queue, id, claim);
                let rolled_back = on == On::Rollback && returned.is_ok();
                if settlement == Settlement::Nack && held && !rolled_back {
                    self.calm().await?;
                    // The policy's first wait could end within the test, on a slow machine. A crash that has
                    // undone the claim has undone its attempt too.
                    let later =
                        "update pgqrs.messages set visible_at = visible_at + interval '1 hour'
                                 where id = $1 and lease_token = 0 and attempt = $2";
                    let later = sqlx::query(later).bind(id.get()).bind(i64::from(attempt));
                    later.execute(&self.direct).await.map_err(failed)?;
                }
                // It returned that the lease is lost, or that the outcome is unknown.
                let lost = matches!(&returned, Err(Error::LeaseLost { .. }));
                if let (Some(delivery), false) = (rest, lost) {
                    self.at_hand.push((queue, claim, delivery));
                }
                let leased = (queue, id, claim);
                // A transaction isn't committed after an error, either.
                let is_in_transaction = matches!(on, On::Commit | On::Rollback);
                let effect = |world: &mut World| {
                    let expected = world.clone().settle(time, leased, settlement);
                    if rolled_back || is_in_transaction && expected.is_err() {
                        expected
                    } else {
                        world.settle(time, leased, settlement)
                    }
                };
                self.compare_flushed(returned, effect, !rolled_back).await
            }
            Call::AckAll(many) => {
                let many = self.at_hand.len().saturating_sub(many);
                let batch = self.at_hand.split_off(many);
                let leased: Vec<_> = batch
                    .iter()
                    .map(|(queue, claim, delivery)| (*queue, delivery.id(), *claim))
                    .collect();
                let deliveries = batch.into_iter().map(|(_, _, delivery)| delivery).collect();
                let returned = match try_ack_all(deliveries, store).await {
                    Ok(lost) => Ok(lost),
                    Err(unsettled) => {
                        let error = unsettled.error().clone();
                        let deliveries = unsettled.into_deliveries().into_iter();
                        let again = deliveries.zip(&leased);
                        self.at_hand.extend(
                            again.map(|(delivery, (queue, _, claim))| (*queue, *claim, delivery)),
                        );
                        Err(error)
                    }
                };
                self.compare(returned, |world| {
                    let (mut settled, mut lost) = (Vec::new(), Vec::new());
                    for leased in leased.iter().copied() {
                        match world.settle(time, leased, Settlement::Ack) {
                            Ok(()) => settled.push(leased.1),
                            Err(_) => lost.push(leased.1),
                        }
                    }
                    // A message can be among them twice: as it was lost, and as it was delivered again.
                    lost.retain(|id| !settled.contains(id));
                    Ok(lost)
                })
                .await
            }
            Call::Work {
                which,
                queue,
                commits,
            } => {
                let Some((from, claim, delivery)) = self.take(which) else {
                    return Ok(());
                };
                let leased = (from, delivery.id(), claim);
                let payloads = self.new_payloads(1);
                let envelope = Envelope {
                    queue,
                    producer: None,
                    priority: Priority::Normal,
                    delayed: false,
                    header: header(&payloads),
                };
                let sending = Sending {
                    envelope,
                    producer: None,
                    payloads: &payloads,
                };
                let mut ids = Vec::new();
                let work = async {
                    let mut tx = store.pool().begin().await?;
                    delivery.ack(&mut tx).await?;
                    ids = sending.execute(&mut tx).await?.to_vec();
                    end(tx, commits).await
                };
                let returned = work.await;
                let stored = self.stored(&payloads).await?;
                if commits && returned.is_ok() {
                    prop_assert_eq!(&ids, &stored);
                }
                // What the acknowledgement lets in comes before what is sent after it.
                self.time += CALL;
                let later = self.time;
                let effect = |world: &mut World| {
                    let mut elsewhere = world.clone();
                    elsewhere.settle(time, leased, Settlement::Ack)?;
                    elsewhere.let_in(time);
                    let sent: Vec<_> = stored
                        .iter()
                        .copied()
                        .zip(payloads.iter().copied())
                        .collect();
                    elsewhere.send(later, &envelope, &sent)?;
                    if commits {
                        *world = elsewhere;
                    }
                    Ok(())
                };
                self.compare_flushed(returned, effect, commits).await
            }
            Call::Extend(which) => {
                let Some((queue, claim, delivery)) = self.take(which) else {
                    return Ok(());
                };
                let returned = delivery.extend(LONG * 2).await;
                let leased = (queue, delivery.id(), claim);
                self.at_hand.push((queue, claim, delivery));
                self.compare(returned, |world| world.extend(leased)).await
            }
            Call::Forget(which) => {
                drop(self.take(which));
                Ok(())
            }
            Call::TimePasses(which) => {
                let waiting = self.world.waiting();
                if waiting.is_empty() {
                    return Ok(());
                }
                let (queue, id) = *which.get(&waiting);
                self.calm().await?;
                expire(&self.direct, id).await.map_err(failed)?;
                self.compare(Ok(()), |world| {
                    world.time_passes(time, queue, id);
                    Ok(())
                })
                .await
            }
            Call::Run(queue) => self.run(store, queue, usize::MAX).await,
            Call::RunOne(queue) => self.run(store, queue, 1).await,
            _ => Ok(()),
        }
    }
}

/// Its number, or the first one of an array.
fn payload_of<D>(delivery: &Delivery<Value, D>) -> usize {
    let payload = delivery.raw_payload().trim_start_matches('[');
    let digits = payload
        .split(|letter: char| !letter.is_ascii_digit())
        .next();
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(usize::MAX)
}

/// The static name of a queue that the test knows.
fn known_name(queue: &str) -> &'static str {
    let mut names = QUEUES.into_iter();
    names
        .find(|name| *name == queue)
        .expect("the test's own queues")
}

impl Envelope {
    fn headers(&self) -> Option<(&'static str, String)> {
        self.header.map(|n| (HEADER, n.to_string()))
    }
}
