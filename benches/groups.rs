//! Messages with groups, beside plain ones through the same store: sends to groups of their own, draining, one group that
//! is handled message by message, claims with many parked messages, and tenants of which one has very many.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pgqrs::{Delivery, Groups, Outcome as Handled, QueueOptions, Store};
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use crate::{
    Outcome,
    drain::fill,
    enqueue::{sends_each, tasks},
    figures::Samples,
    fresh,
    meter::Meter,
    report::{Rounds, Table, many},
    telemetry::work,
};

const PLAIN: &str = "without a group";
const OWN: &str = "each in a group of its own";
const HUNDRED: &str = "in one of a hundred groups";

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    for queue in ["sends", "drain", "hot", "claims", "tenants"] {
        store.queue(queue).await?;
        let options = QueueOptions::builder().groups(Groups::default()).build();
        pgqrs::admin(&store).configure_queue(queue, options).await?;
    }
    Ok(vec![
        concurrent(meter, &store, 64, quick).await?,
        batches(meter, &store, if quick { 10 } else { 60 }).await?,
        draining(meter, &store, quick).await?,
        hot(meter, &store, if quick { 5 } else { 30 }).await?,
        claims(meter, &store, quick).await?,
        tenants(meter, &store, quick).await?,
    ])
}

async fn clear(store: &Store) -> Outcome {
    sqlx::raw_sql("delete from pgqrs.groups; truncate pgqrs.messages")
        .execute(store.pool())
        .await?;
    sqlx::query("vacuum analyze pgqrs.groups")
        .execute(store.pool())
        .await?;
    sqlx::query("checkpoint").execute(store.pool()).await?;
    Ok(())
}

fn group(how: &str, n: u64) -> String {
    match how {
        OWN => format!("group-{n}"),
        _ => format!("group-{}", n % 100),
    }
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
        for how in [PLAIN, OWN, HUNDRED] {
            let (of_all, next) = (store.clone(), Arc::clone(&next));
            let call = move || {
                let (store, n) = (of_all.clone(), next.fetch_add(1, Ordering::Relaxed));
                async move {
                    let payload = "x".repeat(198);
                    let enqueue = pgqrs::enqueue().message(&payload).to("sends");
                    if how == PLAIN {
                        enqueue.execute(&store).await?;
                    } else {
                        enqueue.group(group(how, n)).execute(&store).await?;
                    }
                    Ok(())
                }
            };
            let work = async |calls: &mut Samples| tasks(calls, n, each, call).await;
            table.measure(how, n * each, work).await?;
            clear(store).await?;
        }
    }
    let what = format!("{}, {OWN}, to plain sends", many(n, "task"));
    table.at_least(0.6, OWN, PLAIN, what);
    Ok(table.finish())
}

async fn batches(meter: &Meter, store: &Store, rounds: usize) -> Outcome<Table> {
    const BATCH: usize = 256;
    let title = format!("batches of {BATCH} messages");
    let mut table = Rounds::new(meter, title, rounds).without_warm_up();
    let mut next = 0_u64;
    let payloads = vec!["x".repeat(198); BATCH];
    while table.next() {
        for how in [PLAIN, OWN, HUNDRED] {
            let first = next;
            next += BATCH as u64;
            let work = async |calls: &mut Samples| {
                let started = Instant::now();
                let enqueue = pgqrs::enqueue().to("sends");
                if how == PLAIN {
                    enqueue.messages(&payloads).execute(store).await?;
                } else {
                    let messages = (first..).zip(&payloads);
                    let messages =
                        messages.map(|(n, payload)| pgqrs::message(payload).group(group(how, n)));
                    enqueue.batch(messages).execute(store).await?;
                }
                calls.push(started.elapsed());
                Ok(())
            };
            table.measure(how, BATCH, work).await?;
        }
    }
    clear(store).await?;
    table.at_least(
        0.6,
        OWN,
        PLAIN,
        "batches to groups of their own, to plain batches",
    );
    Ok(table.finish())
}

