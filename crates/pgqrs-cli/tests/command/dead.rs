//! `dead …`.

use serde_json::json;
use sqlx::PgPool;

use crate::support::{TestResult, count, dead_letters, payloads, run, tasks};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn dead_letters_are_retried_by_id(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let ids = dead_letters(&store, &[json!(1), json!(2), json!(3)], "no such address").await?;

    let retry = ["dead", "retry", "tasks", &ids[0], &ids[2]];
    let would = run(&pool, &[&retry[..], &["--dry-run"]].concat())
        .await
        .done();
    assert_eq!(would, "would retry 2 dead letters of queue `tasks`\n");
    assert_eq!(count(&pool, "dead_letters").await?, 3);

    let retried = run(&pool, &retry).await.done();
    assert_eq!(retried, "put 2 dead letters back into queue `tasks`\n");
    assert_eq!(payloads(&pool).await?, ["1", "3"]);

    let partly = run(
        &pool,
        &["dead", "retry", "tasks", &ids[0], &ids[1], "--json"],
    )
    .await;
    assert_eq!(partly.json()["retried"], 1);
    assert_eq!(partly.json()["missing"][0].to_string(), ids[0]);
    let error = partly.fails(6);
    assert!(error.contains("no dead letter with the id"), "{error}");
    run(&pool, &["dead", "retry", "tasks", &ids[0]])
        .await
        .fails(3);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn all_dead_letters_or_the_old_ones_are_retried(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let ids = dead_letters(&store, &[json!(1), json!(2), json!(3)], "no such address").await?;
    sqlx::query(
        "update pgqrs.dead_letters set died_at = died_at - interval '2 hours' where id = $1",
    )
    .bind(ids[1].parse::<i64>()?)
    .execute(&pool)
    .await?;

    run(&pool, &["dead", "retry", "tasks"]).await.fails(2);
    let old = ["dead", "retry", "tasks", "--all", "--older-than", "1h"];
    let would = run(&pool, &[&old[..], &["--dry-run"]].concat())
        .await
        .done();
    assert_eq!(would, "would retry 1 dead letter of queue `tasks`\n");
    run(&pool, &old).await.done();
    assert_eq!(payloads(&pool).await?, ["2"]);
    run(&pool, &["dead", "retry", "tasks", "--all"])
        .await
        .done();
    assert_eq!(payloads(&pool).await?, ["1", "2", "3"]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dead_letter_whose_key_is_taken_stays_and_the_code_says_so(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let send = ["send", "tasks", "1", "--unique", "order-7"];
    run(&pool, &send).await.done();
    for delivery in pgqrs::dequeue()
        .from("tasks")
        .limit(1)
        .execute(&store)
        .await?
    {
        delivery.dead_letter("no such address", &store).await?;
    }
    run(&pool, &send).await.done();
    let held = run(&pool, &["dead", "retry", "tasks", "--all"]).await;
    assert_eq!(held.code, 6, "{held:?}");
    assert!(
        held.out
            .contains("1 stay, since by now other messages have their keys"),
        "{held:?}"
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn dead_letters_are_deleted_after_a_question(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    dead_letters(&store, &[json!(1), json!(2)], "no such address").await?;
    let asked = run(&pool, &["dead", "delete", "tasks"]).await.fails(2);
    assert!(
        asked.contains("delete 2 dead letters of queue `tasks`"),
        "{asked}"
    );
    let would = run(&pool, &["dead", "delete", "tasks", "--dry-run"])
        .await
        .done();
    assert_eq!(would, "would delete 2 dead letters of queue `tasks`\n");
    let young = ["dead", "delete", "tasks", "--older-than", "1d", "--yes"];
    let young = run(&pool, &young).await.done();
    assert_eq!(young, "deleted 0 dead letters of queue `tasks`\n");
    assert_eq!(count(&pool, "dead_letters").await?, 2);
    let deleted = run(&pool, &["dead", "delete", "tasks", "--yes", "--json"]).await;
    assert_eq!(deleted.json()["deleted"], 2);
    assert_eq!(count(&pool, "dead_letters").await?, 0);
    Ok(())
}
