//! A full disk, a fail-over that loses the end of the log, and a fork.

use super::*;

/// Past whatever is in between, and with all that a test needs.
pub(super) async fn installed(url: String) -> pgqrs::Result<Store> {
    let options = ConnectOptions::builder()
        .url(url)
        .install(true)
        .acquire_timeout(Duration::from_secs(2));
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    Ok(store)
}

/// The disk is full in the middle of a batch: no file can grow beyond eight MiB and half a page.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_a_batch_whole_and_stops_no_worker_for_good() -> TestResult {
    const FULL: u64 = (8 << 20) + 4096;
    let server = Server::start().await?;
    let store = installed(server.url()).await?;
    server.down("fast")?;
    server.limit_files(Some(FULL));
    server.up()?;
    let direct = PgPool::connect(&server.url()).await?;
    // Two of them are all that a page takes: the rest of it is for their claims.
    let payloads = |range: std::ops::Range<usize>| -> Vec<String> {
        range
            .map(|n| format!("{n} {}", "x".repeat(1_500)))
            .collect()
    };
    let first = support::send(&store, &payloads(0..1_000)).await?;
    let before = count(&direct).await?;
    assert_eq!(before, 1_000);
    // Its first statement fits.
    let large = payloads(1_000..3_500);
    let started = Instant::now();
    let refused = support::send(&store, &large).await.unwrap_err();
    let Error::Database(why) = &refused else {
        panic!("{refused:?}");
    };
    let code = why.as_database_error().and_then(|refusal| refusal.code());
    // A full disk is 53100. This one is a limit to the size of files, for which PostgreSQL 18 has no code of its own.
    let is_full = match code.as_deref() {
        Some("53100") => true,
        Some("XX000") => why.to_string().contains("File too large"),
        _ => false,
    };
    assert!(is_full, "{why}");
    assert!(started.elapsed() < Duration::from_secs(20), "it waited");
    assert_eq!(count(&direct).await?, before, "nothing of it is stored");

    // A consumer needs room as well, for its leases: it goes on as soon as there is some.
    let seen = Seen::default();
    let running = start(consumer().create(&store).await?, seen.handler());
    server.down("fast")?;
    server.limit_files(None);
    server.up()?;
    let second = support::send(&store, &large).await?;
    drained(&direct).await;
    running.stop().await?;
    assert_eq!(seen.len(), first.len() + second.len());
    direct.close().await;
    Ok(())
}

/// Sends a message of this key, of which there is one within an hour.
async fn send_once(store: &Store, key: &'static str) -> pgqrs::Result<(MessageId, bool)> {
    let hour = Duration::from_secs(3_600);
    let enqueue = pgqrs::enqueue().message(key).to("tasks");
    let sent = enqueue.once_within(key, hour).execute(store).await?;
    let new = sent.outcomes().all(|sent| sent.new);
    Ok((sent[0], new))
}

