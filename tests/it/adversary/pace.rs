//! A consumer gets on at any speed: of its link, of its handlers, of decoding; and holds what it has room for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use pgqrs::{
    Delivery, Error, Outcome, Page, Queue, QueueOptions, Report, Store, Unchecked,
    UndecodablePolicy,
};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{runtime::Builder, sync::Barrier, time::timeout};

use crate::support::{
    TestResult,
    consumers::{Seen, consumer, drained, gate, pass, prepare, start},
    count, places,
    proxy::Proxy,
    send, until, until_within, url, with_queues,
};

/// Nothing that a test waits for takes nearly as long.
const BOUND: Duration = Duration::from_secs(120);

/// A payload of about `bytes` bytes.
fn large(name: usize, bytes: usize) -> Value {
    json!({ "name": name, "filler": "x".repeat(bytes) })
}

async fn patient_queue(pool: &PgPool) -> pgqrs::Result<Store> {
    let store = with_queues(pool, &["tasks"]).await?;
    let patient = QueueOptions::builder().max_attempts(1_000).build();
    pgqrs::admin(&store)
        .configure_queue("tasks", patient)
        .await?;
    Ok(store)
}

/// Notes which messages it has had.
fn by_name(
    seen: &Seen,
) -> impl Fn(Delivery<Value>) -> std::future::Ready<Outcome> + Send + Sync + 'static + use<> {
    let seen = seen.clone();
    move |delivery| {
        seen.note(delivery.payload()["name"].to_string());
        std::future::ready(Outcome::Done)
    }
}

/// All of them take much longer than a lease to arrive.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn over_a_slow_link_large_messages_are_handled_in_spite_of_a_short_lease(
    pool: PgPool,
) -> TestResult {
    let direct = patient_queue(&pool).await?;
    let mut payloads: Vec<_> = (0..4).map(|n| large(n, 2 << 20)).collect();
    payloads.extend((4..24).map(|n| large(n, 300 << 10)));
    for payload in payloads {
        send(&direct, &[payload]).await?;
    }
    // Fourteen megabytes.
    let (proxy, url) = Proxy::before(&pool).await?;
    proxy.slow(3 << 20);
    let store = pgqrs::connect(&url).await?;
    let seen = Seen::default();
    let hasty = consumer().lease(Duration::from_secs(1));
    let running = start(hasty.create(&store).await?, by_name(&seen));
    let is_drained = until_within(BOUND, async || count(&pool).await.expect("counted") == 0);
    assert!(is_drained.await, "{} are left", count(&pool).await?);
    running.stop().await?;
    assert_eq!((seen.len(), places(&pool).await?), (24, (0, 0, 0)));
    Ok(())
}

/// So each of two consumers could take it away from the other, again and again.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_takes_longer_than_its_lease_to_arrive_is_handled(
    pool: PgPool,
) -> TestResult {
    let direct = patient_queue(&pool).await?;
    for n in 0..4 {
        send(&direct, &[large(n, 1 << 20)]).await?;
    }
    let (proxy, url) = Proxy::before(&pool).await?;
    proxy.slow(1 << 20);
    let seen = Seen::default();
    let mut running = Vec::new();
    for port in [3001, 3002] {
        let store = pgqrs::connect(&url).await?;
        let builder = prepare(pgqrs::consumer("tasks").identity("my-service", port))
            .lease(Duration::from_millis(300))
            .poll_interval(Duration::from_millis(20));
        running.push(start(builder.create(&store).await?, by_name(&seen)));
    }
    let is_drained = until_within(BOUND, async || count(&pool).await.expect("counted") == 0);
    assert!(is_drained.await, "{} are left", count(&pool).await?);
    for running in running {
        running.stop().await?;
    }
    assert_eq!((seen.len(), places(&pool).await?), (4, (0, 0, 0)));
    Ok(())
}

/// How many messages are leased, and how many bytes their payloads have.
async fn leased(pool: &PgPool) -> (i64, i64) {
    sqlx::query_as(
        "select count(*), coalesce(sum(payload_bytes), 0)::bigint from pgqrs.messages
         where lease_token <> 0",
    )
    .fetch_one(pool)
    .await
    .expect("counted")
}

