//! Headers: set on an enqueue, kept with its messages wherever they go, and read by handlers and in listings.

mod invalid;

use std::collections::{BTreeMap, HashMap};

use pgqrs::{Access, ConnectOptions, Error, Executor, Headers, Outcome, Page, Priority};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinSet;

use crate::support::{
    self, TestResult, claim,
    consumers::{consumer, drained, start},
    count, expire, one, stored, url, with_queues,
};

fn map(headers: &Headers) -> BTreeMap<&str, &str> {
    headers.iter().collect()
}

/// The columns of all messages, by id.
async fn columns(pool: &PgPool) -> sqlx::Result<Vec<Option<String>>> {
    sqlx::query_scalar("select headers::text from pgqrs.messages order by id")
        .fetch_all(pool)
        .await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn all_messages_of_an_enqueue_have_its_headers_and_others_have_none(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let extra = HashMap::from([("b.2_x-y".to_owned(), String::new())]);
    pgqrs::enqueue()
        .header("tenant", "first")
        .messages(&[1, 2])
        .header("tenant", "acme")
        .headers(&extra)
        .to("tasks")
        .execute(&store)
        .await?;
    support::send(&store, &[3]).await?;
    let deliveries = claim(&store, 3).await?;
    for delivery in &deliveries[..2] {
        let headers = delivery.headers();
        assert_eq!(
            map(headers),
            BTreeMap::from([("b.2_x-y", ""), ("tenant", "acme")])
        );
        assert_eq!((headers.len(), headers.get("tenant")), (2, Some("acme")));
        assert_eq!(headers.get("Tenant"), None);
    }
    assert!(deliveries[2].headers().is_empty());
    let json = r#"{"b.2_x-y":"","tenant":"acme"}"#.to_owned();
    assert_eq!(
        columns(&pool).await?,
        [Some(json.clone()), Some(json), None]
    );
    Ok(())
}

async fn send_on<E: Executor>(on: E, messages: &[&str], header: &str) -> pgqrs::Result<()> {
    let enqueue = pgqrs::enqueue().messages(messages).to("tasks");
    enqueue.header("way", header).execute(on).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn headers_arrive_whichever_way_a_message_is_sent(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send_on(&store, &["single"], "single").await?;
    send_on(&store, &["batch", "batch"], "batch").await?;
    send_on(&store, &vec!["large"; 1_001], "large").await?;
    send_on(&pool, &["pool", "pool"], "pool").await?;
    send_on(&mut pool.acquire().await?, &["connection"], "connection").await?;
    let mut tx = pool.begin().await?;
    send_on(&mut tx, &["transaction"], "transaction").await?;
    send_on(&mut tx, &vec!["savepoint"; 1_001], "savepoint").await?;
    tx.commit().await?;
    let mut tx = store.begin().await?;
    send_on(&mut tx, &["begin"], "begin").await?;
    tx.commit().await?;

    let mut import = pgqrs::enqueue()
        .to("tasks")
        .header("way", "import")
        .import(vec!["import"; 1_001]);
    while import.next(&store).await?.is_some() {}
    let producer = pgqrs::producer("host", 1, "tasks").create(&store).await?;
    let single = producer
        .enqueue()
        .message(&"producer")
        .header("way", "producer");
    single.execute(&store).await?;
    let batch = producer.enqueue().messages(&["producers"; 2]);
    batch.header("way", "producers").execute(&store).await?;

    let statement = pgqrs::enqueue()
        .messages(&["statement"; 2])
        .to("tasks")
        .header("way", "statement")
        .statement()?;
    let rows = sqlx::query_scalar(AssertSqlSafe(statement.sql()))
        .bind(statement.queue().as_str())
        .bind(statement.priority())
        .bind(statement.not_before())
        .bind(statement.delay())
        .bind(statement.producer().map(i64::from))
        .bind(statement.payloads())
        .bind(statement.headers())
        .fetch_all(&pool)
        .await?;
    assert_eq!(statement.check(rows)?.len(), 2);

    let deliveries = claim(&store, 10_000).await?;
    assert_eq!(deliveries.len(), 3 * 1_001 + 13);
    for delivery in deliveries {
        let way = delivery.payload()?.as_str().expect("a text");
        assert_eq!(map(delivery.headers()), BTreeMap::from([("way", way)]));
    }
    Ok(())
}

/// With and without headers, to two queues, of two priorities: what waits together is stored together.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn sends_that_share_a_statement_each_keep_their_own_headers(pool: PgPool) -> TestResult {
    for queues in [&["tasks"][..], &["tasks", "emails"]] {
        sqlx::query("truncate pgqrs.messages")
            .execute(&pool)
            .await?;
        let store = with_queues(&pool, queues).await?;
        let mut sends = JoinSet::new();
        for n in 0..400_usize {
            let (store, queue) = (store.clone(), queues[n % queues.len()]);
            sends.spawn(async move {
                let enqueue = pgqrs::enqueue().message(&n).to(queue);
                let enqueue = match n % 3 {
                    0 => enqueue,
                    _ => enqueue.header("n", n.to_string()),
                };
                enqueue.execute(&store).await
            });
        }
        while let Some(sent) = sends.join_next().await {
            sent??;
        }
        let pairs: Vec<(String, Option<String>)> =
            sqlx::query_as("select payload::text, headers ->> 'n' from pgqrs.messages")
                .fetch_all(&pool)
                .await?;
        assert_eq!(pairs.len(), 400);
        for (payload, header) in pairs {
            let n: usize = payload.parse()?;
            assert_eq!(header, (!n.is_multiple_of(3)).then_some(payload));
        }
        // A transaction's number is stored with each of its rows.
        let statements: i64 =
            sqlx::query_scalar("select count(distinct xmin::text) from pgqrs.messages")
                .fetch_one(&pool)
                .await?;
        assert!(statements < 200, "{statements} statements for 400 sends");
    }
    Ok(())
}

/// The role may insert into all columns but this one.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_send_without_headers_runs_a_statement_without_them(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let role = support::access::role(&pool);
    let grants = Access::Producer.grants(&role);
    let setup = format!(
        "drop role if exists \"{role}\"; create role \"{role}\" login password 'role'; {grants}
         revoke insert on pgqrs.messages from \"{role}\";
         grant insert (queue_id, id, priority, visible_at, enqueued_at, producer_id, payload_bytes, payload)
             on pgqrs.messages to \"{role}\";"
    );
    sqlx::raw_sql(AssertSqlSafe(setup)).execute(&pool).await?;
    let mut there: url::Url = url(&pool).parse()?;
    there
        .set_username(&role)
        .map_err(|()| "a URL with a user")?;
    there
        .set_password(Some("role"))
        .map_err(|()| "a URL with a password")?;
    let outcome = async {
        let store = pgqrs::connect(there.as_str()).await?;
        support::send(&store, &[1]).await?;
        support::send(&store, &[1, 2]).await?;
        let enqueue = pgqrs::enqueue().messages(&[1, 2]).to("tasks");
        enqueue.execute(store.pool()).await?;
        let with_header = pgqrs::enqueue().message(&1).to("tasks").header("a", "");
        let refused = with_header.execute(&store).await;
        assert!(
            matches!(refused, Err(Error::PermissionDenied { .. })),
            "{refused:?}"
        );
        store.pool().close().await;
        TestResult::Ok(())
    }
    .await;
    let drop = format!("drop owned by \"{role}\"; drop role \"{role}\"");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await?;
    outcome?;
    assert_eq!(count(&pool).await?, 5);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn headers_stay_through_retries_the_archive_and_dead_letters_and_are_listed(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let enqueue = pgqrs::enqueue().messages(&["kept", "dead"]).to("tasks");
    let ids = enqueue.header("tenant", "acme").execute(&store).await?;
    let expected = BTreeMap::from([("tenant", "acme")]);
    let page = Page::default();

    let listed = admin.messages("tasks", page).await?;
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .all(|message| map(&message.headers) == expected)
    );
    let delivery = one(&store).await?;
    delivery.nack(&store).await?;
    expire(&pool, ids[0]).await?;
    let deliveries = claim(&support::newcomer(&pool), 2).await?;
    assert_eq!(deliveries.len(), 2);
    for delivery in deliveries {
        assert_eq!(map(delivery.headers()), expected);
        match delivery.attempt() {
            2 => delivery.archive(&store).await?,
            _ => delivery.dead_letter("no", &store).await?,
        }
    }
    assert_eq!(
        map(&admin.archived("tasks", page).await?[0].headers),
        expected
    );
    let dead = admin.dead_letters("tasks", page).await?;
    assert_eq!(map(&dead[0].headers), expected);
    let json = serde_json::to_value(&dead[0])?;
    assert_eq!(json["headers"], json!({"tenant": "acme"}));
    assert!(admin.requeue("tasks", ids[1]).await?.back == 1);
    assert_eq!(map(one(&store).await?.headers()), expected);

    // A message whose attempts are used up becomes a dead letter by a claim.
    expire(&pool, ids[1]).await?;
    sqlx::query("update pgqrs.messages set attempt = 20")
        .execute(&pool)
        .await?;
    assert!(claim(&support::newcomer(&pool), 1).await?.is_empty());
    let dead = admin.dead_letters("tasks", page).await?;
    assert_eq!(map(&dead[0].headers), expected);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_handler_reads_headers_and_passes_them_on(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "emails"]).await?;
    let enqueue = pgqrs::enqueue().message(&1).to("tasks");
    enqueue.header("tenant", "acme").execute(&store).await?;
    let sender = store.clone();
    let running = start(
        consumer().create(&store).await?,
        move |delivery: pgqrs::Delivery<Value>| {
            let store = sender.clone();
            async move {
                let next = pgqrs::enqueue()
                    .message(&2)
                    .to("emails")
                    .priority(Priority::High);
                let next = next.headers(delivery.headers().iter()).header("step", "2");
                next.execute(&store).await?;
                pgqrs::Ok(Outcome::Done)
            }
        },
    );
    support::until("it is passed on", async || {
        let left = sqlx::query_scalar("select max(payload::text) from pgqrs.messages");
        let left: Option<String> = left.fetch_one(&pool).await.expect("read");
        left.as_deref() == Some("2") && count(&pool).await.expect("counted") == 1
    })
    .await;
    running.stop().await?;
    let mut received = pgqrs::dequeue().from("emails").execute(&store).await?;
    let received = received.pop().expect("one");
    assert_eq!(
        map(received.headers()),
        BTreeMap::from([("step", "2"), ("tenant", "acme")])
    );
    received.ack(&store).await?;
    drained(&pool).await;
    Ok(())
}

