//! Cancelling messages whose handlers take chunks, or work in transactions.

use pgqrs::{Chunk, HandlerTransaction};

use super::*;
use crate::support::consumers::handle_and_spawn;

/// Handlers of chunks of three messages, which wait until they are let go. Each counts what it has seen cancelled.
fn start_chunks(
    consumer: crate::support::consumers::Prepared<pgqrs::Consumer>,
    these: &Handlers,
) -> Running {
    let these = these.clone();
    let handler = move |chunk: Chunk<Value>| {
        let these = these.clone();
        async move {
            let on_drop = CountDrop(Arc::clone(&these.dropped));
            for delivery in &chunk {
                let (cancelled, noticed) = (delivery.cancelled(), Arc::clone(&these.noticed));
                tokio::spawn(async move {
                    cancelled.await;
                    noticed.fetch_add(1, Ordering::Relaxed);
                });
            }
            these.begun.add_permits(1);
            pass(&these.leave).await;
            let is_cancelled = chunk.iter().filter(|delivery| delivery.is_cancelled());
            let noticed = is_cancelled.count() as u64;
            assert_eq!(noticed, these.noticed.load(Ordering::Relaxed));
            std::mem::forget(on_drop);
            Outcome::Done
        }
    };
    handle_and_spawn(consumer, |consumer| {
        consumer.run_chunks(3, FOREVER, handler)
    })
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_of_a_chunk_is_cancelled_alone_and_the_handler_goes_on(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&connect(&pool).await?);
    let handlers = Handlers::new();
    let consumer = consumer().lease(FOREVER).cancel_grace(Duration::ZERO);
    let running = start_chunks(consumer.create(&store).await?, &handlers);
    listening(&pool).await;
    let ids = send(&store, &[1, 2, 3]).await?;
    pass(&handlers.begun).await;
    for (cancelled, id) in (1..).zip(&ids[..2]) {
        let was = admin.cancel("tasks", *id).await?;
        assert_eq!(was, Some(Cancelled::Running));
        handlers.noticed(cancelled).await;
    }
    handlers.leave.add_permits(1);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.cancelled, report.lost), (1, 2, 0));
    assert_eq!(handlers.dropped.load(Ordering::Relaxed), 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_is_dropped_once_all_of_its_chunk_is_cancelled(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let handlers = Handlers::new();
    let hasty = consumer()
        .concurrency(1)
        .lease(FOREVER)
        .cancel_grace(Duration::from_millis(20));
    let running = start_chunks(hasty.create(&store).await?, &handlers);
    let ids = send(&store, &[1, 2, 3]).await?;
    pass(&handlers.begun).await;
    for id in ids.iter().rev() {
        let was = admin.cancel("tasks", *id).await?;
        assert_eq!(was, Some(Cancelled::Running));
    }
    handlers.dropped(1).await;
    handlers.noticed(3).await;
    // Its slot is free.
    handlers.noticed.store(0, Ordering::Relaxed);
    send(&store, &[4, 5, 6]).await?;
    pass(&handlers.begun).await;
    handlers.leave.add_permits(1);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.cancelled, report.lost), (3, 3, 0));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn verdicts_of_a_chunk_have_no_effect_on_messages_that_are_cancelled(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let (begun, there) = (gate(), gate());
    let consumer = consumer().lease(FOREVER).create(&store).await?;
    let handler = {
        let (begun, there) = (Arc::clone(&begun), Arc::clone(&there));
        move |chunk: Chunk<Value>| {
            let (begun, there) = (Arc::clone(&begun), Arc::clone(&there));
            async move {
                chunk.archive(0);
                chunk.dead_letter(1, "in a test");
                begun.add_permits(1);
                chunk[0].cancelled().await;
                chunk[1].cancelled().await;
                pass(&there).await;
                Err::<(), _>(std::io::Error::other("the handler failed"))
            }
        }
    };
    let running = handle_and_spawn(consumer, |consumer| {
        consumer.run_chunks(3, FOREVER, handler)
    });
    let ids = send(&store, &[1, 2, 3]).await?;
    pass(&begun).await;
    for id in &ids[..2] {
        assert_eq!(admin.cancel("tasks", *id).await?, Some(Cancelled::Running));
    }
    there.add_permits(1);
    until("the third is given back", async || {
        let waits = "select count(*) from pgqrs.messages where last_error = 'the handler failed'";
        let waits = sqlx::query_scalar(waits).fetch_one(&pool).await;
        let waits: i64 = waits.expect("counted");
        waits == 1
    })
    .await;
    let report = running.stop().await?;
    assert_eq!((report.cancelled, report.lost, report.retried), (2, 0, 1));
    assert_eq!(places(&pool).await?, (1, 0, 0));
    Ok(())
}

/// Starts handlers that write a row in a transaction, and then wait.
async fn start_in_transaction(
    pool: &PgPool,
    consumer: crate::support::consumers::Prepared<pgqrs::Consumer>,
    these: &Handlers,
) -> Result<Running, sqlx::Error> {
    sqlx::raw_sql("create table work (id bigint not null)")
        .execute(pool)
        .await?;
    let these = these.clone();
    let handler = move |delivery: Delivery<Value>, mut tx: HandlerTransaction| {
        let these = these.clone();
        async move {
            let on_drop = CountDrop(Arc::clone(&these.dropped));
            sqlx::query("insert into work values ($1)")
                .bind(delivery.id().get())
                .execute(&mut **tx)
                .await?;
            these.begun.add_permits(1);
            pass(&these.leave).await;
            std::mem::forget(on_drop);
            Ok::<_, sqlx::Error>(())
        }
    };
    Ok(handle_and_spawn(consumer, |consumer| {
        consumer.run_in_transaction(handler)
    }))
}

async fn worked(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from work")
        .fetch_one(pool)
        .await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_transaction_of_a_handler_rolls_back_if_its_message_is_cancelled(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    // Dropped after the grace time; and at its end, which finds the lease lost.
    for (grace, goes_on) in [(Duration::ZERO, false), (FOREVER, true)] {
        let handlers = Handlers::new();
        let consumer = consumer().lease(FOREVER).cancel_grace(grace);
        let running =
            start_in_transaction(&pool, consumer.create(&store).await?, &handlers).await?;
        let id = send(&store, &[1]).await?[0];
        pass(&handlers.begun).await;
        assert_eq!(admin.cancel("tasks", id).await?, Some(Cancelled::Running));
        if goes_on {
            handlers.leave.add_permits(1);
        } else {
            handlers.dropped(1).await;
        }
        let report = running.stop().await?;
        // That it was cancelled may be known only after the acknowledgement has failed.
        assert_eq!(
            (report.done, report.cancelled + report.lost),
            (0, 1),
            "{report:?}"
        );
        assert_eq!(worked(&pool).await?, 0);
        assert_eq!(count(&pool).await?, 0);
        sqlx::raw_sql("drop table work").execute(&pool).await?;
    }
    Ok(())
}
