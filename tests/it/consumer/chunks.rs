//! `consumer().run_chunks(..)`: what a handler of many messages gets, and what becomes of each of them.

mod faults;

use pgqrs::{Chunk, Consumer, IntoOutcome, MessageId, Report};

use super::*;
use crate::support::{
    consumers::{Prepared, Running, handle_and_spawn},
    traces::{Traces, attribute},
};

/// Never in a test: only full chunks are handled.
const NEVER: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_millis(20);

fn start_chunks<F, R>(
    consumer: Prepared<Consumer>,
    size: usize,
    wait: Duration,
    handler: F,
) -> Running
where
    F: Fn(Chunk<Value>) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    handle_and_spawn(consumer, |consumer| {
        consumer.run_chunks(size, wait, handler)
    })
}

/// A handler that settles nothing one by one, and waits at a gate.
fn waits_at(
    gate: &Arc<Semaphore>,
    begun: &Arc<AtomicUsize>,
) -> impl Fn(Chunk<Value>) -> BoxedDone + Send + Sync + 'static + use<> {
    let (gate, begun) = (Arc::clone(gate), Arc::clone(begun));
    move |chunk| {
        let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
        Box::pin(async move {
            begun.fetch_add(chunk.len(), Ordering::SeqCst);
            pass(&gate).await;
            drop(chunk);
            Outcome::Done
        })
    }
}

async fn all_have_begun(begun: &AtomicUsize, many: usize) {
    until("the messages are being handled", async || {
        begun.load(Ordering::SeqCst) == many
    })
    .await;
}

fn numbers(report: &Report) -> [u64; 7] {
    [
        report.done,
        report.archived,
        report.retried,
        report.dead,
        report.released,
        report.lost,
        report.unknown,
    ]
}

