//! Each time is fired once, whatever breaks and however many processes there are.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use pgqrs::ConnectOptions;

use super::*;
use crate::support::{notes::Notes, proxy::Proxy, server::Server, terminate};

const INTERVAL: Duration = Duration::from_millis(100);
/// How many times each schedule has at least: an hour of one that is due every ten seconds.
const TIMES: i64 = 360;

/// Schedules all of whose times are made up for, so that one that is lost is missing.
async fn install(store: &Store) -> TestResult {
    for name in ["a", "b", "c"] {
        let schedule = pgqrs::schedule(name, "tasks")
            .every(INTERVAL)
            .message(&name);
        schedule
            .missed(Missed::All { at_most: 1_000 })
            .install(store)
            .await?;
    }
    Ok(())
}

/// How many messages each schedule has sent. Fails if one was sent twice for a time, or not at all for one in between.
async fn each_time_once(
    pool: &PgPool,
) -> Result<BTreeMap<String, i64>, Box<dyn std::error::Error>> {
    let rows: Vec<(String, DateTime<Utc>)> = sqlx::query_as(
        "select payload #>> '{}', (headers ->> 'pgqrs-scheduled-for')::timestamptz from pgqrs.messages order by 2",
    )
    .fetch_all(pool)
    .await?;
    let mut times = BTreeMap::<String, Vec<DateTime<Utc>>>::new();
    for (schedule, time) in rows {
        times.entry(schedule).or_default().push(time);
    }
    for (schedule, times) in &times {
        for two in times.windows(2) {
            assert_eq!(
                two[1] - two[0],
                TimeDelta::milliseconds(100),
                "{schedule} at {}",
                two[0]
            );
        }
    }
    Ok(times
        .into_iter()
        .map(|(schedule, times)| (schedule, times.len() as i64))
        .collect())
}

