//! Why a call fails: that the error names the true reason, concerns only what it is about, and says whether trying again
//! can help.

use std::{
    fs,
    time::{Duration, Instant},
};

use pgqrs::{ConnectOptions, Error, Store};
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool, migrate::Migrate};
use tokio::time::timeout;

use crate::{
    sends::{BOUND, alter, done, hold_up_behind, sending, source, waiting, with_one_writer},
    support::{
        TestResult, blocked_backend, claim, connect,
        consumers::{Seen, consumer, drained, start},
        count, send,
        server::Server,
        until, url, with_queues,
    },
};

/// What a trigger may name that isn't there, each with the SQLSTATE that says so.
const MISSING: [(&str, &str); 5] = [
    ("42P01", "perform 1 from no_such_table"),
    ("42P01", "perform 1 from pgqrs.no_such_table"),
    ("3F000", "perform no_such_schema.f()"),
    ("42703", "perform no_such_column from pgqrs.queues"),
    ("42883", "perform no_such_function(1)"),
];

/// A trigger that runs a statement for the messages with one payload.
async fn trigger(pool: &PgPool, on: &str, payload: &str, statement: &str) -> sqlx::Result<()> {
    let row = if on == "insert" { "new" } else { "old" };
    let returned = if on == "delete" { "old" } else { "new" };
    let trigger = format!(
        "create or replace function theirs() returns trigger language plpgsql as
             $$ begin
                 if {row}.payload::text = '{payload}' then {statement}; end if;
                 return {returned};
             end $$;
         create or replace trigger theirs before {on} on pgqrs.messages
             for each row execute function theirs();"
    );
    alter(pool, &trigger).await
}

