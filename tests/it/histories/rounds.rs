//! Rounds of histories, until all has happened that they are of no use without.

use std::{collections::BTreeMap, env, sync::Mutex};

use pgqrs::Store;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use sqlx::PgPool;

use super::{
    FaultInjector, History,
    steps::{Step, histories},
};

pub(super) const USUAL: [&str; 25] = [
    "returned",
    "refused",
    "settled",
    "put off",
    "delivered again",
    "several delivered at once",
    "handled by a loop",
    "cancelled while it waited",
    "cancelled while it ran",
    "several cancelled at once",
    "several moved at once",
    "dead letters deleted",
    "a worker's step",
    "a new one with a key",
    "a duplicate",
    "replaced",
    "expired",
    "parked",
    "let in",
    "a token taken",
    "claimed without a token",
    "held back by its group's rate",
    "a queue slowed down",
    "a group slowed down",
    "a slow-down ended",
];

/// `PROPTEST_CASES` says how many, `cases` by default; without it, there are more rounds of as many until all
/// of `usual`, which the histories are of no use without, has happened. To see a failure again, set
/// `PROPTEST_RNG_SEED` to what the test has printed last. Returns what has happened.
pub(super) async fn run_histories(
    cases: u32,
    usual: &'static [&'static str],
    direct: PgPool,
    stores: Vec<Store>,
    injector: Option<FaultInjector>,
) -> Result<BTreeMap<&'static str, usize>, Box<dyn std::error::Error>> {
    // New queues take groups.
    sqlx::query("alter table pgqrs.queues alter column groups_at_once set default 1")
        .execute(&direct)
        .await?;
    let mut config = Config {
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let is_asked_for = env::var_os("PROPTEST_CASES").is_some();
    if !is_asked_for {
        config.cases = cases;
    }
    // Proptest knows nothing of futures: it has a thread of its own, which waits for what runs here.
    let runtime = tokio::runtime::Handle::current();
    let run = tokio::task::spawn_blocking(move || {
        let happened = Mutex::new(BTreeMap::new());
        let mut missing = Vec::new();
        for _ in 0..MOST_ROUNDS {
            let mut config = config.clone();
            if config.rng_seed == RngSeed::Random {
                config.rng_seed = RngSeed::Fixed(rand::random());
            }
            println!("PROPTEST_RNG_SEED: {:?}", config.rng_seed);
            TestRunner::new(config).run(&histories(), |steps| {
                let history = History::new(direct.clone(), stores.clone(), injector.clone());
                let case = runtime.block_on(history.check(steps))?;
                let mut happened = happened.lock().expect("not poisoned");
                for (what, times) in case {
                    *happened.entry(what).or_insert(0) += times;
                }
                Ok(())
            })?;
            let happened = happened.lock().expect("not poisoned");
            missing = usual
                .iter()
                .filter(|what| happened.get(*what).is_none_or(|times| *times == 0))
                .collect();
            if missing.is_empty() || is_asked_for {
                break;
            }
        }
        assert!(
            missing.is_empty() || is_asked_for,
            "never happened: {missing:?}"
        );
        Ok(happened.into_inner().expect("not poisoned"))
    });
    let happened = run
        .await?
        .map_err(|failure: TestError<Vec<Step>>| failure.to_string())?;
    println!("{happened:#?}");
    Ok(happened)
}

/// Chance alone leaves something rare out of one round, and not of all of them.
const MOST_ROUNDS: usize = 8;
