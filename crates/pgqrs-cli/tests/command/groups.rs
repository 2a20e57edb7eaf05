//! `groups`, `group …`.

use pgqrs::GroupOrder;
use sqlx::PgPool;

use crate::support::{TestResult, run, tasks};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn groups_are_listed_stopped_limited_promoted_and_purged(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let admin = pgqrs::admin(&store);
    let refused = run(&pool, &["send", "tasks", "1", "--group", "a"]).await;
    let refused = refused.fails(1);
    assert!(refused.contains("takes no messages of groups"), "{refused}");
    let set = run(
        &pool,
        &["queue", "set", "tasks", "--groups", "1", "--stop-groups"],
    )
    .await;
    let set = set.done();
    let limited = run(&pool, &["queue", "set", "tasks", "--max-running", "9"]).await;
    let limited = limited.done();
    assert!(limited.contains("max-running       9\n"), "{limited}");
    let rated = run(&pool, &["queue", "set", "tasks", "--rate", "100/1m"]).await;
    let rated = rated.done();
    assert!(rated.contains("rate              100/1m\n"), "{rated}");
    let unlimited = run(&pool, &["queue", "set", "tasks", "--rate", "none"]).await;
    let unlimited = unlimited.done();
    assert!(
        unlimited.contains("rate              none\n"),
        "{unlimited}"
    );
    assert!(set.contains("1, and stopped by dead letters"), "{set}");
    assert_eq!(run(&pool, &["groups", "tasks"]).await.done(), "no groups\n");
    for payload in ["1", "2", "3", "4"] {
        run(&pool, &["send", "tasks", payload, "--group", "a"])
            .await
            .done();
    }
    run(&pool, &["send", "tasks", "1", "--group", "b"])
        .await
        .done();
    let listed = run(&pool, &["groups", "tasks", "--json"]).await.json();
    assert_eq!(
        (&listed[0]["group"], &listed[0]["parked"]),
        (&"a".into(), &3.into())
    );
    assert_eq!(
        (&listed[1]["group"], &listed[1]["parked"]),
        (&"b".into(), &0.into())
    );

    for (group, state, count) in [("a", "delayed", 3), ("a", "ready", 1), ("b", "delayed", 0)] {
        let search = [
            "messages", "tasks", "--state", state, "--group", group, "--json",
        ];
        let found = run(&pool, &search).await.json();
        let items = found["items"].as_array().map(Vec::len);
        assert_eq!(items, Some(count), "{group} {state}: {found}");
    }
    let limited = run(&pool, &["group", "limit", "tasks", "a", "2"])
        .await
        .done();
    assert_eq!(
        limited,
        "group `a` of queue `tasks` is limited to 2 messages\n"
    );
    run(&pool, &["group", "promote", "tasks"]).await.done();
    let group = admin.group("tasks", "a").await?.expect("it is there");
    assert_eq!((group.live, group.parked, group.at_once), (2, 2, Some(2)));
    run(&pool, &["group", "limit", "tasks", "a", "none"])
        .await
        .done();
    run(&pool, &["group", "limit", "tasks", "a", "0"])
        .await
        .fails(2);

    let rated = run(&pool, &["group", "rate", "tasks", "a", "100/1m"])
        .await
        .done();
    assert_eq!(rated, "group `a` of queue `tasks` is limited to 100/1m\n");
    run(&pool, &["group", "rate", "tasks", "a", "none"])
        .await
        .done();
    run(&pool, &["group", "rate", "tasks", "a", "fast"])
        .await
        .fails(2);

    run(&pool, &["group", "stop", "tasks", "a"]).await.done();
    let stopped = run(&pool, &["groups", "tasks", "--order", "stopped"])
        .await
        .done();
    assert!(stopped.contains("by an operator"), "{stopped}");
    assert_eq!(stopped.lines().count(), 2, "{stopped}");
    let resumed = run(&pool, &["group", "resume", "tasks", "a"]).await.done();
    assert_eq!(resumed, "group `a` of queue `tasks` is resumed\n");
    let again = run(&pool, &["group", "resume", "tasks", "a"]).await.done();
    assert_eq!(again, "group `a` of queue `tasks` is not stopped\n");
    assert!(
        admin
            .groups("tasks", GroupOrder::Stopped, 1)
            .await?
            .is_empty()
    );

    run(&pool, &["group", "purge", "tasks", "a"]).await.fails(2);
    let would = run(&pool, &["group", "purge", "tasks", "a", "--dry-run"])
        .await
        .done();
    assert!(
        would.starts_with("would delete 2 parked messages"),
        "{would}"
    );
    run(&pool, &["group", "purge", "tasks", "a", "--yes"])
        .await
        .done();
    let shown = run(&pool, &["group", "show", "tasks", "a", "--json"])
        .await
        .json();
    assert_eq!((&shown["live"], &shown["parked"]), (&2.into(), &0.into()));
    run(&pool, &["group", "show", "tasks", "nobody"])
        .await
        .fails(3);
    Ok(())
}
