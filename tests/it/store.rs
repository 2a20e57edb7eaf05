//! `connect` and the store's pool: connections that are refused, that have to wait, or that broke while they were idle.

use std::{
    error::Error as _,
    future::poll_fn,
    io::{Read, Write},
    net::TcpListener,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use pgqrs::{ConnectOptions, Error, Store};
use sqlx::PgPool;

use crate::support::{TestResult, chain, connect, count, terminate, until, url, warm, with_queues};

#[tokio::test]
async fn a_closed_port_is_reported_at_once() -> TestResult {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let started = Instant::now();
    let refused = pgqrs::connect(&format!("postgresql://localhost:{port}/mydb"))
        .await
        .unwrap_err();
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert!(matches!(refused, Error::Connect(_)));
    assert!(refused.is_retryable());
    assert!(
        chain(&refused)
            .to_lowercase()
            .contains("connection refused"),
        "{}",
        chain(&refused)
    );
    Ok(())
}

/// A server that accepts and never says a word.
#[tokio::test]
async fn a_server_that_stays_silent_is_abandoned_after_the_time_out() -> TestResult {
    let silent = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!(
        "postgresql://127.0.0.1:{}/mydb",
        silent.local_addr()?.port()
    );
    let after = Duration::from_millis(200);
    let options = ConnectOptions::builder()
        .url(url)
        .acquire_timeout(after)
        .build();
    let refused = pgqrs::connect_with(options).await.unwrap_err();
    assert!(
        matches!(refused, Error::AcquireTimeout { after: waited } if waited == after),
        "{refused:?}"
    );
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn a_wrong_password_is_reported_and_not_retryable(pool: PgPool) -> TestResult {
    let mut url: url::Url = url(&pool).parse()?;
    url.set_password(Some("wrong"))
        .map_err(|()| "a URL with a password")?;
    let refused = pgqrs::connect(url.as_str()).await.unwrap_err();
    assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
    assert!(!refused.is_retryable());
    assert!(
        chain(&refused).contains("password authentication failed"),
        "{}",
        chain(&refused)
    );
    Ok(())
}

#[tokio::test]
async fn an_invalid_url_is_reported() -> TestResult {
    let refused = pgqrs::connect("not a url").await.unwrap_err();
    assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
    assert!(refused.source().is_some());
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_exhausted_pool_is_a_typed_time_out(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let after = Duration::from_millis(300);
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .max_connections(1)
        .acquire_timeout(after)
        .retry_for(after)
        .build();
    let store = pgqrs::connect_with(options).await?;
    let held = store.pool().acquire().await?;
    let started = Instant::now();
    let timed_out = |error: &Error| matches!(error, Error::AcquireTimeout { after: waited } if *waited == after);
    let refused = pgqrs::admin(&store).queues().await.unwrap_err();
    assert!(timed_out(&refused) && refused.is_retryable(), "{refused:?}");
    assert!(started.elapsed() >= after);
    // A send is retried for `retry_for`.
    let sent = pgqrs::enqueue().message(&1).to("tasks").execute(&store);
    let refused = sent.await.unwrap_err();
    assert!(
        matches!(&refused, Error::NotStored { source, .. } if timed_out(source)),
        "{refused:?}"
    );
    assert!(refused.is_retryable());
    drop(held);
    pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_closed_store_says_so(pool: PgPool) -> TestResult {
    let store = connect(&pool).await?;
    store.pool().close().await;
    let refused = pgqrs::enqueue()
        .message(&1)
        .to("tasks")
        .execute(&store)
        .await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    Ok(())
}

/// The server restarted, or a firewall forgot the connection, while it lay idle.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_connection_that_died_in_its_sleep_is_not_handed_out(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect(&pool).await?;
    warm(&store).await?;
    let idle: i32 = sqlx::query_scalar(
        "select pid from pg_stat_activity where datname = current_database() and application_name = 'pgqrs'",
    )
    .fetch_one(&pool)
    .await?;
    terminate(&pool, idle).await?;
    // Longer than a connection is trusted without a ping. There is no condition to wait for but time.
    let asleep = Instant::now();
    until("six seconds have passed", async || {
        asleep.elapsed() > Duration::from_secs(6)
    })
    .await;
    pgqrs::enqueue()
        .message(&2)
        .to("tasks")
        .execute(&store)
        .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_application_name_is_seen_by_the_server(pool: PgPool) -> TestResult {
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .application_name("billing")
        .build();
    let store = pgqrs::connect_with(options).await?;
    let name: String = sqlx::query_scalar("show application_name")
        .fetch_one(store.pool())
        .await?;
    assert_eq!(name, "billing");
    Ok(())
}

/// PgBouncer refuses a connection that brings settings along.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn settings_are_brought_along_unless_a_pooler_would_refuse_them(pool: PgPool) -> TestResult {
    let plain = url(&pool);
    let mut own: url::Url = plain.parse()?;
    let options = "-c tcp_user_timeout=7000";
    own.query_pairs_mut().append_pair("options", options);
    let own = own.to_string();
    // Citus can't plan statements on distributed tables without their parameters.
    let has_citus = "select exists (select from pg_extension where extname = 'citus')";
    let has_citus: bool = sqlx::query_scalar(has_citus).fetch_one(&pool).await?;
    let direct = if has_citus {
        "auto"
    } else {
        "force_generic_plan"
    };
    for (url, pgbouncer, mode, user_timeout) in [
        (&plain, false, direct, "30000"),
        (&own, false, direct, "7000"),
        (&plain, true, "auto", "0"),
    ] {
        let options = ConnectOptions::builder()
            .url(url)
            .pgbouncer(pgbouncer)
            .build();
        let store = pgqrs::connect_with(options).await?;
        let settings: (String, String, String) = sqlx::query_as(
            "select current_setting('plan_cache_mode'), current_setting('tcp_keepalives_idle'),
                 current_setting('tcp_user_timeout')",
        )
        .fetch_one(store.pool())
        .await?;
        assert_eq!(settings.0, mode);
        assert_eq!(settings.1 == "60", !pgbouncer);
        assert_eq!(settings.2, user_timeout);
        let mut brought: Vec<String> =
            sqlx::query_scalar("select lower(name) from pg_settings where source = 'client'")
                .fetch_all(store.pool())
                .await?;
        brought.sort_unstable();
        if pgbouncer {
            // Which it keeps account of itself.
            let tolerated = [
                "application_name",
                "client_encoding",
                "datestyle",
                "timezone",
            ];
            assert_eq!(brought, tolerated);
        }
    }
    Ok(())
}

/// What PgBouncer says to a login with settings, in its own words.
#[tokio::test]
async fn a_pooler_that_refuses_settings_is_named() -> TestResult {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let pooler = std::thread::spawn(move || {
        let (mut login, _) = listener.accept()?;
        // As long as its first four bytes say.
        let mut length = [0; 4];
        login.read_exact(&mut length)?;
        let rest = u32::from_be_bytes(length).saturating_sub(4);
        login.read_exact(&mut vec![0; usize::try_from(rest).unwrap_or(0)])?;
        let fields = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0";
        let length = u32::try_from(fields.len() + 4).unwrap_or(0);
        login.write_all(b"E")?;
        login.write_all(&length.to_be_bytes())?;
        login.write_all(fields)
    });
    let url = format!("postgresql://me@127.0.0.1:{port}/mydb?sslmode=disable");
    let options = ConnectOptions::builder().url(url).pgbouncer(true).build();
    let refused = pgqrs::connect_with(options).await.unwrap_err();
    pooler.join().expect("it doesn't panic")?;
    assert!(
        refused
            .to_string()
            .contains("PgBouncer's `ignore_startup_parameters`"),
        "{}",
        chain(&refused)
    );
    Ok(())
}

#[test]
fn neither_options_nor_store_show_a_password() {
    let options = ConnectOptions::builder()
        .url("postgresql://me:secret@localhost/mydb")
        .build();
    assert!(!format!("{options:?}").contains("secret"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let pool =
            PgPool::connect_lazy("postgresql://me:secret@localhost/mydb").expect("a valid URL");
        assert!(!format!("{:?}", Store::from(pool)).contains("secret"));
    });
}

/// sqlx leaves a transaction open if the future that begins it is dropped before the server has answered.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_follows_a_begin_that_was_abandoned_is_committed(pool: PgPool) -> TestResult {
    let of_application = pgqrs::pool_options().max_connections(1);
    let stores = [
        pgqrs::connect_with(
            ConnectOptions::builder()
                .url(url(&pool))
                .max_connections(1)
                .build(),
        )
        .await?,
        Store::from(of_application.connect(&url(&pool)).await?),
    ];
    pgqrs::admin(&stores[0]).create_queue("tasks").await?;
    let mut sent = 0;
    for store in &stores {
        for round in 0..20 {
            until("the connection is idle", async || {
                store.pool().num_idle() == 1
            })
            .await;
            let mut begin = if round % 2 == 0 {
                Box::pin(async { store.begin().await.map(drop) }) as BoxFuture<'_>
            } else {
                Box::pin(async { Ok(store.pool().begin().await.map(drop)?) })
            };
            // Up to the moment when BEGIN is under way, and some way beyond it.
            for _ in 0..=round / 4 {
                if poll_once(begin.as_mut()).await {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(begin);
            pgqrs::enqueue()
                .message(&round)
                .to("tasks")
                .execute(store)
                .await?;
            sent += 1;
            assert_eq!(count(&pool).await?, sent);
        }
    }
    let open: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'",
    )
    .fetch_one(&pool)
    .await?;
    assert_eq!(open, 0);
    Ok(())
}

type BoxFuture<'a> = Pin<Box<dyn Future<Output = pgqrs::Result<()>> + 'a>>;

/// Whether the future is ready.
async fn poll_once(mut future: Pin<&mut (dyn Future<Output = pgqrs::Result<()>> + '_)>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}
