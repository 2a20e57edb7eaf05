//! Messages on their way from many to many: none is lost, doubled or passed over.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use pgqrs::{Delivery, Error, Outcome};
use serde_json::Value;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::task::JoinSet;

use crate::support::{
    TestResult, blocked_backends, claim, connect,
    consumers::{consumer, drained, gate, pass, prepare, start},
    count, places, send, until, until_within, url, with_queues,
};

/// Each producer and each consumer has a store of its own, as if it were a process of its own. No lease can
/// run out within the test: so there is no reason for a message to be delivered twice.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn of_a_hundred_thousand_messages_each_is_handled_once(pool: PgPool) -> TestResult {
    const SIDES: u64 = 8;
    const EACH: u64 = 12_500;
    const BATCH: u64 = 250;
    with_queues(&pool, &["tasks"]).await?;
    let handled: Arc<Vec<AtomicU32>> =
        Arc::new((0..SIDES * EACH).map(|_| AtomicU32::new(0)).collect());
    let mut consumers = Vec::new();
    for port in 1..=SIDES as u16 {
        let store = connect(&pool).await?;
        let consumer = prepare(pgqrs::consumer("tasks").identity("my-service", port))
            .lease(Duration::from_secs(3_600));
        let handled = Arc::clone(&handled);
        consumers.push(start(
            consumer.create(&store).await?,
            move |delivery: Delivery<Value>| {
                let n = delivery.payload().as_u64();
                let n = n.and_then(|n| usize::try_from(n).ok()).expect("a number");
                handled[n].fetch_add(1, Ordering::Relaxed);
                std::future::ready(Outcome::Done)
            },
        ));
    }
    let mut producers = JoinSet::new();
    for producer in 0..SIDES {
        let store = connect(&pool).await?;
        producers.spawn(async move {
            for batch in 0..EACH / BATCH {
                let first = producer * EACH + batch * BATCH;
                send(&store, &(first..first + BATCH).collect::<Vec<_>>()).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(producer) = producers.join_next().await {
        producer??;
    }
    // So many take a busy machine a minute.
    let limit = Duration::from_secs(300);
    let is_empty = async || count(&pool).await.expect("counted") == 0;
    assert!(until_within(limit, is_empty).await, "some are left");
    let mut done = 0;
    for consumer in consumers {
        let report = consumer.stop().await?;
        assert_eq!((report.lost, report.retried, report.dead), (0, 0, 0));
        done += report.done;
    }
    assert_eq!(done, SIDES * EACH);
    assert_eq!(places(&pool).await?, (0, 0, 0));
    let not_once = handled
        .iter()
        .filter(|times| times.load(Ordering::Relaxed) != 1);
    assert_eq!(not_once.count(), 0);
    Ok(())
}

/// Who receives while transactions commit late.
#[derive(Clone, Copy)]
enum Receiver {
    /// `consumer.run(..)`.
    Run,
    /// Calls of `dequeue()`, from several tasks of one store.
    Dequeue,
}

const LATE: u64 = 40;

/// Beside a steady flow, transactions stay open for a while between their enqueue and their commit. When
/// their messages can be seen, others with later times have been claimed long ago. Returns how long after its
/// commit each was delivered, sorted.
async fn late_commits(
    pool: &PgPool,
    receiver: Receiver,
) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    with_queues(pool, &["tasks"]).await?;
    let store = connect(pool).await?;
    let delivered: Arc<Mutex<HashMap<u64, Instant>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let note = {
        let delivered = Arc::clone(&delivered);
        move |payload: &str| {
            // The flow's payloads are no numbers.
            if let Ok(n) = payload.parse() {
                let again = delivered
                    .lock()
                    .expect("not poisoned")
                    .insert(n, Instant::now());
                assert!(again.is_none(), "{n} came twice");
            }
        }
    };
    let mut tasks = JoinSet::new();
    let running = match receiver {
        Receiver::Run => {
            let consumer = consumer().poll_interval(Duration::from_millis(5));
            let consumer = consumer.create(&store).await?;
            Some(start(consumer, move |delivery: Delivery<Value>| {
                note(delivery.raw_payload());
                std::future::ready(Outcome::Done)
            }))
        }
        Receiver::Dequeue => {
            for _ in 0..2 {
                let (store, stop, note) = (store.clone(), Arc::clone(&stop), note.clone());
                tasks.spawn(async move {
                    loop {
                        let last = stop.load(Ordering::Relaxed);
                        let deliveries = claim(&store, 50).await?;
                        if last && deliveries.is_empty() {
                            return Ok(());
                        }
                        for delivery in &deliveries {
                            note(delivery.raw_payload());
                        }
                        assert!(pgqrs::ack_all(deliveries, &store).await?.is_empty());
                    }
                });
            }
            None
        }
    };
    let mut flow = JoinSet::new();
    let dry = Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let (store, stop) = (store.clone(), Arc::clone(&dry));
        flow.spawn(async move {
            // Steady, and not as fast as the machine can.
            let mut beat = tokio::time::interval(Duration::from_millis(5));
            while !stop.load(Ordering::Relaxed) {
                beat.tick().await;
                send(&store, &["flow"; 5]).await?;
            }
            Ok::<_, Error>(())
        });
    }
    let mut senders = JoinSet::new();
    for sender in 0..4 {
        let url = url(pool);
        senders.spawn(async move {
            let mut connection = PgConnection::connect(&url).await?;
            let mut commits = Vec::new();
            for n in (sender..LATE).step_by(4) {
                let mut tx = connection.begin().await?;
                let enqueue = pgqrs::enqueue().message(&n).to("tasks");
                enqueue.execute(&mut tx).await?;
                sqlx::query("select pg_sleep(0.2)")
                    .execute(&mut *tx)
                    .await?;
                tx.commit().await?;
                commits.push((n, Instant::now()));
            }
            Ok::<_, Error>(commits)
        });
    }
    let mut commits = HashMap::new();
    while let Some(sender) = senders.join_next().await {
        commits.extend(sender??);
    }
    until("all late ones are delivered", async || {
        delivered.lock().expect("not poisoned").len() as u64 == LATE
    })
    .await;
    // The receivers go on until there is nothing any more.
    for (end, tasks) in [(dry, &mut flow), (stop, &mut tasks)] {
        end.store(true, Ordering::Relaxed);
        while let Some(task) = tasks.join_next().await {
            task??;
        }
    }
    if let Some(running) = running {
        drained(pool).await;
        let report = running.stop().await?;
        assert_eq!((report.lost, report.retried), (0, 0));
    }
    assert_eq!(places(pool).await?, (0, 0, 0));
    let delivered = delivered.lock().expect("not poisoned");
    let mut waits: Vec<_> = commits
        .iter()
        .map(|(n, committed)| delivered[n].saturating_duration_since(*committed))
        .collect();
    waits.sort_unstable();
    println!(
        "late ones came after their commit: median {:?}, longest {:?}",
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
    Ok(waits)
}

/// Holds a snapshot of now, so that vacuum takes nothing away that is deleted from now on.
async fn old_snapshot(pool: &PgPool) -> sqlx::Result<PgConnection> {
    let mut connection = PgConnection::connect(&url(pool)).await?;
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from pgqrs.messages")
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_commits_late_is_not_passed_over(pool: PgPool) -> TestResult {
    let waits = late_commits(&pool, Receiver::Run).await?;
    assert_eq!(waits.len() as u64, LATE);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_commits_late_is_not_passed_over_by_single_dequeues(pool: PgPool) -> TestResult {
    let waits = late_commits(&pool, Receiver::Dequeue).await?;
    assert_eq!(waits.len() as u64, LATE);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn under_an_old_snapshot_what_commits_late_is_not_passed_over(pool: PgPool) -> TestResult {
    let snapshot = old_snapshot(&pool).await?;
    let waits = late_commits(&pool, Receiver::Run).await?;
    assert_eq!(waits.len() as u64, LATE);
    snapshot.close().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn under_an_old_snapshot_single_dequeues_do_not_pass_it_over_either(
    pool: PgPool,
) -> TestResult {
    let snapshot = old_snapshot(&pool).await?;
    let waits = late_commits(&pool, Receiver::Dequeue).await?;
    assert_eq!(waits.len() as u64, LATE);
    snapshot.close().await?;
    Ok(())
}

/// Below the watermark of a consumer that is busy with others: its rescans find them.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_a_crashed_consumer_held_is_delivered_soon_after_its_lease(
    pool: PgPool,
) -> TestResult {
    const HELD: usize = 1_000;
    let lease = Duration::from_secs(1);
    let store = with_queues(pool.clone(), &["tasks"]).await?;
    send(&store, &vec!["held"; HELD]).await?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let held = async |seen: &Mutex<Vec<Instant>>| seen.lock().expect("no panic").len();
    let crashed = connect(&pool).await?;
    let claim = pgqrs::dequeue().from("tasks").limit(HELD as u32);
    let deliveries = claim.lease(lease).execute(&crashed).await?;
    let expires = Instant::now() + lease;
    assert_eq!(deliveries.len(), HELD);
    drop((deliveries, crashed));

    let running = start(consumer().create(&store).await?, {
        let seen = Arc::clone(&seen);
        move |delivery: Delivery<Value>| {
            if delivery.payload() == "held" {
                seen.lock().expect("no panic").push(Instant::now());
            }
            std::future::ready(Outcome::Done)
        }
    });
    until("all are delivered again", async || {
        send(&store, &["other"; 10]).await.expect("sent");
        held(&seen).await == HELD
    })
    .await;
    drained(&pool).await;
    running.stop().await?;
    let seen = seen.lock().expect("no panic");
    // Two seconds are promised; the rest is for a slow machine.
    let late = seen.iter().max().expect("some").duration_since(expires);
    assert!(late < Duration::from_secs(12), "{late:?}");
    Ok(())
}

/// A settlement finds its message, and then waits for an extension of its lease, which moves the message to another place.
/// That happens by itself if extensions take long, as behind a pooler with few connections.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_settlement_that_meets_an_extension_of_its_lease_is_not_lost(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let kinds = [
        Outcome::Done,
        Outcome::Archive,
        Outcome::DeadLetter("for ever".into()),
    ];
    for (round, outcome) in (1..).zip(kinds) {
        send(&store, &[0; 20]).await?;
        let gate = gate();
        let running = start(consumer().concurrency(20).create(&store).await?, {
            let gate = Arc::clone(&gate);
            move |_| {
                let (gate, outcome) = (Arc::clone(&gate), outcome.clone());
                async move {
                    pass(&gate).await;
                    outcome
                }
            }
        });
        until("all are leased", async || {
            let leased = "select count(*) from pgqrs.messages where lease_token <> 0";
            let leased = sqlx::query_scalar(leased).fetch_one(&pool).await;
            leased.is_ok_and(|leased: i64| leased == 20)
        })
        .await;
        let mut extending = pool.begin().await?;
        sqlx::query("update pgqrs.messages set lease_until = lease_until + interval '1 second'")
            .execute(&mut *extending)
            .await?;
        gate.add_permits(20);
        blocked_backends(&pool, "pgqrs.messages", 1).await;
        extending.commit().await?;
        drained(&pool).await;
        let report = running.stop().await?;
        let settled = report.done + report.archived + report.dead;
        assert_eq!(
            (settled, report.lost, report.unknown),
            (20, 0, 0),
            "round {round}"
        );
    }
    Ok(())
}
