//! `queues`, `queue …`, `cancel`.

use sqlx::PgPool;

use crate::support::{TestResult, count, run, run_with, tasks};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_is_created_configured_and_listed(pool: PgPool) -> TestResult {
    assert_eq!(
        run(&pool, &["queues"]).await.done(),
        "no queues; `pgqrs queue create NAME` creates one\n"
    );
    let create = [
        "queue",
        "create",
        "emails",
        "--max-attempts",
        "5",
        "--lease",
        "2m",
    ];
    assert_eq!(
        run(&pool, &create).await.done(),
        "queue `emails` is created\n"
    );
    let again = run(&pool, &["queue", "create", "emails"]).await.fails(1);
    assert!(again.contains("`pgqrs queue show emails`"), "{again}");
    run(&pool, &["queue", "create", "emails", "--if-not-exists"])
        .await
        .done();

    run(&pool, &["send", "emails", "1"]).await.done();
    run(&pool, &["send", "emails", "2", "--delay", "1h"])
        .await
        .done();
    let listed = run(&pool, &["queues"]).await.done();
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "QUEUE", "STATE", "READY", "DELAYED", "LEASED", "DEAD", "OLDEST", "READY"
        ]
    );
    assert_eq!(lines[1][..6], ["emails", "open", "1", "1", "0", "0"]);

    let json = run(&pool, &["queues", "--json"]).await.json();
    assert_eq!(json[0]["name"], "emails");
    assert_eq!(json[0]["lease"], 120, "durations are seconds");
    assert_eq!(json[0]["ready"]["value"], 1);
    assert_eq!(json[0]["ready"]["at_least"], false);

    let set = [
        "queue",
        "set",
        "emails",
        "--lease",
        "none",
        "--archive-on-ack",
        "true",
    ];
    let set = run(&pool, &set).await.done();
    assert!(
        set.contains("lease             none: as consumers say"),
        "{set}"
    );
    let shown = run(&pool, &["queue", "show", "emails", "--exact", "--json"]).await;
    assert_eq!(shown.json()["archive_on_ack"], true);
    assert_eq!(shown.json()["max_attempts"], 5, "what was not set stays");
    let nothing = run(&pool, &["queue", "set", "emails"]).await.fails(2);
    assert!(nothing.contains("which setting?"), "{nothing}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_queue_is_paused_resumed_closed_and_reopened(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let admin = pgqrs::admin(&store);
    let state = async || run(&pool, &["queue", "show", "tasks"]).await.done();

    run(&pool, &["queue", "pause", "tasks"]).await.done();
    assert!(admin.queue("tasks").await?.is_paused);
    assert!(state().await.starts_with("state         paused\n"));
    run(&pool, &["queue", "resume", "tasks"]).await.done();
    assert!(!admin.queue("tasks").await?.is_paused);
    let until = ["queue", "pause", "tasks", "--until", "2099-01-01T00:00:00Z"];
    assert_eq!(
        run(&pool, &until).await.done(),
        "queue `tasks` is paused until 2099-01-01T00:00:00Z\n"
    );
    let past = ["queue", "pause", "tasks", "--until", "2020-01-01T00:00:00Z"];
    assert_eq!(run(&pool, &past).await.done(), "queue `tasks` is open\n");

    run(&pool, &["queue", "close", "tasks"]).await.done();
    let refused = run(&pool, &["send", "tasks", "1"]).await.fails(1);
    assert!(refused.contains("`pgqrs queue reopen tasks`"), "{refused}");
    run(&pool, &["queue", "reopen", "tasks"]).await.done();
    run(&pool, &["send", "tasks", "1"]).await.done();
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn nothing_is_deleted_without_a_terminal_to_ask_on_or_yes(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    pgqrs::enqueue()
        .messages(&[1, 2])
        .to("tasks")
        .execute(&store)
        .await?;

    let asked = run(&pool, &["queue", "purge", "tasks"]).await.fails(2);
    assert!(
        asked.contains("delete all messages of queue `tasks` (2 now)"),
        "{asked}"
    );
    assert!(asked.contains("pass `--yes`"), "{asked}");
    // An answer that isn't typed on a terminal is none.
    let piped = run_with(&pool, &["queue", "purge", "tasks"], "y\n").await;
    piped.fails(2);
    let would = run(&pool, &["queue", "purge", "tasks", "--dry-run"])
        .await
        .done();
    assert_eq!(
        would,
        "would delete 2 messages of queue `tasks`: 2 ready, 0 delayed, 0 leased\n"
    );
    assert_eq!(count(&pool, "messages").await?, 2);

    run(&pool, &["queue", "delete", "tasks"]).await.fails(2);
    let full = run(&pool, &["queue", "delete", "tasks", "--yes"])
        .await
        .fails(1);
    assert!(full.contains("`pgqrs queue purge tasks`"), "{full}");
    let purged = run(&pool, &["queue", "purge", "tasks", "--yes", "--json"]).await;
    assert_eq!(purged.json()["deleted"], 2);
    assert_eq!(count(&pool, "messages").await?, 0);
    run(&pool, &["queue", "delete", "tasks", "-y"]).await.done();
    run(&pool, &["queue", "show", "tasks"]).await.fails(3);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_archive_is_purged_of_what_is_old(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    pgqrs::enqueue()
        .messages(&[1, 2])
        .to("tasks")
        .execute(&store)
        .await?;
    for delivery in pgqrs::dequeue()
        .from("tasks")
        .limit(2)
        .execute(&store)
        .await?
    {
        delivery.archive(&store).await?;
    }
    let young = [
        "queue",
        "purge-archive",
        "tasks",
        "--older-than",
        "1h",
        "--yes",
    ];
    let young = run(&pool, &young).await.done();
    assert_eq!(young, "deleted 0 archived messages of queue `tasks`\n");
    run(&pool, &["queue", "purge-archive", "tasks"])
        .await
        .fails(2);
    let all = run(&pool, &["queue", "purge-archive", "tasks", "--yes"])
        .await
        .done();
    assert_eq!(all, "deleted 2 archived messages of queue `tasks`\n");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_are_cancelled_by_id_and_by_key(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let sent = pgqrs::enqueue()
        .messages(&[1, 2, 3])
        .to("tasks")
        .execute(&store)
        .await?;
    let ids: Vec<String> = sent.iter().map(ToString::to_string).collect();
    run(&pool, &["send", "tasks", "4", "--unique", "order-7"])
        .await
        .done();
    let claimed = pgqrs::dequeue()
        .from("tasks")
        .limit(1)
        .execute(&store)
        .await?;
    assert_eq!(claimed[0].id(), sent[0]);

    run(&pool, &["cancel", "tasks", &ids[0]]).await.fails(2);
    assert_eq!(count(&pool, "messages").await?, 4);
    let cancelled = run(&pool, &["cancel", "tasks", &ids[0], &ids[1], "--yes"])
        .await
        .done();
    let expected = format!(
        "message {} is cancelled, and its handler is stopped\nmessage {} is cancelled, and will not run\n",
        ids[0], ids[1]
    );
    assert_eq!(cancelled, expected);

    let partly = run(
        &pool,
        &[
            "cancel",
            "tasks",
            &ids[1],
            &ids[2],
            "--yes",
            "--json",
            "--archive",
        ],
    )
    .await;
    assert_eq!(partly.code, 6, "{partly:?}");
    assert_eq!(partly.json()["missing"][0].to_string(), ids[1]);
    assert_eq!(count(&pool, "archive").await?, 1);
    run(&pool, &["cancel", "tasks", &ids[1], "--yes"])
        .await
        .fails(3);

    let by_key = ["cancel", "tasks", "--key", "order-7", "--yes"];
    run(&pool, &by_key).await.done();
    assert_eq!(count(&pool, "messages").await?, 0);
    let again = run(&pool, &by_key).await.fails(3);
    assert!(again.contains("has the key \"order-7\""), "{again}");
    Ok(())
}
