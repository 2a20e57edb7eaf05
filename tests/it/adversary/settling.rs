//! Settling goes on, whatever holds up or refuses some of it; and the report adds up.

mod delayed;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use pgqrs::{
    ConnectOptions, Delivery, Error, Outcome, Page, QueueOptions, Report, RetryPolicy, Store,
};
use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::{
    runtime::Builder,
    time::{sleep_until, timeout},
};

use crate::support::{
    TestResult, blocked_backend, claim, connect,
    consumers::{Seen, consumer, drained, gate, pass, prepare, start},
    count, newcomer, places,
    proxy::Proxy,
    send,
    server::Server,
    until, until_within, url, with_queues,
};

/// Nothing that a test waits for takes nearly as long.
const BOUND: Duration = Duration::from_secs(60);

fn deliveries(report: &Report) -> u64 {
    report.done
        + report.archived
        + report.retried
        + report.dead
        + report.released
        + report.lost
        + report.unknown
}

fn is(delivery: &Delivery<Value>, word: &str) -> bool {
    delivery.raw_payload().trim_matches('"') == word
}

/// Many words, with a special one in the middle.
fn many_and(word: &str, many: usize) -> Vec<String> {
    let mut words = vec!["fine".to_owned(); many];
    words[many / 2] = word.to_owned();
    words
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_wait_without_end_is_the_longest_one_and_holds_up_no_other(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    send(&store, &many_and("never again", 100)).await?;
    let running = start(
        consumer().create(&store).await?,
        async |delivery: Delivery<Value>| {
            if is(&delivery, "never again") {
                Outcome::RetryIn(Duration::MAX, "again".to_owned())
            } else {
                Outcome::Done
            }
        },
    );
    until("all others are settled", async || {
        let left = pgqrs::admin(&store).queue_stats("tasks").await;
        let left = left.expect("counted");
        (left.ready.value, left.leased.value, left.delayed.value) == (0, 0, 1)
    })
    .await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried), (99, 1));
    assert_eq!(deliveries(&report), 100);
    let waits: bool = sqlx::query_scalar(
        "select visible_at > now() + interval '100000 years' from pgqrs.messages",
    )
    .fetch_one(&pool)
    .await?;
    assert!(waits);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_text_that_the_databases_encoding_lacks_is_kept_without_those_characters(
    pool: PgPool,
) -> TestResult {
    let name: String = sqlx::query_scalar("select 'latin1_' || md5(current_database())")
        .fetch_one(&pool)
        .await?;
    let drop = format!("drop database if exists \"{name}\" with (force)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop.clone()))
        .execute(&pool)
        .await?;
    let create = format!(
        "create database \"{name}\" template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(create))
        .execute(&pool)
        .await?;
    let mut there: url::Url = url(&pool).parse()?;
    there.set_path(&name);
    let options = ConnectOptions::builder().url(there).install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    let mut words = many_and("error", 100);
    words[20] = "dead letter".to_owned();
    words[80] = "accent".to_owned();
    send(&store, &words).await?;
    let later = consumer().retry(RetryPolicy::fixed(Duration::from_secs(3_600)));
    let running = start(
        later.create(&store).await?,
        async |delivery: Delivery<Value>| {
            Ok(match delivery.payload().as_str() {
                Some("error") => return Err("it can\u{2019}t be done"),
                Some("accent") => return Err("d\u{e9}j\u{e0} vu"),
                Some("dead letter") => Outcome::DeadLetter("\u{201c}no\u{201d}".to_owned()),
                _ => Outcome::Done,
            })
        },
    );
    let admin = pgqrs::admin(&store);
    until("all are settled", async || {
        let left = admin.queue_stats("tasks").await.expect("counted");
        (left.ready.value, left.leased.value, left.delayed.value) == (0, 0, 2)
    })
    .await;
    let report = running.stop().await?;
    assert_eq!((report.done, report.retried, report.dead), (97, 2, 1));
    assert_eq!(deliveries(&report), 100);
    let mut errors: Vec<_> = admin
        .messages("tasks", Page::default())
        .await?
        .into_iter()
        .map(|message| message.last_error)
        .collect();
    errors.sort();
    // What the database can hold stays as it was.
    let expected = ["d\u{e9}j\u{e0} vu", "it can?t be done"];
    assert_eq!(errors, expected.map(|error| Some(error.to_owned())));
    let dead = admin.dead_letters("tasks", Page::default()).await?;
    assert_eq!(dead[0].reason, "?no?");
    store.pool().close().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop))
        .execute(&pool)
        .await?;
    Ok(())
}

