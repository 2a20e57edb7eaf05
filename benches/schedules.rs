//! How late schedules are fired that are all due at the same time, and what a scheduler costs while nothing is due.

use std::time::Duration;

use pgqrs::Store;

use crate::{
    Outcome,
    figures::Samples,
    fresh,
    meter::Meter,
    report::{Rounds, Table, many},
};

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    store.queue("tasks").await?;
    let title = "schedules that are due at one time, by one process: from that time to the message; the time is that of the \
                 last one, for each message";
    let mut table = Rounds::new(meter, title, if quick { 3 } else { 10 });
    let _scheduler = store.scheduler().await?;
    while table.next() {
        for count in [1, 100, 10_000] {
            install(&store, count).await?;
            let before = meter.read().await?;
            let (samples, last) = lateness(&store, count).await?;
            let name = many(count as usize, "schedule");
            let cost = before.until(&meter.read().await?);
            table.add(&name, count as usize, last, samples, Some(cost));
            clear(&store).await?;
        }
    }
    let mut idle =
        Rounds::new(meter, "a scheduler while nothing is due, for a minute", 1).without_warm_up();
    let yearly = pgqrs::schedule("yearly", "tasks")
        .cron(pgqrs::cron!("@yearly"))
        .message(&0);
    yearly.install(&store).await?;
    while idle.next() {
        let before = meter.read().await?;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let cost = before.until(&meter.read().await?);
        idle.add("idle", 1, Duration::ZERO, Samples::default(), Some(cost));
    }
    Ok(vec![table.finish(), idle.finish()])
}

/// Schedules that are all due in three seconds: until then they are installed.
async fn install(store: &Store, count: i64) -> Outcome {
    sqlx::query(
        "insert into pgqrs.schedules (queue_id, name, version, every_ms, priority, next_at, payload)
         select q.id, 'schedule ' || n, 1, 3600000, 2, now() + interval '3 seconds', to_json(n)
         from pgqrs.queues q, generate_series(1, $1) n",
    )
    .bind(count)
    .execute(store.pool())
    .await?;
    sqlx::raw_sql("analyze pgqrs.schedules")
        .execute(store.pool())
        .await?;
    // As an installation does.
    let wake = pgqrs::schedule("wake", "tasks")
        .every(Duration::from_secs(3600))
        .message(&0);
    wake.install(store).await?;
    Ok(())
}

/// How late each message is, and the last one.
async fn lateness(store: &Store, count: i64) -> Outcome<(Samples, Duration)> {
    loop {
        let sent: i64 = sqlx::query_scalar("select count(*) from pgqrs.messages")
            .fetch_one(store.pool())
            .await?;
        if sent == count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let late: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from enqueued_at - (headers ->> 'pgqrs-scheduled-for')::timestamptz)::float8
         from pgqrs.messages order by 1",
    )
    .fetch_all(store.pool())
    .await?;
    let late: Vec<_> = late
        .into_iter()
        .map(|seconds| Duration::from_secs_f64(seconds.max(0.0)))
        .collect();
    let last = late.last().copied().unwrap_or_default();
    let mut samples = Samples::default();
    samples.extend(late);
    Ok((samples, last))
}

async fn clear(store: &Store) -> Outcome {
    sqlx::raw_sql("truncate pgqrs.messages, pgqrs.schedules, pgqrs.firings; checkpoint")
        .execute(store.pool())
        .await?;
    Ok(())
}
