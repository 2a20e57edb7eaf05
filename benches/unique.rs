//! Sends with keys, beside plain ones through the same store: keys that nobody else has, and keys that all have.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pgqrs::Store;

use crate::{
    Outcome, clear,
    enqueue::{sends_each, tasks},
    figures::Samples,
    fresh,
    meter::Meter,
    report::{Rounds, Table, many},
};

const PLAIN: &str = "without a key";
const UNIQUE: &str = "unique";
const WAITING: &str = "unique until claimed";
const DUPLICATE: &str = "unique, all of them duplicates";

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    store.queue("sends").await?;
    let mut tables = Vec::new();
    for n in [1, 64, 512] {
        tables.push(concurrent(meter, &store, n, quick).await?);
    }
    Ok(tables)
}

async fn concurrent(meter: &Meter, store: &Store, n: usize, quick: bool) -> Outcome<Table> {
    let (each, rounds) = sends_each(n, quick);
    let title = format!(
        "{}, each {each} single sends one after another",
        many(n, "task")
    );
    let mut table = Rounds::new(meter, title, rounds);
    let next = Arc::new(AtomicU64::new(0));
    while table.next() {
        for how in [PLAIN, UNIQUE, WAITING, DUPLICATE] {
            if how == DUPLICATE {
                send(store, how, 0).await?;
            }
            let (of_all, next) = (store.clone(), Arc::clone(&next));
            let call = move || {
                let (store, next) = (of_all.clone(), Arc::clone(&next));
                async move { send(&store, how, next.fetch_add(1, Ordering::Relaxed)).await }
            };
            let work = async |calls: &mut Samples| tasks(calls, n, each, call).await;
            table.measure(how, n * each, work).await?;
            clear(store.pool()).await?;
        }
    }
    for (how, goal) in [(UNIQUE, 0.7), (WAITING, 0.7), (DUPLICATE, 1.0)] {
        table.at_least(
            goal,
            how,
            PLAIN,
            format!("{}, {how}, to plain sends", many(n, "task")),
        );
    }
    Ok(table.finish())
}

async fn send(store: &Store, how: &str, n: u64) -> Outcome {
    let payload = "x".repeat(198);
    let enqueue = pgqrs::enqueue().message(&payload).to("sends");
    match how {
        UNIQUE => enqueue.unique(format!("order-{n}")).execute(store).await?,
        WAITING => {
            let enqueue = enqueue.unique_until_claimed(format!("order-{n}"));
            enqueue.execute(store).await?
        }
        DUPLICATE => enqueue.unique("order").execute(store).await?,
        _ => enqueue.execute(store).await?,
    };
    Ok(())
}