/// The small ones are handled at such a pace that hundreds are held ready.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn large_messages_after_small_ones_are_held_up_to_the_bytes_allowed(
    pool: PgPool,
) -> TestResult {
    const LARGE: i64 = 40;
    const SIZE: usize = 500_000;
    const BUDGET: usize = 3_000_000;
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &vec![json!({ "name": 0 }); 3_000]).await?;
    for n in 0..LARGE {
        send(&store, &[large(n as usize, SIZE)]).await?;
    }
    let gate = gate();
    let bounded = consumer().prefetch_bytes(BUDGET);
    let running = start(bounded.create(&store).await?, {
        let gate = Arc::clone(&gate);
        move |delivery: Delivery<Value>| {
            let gate = Arc::clone(&gate);
            async move {
                if delivery.raw_payload().len() > SIZE {
                    pass(&gate).await;
                }
                Outcome::Done
            }
        }
    });
    for left in (0..=LARGE).rev() {
        until("the next one is settled", async || {
            count(&pool).await.expect("counted") == left
        })
        .await;
        if left > 0 {
            until("another one is at work", async || leased(&pool).await.0 > 0).await;
        }
        let (messages, bytes) = leased(&pool).await;
        assert!(
            bytes <= (BUDGET + SIZE) as i64,
            "{messages} messages of {bytes} bytes are held"
        );
        gate.add_permits(1);
    }
    assert_eq!(running.stop().await?.done, 3_000 + LARGE as u64);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_larger_than_the_bytes_allowed_is_delivered(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for bytes in [10_000, 0] {
        let payloads: Vec<_> = (0..10).map(|n| large(n, 50_000)).collect();
        send(&store, &payloads).await?;
        let gate = gate();
        let bounded = consumer().prefetch_bytes(bytes).create(&store).await?;
        let running = start(bounded, {
            let gate = Arc::clone(&gate);
            move |_: Delivery<Value>| {
                let gate = Arc::clone(&gate);
                async move {
                    pass(&gate).await;
                    Outcome::Done
                }
            }
        });
        for left in (0..=10).rev() {
            until("the next one is settled", async || {
                count(&pool).await.expect("counted") == left
            })
            .await;
            // One for each of two claims at a time.
            let (messages, _) = leased(&pool).await;
            assert!(messages <= 2, "{messages} are held");
            gate.add_permits(1);
        }
        assert_eq!(running.stop().await?.done, 10);
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dequeue_returns_what_fits_and_the_next_one_the_rest(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(
        &store,
        &(0..10).map(|n| large(n, 100_000)).collect::<Vec<_>>(),
    )
    .await?;
    let mut returned = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let dequeue = pgqrs::dequeue().from("tasks").limit(10_000);
        let some: Vec<Delivery<Value, Unchecked>> =
            dequeue.max_bytes(350_000).execute(&store).await?;
        if some.is_empty() {
            break;
        }
        sizes.push(some.len());
        returned.extend(some.iter().map(Delivery::id));
    }
    assert_eq!(sizes, [3, 3, 3, 1]);
    assert_eq!(returned, ids.to_vec());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dequeue_returns_a_message_larger_than_its_bytes_alone(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let ids = send(&store, &[large(0, 100_000), large(1, 10), large(2, 10)]).await?;
    for expected in [&ids[..1], &ids[1..]] {
        let dequeue = pgqrs::dequeue().from("tasks").limit(10_000);
        let some: Vec<Delivery<Value, Unchecked>> =
            dequeue.max_bytes(1_000).execute(&store).await?;
        let some: Vec<_> = some.iter().map(Delivery::id).collect();
        assert_eq!(some, expected);
    }
    Ok(())
}

/// Panics for one payload, and takes its time for another.
#[derive(Debug)]
struct Touchy;

impl<'de> Deserialize<'de> for Touchy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "panic" => panic!("what a payload"),
            "slow" => thread::sleep(Duration::from_millis(200)),
            _ => {}
        }
        Ok(Self)
    }
}

const TOUCHY: Queue<Touchy> = Queue::new("tasks");

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_panic_while_decoding_is_a_dead_letter_of_that_message_alone(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut words = vec!["fine"; 100];
    words[30] = "panic";
    let ids = send(&store, &words).await?;
    let consumer = pgqrs::consumer(TOUCHY)
        .identity("my-service", 3001)
        .create(&store)
        .await?;
    let handle = consumer.handle();
    let run = consumer.run(async |_: Delivery<Touchy>| Outcome::Done);
    let running = tokio::spawn(run.undecodable(UndecodablePolicy::dead_letter()));
    drained(&pool).await;
    // It goes on.
    send(&store, &["fine"; 10]).await?;
    drained(&pool).await;
    handle.stop();
    let report = timeout(BOUND, running).await???;
    assert_eq!((report.done, report.dead), (109, 1), "{report:?}");
    let dead = pgqrs::admin(&store)
        .dead_letters("tasks", Page::default())
        .await?;
    let dead: Vec<_> = dead
        .iter()
        .map(|dead| (dead.id, dead.reason.as_str(), dead.last_error.as_deref()))
        .collect();
    let expected = Some("decoding panicked: what a payload");
    assert_eq!(dead, [(ids[30], "its payload doesn't decode", expected)]);
    Ok(())
}

