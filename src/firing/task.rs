//! The task that fires schedules: it looks, plans, fires, and sleeps until the next time.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::shared::Shared;
use crate::{
    error::{Error, Result},
    pool::{Connections, Notifier, StoreConnection},
    postgres::schedules::{
        self, Due,
        firing::{self, Fired, Outcome},
    },
    queue::QueueName,
    telemetry,
    timing::{self, Plan, ScheduleTime, Timing},
};

/// Maximum number of schedules, and of messages, of one statement.
const BATCH: usize = 1_000;
/// How often it looks if nothing is due: a NOTIFY may get lost.
const INTERVAL: Duration = Duration::from_secs(60);
/// How much a wait varies at random, so that of many processes one fires, and the others find it fired.
const JITTER: Duration = Duration::from_millis(10);
/// Pause after a look that found due what others are firing.
const CONTENDED: Duration = Duration::from_millis(20);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// For how long a schedule that can't be fired is left out.
const DEFER: Duration = Duration::from_secs(10 * 60);
/// For how long a schedule is left out whose key an open transaction of somebody else holds.
const DEFER_HELD: Duration = Duration::from_secs(30);
/// How many of these are waited for before it looks again.
const MAX_HELD: usize = 5;
/// How many of these are remembered.
const MAX_DEFERRED: usize = 10_000;
/// How many expressions and intervals are remembered.
const MAX_TIMINGS: usize = 1_000;

