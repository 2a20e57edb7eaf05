//! Searching messages and dead letters, one message by its id or key, and what is done to many by their ids.

mod many;

use std::collections::BTreeSet;

use pgqrs::{Cursor, DeadLetter, Found, MessagePlace, MessageState, QueuedMessage};
use serde_json::json;

use super::*;
use crate::support::chain;

fn ids(found: &Found<QueuedMessage>) -> Vec<MessageId> {
    found.items.iter().map(|message| message.id).collect()
}

fn letter_ids(found: &Found<DeadLetter>) -> Vec<MessageId> {
    found.items.iter().map(|letter| letter.id).collect()
}

fn reversed(ids: &[MessageId]) -> Vec<MessageId> {
    ids.iter().rev().copied().collect()
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_state_is_listed_by_itself_newest_or_oldest_first(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let leased = send(&store, &[0, 1, 2]).await?;
    let held = claim(&store, 3).await?;
    let ready = send(&store, &[3, 4, 5]).await?;
    let mut delayed = Vec::new();
    for hours in [3, 1, 2] {
        let later = pgqrs::enqueue()
            .message(&hours)
            .to("tasks")
            .delay(hours * 3_600);
        delayed.push(later.execute(&store).await?[0]);
    }
    let delayed = [delayed[1], delayed[2], delayed[0]];
    pgqrs::enqueue()
        .message(&1)
        .to("other")
        .execute(&store)
        .await?;

    for (state, ids_of) in [
        (MessageState::Leased, &*leased),
        (MessageState::Ready, &*ready),
        (MessageState::Delayed, &delayed),
    ] {
        let newest = admin.search("tasks", state).await?;
        assert_eq!(ids(&newest), reversed(ids_of), "{state}");
        assert!(newest.next.is_none() && !newest.is_cut);
        assert!(newest.items.iter().all(|found| found.payload.is_none()));
        let oldest = admin.search("tasks", state).oldest_first().await?;
        assert_eq!(ids(&oldest), *ids_of, "{state}");
    }
    let search = admin.search("tasks", MessageState::Leased).payload(true);
    let found = search.await?;
    assert_eq!(found.items[0].payload.as_deref(), Some("2"));
    assert_eq!(
        found.items[0].lease_expires_at,
        Some(held[2].lease_expires_at())
    );
    assert!(
        admin
            .search("other", MessageState::Delayed)
            .await?
            .items
            .is_empty()
    );
    let absent = admin.search("absent", MessageState::Ready).await;
    assert!(matches!(absent, Err(Error::QueueNotFound { .. })));
    let absent = admin.search_dead_letters("absent").await;
    assert!(matches!(absent, Err(Error::QueueNotFound { .. })));
    Ok(())
}

/// Many became visible at the same time, of each priority, and some at times that no calendar has.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn pages_follow_each_other_without_a_gap_or_an_overlap(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    sqlx::query(
        "insert into pgqrs.messages (queue_id, priority, visible_at, payload)
         select id, n % 4,
             case n % 5
                 when 0 then '-infinity' when 1 then 'infinity' when 2 then now() + n * interval '1 hour'
                 else now() - n / 9 * interval '1 second'
             end, '{}'
         from pgqrs.queues, generate_series(1, 200) n",
    )
    .execute(&pool)
    .await?;
    for (state, total) in [(MessageState::Ready, 120), (MessageState::Delayed, 80)] {
        let mut seen = Vec::new();
        for is_oldest_first in [false, true] {
            let mut listed = Vec::new();
            let mut cursor: Option<Cursor> = None;
            loop {
                let mut search = admin.search("tasks", state).limit(7);
                if is_oldest_first {
                    search = search.oldest_first();
                }
                if let Some(cursor) = cursor {
                    // As a link carries it.
                    search = search.after(cursor.to_string().parse()?);
                }
                let found = search.await?;
                listed.extend(ids(&found));
                cursor = found.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(listed.len(), total, "{state}");
            assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), total);
            seen.push(listed);
        }
        assert_eq!(seen[0], reversed(&seen[1]), "{state}");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_are_found_by_header_payload_and_error(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let payloads = [
        json!({"user": {"id": 7, "tags": ["new", "vip"]}, "ok": true}),
        json!({"user": {"id": 70, "tags": ["vip"]}, "ok": false}),
        json!({"user": {"id": "7"}, "ok": null}),
        json!(["user", 7]),
        json!("user"),
    ];
    let mut sent = Vec::new();
    for (n, payload) in payloads.iter().enumerate() {
        let tenant = if n % 2 == 0 { "acme" } else { "zeta" };
        let message = pgqrs::enqueue().message(payload).header("tenant", tenant);
        sent.push(message.to("tasks").execute(&store).await?[0]);
    }
    let search = || admin.search("tasks", MessageState::Ready).oldest_first();
    let cases = [
        (search().header("tenant", "acme"), vec![0, 2, 4]),
        (search().header("tenant", "acm"), vec![]),
        (search().header("absent", "acme"), vec![]),
        (search().payload_at(["user", "id"], "7"), vec![0, 2]),
        (search().payload_at(["user", "tags", "1"], "vip"), vec![0]),
        (search().payload_at(["user", "tags"], r#"["vip"]"#), vec![1]),
        (search().payload_at(["ok"], "false"), vec![1]),
        (search().payload_at(["1"], "7"), vec![3]),
        (search().payload_at([] as [&str; 0], "user"), vec![4]),
        (
            search()
                .payload_at(["user", "id"], "7")
                .header("tenant", "zeta"),
            vec![],
        ),
    ];
    for (search, expected) in cases {
        let shown = format!("{search:?}");
        let expected: Vec<_> = expected.into_iter().map(|n: usize| sent[n]).collect();
        assert_eq!(ids(&search.await?), expected, "{shown}");
    }
    for delivery in claim(&store, 2).await? {
        delivery
            .retry_in(Duration::from_secs(3_600), &store)
            .await?;
    }
    sqlx::query("update pgqrs.messages set last_error = 'it said: 50% off' where attempt > 0")
        .execute(&pool)
        .await?;
    let failed = admin
        .search("tasks", MessageState::Delayed)
        .error("50% off");
    assert_eq!(ids(&failed.await?).len(), 2);
    let failed = admin
        .search("tasks", MessageState::Delayed)
        .error("50_ off");
    assert!(failed.await?.items.is_empty());
    Ok(())
}

/// A zero or half of a pair is JSON, but no text for PostgreSQL.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_and_dead_letters_are_found_by_their_group(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let groups = pgqrs::Groups::default();
    let options = pgqrs::QueueOptions::builder().groups(groups).build();
    admin.configure_queue("tasks", options).await?;
    for group in ["a", "b"] {
        let enqueue = pgqrs::enqueue().messages(&[1, 2, 3]).to("tasks");
        enqueue.group(group).execute(&store).await?;
    }
    let plain = pgqrs::enqueue().message(&4).to("tasks");
    plain.execute(&store).await?;
    let found = async |state, is_oldest_first: bool| -> pgqrs::Result<Vec<Option<String>>> {
        let search = admin.search("tasks", state).group("a");
        let found = if is_oldest_first {
            search.oldest_first().await?
        } else {
            search.await?
        };
        Ok(found
            .items
            .into_iter()
            .map(|message| message.group)
            .collect())
    };
    let a = || Some("a".to_owned());
    for is_oldest_first in [false, true] {
        assert_eq!(found(MessageState::Ready, is_oldest_first).await?, [a()]);
        let parked = found(MessageState::Delayed, is_oldest_first).await?;
        assert_eq!(parked, [a(), a()]);
    }
    for delivery in pgqrs::dequeue()
        .from("tasks")
        .limit(9)
        .execute(&store)
        .await?
    {
        delivery.dead_letter("no", &store).await?;
    }
    let dead = admin.search_dead_letters("tasks").group("a").await?;
    let groups: Vec<_> = dead.items.into_iter().map(|letter| letter.group).collect();
    assert_eq!(groups, [a()]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_payload_that_postgresql_cannot_decode_spoils_no_search(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    sqlx::query(
        r#"insert into pgqrs.messages (queue_id, priority, headers, payload)
           select id, 2, '{"a": "\u0000", "b": "1"}'::json, '{"a": "x\u0000y", "b": "1", "c": "\\u0000"}'::json from pgqrs.queues
           union all select id, 2, null, '{"a": "\ud83d", "b": "1"}' from pgqrs.queues
           union all select id, 2, null, '{"\udead": "\ud83d\ude00", "b": "1", "d": "\u00e9"}' from pgqrs.queues
           union all select id, 2, '[]', '[]' from pgqrs.queues
           union all select id, 2, '0', '0' from pgqrs.queues"#,
    )
    .execute(&pool)
    .await?;
    let search = || admin.search("tasks", MessageState::Ready);
    assert_eq!(search().payload_at(["b"], "1").await?.items.len(), 3);
    assert_eq!(search().payload_at(["d"], "é").await?.items.len(), 1);
    assert_eq!(search().header("b", "1").await?.items.len(), 1);
    assert_eq!(search().payload_at(["absent"], "1").await?.items.len(), 0);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_search_looks_at_fifty_thousand_and_says_if_there_are_more(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let first = pgqrs::enqueue()
        .message(&"wanted")
        .header("tenant", "acme")
        .to("tasks");
    let first = first.execute(&store).await?[0];
    sqlx::query(
        "insert into pgqrs.messages (queue_id, priority, payload)
         select id, n % 4, '{}' from pgqrs.queues, generate_series(1, 49999) n",
    )
    .execute(&pool)
    .await?;
    let search = || {
        let search = admin.search("tasks", MessageState::Ready);
        search.header("tenant", "acme")
    };
    let found = search().await?;
    assert_eq!((ids(&found), found.is_cut), (vec![first], true));
    send(&store, &[1]).await?;
    let found = search().await?;
    assert!(found.items.is_empty() && found.is_cut);
    let next = found.next.expect("it was cut");
    let found = search().after(next).await?;
    assert_eq!((ids(&found), found.is_cut), (vec![first], false));
    assert!(found.next.is_none());
    let oldest = search().oldest_first().await?;
    assert_eq!((ids(&oldest), oldest.is_cut), (vec![first], true));

    sqlx::query(
        "insert into pgqrs.dead_letters (queue_id, id, priority, enqueued_at, attempt, payload, reason)
         select m.queue_id, m.id, 0, now(), 1, '{}', 'boom' from pgqrs.messages m",
    )
    .execute(&pool)
    .await?;
    let none = admin.search_dead_letters("tasks").reason("other").await?;
    assert!(none.items.is_empty() && none.is_cut);
    let next = none.next.expect("it was cut");
    let rest = admin.search_dead_letters("tasks").after(next).await?;
    assert_eq!((letter_ids(&rest), rest.is_cut), (vec![first], false));
    let reasons = admin.dead_letter_reasons("tasks").await?;
    assert_eq!(reasons[0].letters.to_string(), "50,000+");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn dead_letters_are_found_by_reason_key_header_payload_and_error(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let mut sent = Vec::new();
    for n in 0..4 {
        let message = pgqrs::enqueue()
            .message(&json!({ "n": n }))
            .header("tenant", format!("t{}", n % 2))
            .unique(format!("key-{n}"));
        sent.push(message.to("tasks").execute(&store).await?[0]);
    }
    for (n, delivery) in claim(&store, 4).await?.into_iter().enumerate() {
        let reason = if n == 3 { "refused" } else { "<b>gone</b>" };
        delivery.dead_letter(reason, &store).await?;
    }
    sqlx::query("update pgqrs.dead_letters set last_error = 'code ' || id")
        .execute(&pool)
        .await?;
    let search = || admin.search_dead_letters("tasks");
    for (search, expected) in [
        (search(), vec![3, 2, 1, 0]),
        (search().reason("refused"), vec![3]),
        (search().reason("ref"), vec![]),
        (search().key("key-1"), vec![1]),
        (search().header("tenant", "t0"), vec![2, 0]),
        (search().payload_at(["n"], "2"), vec![2]),
        (search().error(format!("code {}", sent[0])), vec![0]),
    ] {
        let shown = format!("{search:?}");
        let expected: Vec<_> = expected.into_iter().map(|n: usize| sent[n]).collect();
        assert_eq!(letter_ids(&search.await?), expected, "{shown}");
    }
    let page = search().limit(3).payload(true).await?;
    assert_eq!(page.items[0].payload.as_deref(), Some(r#"{"n":3}"#));
    assert_eq!(page.items[0].unique_key.as_deref(), Some("key-3"));
    let last = search().after(page.next.expect("one follows")).await?;
    assert_eq!(letter_ids(&last), [sent[0]]);

    let reasons = admin.dead_letter_reasons("tasks").await?;
    let of: Vec<_> = reasons
        .iter()
        .map(|group| (group.reason.as_str(), group.letters.value, group.newest))
        .collect();
    assert_eq!(of, [("<b>gone</b>", 3, sent[2]), ("refused", 1, sent[3])]);
    assert_eq!(reasons[1].last_error, Some(format!("code {}", sent[3])));
    assert!(admin.dead_letter_reasons("other").await?.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn one_message_is_found_wherever_it_is_with_all_that_is_known(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks", "other"]).await?;
    let admin = pgqrs::admin(&store);
    let message = pgqrs::enqueue()
        .message(&json!({"card": "4111"}))
        .header("tenant", "acme")
        .unique("key-1");
    let id = message.to("tasks").execute(&store).await?[0];
    let found = async || admin.message("tasks", id).await;
    let waiting = found().await?.expect("it is there");
    assert!(matches!(
        waiting.place,
        MessagePlace::Queued {
            state: MessageState::Ready,
            lease_expires_at: None,
            ..
        }
    ));
    assert_eq!(waiting.payload, r#"{"card":"4111"}"#);
    assert_eq!(waiting.unique_key.as_deref(), Some("key-1"));
    assert_eq!(waiting.headers.get("tenant"), Some("acme"));
    assert_eq!((waiting.attempt, waiting.max_attempts), (0, 20));
    assert!(!format!("{waiting:?}").contains("4111"));
    assert_eq!(admin.messages_with_key("tasks", "key-1").await?, [waiting]);
    assert_eq!(admin.message("other", id).await?, None);

    let delivery = one(&store).await?;
    let leased = found().await?.expect("it is there");
    let lease = match leased.place {
        MessagePlace::Queued {
            state: MessageState::Leased,
            lease_expires_at,
            ..
        } => lease_expires_at,
        other => panic!("{other:?}"),
    };
    assert_eq!(lease, Some(delivery.lease_expires_at()));
    assert_eq!(leased.attempt, 1);
    delivery.dead_letter("by hand", &store).await?;
    let dead = found().await?.expect("it is there");
    assert!(
        matches!(dead.place, MessagePlace::DeadLetters { ref reason, .. } if reason == "by hand")
    );
    assert_eq!(dead.payload, r#"{"card":"4111"}"#);
    assert!(admin.messages_with_key("tasks", "key-1").await?.is_empty());

    admin.requeue("tasks", id).await?;
    one(&store).await?.archive(&store).await?;
    let archived = found().await?.expect("it is there");
    assert!(matches!(archived.place, MessagePlace::Archive { .. }));
    admin.purge_archive("tasks", Duration::ZERO).await?;
    assert_eq!(found().await?, None);
    let absent = admin.message("absent", id).await;
    assert!(matches!(absent, Err(Error::QueueNotFound { .. })));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn by_the_key_of_a_time_its_message_is_found_also_as_a_dead_letter(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let message = pgqrs::enqueue()
        .message(&1)
        .once_within("key", Duration::from_secs(3_600));
    let id = message.to("tasks").execute(&store).await?[0];
    one(&store).await?.dead_letter("in a test", &store).await?;
    let found = admin.messages_with_key("tasks", "key").await?;
    assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), [id]);
    assert!(admin.messages_with_key("tasks", "").await?.is_empty());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_search_gives_up_instead_of_waiting_behind_a_lock(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let mut locking = pool.begin().await?;
    sqlx::query("lock table pgqrs.messages in access exclusive mode")
        .execute(&mut *locking)
        .await?;
    let refused = admin.search("tasks", MessageState::Ready).await;
    let error = refused.expect_err("the table is locked");
    assert!(error.is_retryable(), "{}", chain(&error));
    locking.rollback().await?;
    assert!(
        admin
            .search("tasks", MessageState::Ready)
            .await?
            .items
            .is_empty()
    );
    Ok(())
}
