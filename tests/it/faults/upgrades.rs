//! The schema is changed under running workers.

use super::*;

async fn change_schema(pool: &PgPool, change: &'static str) -> sqlx::Result<()> {
    sqlx::raw_sql(change).execute(pool).await.map(drop)
}

/// What this version does, all at once, for as long as it isn't over. Each task returns how many messages it has sent to
/// `tasks`, or the first error.
fn everything_at_once(store: &Store, over: &Arc<AtomicBool>) -> JoinSet<pgqrs::Result<u64>> {
    let mut tasks = JoinSet::new();
    for task in 0..6 {
        let (store, over) = (store.clone(), Arc::clone(over));
        tasks.spawn(async move {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                let batch: Vec<String> = (0..=task * 2)
                    .map(|n| format!("{task} {sent} {n}"))
                    .collect();
                let enqueue = || pgqrs::enqueue().messages(&batch).to("tasks");
                match task {
                    0 => enqueue().execute(store.pool()).await?,
                    1 => {
                        let mut transaction = store.pool().begin().await?;
                        let ids = enqueue().execute(&mut transaction).await?;
                        transaction.commit().await?;
                        ids
                    }
                    _ => enqueue().execute(&store).await?,
                };
                sent += batch.len() as u64;
            }
            Ok(sent)
        });
    }
    let (settling, settling_over) = (store.clone(), Arc::clone(over));
    tasks.spawn(async move {
        while !settling_over.load(Ordering::Relaxed) {
            settle_in_each_way(&settling).await?;
        }
        Ok(0)
    });
    let (living, over) = (store.clone(), Arc::clone(over));
    tasks.spawn(async move {
        while !over.load(Ordering::Relaxed) {
            live(&living).await?;
        }
        Ok(0)
    });
    tasks
}

/// Without a loop, in a queue of its own.
async fn settle_in_each_way(store: &Store) -> pgqrs::Result<()> {
    let admin = pgqrs::admin(store);
    let sent = pgqrs::enqueue().messages(&[1; 7]).to("settled");
    sent.execute(store).await?;
    let claim = pgqrs::dequeue().from("settled").limit(7);
    for (way, delivery) in claim.execute(store).await?.into_iter().enumerate() {
        match way {
            0 => delivery.ack(store).await?,
            1 => delivery.nack(store).await.map(drop)?,
            2 => delivery
                .retry_in(Duration::from_secs(60), store)
                .await
                .map(drop)?,
            3 => delivery.archive(store).await?,
            4 => delivery.dead_letter("for ever", store).await?,
            5 => {
                delivery.extend(Duration::from_secs(60)).await?;
                let mut transaction = store.pool().begin().await?;
                delivery.ack(&mut transaction).await?;
                transaction.commit().await?;
            }
            _ => pgqrs::ack_all(vec![delivery], store).await.map(drop)?,
        }
    }
    admin.requeue_all("settled", Duration::ZERO).await?;
    admin.purge_archive("settled", Duration::ZERO).await?;
    admin.purge_queue("settled").await?;
    Ok(())
}

/// The steps of a worker's life, and an operator's queries meanwhile.
async fn live(store: &Store) -> pgqrs::Result<()> {
    let admin = pgqrs::admin(store);
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(store)
        .await?;
    producer.heartbeat().await?;
    producer.suspend().await?;
    producer.resume().await?;
    admin.queue_stats("tasks").await?;
    admin.queues().await?;
    admin.workers(&pgqrs::WorkerFilter::default()).await?;
    admin.dead_letters("tasks", pgqrs::Page::default()).await?;
    admin.archived("tasks", pgqrs::Page::default()).await?;
    let id = producer.id();
    producer.shutdown().await?;
    admin.remove_worker(id).await
}