/// Waits for an hour, in four parts, and does this all the time.
async fn an_hour(pool: &PgPool, mut meanwhile: impl AsyncFnMut()) {
    for quarter in 1..=4 {
        until("a quarter of an hour has passed", async || {
            meanwhile().await;
            let sent = count(pool).await;
            sent.is_ok_and(|sent| sent >= 3 * TIMES * quarter / 4)
        })
        .await;
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn many_processes_fire_each_time_once_while_their_sessions_are_killed(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    install(&store).await?;
    let mut schedulers = Vec::new();
    for _ in 0..4 {
        let other = connect(&pool).await?;
        schedulers.push((other.scheduler().await?, other));
    }
    let mut kills = 0;
    an_hour(&pool, async || {
        let victim: Option<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                 and query like '%pgqrs.%schedules%' order by random() limit 1",
        )
        .fetch_optional(&pool)
        .await
        .expect("read");
        if let Some(victim) = victim
            && rand::random_ratio(1, 20)
        {
            // It may have ended.
            kills += i32::from(terminate(&pool, victim).await.is_ok());
        }
    })
    .await;
    drop(schedulers);
    assert!(kills > 5, "only {kills} sessions were killed");
    let sent = each_time_once(&pool).await?;
    assert_eq!(sent.len(), 3, "{sent:?}");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn cut_connections_and_lost_answers_neither_lose_nor_double_a_time(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    install(&store).await?;
    let mut schedulers = Vec::new();
    let mut proxies = Vec::new();
    for _ in 0..2 {
        let (proxy, url) = Proxy::before(&pool).await?;
        let options = ConnectOptions::builder()
            .url(url)
            .acquire_timeout(Duration::from_secs(5));
        let other = pgqrs::connect_with(options.build()).await?;
        schedulers.push((other.scheduler().await?, other));
        // Soon in the middle of an answer.
        proxy.cut_after(20_000);
        proxies.push(proxy);
    }
    an_hour(&pool, async || {}).await;
    drop(schedulers);
    let cuts: usize = proxies.iter().map(Proxy::cuts).sum();
    assert!(cuts > 3, "only {cuts} connections were cut");
    each_time_once(&pool).await?;
    Ok(())
}

#[tokio::test]
async fn crashes_of_the_server_neither_lose_nor_double_a_time_and_end_no_consumer() -> TestResult {
    let server = Server::start().await?;
    let options = ConnectOptions::builder().url(server.url()).install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    store.queue("others").await?;
    install(&store).await?;
    let scheduler = store.scheduler().await?;
    let others = pgqrs::consumer("others").create(&store).await?;
    let seen = Seen::default();
    let run = start(others, seen.handler());
    let pool = PgPool::connect(&server.url()).await?;
    for round in 1..=4 {
        let enough = 3 * TIMES * round / 4;
        until("a quarter of an hour has passed", async || {
            count(&pool).await.is_ok_and(|sent| sent >= enough)
        })
        .await;
        server.restart("immediate").await?;
    }
    drop(scheduler);
    pgqrs::enqueue()
        .message(&1)
        .to("others")
        .execute(&store)
        .await?;
    until("the consumer still handles", async || seen.len() == 1).await;
    run.stop().await?;
    each_time_once(&pool).await?;
    store.pool().close().await;
    pool.close().await;
    Ok(())
}

/// A process was stopped, for a day, between its look and its statement.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_was_planned_long_ago_changes_nothing(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let admin = pgqrs::admin(&store);
    let schedule = |version| {
        pgqrs::schedule("a", "tasks")
            .every(Duration::from_secs(60))
            .message(&1)
            .version(version)
    };
    schedule(1).install(&store).await?;
    pass(&pool, "a", Duration::from_secs(90)).await?;
    let (id, planned): (i64, DateTime<Utc>) =
        sqlx::query_as("select id, next_at from pgqrs.schedules")
            .fetch_one(&pool)
            .await?;
    let late = async |version: i32| {
        sqlx::query_scalar::<_, i64>(
            "select count(*) from pgqrs.fire_schedules(
                 array[$1], array[$2], array[$3], array[$3 + interval '1 minute'], array[$3], array['[{}]'::json],
                 array[json_build_array($3::timestamptz)]
             )",
        )
        .bind(id)
        .bind(version)
        .bind(planned)
        .fetch_one(&pool)
        .await
    };
    // Replaced meanwhile, paused, and fired.
    assert_eq!(late(0).await?, 0);
    schedule(2).install(&store).await?;
    assert_eq!(late(1).await?, 0);
    admin.pause_schedule("a").await?;
    assert_eq!(late(2).await?, 0);
    sqlx::query("update pgqrs.schedules set paused_at = null")
        .execute(&pool)
        .await?;
    assert_eq!(count(&pool).await?, 0);
    assert_eq!(late(2).await?, 1, "all is as it was planned");
    assert_eq!(late(2).await?, 0);
    assert_eq!(count(&pool).await?, 1);
    // Not due.
    let next: DateTime<Utc> = sqlx::query_scalar(
        "update pgqrs.schedules set next_at = now() + interval '1 hour' returning next_at",
    )
    .fetch_one(&pool)
    .await?;
    let early: i64 = sqlx::query_scalar(
        "select count(*) from pgqrs.fire_schedules(
             array[$1], array[2], array[$2], array[$2 + interval '1 minute'], array[$2], array['[{}]'::json],
             array[json_build_array($2::timestamptz)]
         )",
    )
    .bind(id)
    .bind(next)
    .fetch_one(&pool)
    .await?;
    assert_eq!((early, count(&pool).await?), (0, 1));
    admin.delete_schedule("a").await?;
    assert_eq!(late(2).await?, 0);
    Ok(())
}

/// Of a newer version of the crate, or of a newer tz database; and one whose message a trigger refuses.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_cant_be_fired_is_reported_once_and_holds_up_no_other(pool: PgPool) -> TestResult {
    let (notes, _guard) = Notes::start();
    let store = with_queues(&pool, &["tasks"]).await?;
    for name in ["zone", "cron", "refused", "ok"] {
        let schedule = pgqrs::schedule(name, "tasks")
            .cron(cron!("@hourly"))
            .message(&name);
        schedule.install(&store).await?;
    }
    sqlx::raw_sql(
        "update pgqrs.schedules set zone = 'Europe/Atlantis' where name = 'zone';
         update pgqrs.schedules set cron = '0 0 * * * * 2030' where name = 'cron';
         create function refuse() returns trigger language plpgsql as
             $$ begin if new.payload::text = '\"refused\"' then raise exception 'not today'; end if; return new; end $$;
         create trigger refuse before insert on pgqrs.messages for each row execute function refuse();
         update pgqrs.schedules set next_at = now() - interval '1 second';",
    )
    .execute(&pool)
    .await?;
    let scheduler = store.scheduler().await?;
    until("the good one is sent", async || {
        count(&pool).await.is_ok_and(|count| count == 1)
    })
    .await;
    notes
        .until("schedule can't be fired by this process", 3)
        .await;
    // It goes on with others.
    due(&pool, "ok").await?;
    wake(&store).await?;
    until("it is sent again", async || {
        count(&pool).await.is_ok_and(|count| count == 2)
    })
    .await;
    drop(scheduler);
    assert_eq!(
        notes.lines("schedule can't be fired by this process").len(),
        3
    );
    Ok(())
}