async fn draining(meter: &Meter, store: &Store, quick: bool) -> Outcome<Table> {
    let (messages, rounds) = if quick { (5_000, 3) } else { (20_000, 15) };
    let title = format!("draining {messages} messages, handler that does nothing");
    let mut table = Rounds::new(meter, title, rounds);
    while table.next() {
        for how in [PLAIN, OWN, HUNDRED] {
            clear(store).await?;
            if how == PLAIN {
                fill(store, messages).await?;
            } else {
                let payloads = vec!["x".repeat(198); messages];
                let batch = (0..).zip(&payloads);
                let batch = batch.map(|(n, payload)| pgqrs::message(payload).group(group(how, n)));
                let enqueue = pgqrs::enqueue().to("drain").batch(batch);
                enqueue.execute(store).await?;
                sqlx::query("vacuum analyze pgqrs.messages")
                    .execute(store.pool())
                    .await?;
                sqlx::query("checkpoint").execute(store.pool()).await?;
            }
            let work = async |_: &mut Samples| work::drain(store, "drain", messages).await;
            table.measure(how, messages, work).await?;
        }
    }
    table.at_least(
        0.6,
        OWN,
        PLAIN,
        "draining, each in a group of its own, to plain",
    );
    Ok(table.finish())
}

/// From the end of a handler to the start of the one for the next message of its group, beside from before a send to the
/// start of its handler. One consumer, in this process.
async fn hot(meter: &Meter, store: &Store, rounds: usize) -> Outcome<Table> {
    const SEND: &str = "from before a send to its handler";
    const NEXT: &str = "from a handler's end to the next of its group";
    const BLOCK: usize = 50;
    let mut table = Rounds::new(meter, "an idle consumer, and one hot group", rounds);
    let (started, mut starts) = mpsc::unbounded_channel();
    let consumer = pgqrs::consumer("hot").create(store).await?;
    let handle = consumer.handle();
    let running = tokio::spawn(consumer.run(move |delivery: Delivery<Value>| {
        let began = Instant::now();
        let started = started.clone();
        async move {
            drop(delivery);
            // The handler's end, as close as can be seen from in here.
            let _ = started.send((began, Instant::now()));
            Handled::Done
        }
    }));
    while table.next() {
        let mut sends = Samples::default();
        for _ in 0..BLOCK {
            let sent = Instant::now();
            let enqueue = pgqrs::enqueue().message(&1).to("hot");
            enqueue.execute(store).await?;
            let (began, _) = starts.recv().await.ok_or("the consumer ended")?;
            sends.push(began - sent);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let batch = vec![1; BLOCK + 1];
        let enqueue = pgqrs::enqueue().messages(&batch).to("hot").group("a");
        enqueue.execute(store).await?;
        let mut nexts = Samples::default();
        let (_, mut ended) = starts.recv().await.ok_or("the consumer ended")?;
        for _ in 0..BLOCK {
            let (began, end) = starts.recv().await.ok_or("the consumer ended")?;
            nexts.push(began - ended);
            ended = end;
        }
        for (name, samples) in [(SEND, sends), (NEXT, nexts)] {
            let median = samples.quantile(0.5).unwrap_or_default();
            table.add(name, 1, median, samples, None);
        }
    }
    handle.stop();
    running.await??;
    table.quantile_at_most(
        2.0,
        0.5,
        NEXT,
        SEND,
        "next of a hot group, p50, to a wake-up",
    );
    Ok(table.finish())
}

async fn claims(meter: &Meter, store: &Store, quick: bool) -> Outcome<Table> {
    const ALONE: &str = "no message is parked";
    const PARKED: &str = "behind many that are parked";
    const LIMIT: u32 = 10;
    const BLOCK: usize = 50;
    let (parked, rounds) = if quick { (100_000, 5) } else { (1_000_000, 30) };
    clear(store).await?;
    let title = format!("claims of {LIMIT}, with {parked} parked messages or none");
    let mut table = Rounds::new(meter, title, rounds);
    for how in [ALONE, PARKED] {
        let queue = if how == ALONE { "sends" } else { "claims" };
        if how == PARKED {
            sqlx::query(
                "with line as (
                     insert into pgqrs.groups (queue_id, key, live, parked, sent)
                     select id, 'a', 0, $1, $1 from pgqrs.queues where name = 'claims'
                     returning queue_id
                 )
                 insert into pgqrs.messages (queue_id, priority, visible_at, group_key, group_place, payload)
                 select queue_id, 2, 'infinity', 'a', n, to_json(repeat('x', 190)) from line, generate_series(1, $1) n",
            )
            .bind(parked)
            .execute(store.pool())
            .await?;
        }
        let ready = vec!["x".repeat(190); 2_000];
        let enqueue = pgqrs::enqueue().messages(&ready).to(queue);
        enqueue.execute(store).await?;
    }
    sqlx::query("vacuum analyze pgqrs.messages")
        .execute(store.pool())
        .await?;
    while table.next() {
        for (how, queue) in [(ALONE, "sends"), (PARKED, "claims")] {
            let work = async |calls: &mut Samples| {
                let mut all = Vec::new();
                for _ in 0..BLOCK {
                    let started = Instant::now();
                    let dequeue = pgqrs::dequeue().from(queue).limit(LIMIT);
                    all.extend(dequeue.execute(store).await?);
                    calls.push(started.elapsed());
                }
                Ok(all)
            };
            let deliveries = table.measure(how, LIMIT as usize * BLOCK, work).await?;
            let messages = vec!["x".repeat(190); deliveries.len()];
            pgqrs::ack_all(deliveries, store).await?;
            let enqueue = pgqrs::enqueue().messages(&messages).to(queue);
            enqueue.execute(store).await?;
        }
    }
    table.at_most(
        1.2,
        PARKED,
        ALONE,
        "claims with parked messages, to without",
    );
    clear(store).await?;
    Ok(table.finish())
}