/// Two servers: the new one is a copy of the old one, from before the old one's last messages. So it draws
/// their ids again, and knows nothing of the sends whose answers are outstanding.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_fail_over_that_lost_the_tail_what_is_under_way_is_stored_once() -> TestResult {
    let old = Server::start().await?;
    let proxy = Proxy::start("127.0.0.1", old.port()).await?;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
    let store = installed(url.clone()).await?;
    let mut expected: HashMap<i64, String> = HashMap::new();
    for id in support::send(&store, &["before"; 10]).await? {
        expected.insert(id.get(), json!("before").to_string());
    }
    let (kept, _) = send_once(&store, "kept").await?;
    expected.insert(kept.get(), json!("kept").to_string());
    old.down("fast")?;
    let new = old.copied_standby()?;
    old.up()?;
    let direct = PgPool::connect(&old.url()).await?;
    // The new one goes on from here, or a little later, since the log is some values ahead.
    let drawn: i64 = sqlx::query_scalar("select last_value from pgqrs.messages_id_seq")
        .fetch_one(&direct)
        .await?;
    let (in_tail, _) = send_once(&store, "lost").await?;
    let mut tail = Vec::new();
    // A store draws ids ahead: the first ones may have been drawn before the copy was made.
    while tail.iter().all(|id: &MessageId| id.get() < drawn + 200) {
        tail.extend(support::send(&store, &["the tail"; 200]).await?);
    }
    let other = pgqrs::connect(&url).await?;
    tail.push(support::warm(&other).await?);
    let third = pgqrs::connect(&url).await?;
    // Later, since of a ready message others would be notified, over another connection.
    let warm = pgqrs::enqueue().message("warm").to("tasks").delay(3_600);
    let hour = Duration::from_secs(3_600);
    warm.once_within("warm", hour).execute(&third).await?;
    support::connection_is_back(&third).await;

    let answered = count(&direct).await?;

    // Whatever the old one says from now on is lost.
    proxy.swallow();
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let store = other.clone();
            let call = tokio::spawn(async move { support::send(&store, &[n]).await });
            (n, call)
        })
        .collect();
    let once: Vec<_> = (0..5)
        .map(|_| {
            let store = third.clone();
            tokio::spawn(async move { send_once(&store, "under way").await })
        })
        .collect();
    until("the old one has stored some of them", async || {
        count(&direct)
            .await
            .is_ok_and(|stored| stored > answered + 1)
            && sqlx::query_scalar("select count(*) = 4 from pgqrs.seen")
                .fetch_one(&direct)
                .await
                .unwrap_or(false)
    })
    .await;
    direct.close().await;
    new.up()?;
    proxy.fail_over(new.port());
    old.down("immediate")?;

    // The new one only reads at first.
    let direct = PgPool::connect(&new.url()).await?;
    until("the store has found it", async || {
        let sessions = "select count(*) from pg_stat_activity where application_name = 'pgqrs'";
        let sessions: Result<i64, _> = sqlx::query_scalar(sessions).fetch_one(&direct).await;
        sessions.is_ok_and(|sessions| sessions > 0)
    })
    .await;
    assert!(calls.iter().all(|(_, call)| !call.is_finished()));
    assert_eq!(count(&direct).await?, 11);
    new.promote()?;
    for (n, call) in calls {
        let ids = timeout(Duration::from_secs(30), call).await???;
        expected.insert(ids[0].get(), n.to_string());
    }
    let mut new_ones = 0;
    for call in once {
        let (id, new) = timeout(Duration::from_secs(30), call).await???;
        expected.insert(id.get(), json!("under way").to_string());
        new_ones += u32::from(new);
    }
    assert_eq!(new_ones, 1);
    let after = support::send(&store, &["after"]).await?;
    expected.insert(after[0].get(), json!("after").to_string());
    // A key that the new one knows is still taken; one that was lost with its message is free.
    assert_eq!(send_once(&store, "kept").await?, (kept, false));
    let (again, new) = send_once(&store, "lost").await?;
    assert!(new, "{in_tail:?} and {again:?}");
    expected.insert(again.get(), json!("lost").to_string());
    let stored = stored(&direct).await?;
    let stored: HashMap<_, _> = stored.into_iter().map(|m| (m.id, m.payload)).collect();
    assert_eq!(stored, expected);
    assert!(
        tail.iter().any(|id| stored.contains_key(&id.get())),
        "no id was drawn twice, so this has shown less than it should"
    );
    direct.close().await;
    Ok(())
}

/// A process forks in order to start another, while connections are in use.
#[cfg(target_os = "linux")]
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_child_process_inherits_no_connection(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect_to(&pool).await?;
    let mut senders = JoinSet::new();
    for n in 0..100 {
        let store = store.clone();
        senders.spawn(async move { support::send(&store, &[n]).await });
    }
    for _ in 0..10 {
        let child = Command::new("ls").args(["-l", "/proc/self/fd"]).output();
        let inherited = String::from_utf8(child.await?.stdout)?;
        assert!(inherited.contains("/proc/"), "{inherited}");
        assert!(!inherited.contains("socket:"), "{inherited}");
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    assert_eq!(count(&pool).await?, 100);
    Ok(())
}
