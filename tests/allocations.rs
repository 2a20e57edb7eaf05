//! What the client allocates for a message, by an allocator that counts: its own target, and one test, since all
//! threads of a process count together.

use std::{
    alloc::System,
    sync::atomic::{AtomicUsize, Ordering},
};

use pgqrs::{Delivery, Outcome, Store};
use serde_json::Value;
use sqlx::PgPool;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Allocations, and bytes, per message of a batch.
async fn of_each(
    messages: usize,
    work: impl AsyncFnOnce() -> TestResult,
) -> TestResult<(f64, f64)> {
    let region = Region::new(ALLOCATOR);
    work().await?;
    let change = region.change();
    let each = |total: usize| total as f64 / messages as f64;
    Ok((
        each(change.allocations + change.reallocations),
        each(change.bytes_allocated),
    ))
}

async fn send_one(store: &Store, payload: &str) -> TestResult {
    let enqueue = pgqrs::enqueue().message(payload).to("tasks");
    enqueue.execute(store).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_is_copied_no_more_often_than_it_must_be(pool: PgPool) -> TestResult {
    let store = Store::from(pool);
    store.queue("tasks").await?;
    send_one(&store, "warm").await?;

    const BYTES: usize = 8 << 20;
    let large = "x".repeat(BYTES);
    let (_, bytes) = of_each(1, async || send_one(&store, &large).await).await?;
    let copies = bytes / BYTES as f64;
    println!("a large payload: allocated {copies:.1} times");
    // The JSON, the statement's arguments, and the socket's buffer, of which two grow by doubling.
    assert!(copies < 5.5, "{copies}");

    let small = "x".repeat(200);
    let single = of_each(1_000, async || {
        for _ in 0..1_000 {
            send_one(&store, &small).await?;
        }
        Ok(())
    });
    let (allocations, bytes) = single.await?;
    // The thread that passes metrics on has a share, which is larger if sends are slow.
    println!("a small single send: {allocations:.1} allocations, {bytes:.0} bytes");
    assert!(allocations < 40.0, "{allocations}");

    let all = vec![small.clone(); 1_000];
    let batch = of_each(1_000, async || {
        let enqueue = pgqrs::enqueue().messages(&all).to("tasks");
        enqueue.execute(&store).await?;
        Ok(())
    });
    let (allocations, bytes) = batch.await?;
    println!("one of a batch of a thousand: {allocations:.1} allocations, {bytes:.0} bytes");
    assert!(allocations < 2.0, "{allocations}");

    let consumer = pgqrs::consumer("tasks");
    let consumer = consumer.create(&store).await?;
    let handle = consumer.handle();
    let left = AtomicUsize::new(2_002);
    let handled = of_each(2_002, async || {
        let run = consumer.run(move |_delivery: Delivery<Value>| {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                handle.stop();
            }
            async { Outcome::Done }
        });
        run.await?;
        Ok(())
    });
    let (allocations, bytes) = handled.await?;
    println!("a handled delivery: {allocations:.1} allocations, {bytes:.0} bytes");
    assert!(allocations < 8.0, "{allocations}");
    Ok(())
}
