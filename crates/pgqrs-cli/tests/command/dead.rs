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
    assert_eq!(partly.json()["missing"], 1);
    let error = partly.fails(6);
    assert!(error.contains("1 of these ids"), "{error}");
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
    let which = run(&pool, &["dead", "delete", "tasks", "--yes"])
        .await
        .fails(2);
    assert!(which.contains("which dead letters?"), "{which}");
    let asked = run(&pool, &["dead", "delete", "tasks", "--all"])
        .await
        .fails(2);
    assert!(
        asked.contains("delete 2 dead letters of queue `tasks`"),
        "{asked}"
    );
    let would = run(&pool, &["dead", "delete", "tasks", "--all", "--dry-run"])
        .await
        .done();
    assert_eq!(would, "would delete 2 dead letters of queue `tasks`\n");
    let young = [
        "dead",
        "delete",
        "tasks",
        "--all",
        "--older-than",
        "1d",
        "--yes",
    ];
    let young = run(&pool, &young).await.done();
    assert_eq!(young, "deleted 0 dead letters of queue `tasks`\n");
    assert_eq!(count(&pool, "dead_letters").await?, 2);
    let deleted = run(
        &pool,
        &["dead", "delete", "tasks", "--all", "--yes", "--json"],
    )
    .await;
    assert_eq!(deleted.json()["deleted"], 2);
    assert_eq!(count(&pool, "dead_letters").await?, 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn dead_letters_are_listed_and_counted_by_reason(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let none = run(&pool, &["dead", "list", "tasks"]).await.done();
    assert_eq!(none, "no dead letters\n");
    let first = dead_letters(&store, &[json!("secret"), json!(2)], "no such address").await?;
    dead_letters(&store, &[json!(3)], "mailbox full").await?;

    let listed = run(&pool, &["dead", "list", "tasks"]).await.done();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(!listed.contains("secret"), "{listed}");
    let json = run(&pool, &["dead", "list", "tasks", "--json"]).await;
    assert!(!json.out.contains("secret"), "{json:?}");
    let of_reason = [
        "dead",
        "list",
        "tasks",
        "--reason",
        "no such address",
        "--payload",
    ];
    let of_reason = run(&pool, &of_reason).await.done();
    assert_eq!(of_reason.lines().count(), 3, "{of_reason}");
    assert!(of_reason.contains("\"secret\""), "{of_reason}");

    let page = run(&pool, &["dead", "list", "tasks", "--limit", "1"]).await;
    let (_, cursor) = page.err.split_once("`--after ").expect("there are more");
    let cursor = cursor.trim_end().trim_end_matches('`');
    let rest = run(&pool, &["dead", "list", "tasks", "--after", cursor])
        .await
        .done();
    assert_eq!(rest.lines().count(), 3, "{rest}");
    assert!(rest.contains(&first[0]), "{rest}");

    let reasons = run(&pool, &["dead", "reasons", "tasks", "--json"])
        .await
        .json();
    assert_eq!(reasons[0]["reason"], "no such address");
    assert_eq!(reasons[0]["letters"]["value"], 2);
    assert_eq!(reasons[1]["letters"]["value"], 1);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn all_that_match_are_retried_or_deleted_and_no_others(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let many: Vec<_> = (0..2_500).map(|n| json!({"n": n})).collect();
    dead_letters(&store, &many[..1_000], "mailbox full").await?;
    dead_letters(&store, &many[1_000..1_500], "no such address").await?;
    dead_letters(&store, &many[1_500..], "mailbox full").await?;

    let full = ["--all", "--reason", "mailbox full"];
    let retry = [&["dead", "retry", "tasks"], &full[..]].concat();
    let would = run(&pool, &[&retry[..], &["--dry-run"]].concat())
        .await
        .done();
    assert_eq!(would, "would retry 2,000 dead letters of queue `tasks`\n");
    assert_eq!(count(&pool, "dead_letters").await?, 2_500);
    run(&pool, &retry).await.done();
    assert_eq!(count(&pool, "dead_letters").await?, 500);
    assert_eq!(count(&pool, "messages").await?, 2_000);

    let one = [
        "dead",
        "delete",
        "tasks",
        "--all",
        "--payload-at",
        "n=1200",
        "--yes",
    ];
    let one = run(&pool, &one).await.done();
    assert_eq!(one, "deleted 1 dead letter of queue `tasks`\n");
    let without_all = [
        "dead",
        "delete",
        "tasks",
        "--reason",
        "mailbox full",
        "--yes",
    ];
    run(&pool, &without_all).await.fails(2);
    let both = ["dead", "retry", "tasks", "1", "--reason", "mailbox full"];
    run(&pool, &both).await.fails(2);
    assert_eq!(count(&pool, "dead_letters").await?, 499);
    Ok(())
}