/// What a handler returns each time, and how the server refuses to store it for one of the messages.
async fn one_is_refused_and_comes_again(
    pool: PgPool,
    outcome: Outcome,
    refuse: &'static str,
    allow: &'static str,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let patient = QueueOptions::builder().max_attempts(1_000).build();
    admin.configure_queue("tasks", patient).await?;
    sqlx::raw_sql(refuse).execute(&pool).await?;
    send(&store, &many_and("poison", 500)).await?;
    let (all, poison) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let lease = Duration::from_secs(1);
    let running = start(consumer().lease(lease).create(&store).await?, {
        let (all, poison) = (Arc::clone(&all), Arc::clone(&poison));
        move |delivery: Delivery<Value>| {
            all.fetch_add(1, Ordering::SeqCst);
            if is(&delivery, "poison") {
                poison.fetch_add(1, Ordering::SeqCst);
            }
            std::future::ready(outcome.clone())
        }
    });
    until("only one is left", async || {
        count(&pool).await.expect("counted") == 1
    })
    .await;
    until("it was delivered again", async || {
        poison.load(Ordering::SeqCst) > 1
    })
    .await;
    // The loop goes on.
    send(&store, &["fine"; 10]).await?;
    until("only one is left", async || {
        count(&pool).await.expect("counted") == 1
    })
    .await;
    sqlx::raw_sql(allow).execute(&pool).await?;
    drained(&pool).await;
    let report = running.stop().await?;
    let all = all.load(Ordering::SeqCst) as u64;
    assert_eq!(report.done + report.dead, 510, "{report:?}");
    assert!(report.unknown > 0, "{report:?}");
    assert_eq!(deliveries(&report), all, "{report:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_ack_that_the_server_refuses_holds_up_no_other(pool: PgPool) -> TestResult {
    one_is_refused_and_comes_again(
        pool,
        Outcome::Done,
        r#"create function refuse() returns trigger language plpgsql as
               $$ begin
                   if old.payload::text = '"poison"' then raise exception 'not this one'; end if;
                   return old;
               end $$;
           create trigger refuse before delete on pgqrs.messages for each row execute function refuse();"#,
        "drop trigger refuse on pgqrs.messages",
    )
    .await
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dead_letter_that_the_server_refuses_holds_up_no_other(pool: PgPool) -> TestResult {
    one_is_refused_and_comes_again(
        pool,
        Outcome::DeadLetter("no such customer".to_owned()),
        r#"alter table pgqrs.dead_letters add constraint refuse check (payload::text <> '"poison"')"#,
        "alter table pgqrs.dead_letters drop constraint refuse",
    )
    .await
}

/// What has no room now has some later: it says nothing about the messages. (No file can grow beyond four MiB, and so not
/// the table of dead letters.)
#[tokio::test]
async fn while_the_disk_is_full_what_is_handled_waits_and_is_not_handled_again() -> TestResult {
    const MESSAGES: usize = 100;
    let server = Server::start().await?;
    let options = ConnectOptions::builder().url(server.url()).install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    // Without a pattern that could be compressed.
    let payload = || -> String {
        let words = (0..3_200).map(|_| format!("{:032x}", rand::random::<u128>()));
        words.collect()
    };
    let payloads: Vec<_> = (0..MESSAGES).map(|_| payload()).collect();
    send(&store, &payloads).await?;
    let (gate, seen) = (gate(), Seen::default());
    let wide = consumer().concurrency(MESSAGES).lease(2 * BOUND);
    let running = start(wide.create(&store).await?, {
        let (gate, seen) = (Arc::clone(&gate), seen.clone());
        move |delivery: Delivery<Value>| {
            seen.note(delivery.id().to_string());
            let gate = Arc::clone(&gate);
            async move {
                pass(&gate).await;
                Outcome::DeadLetter("no".to_owned())
            }
        }
    });
    until("all are at work", async || seen.len() == MESSAGES).await;
    server.down("fast")?;
    server.limit_files(Some((4 << 20) + 4096));
    server.up()?;
    let direct = PgPool::connect(&server.url()).await?;
    let refused = async || -> i64 {
        let refused =
            "select xact_rollback from pg_stat_database where datname = current_database()";
        sqlx::query_scalar(refused)
            .fetch_one(&direct)
            .await
            .expect("counted")
    };
    let before = refused().await;
    gate.add_permits(MESSAGES);
    until("it was refused again and again", async || {
        refused().await > before + 5
    })
    .await;
    assert!(count(&direct).await? > 0);
    direct.close().await;
    server.down("fast")?;
    server.limit_files(None);
    server.up()?;
    let direct = PgPool::connect(&server.url()).await?;
    drained(&direct).await;
    let report = running.stop().await?;
    assert_eq!(places(&direct).await?, (0, MESSAGES as i64, 0));
    assert!(seen.times().values().all(|times| *times == 1));
    assert_eq!(deliveries(&report), MESSAGES as u64, "{report:?}");
    direct.close().await;
    Ok(())
}

/// When all leases run out, at the earliest.
async fn leases_end(pool: &PgPool) -> DateTime<Utc> {
    sqlx::query_scalar("select min(lease_until) from pgqrs.messages where lease_token <> 0")
        .fetch_one(pool)
        .await
        .expect("there are leased messages")
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_lease_that_the_server_refuses_to_extend_costs_no_other_its_lease(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    sqlx::raw_sql(
        r#"create function refuse() returns trigger language plpgsql as
               $$ begin
                   if old.payload::text = '"poison"' and old.lease_token = new.lease_token then
                       raise exception 'not this one';
                   end if;
                   return new;
               end $$;
           create trigger refuse before update on pgqrs.messages for each row execute function refuse();"#,
    )
    .execute(&pool)
    .await?;
    let ids = send(&store, &many_and("poison", 10)).await?;
    let poison = ids[5].get();
    let (gate, begun) = (gate(), Arc::new(AtomicUsize::new(0)));
    let lease = Duration::from_secs(2);
    let running = start(
        consumer()
            .concurrency(10)
            .lease(lease)
            .create(&store)
            .await?,
        {
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            move |_: Delivery<Value>| {
                begun.fetch_add(1, Ordering::SeqCst);
                let gate = Arc::clone(&gate);
                async move {
                    pass(&gate).await;
                    Outcome::Done
                }
            }
        },
    );
    until("all are at work", async || {
        begun.load(Ordering::SeqCst) == 10
    })
    .await;
    let others_end = async || -> DateTime<Utc> {
        sqlx::query_scalar("select min(lease_until) from pgqrs.messages where id <> $1")
            .bind(poison)
            .fetch_one(&pool)
            .await
            .expect("they are there")
    };
    let first = others_end().await;
    until("the others were extended again and again", async || {
        others_end().await > first + lease * 2
    })
    .await;
    gate.add_permits(1_000);
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(report.done, 10, "{report:?}");
    // Nobody else was there to take the poison; but if this one took it again, its first delivery was lost.
    assert_eq!(deliveries(&report), begun.load(Ordering::SeqCst) as u64);
    Ok(())
}

/// Behind a link on which no statement of more than a few hundred settlements can pass.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn behind_a_link_that_cuts_connections_all_is_settled_and_counted(
    pool: PgPool,
) -> TestResult {
    const MESSAGES: usize = 400;
    let direct = with_queues(&pool, &["tasks"]).await?;
    // A claim whose answer is cut uses up an attempt of messages that no handler sees.
    let patient = QueueOptions::builder().max_attempts(1_000).build();
    let admin = pgqrs::admin(&direct);
    admin.configure_queue("tasks", patient).await?;
    send(&direct, &(0..MESSAGES).collect::<Vec<_>>()).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    // More than the longest statement, which is a claim.
    proxy.cut_after(11_500);
    let seen = Seen::default();
    let mut running = Vec::new();
    for port in [3001, 3002] {
        let store = pgqrs::connect(&url).await?;
        let registering = async || {
            let builder = prepare(pgqrs::consumer("tasks").identity("my-service", port))
                .lease(Duration::from_secs(5))
                .poll_interval(Duration::from_millis(20))
                .listen(false);
            builder.create(&store).await
        };
        let mut consumer = registering().await;
        while consumer.is_err() {
            consumer = registering().await;
        }
        running.push(start(consumer?, seen.handler()));
    }
    let is_drained = until_within(4 * BOUND, async || {
        count(&pool).await.expect("counted") == 0
    });
    assert!(is_drained.await, "{} are left", count(&pool).await?);
    let mut total = 0;
    for running in running {
        total += deliveries(&running.stop().await?);
    }
    let times = seen.times();
    assert_eq!((times.len(), places(&pool).await?), (MESSAGES, (0, 0, 0)));
    let handled: u64 = times.values().map(|times| u64::from(*times)).sum();
    assert_eq!(total, handled, "the reports add up");
    let again = handled as usize - MESSAGES;
    assert!(again < MESSAGES / 20, "{again} were handled again");
    assert!(proxy.cuts() > 25, "{} cuts", proxy.cuts());
    Ok(())
}

/// All of them at once, on a link on which no statement of more than some hundred can pass.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn acknowledgements_too_many_for_a_connection_are_made_in_parts(pool: PgPool) -> TestResult {
    const MESSAGES: usize = 3_000;
    let direct = with_queues(&pool, &["tasks"]).await?;
    send(&direct, &vec![0; MESSAGES]).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let store = pgqrs::connect(&url).await?;
    let (gate, begun) = (gate(), Arc::new(AtomicUsize::new(0)));
    let wide = consumer().concurrency(MESSAGES).listen(false);
    let running = start(wide.create(&store).await?, {
        let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
        move |_: Delivery<Value>| {
            begun.fetch_add(1, Ordering::SeqCst);
            let gate = Arc::clone(&gate);
            async move {
                pass(&gate).await;
                Outcome::Done
            }
        }
    });
    until("all are at work", async || {
        begun.load(Ordering::SeqCst) == MESSAGES
    })
    .await;
    proxy.cut_after(4_000);
    gate.add_permits(MESSAGES);
    let is_drained = until_within(BOUND, async || count(&pool).await.expect("counted") == 0);
    assert!(is_drained.await, "{} are left", count(&pool).await?);
    let report = running.stop().await?;
    assert_eq!(
        (deliveries(&report), report.lost),
        (MESSAGES as u64, 0),
        "{report:?}"
    );
    assert_eq!(
        begun.load(Ordering::SeqCst),
        MESSAGES,
        "each was handled once"
    );
    // Two arrays, with twelve bytes for each of at most a thousand messages; and some more.
    let largest = proxy.largest();
    assert!(
        (4_000..2 * 12 * 1_000 + 1_000).contains(&largest),
        "{largest} bytes in a statement"
    );
    Ok(())
}