fn code(error: &Error) -> Option<String> {
    let Error::Database(source) = error else {
        return None;
    };
    Some(source.as_database_error()?.code()?.into_owned())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_trigger_that_names_something_missing_refuses_only_the_message_it_is_about(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = with_one_writer(&pool).await?;
    for (sqlstate, statement) in MISSING {
        alter(&pool, "delete from pgqrs.messages").await?;
        trigger(&pool, "insert", "13", statement).await?;
        let (holder, taken) = hold_up_behind(&store, &pool).await?;
        let calls: Vec<_> = (0..50).map(|n| sending(&store, json!(n))).collect();
        waiting(&store, 50).await;
        holder.rollback().await?;
        done(taken).await?;
        for (n, call) in calls.into_iter().enumerate() {
            let sent = timeout(BOUND, call).await??;
            if n == 13 {
                let refused = sent.unwrap_err();
                assert_eq!(code(&refused).as_deref(), Some(sqlstate), "{refused:?}");
                assert!(!refused.is_retryable(), "{refused:?}");
            } else {
                assert!(sent.is_ok(), "{statement}: {n}: {sent:?}");
            }
        }
        // With the two that held up the others.
        assert_eq!(count(&pool).await?, 51, "{statement}");
        // In a batch and in the caller's transaction likewise.
        let refused = send(&store, &[13]).await.unwrap_err();
        assert_eq!(code(&refused).as_deref(), Some(sqlstate), "{refused:?}");
        let mut tx = pool.begin().await?;
        let sent = pgqrs::enqueue().message(&13).to("tasks");
        let refused = sent.execute(&mut tx).await.unwrap_err();
        assert_eq!(code(&refused).as_deref(), Some(sqlstate), "{refused:?}");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_trigger_that_names_something_missing_ends_no_loop(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    for (_, statement) in MISSING {
        // Of what is to be deleted, that one isn't, and the rest is.
        trigger(&pool, "delete", "13", statement).await?;
        send(&store, &(0..50).collect::<Vec<_>>()).await?;
        let seen = Seen::default();
        let steady = consumer().lease(Duration::from_secs(3));
        let running = start(steady.create(&store).await?, seen.handler());
        until("all but one are acknowledged", async || {
            count(&pool).await.is_ok_and(|left| left == 1)
        })
        .await;
        // Nothing can be claimed while the trigger stands.
        alter(&pool, "drop trigger theirs on pgqrs.messages").await?;
        trigger(&pool, "update", "77", statement).await?;
        drained(&pool).await;
        send(&store, &[77]).await?;
        let other = connect(&pool).await?;
        let mut refused = None;
        // While a claim of the loop holds the message, another one finds nothing.
        until("a claim is refused", async || {
            refused = claim(&other, 1).await.err();
            refused.is_some()
        })
        .await;
        assert!(matches!(refused, Some(Error::Database(_))), "{refused:?}");
        assert!(!running.task.is_finished(), "{statement}");
        alter(&pool, "drop trigger theirs on pgqrs.messages").await?;
        drained(&pool).await;
        running.stop().await?;
        assert_eq!(seen.len(), 51, "{statement}");
    }
    Ok(())
}

/// What each verb says of a schema that isn't as it should be.
async fn refusals(store: &Store, pool: &PgPool) -> Result<Vec<Error>, Box<dyn std::error::Error>> {
    let mut refused = Vec::new();
    refused.extend(send(store, &[1]).await.err());
    refused.extend(send(store, &[1, 2, 3]).await.err());
    refused.extend(send(store, &vec![1; 2_500]).await.err());
    let mut tx = pool.begin().await?;
    let sent = pgqrs::enqueue().message(&1).to("tasks").execute(&mut tx);
    refused.extend(sent.await.err());
    refused.extend(claim(store, 1).await.err());
    Ok(refused)
}

#[sqlx::test(migrations = false)]
async fn without_its_schema_each_verb_says_that_it_is_not_installed(pool: PgPool) -> TestResult {
    let store = connect(&pool).await?;
    let mut refused = refusals(&store, &pool).await?;
    refused.extend(consumer().create(&store).await.err());
    refused.extend(pgqrs::admin(&store).queue_stats("tasks").await.err());
    assert_eq!(refused.len(), 7, "{refused:?}");
    let is_expected = |error: &Error| matches!(error, Error::NotInstalled);
    assert!(refused.iter().all(is_expected), "{refused:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_older_schema_is_called_outdated_by_each_verb(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    alter(
        &pool,
        "alter table pgqrs.messages drop column payload_bytes",
    )
    .await?;
    let refused = refusals(&store, &pool).await?;
    assert_eq!(refused.len(), 5, "{refused:?}");
    let is_expected = |error: &Error| matches!(error, Error::SchemaOutdated);
    assert!(refused.iter().all(is_expected), "{refused:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_writers_token_that_is_taken_is_drawn_again(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let draw_taken_tokens = |times: i32| {
        let statements = format!(
            "insert into pgqrs.writers (token, sequence) values (42, 0) on conflict do nothing;
             drop sequence if exists draws;
             create sequence draws;
             create or replace function taken() returns trigger language plpgsql as
                 $$ begin
                     if nextval('draws') <= {times} then new.token := 42; end if;
                     return new;
                 end $$;
             create or replace trigger taken before insert on pgqrs.writers
                 for each row execute function taken();"
        );
        let pool = pool.clone();
        async move { alter(&pool, &statements).await }
    };
    // The first is that of the writer that connecting begins; the next are those of its first send.
    for taken in 1..=3 {
        draw_taken_tokens(taken).await?;
        let store = connect(&pool).await?;
        for n in 0..5 {
            send(&store, &[n]).await?;
        }
        let draws: i64 = sqlx::query_scalar("select last_value from draws")
            .fetch_one(&pool)
            .await?;
        assert_eq!(draws, i64::from(taken) + 1);
    }
    assert_eq!(count(&pool).await?, 15);
    // Where each is taken, that is said at once; and it is no reason to refuse what comes later.
    draw_taken_tokens(1_000).await?;
    let store = connect(&pool).await?;
    let refused = timeout(BOUND, send(&store, &[1])).await?.unwrap_err();
    assert_eq!(code(&refused).as_deref(), Some("23505"), "{refused:?}");
    alter(&pool, "drop trigger taken on pgqrs.writers").await?;
    send(&store, &[1]).await?;
    assert_eq!(count(&pool).await?, 16);
    Ok(())
}

/// Distinguishes an error returned at once from one returned after retries.
const AT_ONCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_reported_at_once() -> TestResult {
    let server = Server::start().await?;
    server.down("fast")?;
    let certificate = server.certify()?;
    server.up()?;
    let connect = async |parameters: &str| {
        let url = format!("{}?{parameters}", server.url());
        let options = ConnectOptions::builder()
            .url(url)
            .retry_for(Duration::from_secs(60))
            .install(true);
        pgqrs::connect_with(options.build()).await
    };
    connect("sslmode=require").await?;
    for mode in ["verify-ca", "verify-full"] {
        let started = Instant::now();
        let refused = connect(&format!("sslmode={mode}")).await.unwrap_err();
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
        assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
        assert!(!refused.is_retryable(), "{refused:?}");
    }
    // One that holds it for good, until the server comes back with another.
    let trusted = format!("sslmode=verify-full&sslrootcert={}", certificate.display());
    let store = connect(&trusted).await?;
    store.queue("tasks").await?;
    send(&store, &[1]).await?;
    fs::metadata(&certificate)?;
    server.down("fast")?;
    server.certify()?;
    server.up()?;
    until("its connections are gone", async || {
        let started = Instant::now();
        let refused = send(&store, &[2]).await.err();
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
        refused.is_some_and(|refused| matches!(source(&refused), Error::Connect(_)))
    })
    .await;
    let started = Instant::now();
    let refused = send(&store, &[2]).await.unwrap_err();
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert!(
        matches!(&refused, Error::Connect(_)) && !refused.is_retryable(),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_send_outlives_a_restart_of_a_server_behind_a_socket() -> TestResult {
    let server = Server::start().await?;
    server.down("fast")?;
    let folder = server.open_socket().display().to_string();
    server.up()?;
    let url = format!(
        "postgres://postgres@localhost:{}/postgres?host={folder}",
        server.port()
    );
    let options = ConnectOptions::builder().url(url).install(true).build();
    let store = pgqrs::connect_with(options).await?;
    store.queue("tasks").await?;
    send(&store, &[1]).await?;
    // Its socket is gone with it.
    server.down("fast")?;
    let mut waits = sending(&store, json!(2));
    let early = timeout(Duration::from_millis(500), &mut waits).await;
    assert!(early.is_err(), "{early:?}");
    server.up()?;
    timeout(BOUND, waits).await???;
    assert_eq!(claim(&store, 10).await?.len(), 2);
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn an_installer_that_waits_in_vain_for_another_can_try_again(pool: PgPool) -> TestResult {
    let store = connect(&pool).await?;
    let mut other = PgConnection::connect(&url(&pool)).await?;
    other.lock().await?;
    // It waits for thirty seconds.
    let refused = timeout(2 * BOUND, pgqrs::admin(&store).install()).await?;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::Migrate(_)), "{refused:?}");
    assert!(refused.is_retryable(), "{refused:?}");
    let trying = {
        let store = store.clone();
        tokio::spawn(async move { pgqrs::admin(&store).install().await })
    };
    blocked_backend(&pool, "pg_advisory_lock").await;
    other.unlock().await?;
    timeout(BOUND, trying).await???;
    store.queue("tasks").await?;
    send(&store, &[1]).await?;
    Ok(())
}
