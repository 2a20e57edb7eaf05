//! Queues that archive what is acknowledged, whatever the form of the handler.

use pgqrs::{Chunk, HandlerTransaction};

use super::*;
use crate::{delivery::ack_statement::run_statement, support::consumers::handle_and_spawn};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn acknowledged_chunks_and_transactions_are_archived_if_the_queue_says_so(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let options = QueueOptions::builder().archive_on_ack(true).build();
    admin.configure_queue("tasks", options).await?;

    send(&store, &[1, 2, 3]).await?;
    let handler = |chunk: Chunk<Value>| async move {
        chunk.ack(0);
        Outcome::Done
    };
    let running = handle_and_spawn(consumer().create(&store).await?, |consumer| {
        consumer.run_chunks(3, Duration::from_secs(60), handler)
    });
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!((report.archived, report.done), (3, 0));

    send(&store, &[4, 5]).await?;
    let handler = |_: Delivery<Value>, _: HandlerTransaction| async { Outcome::Done };
    let running = handle_and_spawn(consumer().create(&store).await?, |consumer| {
        consumer.run_in_transaction(handler)
    });
    drained(&pool).await;
    // Settled by the handler's transaction, and not by the loop.
    assert_eq!(running.stop().await?.done, 2);
    assert_eq!(places(&pool).await?, (0, 0, 5));
    let kept = admin.archived("tasks", pgqrs::Page::default()).await?;
    assert!(kept.iter().all(|message| message.attempt == 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_archived_message_keeps_its_limits_and_keys(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let options = QueueOptions::builder().archive_on_ack(true).build();
    admin.configure_queue("tasks", options).await?;
    let ids = send(&store, &[1, 2, 3, 4, 5]).await?;
    sqlx::query("update pgqrs.messages set max_attempts = id + 5, unique_key = id::text")
        .execute(&pool)
        .await?;
    // By each of the statements that archive.
    let mut held = claim(&store, 3).await?;
    held.remove(0).ack(&store).await?;
    assert!(
        pgqrs::ack_all(vec![held.remove(0)], &store)
            .await?
            .is_empty()
    );
    let statement = held.remove(0).ack_statement();
    let mut connection = pool.acquire().await?;
    let rows = run_statement(&statement, &mut connection).await?;
    statement.check(rows)?;
    let key = ids[3].to_string();
    admin.cancel_by_key("tasks", &*key).archive(true).await?;
    admin.cancel("tasks", ids[4]).archive(true).await?;
    let kept: i64 = sqlx::query_scalar(
        "select count(*) from pgqrs.archive where max_attempts = id + 5 and unique_key = id::text",
    )
    .fetch_one(&pool)
    .await?;
    assert_eq!(kept, 5);
    Ok(())
}