/// The attempts and the last errors of stored messages, by their payloads.
async fn failures(pool: &PgPool) -> sqlx::Result<Vec<(String, i32, Option<String>)>> {
    sqlx::query_as("select payload::text, attempt, last_error from pgqrs.messages order by id")
        .fetch_all(pool)
        .await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_full_chunk_is_handled_at_once_and_acknowledged_in_one_statement(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::raw_sql(
        "create sequence deletions;
         create function count_deletion() returns trigger language plpgsql as
             $$ begin perform nextval('deletions'); return null; end $$;
         create trigger count_deletion after delete on pgqrs.messages
             for each statement execute function count_deletion();",
    )
    .execute(&pool)
    .await?;
    let payloads: Vec<u64> = (0..300).collect();
    send(&store, &payloads).await?;
    let chunks = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&chunks);
    let consumer = consumer().concurrency(1).create(&store).await?;
    let running = start_chunks(consumer, 100, NEVER, move |chunk| {
        let payloads = chunk.payloads().map(|n| n.as_u64().expect("a number"));
        seen.lock()
            .expect("not poisoned")
            .push(payloads.collect::<Vec<_>>());
        std::future::ready(Outcome::Done)
    });
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(numbers(&report), [300, 0, 0, 0, 0, 0, 0]);
    let chunks = chunks.lock().expect("not poisoned").clone();
    let sizes: Vec<_> = chunks.iter().map(Vec::len).collect();
    assert_eq!(sizes, [100, 100, 100]);
    // Two claims can be under way, and the second one's answer come first.
    let mut handled = chunks.concat();
    handled.sort_unstable();
    assert_eq!(handled, payloads);
    let deletions: i64 = sqlx::query_scalar("select last_value from deletions")
        .fetch_one(&pool)
        .await?;
    assert!((1..=3).contains(&deletions), "{deletions} statements");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_chunk_that_does_not_fill_is_handled_after_its_wait(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1, 2, 3]).await?;
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let consumer = consumer().create(&store).await?;
    let began = std::time::Instant::now();
    let wait = Duration::from_millis(200);
    let running = start_chunks(consumer, 100, wait, move |chunk| {
        counter.fetch_add(chunk.len(), Ordering::SeqCst);
        std::future::ready(Outcome::Done)
    });
    drained(&pool).await;
    assert!(began.elapsed() >= wait, "{:?}", began.elapsed());
    assert_eq!(running.stop().await?.done, 3);
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn concurrency_is_the_number_of_chunks_handled_at_once(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[0; 60]).await?;
    let (gate, begun) = (gate(), Arc::default());
    let consumer = consumer().concurrency(2).create(&store).await?;
    let running = start_chunks(consumer, 10, NEVER, waits_at(&gate, &begun));
    all_have_begun(&begun, 20).await;
    gate.add_permits(1);
    all_have_begun(&begun, 30).await;
    gate.add_permits(10);
    drained(&pool).await;
    assert_eq!(running.stop().await?.done, 60);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_settled_one_by_one_is_and_the_rest_fails_with_the_handler(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let words = [
        "ack", "archive", "nack", "retry in", "dead", "release", "a", "b",
    ];
    let ids = send(&store, &words).await?;
    // Nothing is claimed while the handler runs: what it releases would come again.
    let consumer = consumer()
        .concurrency(1)
        .prefetch(0)
        .retry(RetryPolicy::fixed(Duration::from_secs(600)))
        .create(&store)
        .await?;
    let handle = consumer.handle();
    let running = start_chunks(consumer, words.len(), NEVER, move |chunk| {
        chunk.nack(0, "thought better of it");
        chunk.ack(0);
        chunk.archive(1);
        chunk.nack(2, "a bad row");
        chunk.retry_in(3, Duration::from_secs(300), "the mailbox is full");
        chunk.dead_letter(4, "no such customer");
        chunk.settle(5, Outcome::Release);
        handle.stop();
        std::future::ready(Err::<(), _>("the upsert failed"))
    });
    let report = running.task.await??;
    assert_eq!(numbers(&report), [1, 1, 4, 1, 1, 0, 0]);
    let failures = failures(&pool).await?;
    let failures: Vec<_> = failures
        .iter()
        .map(|(payload, attempt, error)| (payload.as_str(), *attempt, error.as_deref()))
        .collect();
    assert_eq!(
        failures,
        [
            (r#""nack""#, 1, Some("a bad row")),
            (r#""retry in""#, 1, Some("the mailbox is full")),
            (r#""release""#, 0, None),
            (r#""a""#, 1, Some("the upsert failed")),
            (r#""b""#, 1, Some("the upsert failed")),
        ]
    );
    let dead = pgqrs::admin(&store)
        .dead_letters("tasks", Page::default())
        .await?;
    assert_eq!(
        (dead[0].id, dead[0].reason.as_str()),
        (ids[4], "no such customer")
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_that_does_not_decode_fails_alone(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[json!(1), json!("two"), json!(3), json!("four")]).await?;
    let numbers_queue = Queue::<u64>::new("tasks");
    let consumer = prepare(pgqrs::consumer(numbers_queue))
        .undecodable(UndecodablePolicy::dead_letter())
        .create(&store)
        .await?;
    let (handle, seen) = (consumer.handle(), Arc::new(Mutex::new(Vec::new())));
    let run = consumer.run_chunks(4, NEVER, {
        let seen = Arc::clone(&seen);
        move |chunk: Chunk<u64>| {
            seen.lock()
                .expect("not poisoned")
                .extend(chunk.payloads().copied());
            // The second of those that the handler got.
            chunk.archive(1);
            std::future::ready(Outcome::Done)
        }
    });
    let running = tokio::spawn(run);
    drained(&pool).await;
    handle.stop();
    let report = running.await??;
    assert_eq!(numbers(&report), [1, 1, 0, 2, 0, 0, 0]);
    assert_eq!(*seen.lock().expect("not poisoned"), [1, 3]);
    let archive = pgqrs::admin(&store)
        .archived("tasks", Page::builder().payload(true).build())
        .await?;
    assert_eq!(archive[0].payload.as_deref(), Some("3"));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_panic_and_a_timeout_fail_what_is_not_settled_one_by_one(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &["panics", "panics", "hangs", "hangs"]).await?;
    let consumer = consumer()
        .concurrency(1)
        .handler_timeout(Duration::from_millis(50))
        .retry(RetryPolicy::fixed(Duration::from_secs(600)))
        .create(&store)
        .await?;
    let running = start_chunks(consumer, 2, NEVER, |chunk| async move {
        chunk.ack(0);
        if chunk[0].payload() == "panics" {
            panic!("what a day");
        }
        std::future::pending::<Outcome>().await
    });
    until("both have failed", async || {
        let failures = failures(&pool).await.expect("listed");
        failures
            .iter()
            .filter(|(_, _, error)| error.is_some())
            .count()
            == 2
    })
    .await;
    assert_eq!(numbers(&running.stop().await?), [2, 0, 2, 0, 0, 0, 0]);
    let errors: Vec<_> = failures(&pool)
        .await?
        .into_iter()
        .map(|(_, _, error)| error)
        .collect();
    let expected = [
        "the handler panicked: what a day",
        "the handler timed out after 50ms",
    ];
    assert_eq!(errors, expected.map(|error| Some(error.to_owned())));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_index_out_of_range_fails_what_is_not_settled_one_by_one(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1, 2]).await?;
    let consumer = consumer()
        .retry(RetryPolicy::fixed(Duration::from_secs(600)))
        .create(&store)
        .await?;
    let handle = consumer.handle();
    let running = start_chunks(consumer, 2, NEVER, move |chunk| {
        chunk.ack(0);
        chunk.ack(2);
        handle.stop();
        std::future::ready(Outcome::Done)
    });
    assert_eq!(numbers(&running.task.await??), [1, 0, 1, 0, 0, 0, 0]);
    let mistake = "the handler settled index 2 of a chunk of 2 messages";
    assert_eq!(
        failures(&pool).await?,
        [("2".to_owned(), 1, Some(mistake.to_owned()))]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_long_handler_keeps_the_leases_of_all_of_its_chunk(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1, 2, 3]).await?;
    let (gate, begun) = (gate(), Arc::default());
    let lease = Duration::from_secs(1);
    let consumer = consumer().lease(lease).create(&store).await?;
    let running = start_chunks(consumer, 3, NEVER, waits_at(&gate, &begun));
    all_have_begun(&begun, 3).await;
    let first_end = async || {
        let end = "select min(lease_until) from pgqrs.messages";
        let end = sqlx::query_scalar(end).fetch_one(&pool).await;
        let end: chrono::DateTime<chrono::Utc> = end.expect("they are leased");
        end
    };
    let first = first_end().await;
    let others = newcomer(&pool);
    until("three leases have passed", async || {
        assert!(claim(&others, 3).await.expect("claimed").is_empty());
        first_end().await > first + lease * 3
    })
    .await;
    gate.add_permits(1);
    drained(&pool).await;
    assert_eq!(numbers(&running.stop().await?), [3, 0, 0, 0, 0, 0, 0]);
    Ok(())
}

/// The rest of a chunk that does not fill has used no attempt.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_chunk_is_acknowledged_in_the_transaction_of_its_work(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::raw_sql(
        "create table readings (value bigint primary key); grant all on readings to public",
    )
    .execute(&pool)
    .await?;
    send(&store, &[1, 2, 3, 4]).await?;
    let tries = Arc::new(AtomicUsize::new(0));
    let (on, counter) = (store.clone(), Arc::clone(&tries));
    let consumer = consumer().create(&store).await?;
    let running = start_chunks(consumer, 4, SOON, move |chunk| {
        let (store, is_first) = (on.clone(), counter.fetch_add(1, Ordering::SeqCst) == 0);
        async move {
            let values: Vec<_> = chunk.payloads().filter_map(Value::as_i64).collect();
            let mut tx = store.begin().await?;
            sqlx::query("insert into readings select unnest($1::bigint[])")
                .bind(values)
                .execute(&mut **tx)
                .await?;
            let lost: Vec<MessageId> = pgqrs::ack_all(chunk.into_deliveries(), &mut tx).await?;
            assert!(lost.is_empty());
            if is_first {
                return Err("the power fails".into());
            }
            tx.commit().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        }
    });
    drained(&pool).await;
    assert_eq!(numbers(&running.stop().await?), [4, 0, 4, 0, 0, 0, 0]);
    let values: Vec<i64> = sqlx::query_scalar("select value from readings order by value")
        .fetch_all(&pool)
        .await?;
    assert_eq!(values, [1, 2, 3, 4]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_span_of_a_chunk_counts_its_messages_and_links_to_their_senders(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let traces = Traces::start();
    for n in 0..3 {
        send(&store, &[n]).await?;
    }
    let consumer = consumer().create(&store).await?;
    let running = start_chunks(consumer, 3, NEVER, |chunk| async move {
        chunk.ack(0);
        Err::<(), _>("the upsert failed").or(if chunk[0].attempt() == 1 {
            Ok(())
        } else {
            Err("")
        })
    });
    drained(&pool).await;
    running.stop().await?;
    let process = traces.operations("process");
    assert_eq!(process.len(), 1);
    assert_eq!(process[0].name, "process tasks");
    assert_eq!(attribute(&process[0], "messaging.batch.message_count"), "3");
    let mut senders: Vec<_> = traces
        .operations("send")
        .iter()
        .map(|send| send.span_context.span_id())
        .collect();
    let mut links: Vec<_> = process[0]
        .links
        .iter()
        .map(|link| link.span_context.span_id())
        .collect();
    senders.sort_unstable_by_key(|id| id.to_bytes());
    links.sort_unstable_by_key(|id| id.to_bytes());
    assert_eq!(links, senders);
    Ok(())
}
