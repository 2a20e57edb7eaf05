//! `messages`, `show`.

use sqlx::PgPool;

use crate::support::{TestResult, dead_letters, run, tasks};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_are_listed_by_state_and_without_their_payloads(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    let none = run(&pool, &["messages", "tasks"]).await.done();
    assert_eq!(none, "no messages\n");
    for payload in ["\"secret one\"", "\"secret two\""] {
        run(&pool, &["send", "tasks", payload]).await.done();
    }
    run(
        &pool,
        &["send", "tasks", "\"secret three\"", "--delay", "1h"],
    )
    .await
    .done();
    let claimed = pgqrs::dequeue()
        .from("tasks")
        .limit(1)
        .execute(&store)
        .await?;

    let all = run(&pool, &["messages", "tasks"]).await.done();
    let states: Vec<&str> = all
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert_eq!(states, ["leased", "ready", "delayed"]);
    assert!(!all.contains("secret"), "{all}");
    let json = run(&pool, &["messages", "tasks", "--json"]).await;
    assert!(!json.out.contains("secret"), "{json:?}");
    assert_eq!(json.json()["items"][0]["id"], claimed[0].id().get());
    assert_eq!(json.json()["items"][0]["state"], "leased");

    let delayed = ["messages", "tasks", "--state", "delayed", "--payload"];
    let delayed = run(&pool, &delayed).await.done();
    assert!(delayed.contains("\"secret three\""), "{delayed}");
    assert_eq!(delayed.lines().count(), 2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_are_searched_by_header_payload_and_key_page_by_page(pool: PgPool) -> TestResult {
    tasks(&pool).await?;
    for n in 0..5 {
        let payload = format!(
            "{{\"to\": {{\"country\": \"{}\"}}}}",
            if n < 3 { "FR" } else { "DE" }
        );
        let tenant = format!("tenant=t{n}");
        let key = format!("order-{n}");
        run(
            &pool,
            &[
                "send", "tasks", &payload, "--header", &tenant, "--unique", &key,
            ],
        )
        .await
        .done();
    }
    let count = async |arguments: &[&str]| {
        let arguments = [&["messages", "tasks", "--json"], arguments].concat();
        let found = run(&pool, &arguments).await.json();
        found["items"].as_array().map(Vec::len)
    };
    assert_eq!(count(&["--payload-at", "to.country=FR"]).await, Some(3));
    assert_eq!(count(&["--header", "tenant=t4"]).await, Some(1));
    assert_eq!(count(&["--header", "tenant=t9"]).await, Some(0));
    assert_eq!(count(&["--key", "order-2"]).await, Some(1));

    let page = ["messages", "tasks", "--state", "ready", "--limit", "3"];
    let first = run(&pool, &page).await;
    assert_eq!(first.code, 0);
    assert_eq!(first.out.lines().count(), 4);
    let (_, cursor) = first.err.split_once("`--after ").expect("there are more");
    let cursor = cursor.trim_end().trim_end_matches('`');
    let second = run(&pool, &[&page[..], &["--after", cursor]].concat())
        .await
        .done();
    assert_eq!(second.lines().count(), 3, "{second}");
    let ids = |page: &str| -> Vec<String> {
        let lines = page.lines().skip(1);
        lines
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect()
    };
    assert!(ids(&first.out).iter().all(|id| !ids(&second).contains(id)));
    run(&pool, &["messages", "tasks", "--after", cursor])
        .await
        .fails(2);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_message_is_shown_wherever_it_is(pool: PgPool) -> TestResult {
    let store = tasks(&pool).await?;
    store.queue("others").await?;
    let send = [
        "send",
        "tasks",
        "{\"n\": 1.10}",
        "--header",
        "tenant=acme",
        "--unique",
        "k",
        "--json",
    ];
    let id = run(&pool, &send).await.json()["id"].to_string();

    let shown = run(&pool, &["show", &id]).await.done();
    for text in [
        "queue          tasks",
        "state          ready since ",
        "key            k",
        "headers        tenant=acme",
    ] {
        assert!(shown.contains(text), "{shown}");
    }
    assert!(shown.ends_with("\n\n{\"n\": 1.10}\n"), "{shown}");
    let hidden = run(&pool, &["show", &id, "--queue", "tasks", "--no-payload"])
        .await
        .done();
    assert!(!hidden.contains("1.10"), "{hidden}");
    let elsewhere = run(&pool, &["show", &id, "--queue", "others"])
        .await
        .fails(3);
    assert!(elsewhere.contains("there is no message"), "{elsewhere}");

    for delivery in pgqrs::dequeue()
        .from("tasks")
        .limit(1)
        .execute(&store)
        .await?
    {
        delivery.dead_letter("no such address", &store).await?;
    }
    let dead = run(&pool, &["show", &id]).await.done();
    assert!(dead.contains(": no such address"), "{dead}");
    let json = run(&pool, &["show", &id, "--json"]).await.json();
    assert_eq!(json["payload"], "{\"n\": 1.10}");
    assert_eq!(json["place"]["dead_letters"]["reason"], "no such address");
    run(&pool, &["show", "999999"]).await.fails(3);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn payloads_of_a_sensitive_queue_are_neither_printed_nor_searched(
    pool: PgPool,
) -> TestResult {
    let store = tasks(&pool).await?;
    let payload = serde_json::json!({"to": "secret"});
    let dead = dead_letters(&store, std::slice::from_ref(&payload), "refused").await?;
    let send = ["send", "tasks", r#"{"to": "secret"}"#, "--unique", "k"];
    run(&pool, &send).await.done();
    let set = run(&pool, &["queue", "set", "tasks", "--sensitive", "true"]).await;
    assert!(set.done().contains("sensitive         true"));
    for command in [
        &["messages", "tasks", "--payload"] as &[&str],
        &["messages", "tasks", "--payload", "--json"],
        &["messages", "tasks", "--key", "k", "--payload"],
        &["dead", "list", "tasks", "--payload"],
        &["dead", "list", "tasks", "--payload", "--json"],
        &["show", &dead[0]],
        &["show", &dead[0], "--json"],
    ] {
        let shown = run(&pool, command).await;
        assert!(!format!("{shown:?}").contains("secret"), "{shown:?}");
        assert!(
            shown.err.contains("queue `tasks` is sensitive"),
            "{shown:?}"
        );
        assert!(!shown.done().is_empty());
    }
    for command in [
        &["messages", "tasks"] as &[&str],
        &["dead", "list", "tasks"],
        &["dead", "retry", "tasks", "--all", "--dry-run"],
        &["dead", "delete", "tasks", "--all", "--dry-run"],
    ] {
        let search = [command, &["--payload-at", "to=secret"]].concat();
        let refused = run(&pool, &search).await.fails(1);
        assert!(
            refused.contains("neither printed nor searched"),
            "{refused}"
        );
    }
    let set = ["queue", "set", "tasks", "--sensitive", "false"];
    run(&pool, &set).await.done();
    let shown = run(&pool, &["show", &dead[0]]).await.done();
    assert!(shown.contains("secret"), "{shown}");
    Ok(())
}