/// All of it takes several leases, on two threads.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn slow_decoding_loses_no_lease(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &["slow"; 64]).await?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let running = runtime.spawn({
        let url = url(&pool);
        async move {
            let store = pgqrs::connect(&url).await?;
            let consumer = prepare(pgqrs::consumer(TOUCHY).identity("my-service", 3001))
                .concurrency(16)
                .lease(Duration::from_secs(3))
                .create(&store)
                .await?;
            let (attempts, handled) = (Arc::new(AtomicUsize::new(0)), gate());
            let (highest, done) = (Arc::clone(&attempts), Arc::clone(&handled));
            let run = consumer.run(move |delivery: Delivery<Touchy>| {
                highest.fetch_max(delivery.attempt() as usize, Ordering::SeqCst);
                done.add_permits(1);
                std::future::ready(Outcome::Done)
            });
            let all = async move {
                let _ = handled.acquire_many(64).await;
            };
            let report = run.with_graceful_shutdown(all).await?;
            Ok::<(Report, usize), Error>((report, attempts.load(Ordering::SeqCst)))
        }
    });
    let ended = timeout(BOUND, running).await;
    runtime.shutdown_background();
    let (report, attempts) = ended???;
    assert_eq!(
        (report.done, report.lost, attempts),
        (64, 0, 1),
        "{report:?}"
    );
    assert_eq!(count(&pool).await?, 0);
    Ok(())
}

/// On a single thread, which decoding keeps from all else; and many are held ready, since those before them were handled at
/// such a pace.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn slow_decoding_lets_the_loop_extend_its_leases_in_between(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let mut words = vec!["fine"; 3_000];
    words.extend(["slow"; 45]);
    send(&store, &words).await?;
    // Notes what is extended or settled when its lease has run out already, so that others could have had it.
    sqlx::raw_sql(
        "create table late (id bigint);
         create function note_late() returns trigger language plpgsql as $$ begin
             if old.lease_token <> 0 and old.lease_until < clock_timestamp() then
                 insert into late values (old.id);
             end if;
             return coalesce(new, old);
         end $$;
         create trigger note_late before update or delete on pgqrs.messages
             for each row execute function note_late();",
    )
    .execute(&pool)
    .await?;
    let consumer = prepare(pgqrs::consumer(TOUCHY).identity("my-service", 3001))
        .concurrency(2)
        .lease(Duration::from_secs(5))
        .create(&store)
        .await?;
    let handle = consumer.handle();
    let run = consumer.run(async |_: Delivery<Touchy>| Outcome::Done);
    let running = tokio::spawn(run);
    drained(&pool).await;
    handle.stop();
    let report = timeout(BOUND, running).await???;
    assert_eq!((report.done, report.lost), (3_045, 0), "{report:?}");
    let late: i64 = sqlx::query_scalar("select count(*) from late")
        .fetch_one(&pool)
        .await?;
    assert_eq!(late, 0, "leases that had run out");
    Ok(())
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("not me");
        }
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn handlers_whose_drop_panics_at_the_time_limit_free_their_slots(pool: PgPool) -> TestResult {
    const HANDLERS: usize = 4;
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let twice = QueueOptions::builder().max_attempts(2).build();
    admin.configure_queue("tasks", twice).await?;
    send(&store, &["bomb"; 2 * HANDLERS]).await?;
    let limited = consumer()
        .concurrency(HANDLERS)
        .handler_timeout(Duration::from_millis(500));
    let all_at_once = Arc::new(Barrier::new(HANDLERS));
    let (is_over, running) = {
        let is_over = gate();
        let meeting = Arc::clone(&is_over);
        let handler = move |delivery: Delivery<Value>| {
            let (meeting, all_at_once) = (Arc::clone(&meeting), Arc::clone(&all_at_once));
            async move {
                if delivery.raw_payload() == r#""bomb""# {
                    let _bomb = PanicsOnDrop;
                    std::future::pending::<()>().await;
                }
                // None of them gets on unless as many run at once as may.
                if meeting.available_permits() == 0 {
                    all_at_once.wait().await;
                }
                Outcome::Done
            }
        };
        (is_over, start(limited.create(&store).await?, handler))
    };
    until("all bombs are dead letters", async || {
        places(&pool).await.expect("counted") == (0, 2 * HANDLERS as i64, 0)
    })
    .await;
    // A handler that doesn't meet the others before its time limit is retried.
    let patient = QueueOptions::builder().max_attempts(1_000).build();
    admin.configure_queue("tasks", patient).await?;
    send(&store, &["fine"; HANDLERS]).await?;
    until("all handlers have met", async || {
        count(&pool).await.expect("counted") == 0
    })
    .await;
    is_over.add_permits(1);
    send(&store, &["fine"; 100]).await?;
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.dead), (104, 8), "{report:?}");
    let dead = admin.dead_letters("tasks", Page::default()).await?;
    let expected = Some("the handler panicked when it was dropped");
    assert!(
        dead.iter()
            .all(|dead| dead.last_error.as_deref() == expected),
        "{dead:?}"
    );
    Ok(())
}
