//! Random histories of all public calls, by several stores, beside a model: whatever is done, in whatever
//! order, and whatever breaks meanwhile, the queues are as the model says.
//!
//! One call follows the other, so that the model knows what each returns. If a fault strikes a call and
//! leaves open what it did, the test looks: things must be as before the call, or as after it, and the model
//! goes on with that. After a crash they may also be as before claims that had not reached the disk.

mod calls;
mod rounds;
mod steps;

use std::{collections::BTreeMap, fmt::Debug, mem, sync::Arc, time::Duration};

use pgqrs::{ConnectOptions, Consumer, Delivery, Error, Producer, Store, Unchecked};
use proptest::prelude::*;
use serde_json::Value;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::task::JoinHandle;

use self::{
    rounds::{USUAL, run_histories},
    steps::{Call, Disruption, Step, Way},
};
use crate::{
    model::{Bucket, LINES, Returned, World},
    support::{TestResult, connect, proxy::Proxy, server::Server, until},
};

/// The last one is not there in the beginning.
const QUEUES: [&str; 3] = ["tasks", "emails", "reports"];
const STORES: usize = 3;
/// What a call makes ready comes in this order: without a rate, by the rates of groups, what was let in, by these rates.
const CALL: usize = 8;

type Checked<T = ()> = Result<T, TestCaseError>;

fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

/// An error's variant.
fn name(error: &Error) -> String {
    let debug = format!("{error:#?}");
    debug
        .chars()
        .take_while(|letter| letter.is_alphanumeric())
        .collect()
}

/// What it takes to break things.
#[derive(Clone)]
struct FaultInjector {
    server: Arc<Server>,
    proxy: Proxy,
}

impl FaultInjector {
    fn url(&self) -> String {
        let port = self.proxy.port();
        format!("postgres://postgres@127.0.0.1:{port}/postgres")
    }

    async fn connect(&self) -> pgqrs::Result<Store> {
        let options = ConnectOptions::builder()
            .url(self.url())
            .max_connections(3)
            .acquire_timeout(Duration::from_secs(5))
            .retry_for(Duration::from_secs(25));
        pgqrs::connect_with(options.build()).await
    }
}

/// How things may be.
struct Base {
    world: World,
    /// Whether something is undone that a call returned.
    undone: bool,
}

