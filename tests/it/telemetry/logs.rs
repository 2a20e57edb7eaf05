//! What a log says of messages and workers, line by line.

use std::{fmt, time::Duration};

use pgqrs::{Delivery, MessageId, Outcome, Queue, QueueOptions, Store, UndecodablePolicy};
use serde_json::Value;
use sqlx::PgPool;
use tracing::Level;

use crate::support::{
    TestResult, claim,
    consumers::{Running, Seen, consumer, drained, gate, pass, prepare, start},
    expire, newcomer,
    notes::Notes,
    one, places, send, until, with_queues,
};

/// An error with a source, as those of applications have.
#[derive(Debug)]
struct Refused(std::io::Error);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the mail server refused the message")
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

fn refused() -> Refused {
    Refused(std::io::Error::other("mailbox full"))
}

async fn with_attempts(pool: &PgPool, attempts: u32) -> pgqrs::Result<Store> {
    let store = with_queues(pool, &["tasks"]).await?;
    let options = QueueOptions::builder().max_attempts(attempts).build();
    let owner = newcomer(pool);
    pgqrs::admin(&owner)
        .configure_queue("tasks", options)
        .await?;
    Ok(store)
}

/// The fields that each event about a message has.
fn about(worker: &Running, message: MessageId, attempt: u32, max_attempts: u32) -> String {
    let worker = worker.handle.id();
    format!(
        "queue=\"tasks\" worker_id={worker} message_id={message} attempt={attempt} max_attempts={max_attempts}"
    )
}

