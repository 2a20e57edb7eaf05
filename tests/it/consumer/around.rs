//! `.around(..)`: closures between the loop and the handler.

use pgqrs::{Chunk, HandlerError, Next};

use super::*;

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().expect("not poisoned").push(what.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").clone()
    }
}

/// For any queue, as a service would write it once.
async fn noted<T>(
    log: Log,
    name: &str,
    delivery: Delivery<T>,
    next: Next<Delivery<T>>,
) -> Result<Outcome, HandlerError> {
    log.note(format!("{name} begins"));
    let outcome = next.run(delivery).await;
    log.note(format!("{name} ends"));
    outcome
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_last_one_is_the_outermost_and_the_handler_is_in_the_middle(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1]).await?;
    let log = Log::default();
    let consumer = consumer().create(&store).await?;
    let handle = consumer.handle();
    let run = consumer
        .run({
            let log = log.clone();
            move |_: Delivery<Value>| {
                log.note("handler");
                std::future::ready(Outcome::Done)
            }
        })
        .around({
            let log = log.clone();
            move |delivery, next| noted(log.clone(), "inner", delivery, next)
        })
        .around({
            let log = log.clone();
            move |delivery, next| noted(log.clone(), "outer", delivery, next)
        });
    let running = tokio::spawn(run);
    drained(&pool).await;
    handle.stop();
    assert_eq!(running.await??.done, 1);
    let expected = [
        "outer begins",
        "inner begins",
        "handler",
        "inner ends",
        "outer ends",
    ];
    assert_eq!(log.lines(), expected);
    Ok(())
}

/// A service decides in one place what its errors mean.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_sees_the_handlers_own_error_and_decides_what_becomes_of_the_message(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let one_attempt = QueueOptions::builder().max_attempts(1).build();
    let admin = pgqrs::admin(&store);
    admin.configure_queue("tasks", one_attempt).await?;
    let ids = send(&store, &["seven", "7", ""]).await?;
    let consumer = consumer().concurrency(1).create(&store).await?;
    let handle = consumer.handle();
    let run = consumer
        .run(|delivery: Delivery<Value>| async move {
            match delivery.payload().as_str() {
                Some("") => Err("it is empty".into()),
                text => {
                    text.unwrap_or_default().parse::<i32>()?;
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
                }
            }
        })
        // Passed on by one that is further inside.
        .around(|delivery, next| async move { next.run(delivery).await })
        .around(|delivery, next| async move {
            match next.run(delivery).await {
                Err(error) if error.downcast_ref::<std::num::ParseIntError>().is_some() => {
                    Ok(Outcome::DeadLetter("not a number".to_owned()))
                }
                outcome => outcome,
            }
        });
    let running = tokio::spawn(run);
    drained(&pool).await;
    handle.stop();
    let report = running.await??;
    assert_eq!((report.done, report.dead), (1, 2));
    let dead = admin.dead_letters("tasks", Page::default()).await?;
    let dead: Vec<_> = dead
        .iter()
        .map(|dead| (dead.id, dead.reason.as_str(), dead.last_error.as_deref()))
        .collect();
    assert_eq!(
        dead,
        [
            (ids[0], "not a number", None),
            (ids[2], "attempts used up", Some("it is empty")),
        ]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn without_next_the_handler_is_not_called_and_what_it_returns_counts(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1, 2]).await?;
    let seen = Seen::default();
    let consumer = consumer().create(&store).await?;
    let handle = consumer.handle();
    let run = consumer
        .run(seen.handler())
        .around(|delivery, next| async move {
            if delivery.payload() == 1 {
                return Ok(Outcome::Archive);
            }
            next.run(delivery).await
        });
    let running = tokio::spawn(run);
    drained(&pool).await;
    handle.stop();
    let report = running.await??;
    assert_eq!((report.archived, report.done), (1, 1));
    assert_eq!(seen.times(), [("2".to_owned(), 1)].into());
    Ok(())
}

tokio::task_local! {
    static USER: String;
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_it_sets_for_a_task_the_handler_reads(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for user in ["ada", "bob"] {
        let enqueue = pgqrs::enqueue()
            .message(&user)
            .to("tasks")
            .header("user", user);
        enqueue.execute(&store).await?;
    }
    let consumer = consumer().create(&store).await?;
    let handle = consumer.handle();
    let run = consumer
        .run(|delivery: Delivery<Value>| async move {
            let user = USER.get();
            if delivery.payload() == user.as_str() {
                Ok(())
            } else {
                Err(format!("{user} is another user"))
            }
        })
        .around(|delivery, next| async move {
            let user = delivery
                .headers()
                .get("user")
                .unwrap_or_default()
                .to_owned();
            USER.scope(user, next.run(delivery)).await
        });
    let running = tokio::spawn(run);
    drained(&pool).await;
    handle.stop();
    assert_eq!(running.await??.done, 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn panics_and_timeouts_within_it_are_failed_attempts(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let words = [
        "panics inside",
        "panics around",
        "hangs inside",
        "hangs around",
    ];
    send(&store, &words).await?;
    let consumer = consumer()
        .handler_timeout(Duration::from_millis(50))
        .retry(RetryPolicy::fixed(Duration::from_secs(600)))
        .create(&store)
        .await?;
    let handle = consumer.handle();
    let run = consumer
        .run(|delivery: Delivery<Value>| async move {
            match delivery.payload().as_str() {
                Some("panics inside") => panic!("inside"),
                _ => std::future::pending::<Outcome>().await,
            }
        })
        .around(|delivery, next| async move {
            match delivery.payload().as_str() {
                Some("panics around") => panic!("around"),
                Some("hangs around") => std::future::pending().await,
                _ => next.run(delivery).await,
            }
        });
    let running = tokio::spawn(run);
    let errors = "select last_error from pgqrs.messages where last_error is not null order by id";
    let errors = async || -> Vec<String> {
        let errors = sqlx::query_scalar(errors).fetch_all(&pool).await;
        errors.expect("listed")
    };
    until("all have failed", async || errors().await.len() == 4).await;
    let timed_out = "the handler timed out after 50ms";
    assert_eq!(
        errors().await,
        [
            "the handler panicked: inside",
            "the handler panicked: around",
            timed_out,
            timed_out,
        ]
    );
    handle.stop();
    assert_eq!(running.await??.retried, 4);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn it_is_around_a_handler_of_chunks_too(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &[1, 2, 3]).await?;
    let consumer = consumer().create(&store).await?;
    let (handle, log) = (consumer.handle(), Log::default());
    let run = consumer
        .run_chunks(
            3,
            Duration::from_secs(600),
            |chunk: Chunk<Value>| async move {
                chunk.archive(2);
                Outcome::Done
            },
        )
        .around({
            let log = log.clone();
            move |chunk, next| {
                let log = log.clone();
                async move {
                    log.note(format!("{} messages", chunk.len()));
                    chunk.dead_letter(0, "not today");
                    next.run(chunk).await
                }
            }
        });
    let running = tokio::spawn(run);
    drained(&pool).await;
    handle.stop();
    let report = running.await??;
    assert_eq!((report.done, report.archived, report.dead), (1, 1, 1));
    assert_eq!(log.lines(), ["3 messages"]);
    Ok(())
}
