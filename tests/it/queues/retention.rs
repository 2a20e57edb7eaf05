//! What a queue no longer keeps is deleted by its consumers.

use pgqrs::Access;
use sqlx::{Connection, PgConnection};

use super::*;
use crate::{
    grants::as_role,
    support::{notes::Notes, url},
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Archives and dead letters, of which all but the last of each died two hours ago.
async fn filled(pool: &PgPool, queue: &str, each: i32) -> TestResult {
    for insert in [
        "insert into pgqrs.archive (queue_id, id, priority, enqueued_at, attempt, payload, archived_at)
         select q.id, n, 0, now(), 1, '0', now() - case when n = $2 then interval '0' else interval '2 hours' end
         from pgqrs.queues q, generate_series(1, $2) n where q.name = $1",
        "insert into pgqrs.dead_letters (queue_id, id, priority, enqueued_at, attempt, payload, reason, died_at)
         select q.id, n, 0, now(), 1, '0', '', now() - case when n = $2 then interval '0' else interval '2 hours' end
         from pgqrs.queues q, generate_series(1, $2) n where q.name = $1",
    ] {
        sqlx::query(insert).bind(queue).bind(each).execute(pool).await?;
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn consumers_delete_what_is_older_than_their_queue_keeps_it(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "others"]).await?;
    let admin = pgqrs::admin(&store);
    filled(&pool, "tasks", 3_001).await?;
    filled(&pool, "others", 5).await?;
    // As a role that can neither delete nor read what is archived or dead.
    as_role(&pool, Some(Access::Consumer), async |store, _| {
        let one = start(
            consumer().create(store).await?,
            async |_: Delivery<Value>| Outcome::Done,
        );
        let options = QueueOptions::builder().archive_for(HOUR).build();
        admin.configure_queue("tasks", options).await?;
        until("the archive is cleared", async || {
            places(&pool)
                .await
                .is_ok_and(|(_, dead, archived)| (dead, archived) == (3_006, 6))
        })
        .await;
        one.stop().await?;
        // Two at once.
        let options = QueueOptions::builder().dead_letters_for(HOUR).build();
        admin.configure_queue("tasks", options).await?;
        let mut running = Vec::new();
        for port in [1, 2] {
            let consumer = pgqrs::consumer("tasks")
                .identity("my-service", port)
                .create(store);
            running.push(start(consumer.await?, async |_: Delivery<Value>| {
                Outcome::Done
            }));
        }
        until("the dead letters are cleared", async || {
            places(&pool)
                .await
                .is_ok_and(|(_, dead, archived)| (dead, archived) == (6, 6))
        })
        .await;
        for running in running {
            running.stop().await?;
        }
        Ok(())
    })
    .await
}

async fn prune(connection: &mut PgConnection, most: i32) -> sqlx::Result<(i64, i64)> {
    sqlx::query_as("select * from pgqrs.prune('tasks', $1)")
        .bind(most)
        .fetch_one(connection)
        .await
}

async fn keep_for_an_hour(store: &Store) -> TestResult {
    let options = QueueOptions::builder()
        .archive_for(HOUR)
        .dead_letters_for(HOUR);
    pgqrs::admin(store)
        .configure_queue("tasks", options.build())
        .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_chunk_is_found_without_reading_all_that_is_old(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    keep_for_an_hour(&store).await?;
    filled(&pool, "tasks", 20_000).await?;
    let mut connection = PgConnection::connect(&url(&pool)).await?;
    assert_eq!(prune(&mut connection, 100).await?, (100, 100));
    // Which passes its counters on to the server.
    connection.close().await?;
    for table in ["archive", "dead_letters"] {
        let mut read = 0_i64;
        until("it is counted", async || {
            let counted = sqlx::query_as(
                "select n_tup_del, seq_tup_read + idx_tup_fetch from pg_stat_user_tables
                 where schemaname = 'pgqrs' and relname = $1",
            );
            let counted = counted.bind(table).fetch_one(&pool).await;
            let deleted: i64;
            (deleted, read) = counted.expect("read");
            deleted == 100
        })
        .await;
        assert!(read < 1_000, "{table}: {read} rows were read");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn one_process_at_a_time_deletes_and_the_others_do_not_wait(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    filled(&pool, "tasks", 5).await?;
    // It keeps all, unless it says otherwise.
    assert_eq!(prune(&mut *pool.acquire().await?, 10).await?, (0, 0));
    keep_for_an_hour(&store).await?;
    let mut first = pool.begin().await?;
    assert_eq!(prune(&mut first, 1).await?, (1, 1));
    assert_eq!(prune(&mut *pool.acquire().await?, 10).await?, (0, 0));
    first.rollback().await?;
    assert_eq!(prune(&mut *pool.acquire().await?, 10).await?, (4, 4));
    assert_eq!(places(&pool).await?, (0, 1, 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_was_deleted_is_in_the_log_once(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    keep_for_an_hour(&store).await?;
    filled(&pool, "tasks", 2_501).await?;
    let (notes, _guard) = Notes::start();
    let running = start(
        consumer().create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    notes.until("old messages deleted", 1).await;
    running.stop().await?;
    assert_eq!(
        notes.lines("old messages deleted"),
        [
            "INFO  old messages deleted from the archive and the dead letters queue=\"tasks\" archived=2500 dead=2500"
        ]
    );
    assert_eq!(places(&pool).await?, (0, 1, 1));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_paused_queue_is_cleared_too(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    pgqrs::admin(&store).pause_queue("tasks").await?;
    keep_for_an_hour(&store).await?;
    filled(&pool, "tasks", 3).await?;
    let running = start(
        consumer().create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    until("it is cleared", async || {
        places(&pool).await.is_ok_and(|places| places == (0, 1, 1))
    })
    .await;
    running.stop().await?;
    Ok(())
}
