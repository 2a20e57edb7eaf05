//! `workers`, `worker …`.

use pgqrs::{Worker, WorkerStatus};
use sqlx::PgPool;

use crate::support::{TestResult, run, tasks};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn workers_are_listed_and_filtered(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    store.queue("others").await?;
    assert_eq!(run(&pool, &["workers"]).await.done(), "no workers\n");
    let _producer = pgqrs::producer("web-1", 3000, "tasks")
        .create(&store)
        .await?;
    let _consumer = pgqrs::consumer("others").create(&store).await?;

    let listed = run(&pool, &["workers"]).await.done();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("web-1:3000"), "{listed}");
    let of_tasks = run(&pool, &["workers", "--queue", "tasks", "--json"])
        .await
        .json();
    assert_eq!(of_tasks.as_array().map(Vec::len), Some(1));
    assert_eq!(of_tasks[0]["kind"], "producer");
    let consumers = run(&pool, &["workers", "--kind", "consumer", "--json"])
        .await
        .json();
    assert_eq!(consumers[0]["queue"], "others");
    let stopped = run(&pool, &["workers", "--status", "stopped"]).await.done();
    assert_eq!(stopped, "no workers\n");

    sqlx::query("update pgqrs.workers set heartbeat_at = heartbeat_at - interval '1 hour' where kind = 'producer'")
        .execute(&pool)
        .await?;
    let stale = run(&pool, &["workers", "--stale"]).await.done();
    assert!(
        stale.contains("ready, but missed its heartbeats"),
        "{stale}"
    );
    assert_eq!(stale.lines().count(), 2, "{stale}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_worker_is_suspended_resumed_released_stopped_and_removed(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let consumer = pgqrs::consumer("tasks").create(&store).await?;
    let id = consumer.id().to_string();
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    let held = consumer.dequeue().execute(&store).await?;

    run(&pool, &["worker", "suspend", &id]).await.done();
    assert_eq!(consumer.status().await?, WorkerStatus::Suspended);
    let twice = run(&pool, &["worker", "suspend", &id]).await.fails(1);
    assert!(twice.contains("suspended"), "{twice}");
    run(&pool, &["worker", "resume", &id]).await.done();
    assert_eq!(consumer.status().await?, WorkerStatus::Ready);

    let shown = run(&pool, &["worker", "show", &id, "--json"]).await.json();
    assert_eq!(shown["held"][0]["id"], held[0].id().get());
    run(&pool, &["worker", "release", &id]).await.fails(2);
    let released = run(&pool, &["worker", "release", &id, "--yes"])
        .await
        .done();
    assert_eq!(released, format!("released 1 message of worker {id}\n"));
    let shown = run(&pool, &["worker", "show", &id]).await.done();
    assert!(shown.ends_with("holds no messages\n"), "{shown}");

    run(&pool, &["worker", "stop", &id]).await.fails(2);
    run(&pool, &["worker", "stop", &id, "--yes"]).await.done();
    assert_eq!(consumer.status().await?, WorkerStatus::Stopped);
    run(&pool, &["worker", "prune"]).await.fails(2);
    let pruned = run(&pool, &["worker", "prune", "--yes"]).await.done();
    assert_eq!(pruned, "removed 1 worker\n");
    let gone = run(&pool, &["worker", "show", &id]).await.fails(3);
    assert!(gone.contains("`pgqrs workers` lists"), "{gone}");

    let other = pgqrs::consumer("tasks").create(&store).await?;
    let id = other.id().to_string();
    run(&pool, &["worker", "remove", &id, "--yes"]).await.done();
    run(&pool, &["worker", "remove", &id, "--yes"])
        .await
        .fails(3);
    Ok(())
}
