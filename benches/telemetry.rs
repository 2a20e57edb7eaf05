//! What telemetry costs: sends and drains with it, beside the same without; and sends with the headers by which they can
//! be traced, beside sends without them.

#[path = "telemetry/cost.rs"]
mod cost;
#[path = "telemetry/work.rs"]
pub(crate) mod work;

use std::time::Instant;

use pgqrs::Store;

pub(crate) use self::cost::observed;
use crate::{
    Outcome, clear,
    enqueue::{sends_each, tasks},
    figures::Samples,
    fresh,
    meter::Meter,
    report::{Rounds, Table, many},
};

const BYTES: usize = 200;
/// Single sends in each round.
const BLOCK: usize = 50;
const PLAIN: &str = "without headers";
const WITH_PARENT: &str = "with a traceparent of its own";
const HALF: &str = "half of them with a traceparent";

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    store.queue("sends").await?;
    let mut tables = cost::run(url, meter, &store, quick).await?;
    tables.push(single(meter, &store, if quick { 6 } else { 120 }).await?);
    for tasks in [64, 512] {
        tables.push(concurrent(meter, &store, tasks, quick).await?);
    }
    Ok(tables)
}

async fn send(store: &Store, payload: &str, parent: Option<String>) -> Outcome {
    let enqueue = pgqrs::enqueue().message(payload).to("sends");
    let enqueue = match parent {
        Some(parent) => enqueue.header("traceparent", parent),
        None => enqueue,
    };
    enqueue.execute(store).await?;
    Ok(())
}

/// As a span's context is written, whose span id differs from one send to the next.
fn parent() -> String {
    let (trace, span) = (rand::random::<u128>(), rand::random::<u64>());
    format!("00-{trace:032x}-{span:016x}-01")
}

async fn single(meter: &Meter, store: &Store, rounds: usize) -> Outcome<Table> {
    let title = format!("one message of {BYTES} bytes after another, {BLOCK} a round");
    let mut table = Rounds::new(meter, title, rounds);
    let payload = "x".repeat(BYTES - 2);
    while table.next() {
        for (row, has_parent) in [(PLAIN, false), (WITH_PARENT, true)] {
            let work = async |calls: &mut Samples| {
                for _ in 0..BLOCK {
                    let started = Instant::now();
                    send(store, &payload, has_parent.then(parent)).await?;
                    calls.push(started.elapsed());
                }
                Outcome::Ok(())
            };
            table.measure(row, BLOCK, work).await?;
        }
    }
    table.at_least(
        0.95,
        WITH_PARENT,
        PLAIN,
        "one, with a traceparent, to one without",
    );
    clear(store.pool()).await?;
    Ok(table.finish())
}

async fn concurrent(meter: &Meter, store: &Store, n: usize, quick: bool) -> Outcome<Table> {
    let (each, rounds) = sends_each(n, quick);
    let title = format!(
        "{}, each {each} single sends one after another",
        many(n, "task")
    );
    let mut table = Rounds::new(meter, title, 2 * rounds);
    while table.next() {
        for (row, one_in) in [(PLAIN, None), (WITH_PARENT, Some(1)), (HALF, Some(2))] {
            let sender = store.clone();
            let call = move || {
                let store = sender.clone();
                async move {
                    let has_parent =
                        one_in.is_some_and(|n: u32| rand::random::<u32>().is_multiple_of(n));
                    let payload = "x".repeat(BYTES - 2);
                    send(&store, &payload, has_parent.then(parent)).await
                }
            };
            let work = async |calls: &mut Samples| tasks(calls, n, each, call).await;
            table.measure(row, n * each, work).await?;
            clear(store.pool()).await?;
        }
    }
    for row in [WITH_PARENT, HALF] {
        let what = format!("{}, {row}, to those without", many(n, "task"));
        table.at_least(0.9, row, PLAIN, what);
    }
    Ok(table.finish())
}