pub(super) async fn fire_loop(shared: Arc<Shared>, connections: Connections, notifier: Notifier) {
    let woken = notifier.subscribe(&QueueName::SCHEDULES, false);
    let mut firing = Firing {
        connections: connections.clone(),
        notifier,
        deferred: HashMap::new(),
        closed: HashSet::new(),
        timings: HashMap::new(),
    };
    let mut backoff = MIN_BACKOFF;
    while shared.has_participants() && !connections.is_closed() {
        let fired = tokio::select! {
            fired = firing.fire_due() => fired,
            // A statement that is under way is abandoned: it fires all of its schedules, or none.
            () = connections.pool().close_event() => return,
        };
        let wait = match fired {
            Ok(wait) => {
                backoff = MIN_BACKOFF;
                wait + JITTER.mul_f64(rand::random())
            }
            Err(error) => {
                telemetry::firing_failed(backoff == MIN_BACKOFF, &error);
                let wait = backoff.mul_f64(1.0 + rand::random::<f64>());
                backoff = (backoff * 2).min(MAX_BACKOFF);
                wait
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            // It is woken for each of many schedules that are installed one by one.
            () = woken.notified() => sleep(CONTENDED).await,
            () = shared.left.notified() => {}
            () = connections.pool().close_event() => return,
        }
    }
}

/// Looks once, and fires nothing: whether this role may, and the schema is there.
pub(super) async fn look_once(connections: &Connections) -> Result<()> {
    let mut connection = connections.acquire().await?;
    connection
        .within(STATEMENT_TIMEOUT, async |connection| {
            schedules::look(connection, 0, &[]).await?;
            // Nothing is fired, but the privilege is needed.
            firing::fire(connection, &[]).await
        })
        .await?;
    Ok(())
}

struct Firing {
    connections: Connections,
    notifier: Notifier,
    /// Schedules that this process can't fire, and when it tries them again.
    deferred: HashMap<i64, Instant>,
    /// Schedules of which it is reported that their queue is closed.
    closed: HashSet<i64>,
    /// Many schedules have the same times, and to parse an expression takes longer than to find its next time.
    timings: HashMap<(ScheduleTime, String), Timing>,
}

impl Firing {
    /// Fires all that is due. Returns how long to wait for the next time.
    async fn fire_due(&mut self) -> Result<Duration> {
        let mut connection = self.connections.acquire_reserved().await?;
        loop {
            self.deferred.retain(|_, until| *until > Instant::now());
            let without: Vec<_> = self.deferred.keys().copied().collect();
            let asked = Instant::now();
            let look = connection
                .within(STATEMENT_TIMEOUT, async |connection| {
                    schedules::look(connection, BATCH, &without).await
                })
                .await?;
            // By the database's clock, which was read some time since then.
            let passed = |now: Instant| now.duration_since(asked);
            let next = look.next_at.map(|next| (next - look.now).to_std());
            let next = next.map_or(INTERVAL, |next| next.unwrap_or_default().min(INTERVAL));
            if look.due.is_empty() {
                return Ok(next.saturating_sub(passed(Instant::now()) / 2));
            }
            let planned = self.plan(look.now, &look.due).await;
            let is_all = planned.len() == look.due.len() && look.due.len() < BATCH;
            if planned.is_empty() {
                // All of them are deferred, and what else is due is found after a pause.
                return Ok(next.min(CONTENDED));
            }
            let fired = self.fire(&mut connection, &planned).await?;
            if fired.is_empty() {
                return Ok(next.min(CONTENDED));
            }
            if is_all {
                let soonest = planned.iter().map(|(_, plan)| plan.next_at).min();
                let soonest = soonest.map_or(INTERVAL, |time| {
                    (time - look.now).to_std().unwrap_or_default()
                });
                // What others are firing right now may be due again.
                let contended = if fired.len() < planned.len() {
                    CONTENDED
                } else {
                    INTERVAL
                };
                let wait = next.min(soonest).min(contended).min(INTERVAL);
                return Ok(wait.saturating_sub(passed(Instant::now())));
            }
        }
    }

    /// Plans what fits into one statement, first what has no key.
    async fn plan<'a>(&mut self, now: DateTime<Utc>, due: &'a [Due]) -> Vec<(&'a Due, Plan)> {
        let (mut planned, mut messages) = (Vec::new(), 0);
        for due in due {
            match self.plan_one(due, now) {
                Ok(plan) => {
                    messages += plan.times.len();
                    if messages > BATCH && !planned.is_empty() {
                        break;
                    }
                    planned.push((due, plan));
                }
                Err(error) => self.defer(due, error),
            }
            // Many expressions take a moment.
            yield_now().await;
        }
        planned.sort_by_key(|(due, _)| due.is_keyed);
        planned
    }

    fn plan_one(&mut self, due: &Due, now: DateTime<Utc>) -> Result<Plan> {
        if self.timings.len() > MAX_TIMINGS {
            self.timings.clear();
        }
        let timing = match self.timings.entry((due.time.clone(), due.zone.clone())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Timing::new(&due.time, &due.zone)?),
        };
        let plan = timing::plan(timing, due.missed, due.next_at, now);
        plan.ok_or_else(|| Error::InvalidSetting {
            setting: "cron",
            value: format!("{:?}", due.time),
            expected: "an expression with another time before the end of the calendar",
        })
    }

    fn defer(&mut self, due: &Due, error: Error) {
        let again_in = if error.is_lock_timeout() {
            DEFER_HELD
        } else {
            DEFER
        };
        telemetry::schedule_deferred(&due.name, &error.or_key_held(&due.queue), again_in);
        if self.deferred.len() < MAX_DEFERRED {
            self.deferred.insert(due.id, Instant::now() + again_in);
        }
    }

    /// Fires in one statement. If the server refuses that, those that it concerns are deferred, and the others fired.
    async fn fire(
        &mut self,
        connection: &mut StoreConnection,
        planned: &[(&Due, Plan)],
    ) -> Result<Vec<Fired>> {
        let (mut all, mut held) = (Vec::new(), 0);
        let mut groups = VecDeque::from([planned]);
        while let Some(group) = groups.pop_front() {
            let refused = match fire(connection, group).await {
                Ok(fired) => {
                    self.report(group, &fired);
                    all.extend(fired);
                    continue;
                }
                Err(error @ Error::Database(_))
                    if !error.is_retryable() || error.is_lock_timeout() =>
                {
                    error
                }
                Err(error) => return Err(error),
            };
            let is_held = refused.is_lock_timeout();
            let (free, keyed) = group.split_at(group.partition_point(|(due, _)| !due.is_keyed));
            match (is_held, group) {
                // Without a key, they wait for the table.
                (true, _) if keyed.is_empty() => return Err(refused),
                (_, [(due, _)]) => {
                    self.defer(due, refused);
                    held += usize::from(is_held);
                    if held == MAX_HELD {
                        break;
                    }
                }
                // Somebody else's open transaction holds one of the keys.
                (true, _) => {
                    groups.extend((!free.is_empty()).then_some(free));
                    groups.extend(keyed.chunks(1));
                }
                // What the server refuses for one, such as a trigger of the user's, is no reason for the others.
                (false, _) => groups.extend(group.chunks(1)),
            }
        }
        Ok(all)
    }

    fn report(&mut self, planned: &[(&Due, Plan)], fired: &[Fired]) {
        let planned: HashMap<_, _> = planned
            .iter()
            .map(|(due, plan)| (due.id, (*due, plan)))
            .collect();
        for fired in fired {
            let Some((due, plan)) = planned.get(&fired.id) else {
                continue;
            };
            let messages = match fired.outcome {
                // Of those with a key one.
                Outcome::Sent if due.is_keyed => plan.times.len().min(1),
                Outcome::Sent => plan.times.len(),
                Outcome::Unfinished | Outcome::Closed => 0,
            };
            let is_closed = fired.outcome == Outcome::Closed;
            if !is_closed {
                self.closed.remove(&fired.id);
            } else if self.closed.len() < MAX_DEFERRED && self.closed.insert(fired.id) {
                telemetry::schedule_refused(&due.name, &due.queue);
            }
            telemetry::schedule_fired(&telemetry::Firing {
                schedule: &due.name,
                queue: &due.queue,
                time: plan.times.last().copied(),
                at: fired.at,
                messages: messages as u64,
                missed: plan.missed,
            });
            if messages > 0 {
                self.notifier.wake(&due.queue);
            }
        }
    }
}

async fn fire(connection: &mut StoreConnection, planned: &[(&Due, Plan)]) -> Result<Vec<Fired>> {
    let planned: Vec<_> = planned.iter().map(|(due, plan)| (*due, plan)).collect();
    connection
        .within(STATEMENT_TIMEOUT, async |connection| {
            firing::fire(connection, &planned).await
        })
        .await
}