/// What a newer version's migration may do: workers, sends, claims, settlements and operators of this version go on beside
/// it, under load.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_upgrade_that_only_adds_stops_no_running_worker(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks", "settled"]).await?;
    let (store, elsewhere) = (connect_to(&pool).await?, connect_to(&pool).await?);
    let seen = Seen::default();
    let consumers = [(3001, &store), (3002, &elsewhere)].map(|(port, store)| {
        let seen = seen.clone();
        async move {
            let consumer = pgqrs::consumer("tasks").identity("my-service", port);
            let consumer = prepare(consumer).concurrency(8);
            let running = start(consumer.create(store).await?, move |delivery| {
                let first = delivery.attempt() == 1;
                let outcome = match delivery.id().get() % 8 {
                    0 => Outcome::Archive,
                    1 if first => Outcome::Retry("again".to_owned()),
                    2 => Outcome::DeadLetter("for ever".into()),
                    _ => Outcome::Done,
                };
                if !matches!(outcome, Outcome::Retry(_)) {
                    seen.note(delivery.id().to_string());
                }
                std::future::ready(outcome)
            });
            Ok::<_, Error>(running)
        }
    });
    let [first, second] = consumers;
    let (first, second) = (first.await?, second.await?);
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = everything_at_once(&store, &over);
    let admin = pgqrs::admin(&store);
    for change in [
        "alter table pgqrs.messages add column later text",
        "alter table pgqrs.messages add column counted integer not null default 0",
        // Writes the table anew, and so every message is in another place.
        "alter table pgqrs.messages add column stamped timestamptz not null default clock_timestamp()",
        "create index later on pgqrs.messages (queue_id, later)",
        "create index concurrently later_still on pgqrs.messages (counted)",
        "alter table pgqrs.messages add constraint later_check check (counted >= 0) not valid",
        "alter table pgqrs.messages validate constraint later_check",
        "alter table pgqrs.dead_letters add column later text",
        "alter table pgqrs.archive add column later text not null default ''",
        "alter table pgqrs.queues add column later text",
        "alter table pgqrs.workers add column later text",
        "alter table pgqrs.writers add column later text",
        "create table pgqrs.extras (queue_id integer primary key)",
        "insert into pgqrs._sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'of a later version', true, '', 0)",
    ] {
        let before = seen.len();
        change_schema(&pool, change).await?;
        until("messages are sent and handled", async || seen.len() > before + 100).await;
    }
    // It knows that it is the older one, and leaves the schema as it is.
    let version = admin.verify().await?;
    assert!(
        matches!(
            version,
            SchemaVersion::Newer {
                installed: 9999,
                ..
            }
        ),
        "{version:?}"
    );
    let refused = admin.install().await;
    assert!(
        matches!(refused, Err(Error::SchemaNewer { .. })),
        "{refused:?}"
    );
    over.store(true, Ordering::Relaxed);
    let mut sent = 0;
    while let Some(ended) = tasks.join_next().await {
        sent += ended??;
    }
    drained(&pool).await;
    let (first, second) = (first.stop().await?, second.stop().await?);
    let handled = [first, second]
        .iter()
        .map(|one| one.done + one.archived + one.dead)
        .sum::<u64>();
    assert_eq!(handled, sent, "{first:?} {second:?}");
    assert_eq!(
        (first.lost + second.lost, first.unknown + second.unknown),
        (0, 0)
    );
    assert!(seen.times().values().all(|times| *times == 1));
    assert_eq!(seen.len() as u64, sent);
    Ok(())
}

/// An upgrade, or a way back, that takes something away which this version needs.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_upgrade_that_removes_a_column_is_reported_to_running_workers(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect_to(&pool).await?;
    let seen = Seen::default();
    let running = start(consumer().create(&store).await?, seen.handler());
    support::send(&store, &[1]).await?;
    until("it is handled", async || seen.len() == 1).await;
    change_schema(
        &pool,
        "alter table pgqrs.messages rename column enqueued_at to sent_at",
    )
    .await?;
    let ended = timeout(Duration::from_secs(20), running.task).await??;
    assert!(matches!(ended, Err(Error::SchemaOutdated)), "{ended:?}");
    let refused = support::send(&store, &[2]).await;
    assert!(matches!(refused, Err(Error::SchemaOutdated)), "{refused:?}");
    assert_eq!(count(&pool).await?, 0);
    change_schema(
        &pool,
        "alter table pgqrs.messages rename column sent_at to enqueued_at",
    )
    .await?;
    support::send(&store, &[3]).await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}