/// How long a hundred tenants with ten messages each take: alone, and after one with very many has sent all of its own.
async fn tenants(meter: &Meter, store: &Store, quick: bool) -> Outcome<Table> {
    const ALONE: &str = "a hundred tenants alone";
    const GROUPED: &str = "behind one with many, in groups";
    const UNGROUPED: &str = "behind one with many, without groups";
    const SMALL: usize = 1_000;
    let (many, rounds) = if quick { (10_000, 2) } else { (100_000, 3) };
    let title = format!(
        "a hundred tenants with ten messages each, and one with {many}; handlers of 5 ms, eight at a time"
    );
    let mut table = Rounds::new(meter, title, rounds).without_warm_up();
    while table.next() {
        for how in [ALONE, GROUPED, UNGROUPED] {
            clear(store).await?;
            let of = |tenant: usize| serde_json::json!({ "tenant": tenant });
            let mut payloads = Vec::new();
            if how != ALONE {
                payloads.extend((0..many).map(|_| of(0)));
            }
            payloads.extend((0..SMALL).map(|n| of(1 + n % 100)));
            for chunk in payloads.chunks(10_000) {
                if how == UNGROUPED {
                    let enqueue = pgqrs::enqueue().messages(chunk).to("tenants");
                    enqueue.execute(store).await?;
                } else {
                    let by = |payload: &Value| payload["tenant"].to_string();
                    let enqueue = pgqrs::enqueue().to("tenants").group_by(by);
                    enqueue.messages(chunk).execute(store).await?;
                }
            }
            // Without groups, all of the one's messages come first: a tenth of them shows it.
            let consumer = pgqrs::consumer("tenants").create(store).await?;
            let (left, done) = (Arc::new(AtomicUsize::new(SMALL)), Arc::new(Notify::new()));
            let last = Arc::new(Mutex::new(None));
            let run = consumer.run({
                let (left, done, last) = (Arc::clone(&left), Arc::clone(&done), Arc::clone(&last));
                move |delivery: Delivery<Value>| {
                    let (left, done) = (Arc::clone(&left), Arc::clone(&done));
                    let last = Arc::clone(&last);
                    async move {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        let is_small = delivery.payload()["tenant"] != 0;
                        if is_small && left.fetch_sub(1, Ordering::Relaxed) == 1 {
                            let mut last = last.lock().unwrap_or_else(|error| error.into_inner());
                            *last = Some(Instant::now());
                            done.notify_one();
                        }
                        Handled::Done
                    }
                }
            });
            let started = Instant::now();
            let all = Arc::clone(&done);
            run.concurrency(8)
                .with_graceful_shutdown(async move { all.notified().await })
                .await?;
            let last = last.lock().unwrap_or_else(|error| error.into_inner());
            let took = last.ok_or("not all are handled")? - started;
            table.add(how, SMALL, took, Samples::default(), None);
        }
    }
    clear(store).await?;
    table.at_most(
        1.2,
        GROUPED,
        ALONE,
        "a hundred tenants behind one with many, to alone",
    );
    Ok(table.finish())
}