async fn dead(pool: &PgPool, many: i64) {
    until("there are dead letters", async || {
        places(pool).await.expect("counted").1 == many
    })
    .await;
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_failed_attempt_is_a_warning_and_the_dead_letter_an_error(pool: PgPool) -> TestResult {
    let store = with_attempts(&pool, 3).await?;
    let (notes, _guard) = Notes::start();
    let id = send(&store, &["a secret"]).await?[0];
    let running = start(
        consumer().create(&store).await?,
        async |delivery: Delivery<Value>| match delivery.attempt() {
            1 => Err(refused()),
            2 => panic!("on purpose"),
            _ => Ok(Outcome::RetryIn(
                Duration::from_secs(60),
                "again".to_owned(),
            )),
        },
    );
    dead(&pool, 1).await;
    notes.until("dead letters", 1).await;
    let about = |attempt| about(&running, id, attempt, 3);
    let (first, second, third) = (about(1), about(2), about(3));
    assert_eq!(
        notes.lines("attempt failed"),
        [
            format!(
                "WARN  attempt failed {first} error=\"the mail server refused the message: mailbox full\" retry_in=0s"
            ),
            format!(
                "WARN  attempt failed {second} error=\"the handler panicked: on purpose\" retry_in=0s"
            ),
            format!("WARN  attempt failed {third} error=\"again\""),
        ]
    );
    assert_eq!(
        notes.lines("dead letters"),
        [format!(
            "ERROR message moved to the dead letters {third} reason=\"attempts used up\" error=\"again\""
        )]
    );
    // Those of an attempt are in its trace.
    for event in notes.log() {
        let is_attempt = event.message() == "attempt failed";
        assert!(!is_attempt || event.within == Some("process"), "{event:?}");
        assert_eq!(event.target, "pgqrs");
    }
    running.stop().await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dead_letter_says_its_reason_and_the_last_error(pool: PgPool) -> TestResult {
    let store = with_attempts(&pool, 1).await?;
    let (notes, _guard) = Notes::start();
    let ids = send(&store, &["refused", "hopeless"]).await?;
    let running = start(
        consumer().create(&store).await?,
        async |delivery: Delivery<Value>| match delivery.raw_payload() {
            "\"refused\"" => Err(refused()),
            _ => Ok(Outcome::DeadLetter("no such address".to_owned())),
        },
    );
    dead(&pool, 2).await;
    notes.until("dead letters", 2).await;
    let mut lines = notes.lines("dead letters");
    lines.sort_by_key(|line| line.contains("no such"));
    let (first, second) = (about(&running, ids[0], 1, 1), about(&running, ids[1], 1, 1));
    assert_eq!(
        lines,
        [
            format!(
                "ERROR message moved to the dead letters {first} reason=\"attempts used up\" \
                 error=\"the mail server refused the message: mailbox full\""
            ),
            format!("ERROR message moved to the dead letters {second} reason=\"no such address\""),
        ]
    );
    running.stop().await?;
    // Without a consumer.
    let id = send(&store, &["hopeless"]).await?[0];
    let other = send(&store, &["nack"]).await?[0];
    one(&store).await?.dead_letter("by hand", &store).await?;
    one(&store).await?.nack(&store).await?;
    let lines = notes.lines("worker_id");
    assert!(
        lines.iter().all(|line| !line.contains("by hand")),
        "{lines:?}"
    );
    let about = |id| format!("queue=\"tasks\" message_id={id} attempt=1 max_attempts=1");
    let (first, second) = (about(id), about(other));
    let moved = "ERROR message moved to the dead letters";
    assert_eq!(
        notes.lines("dead letters")[2..],
        [
            format!("{moved} {first} reason=\"by hand\""),
            format!("{moved} {second} reason=\"attempts used up\""),
        ]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_that_does_not_decode_is_reported_with_its_place_and_without_a_word_of_it(
    pool: PgPool,
) -> TestResult {
    const NUMBERS: Queue<Vec<u32>> = Queue::new("tasks");
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    send(&store, &[vec!["a secret"]]).await?;
    let typed = prepare(pgqrs::consumer(NUMBERS)).undecodable(UndecodablePolicy::dead_letter());
    let typed = typed.create(&store).await?;
    let handle = typed.handle();
    let task = tokio::spawn(typed.run(async |_: Delivery<Vec<u32>>| Outcome::Done));
    dead(&pool, 1).await;
    notes.until("dead letters", 1).await;
    handle.stop();
    task.await??;
    let undecoded = notes.lines("doesn't decode");
    assert_eq!(undecoded.len(), 2, "{undecoded:?}");
    assert!(
        undecoded[0].starts_with("WARN  payload doesn't decode queue=\"tasks\" worker_id=")
            && undecoded[0]
                .ends_with("error=\"its data is not of the handler's type, at line 1 column 11\""),
        "{undecoded:?}"
    );
    assert!(
        undecoded[1].ends_with("reason=\"its payload doesn't decode\""),
        "{undecoded:?}"
    );
    assert!(!notes.all().contains("secret"));
    // The whole of it is with the dead letter.
    let dead = pgqrs::admin(&newcomer(&pool));
    let dead = dead.dead_letters("tasks", pgqrs::Page::default()).await?;
    let error = dead[0].last_error.as_deref().unwrap_or_default();
    assert!(error.contains("a secret"), "{error}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lost_lease_is_a_warning_whatever_is_done_with_the_delivery(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let ids = send(&store, &[1, 2, 3, 4, 5]).await?;
    let mut deliveries = claim(&store, 5).await?.into_iter();
    let mut next = || deliveries.next().expect("five");
    for id in &*ids {
        expire(&pool, *id).await?;
    }
    let others = claim(&newcomer(&pool), 5).await?;
    assert_eq!(others.len(), 5);
    next().ack(&store).await.unwrap_err();
    next().nack(&store).await.unwrap_err();
    next().extend(Duration::from_secs(1)).await.unwrap_err();
    let rest = vec![next(), next()];
    assert_eq!(pgqrs::ack_all(rest, &store).await?, ids[3..5]);
    let verbs = ["ack", "nack", "extend", "ack", "ack"];
    let expected = ids.iter().zip(verbs).map(|(id, during)| {
        format!(
            "WARN  lease lost: the message is or was delivered again, or is gone queue=\"tasks\" message_id={id} \
             attempt=1 max_attempts=20 during={during:?}"
        )
    });
    assert_eq!(notes.lines("lease lost"), expected.collect::<Vec<_>>());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_that_lost_leases_names_the_messages_that_others_hold(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let (seen, gate) = (Seen::default(), gate());
    let running = start(
        consumer()
            .lease(Duration::from_secs(60))
            // It claims no others meanwhile, not even its own again.
            .concurrency(3)
            .prefetch(0)
            .create(&store)
            .await?,
        {
            let (seen, gate) = (seen.clone(), gate.clone());
            move |delivery: Delivery<Value>| {
                let (seen, gate) = (seen.clone(), gate.clone());
                async move {
                    seen.note(delivery.raw_payload());
                    pass(&gate).await;
                    match delivery.raw_payload() {
                        "\"failed\"" => Outcome::Retry("again".to_owned()),
                        _ => Outcome::Done,
                    }
                }
            }
        },
    );
    let ids = send(&store, &["held", "gone", "failed"]).await?;
    until("all are handled", async || seen.len() == 3).await;
    for id in &*ids {
        expire(&pool, *id).await?;
    }
    let mut others = claim(&newcomer(&pool), 3).await?;
    assert_eq!(others.len(), 3);
    others.remove(1).ack(&store).await?;
    let worker = running.handle.id();
    let about = |id, attempt| {
        format!(
            "queue=\"tasks\" worker_id={worker} message_id={id} attempt={attempt} max_attempts=20"
        )
    };
    // The other one isn't registered, and so has no id.
    let again = ids.iter().map(|id| {
        format!(
            "WARN  delivered again: the lease of the previous delivery ran out queue=\"tasks\" message_id={id} \
             attempt=2 max_attempts=20 previous_worker_id={worker}"
        )
    });
    assert_eq!(notes.lines("delivered again"), again.collect::<Vec<_>>());
    gate.add_permits(3);
    notes.until("lost", 3).await;
    let mut lost = notes.lines("lost");
    lost.sort();
    let lease = "WARN  lease lost: the message is or was delivered again, or is gone";
    let mut expected = [
        format!("{lease} {} during=\"ack\"", about(ids[0], 1)),
        format!("{lease} {} during=\"nack\"", about(ids[2], 1)),
        format!(
            "WARN  leases lost: the messages were settled elsewhere, or are gone queue=\"tasks\" \
             worker_id={worker} messages=1 during=\"ack\""
        ),
    ];
    expected.sort();
    assert_eq!(lost, expected);
    assert_eq!(running.stop().await?.lost, 3);
    drop(others);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_that_no_consumer_survives_is_an_error_with_its_last_consumer(
    pool: PgPool,
) -> TestResult {
    let store = with_attempts(&pool, 1).await?;
    let crashed = pgqrs::consumer("tasks").create(&store).await?;
    let id = send(&store, &[1]).await?[0];
    assert_eq!(crashed.dequeue().execute(&store).await?.len(), 1);
    expire(&pool, id).await?;
    let (notes, _guard) = Notes::start();
    assert!(claim(&newcomer(&pool), 1).await?.is_empty());
    assert_eq!(
        notes.lines("dead letters"),
        [format!(
            "ERROR message moved to the dead letters queue=\"tasks\" message_id={id} attempt=1 max_attempts=1 \
             previous_worker_id={} reason=\"attempts used up\" error=\"its last delivery was not settled: the consumer crashed, its lease ran out, or its handler was aborted\"",
            crashed.id()
        )]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_reports_its_settings_when_it_starts_and_its_report_when_it_stops(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1, 2]).await?;
    let (notes, _guard) = Notes::start();
    let consumer = pgqrs::consumer("tasks")
        .identity("mailer", 1)
        .create(&store)
        .await?;
    let (handle, worker) = (consumer.handle(), consumer.id());
    let run = consumer.run(async |_: Delivery<Value>| Outcome::Done);
    let task = tokio::spawn(
        run.concurrency(2)
            .prefetch(100)
            .handler_timeout(Duration::from_secs(5))
            .listen(false),
    );
    drained(&pool).await;
    handle.stop();
    task.await??;
    let of = format!("queue=\"tasks\" worker_id={worker}");
    let lines: Vec<_> = notes.log().iter().map(|event| event.line()).collect();
    assert_eq!(
        lines,
        [
            format!("INFO  worker registered {of} kind=\"consumer\" hostname=\"mailer\" port=1"),
            format!(
                "INFO  consumer started {of} concurrency=2 prefetch=100 prefetch_bytes=67108864 lease=30s \
                 poll_interval=250ms retry=\"1s, 2s, 4s, … 3600s\" undecodable=\"60s, until 3600s\" \
                 handler_timeout=5s listen=false shutdown_deadline=25s"
            ),
            format!(
                "INFO  stopping: 0 handlers running, deadline 25 s {of} reason=\"stop requested\""
            ),
            format!(
                "INFO  consumer stopped {of} done=2 archived=0 retried=0 snoozed=0 undecodable=0 dead=0 released=0 lost=0 cancelled=0 unknown=0"
            ),
            format!("INFO  worker changed its state {of} from=\"ready\" to=\"stopped\""),
        ]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_shutdown_reports_the_handlers_that_run_and_those_that_were_aborted(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1, 2, 3]).await?;
    let (notes, _guard) = Notes::start();
    let seen = Seen::default();
    let consumer = pgqrs::consumer("tasks").create(&store).await?;
    let handle = consumer.handle();
    let run = consumer.run({
        let seen = seen.clone();
        move |delivery: Delivery<Value>| {
            seen.note(delivery.raw_payload());
            std::future::pending::<Outcome>()
        }
    });
    let task = tokio::spawn(run.shutdown_deadline(Duration::from_secs(2)));
    until("all are handled", async || seen.len() == 3).await;
    handle.stop();
    let report = task.await??;
    assert_eq!(report.released, 3);
    for line in [
        "INFO  stopping: 3 handlers running, deadline 2 s",
        "INFO  handlers aborted: their messages are released, and the attempts count",
        "released=3",
    ] {
        assert_eq!(notes.lines(line).len(), 1, "{line}: {:?}", notes.log());
    }
    assert!(notes.lines("aborted")[0].ends_with("handlers=3"));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_that_ends_with_an_error_reports_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let running = start(
        consumer().create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    notes.until("consumer started", 1).await;
    sqlx::query("delete from pgqrs.queues")
        .execute(&pool)
        .await?;
    running.task.await?.unwrap_err();
    let ended = notes.lines("consumer ended with an error");
    assert!(
        ended.len() == 1
            && ended[0].starts_with("ERROR")
            && ended[0].contains("error=\"queue `tasks` does not exist")
            && ended[0].contains("error.type=\"QueueNotFound\" done=0"),
        "{ended:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_consumer_that_others_suspend_resume_or_stop_says_so_once(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let (notes, _guard) = Notes::start();
    let running = start(
        consumer().concurrency(2).create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    notes.until("consumer started", 1).await;
    let before = notes.log().len();
    let worker = running.handle.id();
    let owner = newcomer(&pool);
    let admin = pgqrs::admin(&owner);
    admin.suspend_worker(worker).await?;
    notes.until("consumer suspended", 1).await;
    admin.resume_worker(worker).await?;
    notes.until("consumer resumed", 1).await;
    admin.stop_worker(worker).await?;
    running.task.await??;
    let of = format!("queue=\"tasks\" worker_id={worker}");
    let lines: Vec<_> = notes.log()[before..]
        .iter()
        .map(|event| event.line())
        .collect();
    assert_eq!(
        lines,
        [
            format!("INFO  worker changed its state {of} from=\"ready\" to=\"suspended\""),
            format!("INFO  consumer suspended: it claims nothing until it is resumed {of}"),
            format!("INFO  worker changed its state {of} from=\"suspended\" to=\"ready\""),
            format!("INFO  consumer resumed {of}"),
            format!("INFO  worker changed its state {of} from=\"ready\" to=\"stopped\""),
            format!(
                "INFO  stopping: 0 handlers running, deadline 25 s {of} reason=\"worker stopped, or replaced by another\""
            ),
            format!(
                "INFO  consumer stopped {of} done=0 archived=0 retried=0 snoozed=0 undecodable=0 dead=0 released=0 lost=0 cancelled=0 unknown=0"
            ),
        ]
    );
    Ok(())
}

/// A handler's error can be of any length.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_text_of_an_error_is_bounded(pool: PgPool) -> TestResult {
    let store = with_attempts(&pool, 1).await?;
    let (notes, _guard) = Notes::start();
    send(&store, &[1]).await?;
    let running = start(
        consumer().create(&store).await?,
        async |_: Delivery<Value>| Err::<(), _>("ä\n".repeat(1 << 20)),
    );
    dead(&pool, 1).await;
    notes.until("dead letters", 1).await;
    running.stop().await?;
    for event in notes.log() {
        let error = event.fields.get("error").unwrap_or_default();
        assert!(error.len() <= 2_051, "{} bytes", error.len());
        // On one line.
        assert!(!event.line().contains('\n'));
    }
    assert!(
        notes.lines("…").len() == 2 && notes.log().iter().any(|event| event.level == Level::ERROR)
    );
    Ok(())
}