/// Whatever the encoding of the database: LATIN1 has none of most of these characters.
#[sqlx::test(migrations = false)]
async fn every_text_comes_back_as_it_was_sent_also_from_a_latin1_database(
    pool: PgPool,
) -> TestResult {
    let name: String = sqlx::query_scalar("select 'latin1_headers_' || md5(current_database())")
        .fetch_one(&pool)
        .await?;
    let drop = format!("drop database if exists \"{name}\" with (force)");
    sqlx::raw_sql(AssertSqlSafe(drop.clone()))
        .execute(&pool)
        .await?;
    let create = format!(
        "create database \"{name}\" template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'"
    );
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&pool).await?;
    let mut latin1: url::Url = url(&pool).parse()?;
    latin1.set_path(&name);
    for url in [url(&pool), latin1.to_string()] {
        let options = ConnectOptions::builder().url(url).install(true).build();
        let store = pgqrs::connect_with(options).await?;
        store.queue("tasks").await?;
        let texts = [
            "",
            "\"\\/\u{1}\n\t\u{7f}",
            "déjà vu",
            "日本語 🦀 \u{ffff}",
            "{\"a\":1}",
            "null",
        ];
        for text in texts {
            let enqueue = pgqrs::enqueue()
                .message(&text.len())
                .to("tasks")
                .header("t", text);
            enqueue.execute(&store).await?;
            let batch = pgqrs::enqueue()
                .messages(&[1, 2])
                .to("tasks")
                .header("t", text);
            batch.execute(store.pool()).await?;
            let deliveries = claim(&store, 3).await?;
            assert_eq!(deliveries.len(), 3);
            for delivery in deliveries {
                assert_eq!(delivery.headers().get("t"), Some(text));
                delivery.ack(&store).await?;
            }
        }
        store.pool().close().await;
    }
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_others_have_stored_as_headers_is_delivered_as_text(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for (json, expected) in [
        (
            r#"{"n": 1.0, "t": "x", "o": {"a": []}}"#,
            &[("n", "1.0"), ("o", r#"{"a": []}"#), ("t", "x")][..],
        ),
        (r#"["not", "an object"]"#, &[]),
        ("null", &[]),
    ] {
        let ids = support::send(&store, &["message"]).await?;
        sqlx::query("update pgqrs.messages set headers = $1::json")
            .bind(json)
            .execute(&pool)
            .await?;
        let delivery = one(&store).await?;
        assert_eq!(delivery.id(), ids[0]);
        assert_eq!(delivery.headers().iter().collect::<Vec<_>>(), expected);
        delivery.ack(&store).await?;
    }
    assert!(stored(&pool).await?.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn values_of_headers_are_in_no_debug_output(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let enqueue = || {
        pgqrs::enqueue()
            .message(&1)
            .to("tasks")
            .header("token", "secret")
    };
    let mut shown = vec![
        format!("{:?}", enqueue()),
        format!("{:?}", enqueue().statement()?),
    ];
    let import = pgqrs::enqueue()
        .to("tasks")
        .header("token", "secret")
        .import([1]);
    shown.push(format!("{import:?}"));
    enqueue().execute(&store).await?;
    let listed = pgqrs::admin(&store)
        .messages("tasks", Page::default())
        .await?;
    shown.push(format!("{listed:?}"));
    let delivery = one(&store).await?;
    shown.push(format!("{delivery:?} {:?}", delivery.headers()));
    let invalid = pgqrs::enqueue()
        .header("Token", "secret")
        .message(&1)
        .to("tasks");
    shown.push(format!("{:#?}", invalid.statement().unwrap_err()));
    let shown = shown.join("\n");
    assert!(
        shown.contains("token") && !shown.contains("secret"),
        "{shown}"
    );
    Ok(())
}