/// A delivery at hand: its queue, the number of its claim, and itself.
type Held = (&'static str, usize, Delivery<Value, Unchecked>);

/// The queues as they are, and the stores that work with them.
struct History {
    /// Past the proxy.
    direct: PgPool,
    stores: Vec<Store>,
    injector: Option<FaultInjector>,
    world: World,
    /// How things were before each of the last changes that a crash of the server can undo.
    undoable: Vec<World>,
    /// Counts the calls.
    time: usize,
    sent: usize,
    at_hand: Vec<Held>,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    /// What happens beside the call.
    beside: Option<JoinHandle<Result<(), String>>>,
    /// Whether connections may be broken, so that calls may fail.
    shaken: bool,
    /// Whether the server has crashed since things were looked at.
    crashed: bool,
}

impl History {
    fn new(direct: PgPool, stores: Vec<Store>, injector: Option<FaultInjector>) -> Self {
        Self {
            direct,
            stores,
            // What a case before has broken is still broken.
            shaken: injector.is_some(),
            injector,
            world: World::default(),
            undoable: Vec::new(),
            time: 0,
            sent: 0,
            at_hand: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            beside: None,
            crashed: false,
        }
    }

    /// Returns what has happened.
    async fn check(mut self, steps: Vec<Step>) -> Checked<BTreeMap<&'static str, usize>> {
        // The case before may have left a server that is on its way.
        let empty = "truncate pgqrs.queues, pgqrs.messages, pgqrs.dead_letters, pgqrs.archive, pgqrs.workers,
                     pgqrs.seen, pgqrs.schedules, pgqrs.firings, pgqrs.groups, pgqrs.slots, pgqrs.rates, pgqrs.group_rates";
        until("the tables are empty", async || {
            sqlx::query(empty).execute(&self.direct).await.is_ok()
        })
        .await;
        for step in steps {
            self.step(step).await?;
        }
        // All that is left, in order.
        for queue in QUEUES {
            let (way, limit) = (Way::Queue(queue), 10_000);
            let ends = self.world.slowed().contains(&Bucket::Queue(queue));
            let resume = ends.then_some(Call::Pause(queue, false));
            for call in resume
                .into_iter()
                .chain([Call::Rate(queue, false), Call::Claim { way, limit }])
            {
                let (store, disruption) = (0, None);
                self.step(Step {
                    store,
                    call,
                    disruption,
                })
                .await?;
            }
        }
        Ok(self.world.happened)
    }

    async fn step(&mut self, step: Step) -> Checked {
        self.time += CALL;
        let Step {
            store,
            call,
            disruption,
        } = step;
        if let Some(disruption) = disruption {
            // A loop retries by itself, and the number of its attempts isn't known.
            let beside = !matches!(call, Call::Run(_));
            self.disruption(disruption, beside).await?;
        }
        let store = self.stores[store].clone();
        self.call(&store, call).await?;
        // A call that had nothing to do sent nothing that could be struck: the next one isn't struck instead.
        if let Some(injector) = &self.injector {
            injector.proxy.cancel_order();
        }
        Ok(())
    }

    async fn disruption(&mut self, disruption: Disruption, may_be_beside: bool) -> Checked {
        let Some(injector) = self.injector.clone() else {
            return Ok(());
        };
        let (direct, is_beside, what) = (
            self.direct.clone(),
            may_be_beside,
            match disruption {
                Disruption::Strike(..) => "a connection struck",
                Disruption::Terminate { .. } => "all sessions ended",
                Disruption::Restart { mode: "fast", .. } => "the server restarted",
                Disruption::Restart { .. } => "the server crashed",
            },
        );
        self.world.happened(what, 1);
        let (happens, beside): (JoinHandle<Result<(), String>>, bool) = match disruption {
            Disruption::Strike(fault, bytes) => {
                if is_beside {
                    injector.proxy.order(fault, bytes);
                }
                return Ok(());
            }
            Disruption::Terminate { beside } => (
                tokio::spawn(async move {
                    let all = "select pg_terminate_backend(pid) from pg_stat_activity
                               where application_name = 'pgqrs'";
                    let ended = sqlx::query(all).execute(&direct).await;
                    ended.map(drop).map_err(|error| error.to_string())
                }),
                beside,
            ),
            Disruption::Restart { mode, beside } => {
                self.crashed = mode == "immediate";
                if !self.crashed {
                    // It writes all down before it ends.
                    self.undoable.clear();
                }
                let restart = async move {
                    let restarted = injector.server.restart_beside(mode).await;
                    restarted.map_err(|error| error.to_string())
                };
                (tokio::spawn(restart), beside)
            }
        };
        self.beside = Some(happens);
        if !(beside && is_beside) {
            let worlds = self.bases();
            self.adopt(worlds, false).await?;
        }
        Ok(())
    }

    /// Until all is over that the last call began and that breaks.
    async fn calm(&mut self) -> Checked {
        if let Some(beside) = self.beside.take() {
            beside.await.map_err(failed)?.map_err(failed)?;
        }
        let (Some(injector), true) = (&self.injector, self.shaken) else {
            return Ok(());
        };
        injector.proxy.cancel_order();
        // What was on its way when a connection broke may still be under way: sessions live a little longer
        // than their clients' connections.
        until("the server has done what it was asked", async || {
            let sessions: Result<(i64, i64), _> = sqlx::query_as(
                "select count(*), count(*) filter (where state is distinct from 'idle')
                 from pg_stat_activity where application_name = 'pgqrs'",
            )
            .fetch_one(&self.direct)
            .await;
            let live = i64::try_from(injector.proxy.live()).unwrap_or(i64::MAX);
            sessions.is_ok_and(|(all, busy)| all <= live && busy == 0)
        })
        .await;
        Ok(())
    }

    async fn lines(&self) -> Checked<Vec<String>> {
        sqlx::query_scalar(LINES)
            .fetch_all(&self.direct)
            .await
            .map_err(failed)
    }

    /// How things may have been before a call: as is known; or after a crash, as before claims that weren't on disk.
    fn bases(&mut self) -> Vec<Base> {
        let mut bases = vec![Base {
            world: self.world.clone(),
            undone: false,
        }];
        if self.crashed {
            let undone = mem::take(&mut self.undoable).into_iter().rev();
            bases.extend(undone.map(|world| Base {
                world,
                undone: true,
            }));
        }
        bases
    }

    /// Goes on with how things are: as the first of these worlds that fits.
    async fn adopt(&mut self, mut worlds: Vec<Base>, is_asynchronous: bool) -> Checked {
        self.calm().await?;
        let crashed = mem::take(&mut self.crashed);
        let lines = self.lines().await?;
        let fits = |base: &Base| base.world.lines() == lines;
        let Some(place) = worlds.iter().position(fits) else {
            let expected: Vec<_> = worlds.iter().map(|base| base.world.lines()).collect();
            return Err(failed(format!(
                "things are none of what they may be after call {}: {lines:#?}\n{expected:#?}",
                self.time
            )));
        };
        let Base { world, undone } = worlds.swap_remove(place);
        let before = mem::replace(&mut self.world, world);
        self.world.happened = before.happened.clone();
        if undone {
            self.world.happened("claims undone by a crash", 1);
            // They have read past what is ready again, and would find it a little later.
            if let Some(injector) = &self.injector {
                for store in &mut self.stores {
                    *store = injector.connect().await.map_err(failed)?;
                }
            }
        } else if before.lines() != lines {
            if is_asynchronous && !crashed {
                self.undoable.push(before)
            } else {
                self.undoable.clear()
            }
        }
        Ok(())
    }

    /// Compares what a call returned with what the model says, and what it did.
    async fn compare<T: PartialEq + Debug>(
        &mut self,
        returned: Result<T, Error>,
        effect: impl Fn(&mut World) -> Returned<T>,
    ) -> Checked {
        self.compare_flushed(returned, effect, true).await
    }

    /// As [`Self::compare`]. A transaction that is rolled back flushes no log: a crash beside it can undo claims
    /// before it.
    async fn compare_flushed<T: PartialEq + Debug>(
        &mut self,
        returned: Result<T, Error>,
        effect: impl Fn(&mut World) -> Returned<T>,
        flushed: bool,
    ) -> Checked {
        let effect = |world: &mut World| (effect(world), Vec::new());
        self.compare_all(returned, effect, !flushed).await
    }

    /// `effect` returns also the states between its statements, last first.
    async fn compare_all<T: PartialEq + Debug>(
        &mut self,
        returned: Result<T, Error>,
        effect: impl Fn(&mut World) -> (Returned<T>, Vec<World>),
        is_asynchronous: bool,
    ) -> Checked {
        let crashed = self.crashed;
        let mut worlds = Vec::new();
        let returned = returned.map_err(|error| (self.leaves_open(&error), name(&error), error));
        let what = match &returned {
            Ok(_) => "returned",
            Err((true, ..)) => "left open",
            Err(_) => "refused",
        };
        let (mut expectations, mut happened, mut rest) = (Vec::new(), None, Vec::new());
        for base in self.bases() {
            let (mut after, undone) = (base.world.clone(), base.undone);
            let (expected, mut between) = effect(&mut after);
            for world in between.iter_mut().chain([&mut after]) {
                world.let_in(self.time);
            }
            let as_expected = match (&returned, &expected) {
                (Err((true, ..)), _) => true,
                (Ok(returned), Ok(expected)) => returned == expected,
                (Err((_, returned, _)), Err(expected)) => returned == expected,
                _ => false,
            };
            expectations.push(expected);
            if !as_expected {
                rest.push(Base {
                    undone: true,
                    ..base
                });
                continue;
            }
            happened.get_or_insert_with(|| after.happened.clone());
            let held = after.claimed_at(self.time);
            worlds.push(Base {
                world: after,
                undone,
            });
            // What was returned is done. Only a claim that was returned can be undone.
            if what == "left open" || crashed && is_asynchronous {
                let between = between.into_iter().map(|world| Base { world, undone });
                worlds.extend(between);
                let undone = undone || what == "returned";
                worlds.push(Base { undone, ..base });
            } else if self.shaken && !held.is_empty() {
                // It returns what it has claimed, even if it could not dead-letter the rest.
                let between = between.into_iter();
                let between = between.filter(|world| world.claimed_at(self.time) == held);
                worlds.extend(between.map(|world| Base { world, undone }));
            }
        }
        prop_assert!(
            !worlds.is_empty(),
            "call {} returned {:?}, and should have returned {:?}; before it: {:#?}",
            self.time,
            returned.map_err(|(_, _, error)| error),
            expectations,
            self.world.lines()
        );
        if what == "returned" && crashed && is_asynchronous {
            worlds.append(&mut rest);
        }
        if let (Some(happened), true) = (happened, what != "left open") {
            self.world.happened = happened;
        }
        self.world.happened(what, 1);
        self.adopt(worlds, is_asynchronous).await
    }

    /// Whether it says that something broke, and something may have.
    fn leaves_open(&self, error: &Error) -> bool {
        self.shaken && (error.is_retryable() || matches!(error, Error::OutcomeUnknown { .. }))
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn whatever_is_done_the_queues_are_as_their_model(pool: PgPool) -> TestResult {
    let mut stores = Vec::new();
    for _ in 0..STORES {
        stores.push(connect(&pool).await?);
    }
    run_histories(24, &USUAL, pool, stores, None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_the_queues_are_as_their_model() -> TestResult {
    let server = Arc::new(Server::start().await?);
    let installed = ConnectOptions::builder().url(server.url()).install(true);
    pgqrs::connect_with(installed.build()).await?;
    // With pings: each restart breaks its connections.
    // One connection: whichever statement has found it broken after a restart has replaced it for all.
    let direct = PgPoolOptions::new().max_connections(1);
    let direct = direct.connect(&server.url()).await?;
    let proxy = Proxy::with_seed("127.0.0.1", server.port(), 0).await?;
    let injector = FaultInjector { server, proxy };
    let mut stores = Vec::new();
    for _ in 0..STORES {
        stores.push(injector.connect().await?);
    }
    let usual = &["returned", "left open", "a connection struck"];
    let happened = run_histories(16, usual, direct, stores, Some(injector)).await?;
    let of = |what| happened.get(what).copied().unwrap_or(0);
    assert!(of("returned") > of("left open"));
    Ok(())
}
