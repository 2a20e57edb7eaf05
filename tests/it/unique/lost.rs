//! Answers that are lost: the sender gets the same outcomes as if they had arrived.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use pgqrs::ConnectOptions;
use tokio::task::JoinSet;

use super::*;
use crate::support::{proxy::Proxy, url};

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn after_a_lost_answer_the_sender_still_learns_which_were_new(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let (proxy, url) = Proxy::before(&pool).await?;
    let options = ConnectOptions::builder()
        .url(url)
        .max_connections(2)
        .retry_for(Duration::from_secs(6));
    let store = pgqrs::connect_with(options.build()).await?;
    for (round, messages) in [3, 3, 1_200].into_iter().enumerate() {
        unique(&store, "warm", 1).await?;
        let held = unique(&pool, "held", 1).await?.id;
        let before = count(&pool).await?;
        let mut keys = vec![format!("fresh {round}"), "held".to_owned()];
        // The last one takes several statements.
        keys.extend((2..messages).map(|n| format!("fresh {round} {}", n % 600)));
        keys.push(format!("fresh {round}"));
        // The statement arrives and is committed; its answer doesn't come back.
        proxy.hold();
        let sending = tokio::spawn({
            let (store, keys) = (store.clone(), keys.clone());
            async move {
                let enqueue = pgqrs::enqueue()
                    .to("tasks")
                    .unique_by(|key: &String| key.clone());
                enqueue.messages(&keys).execute(&store).await
            }
        });
        until("it is stored", async || {
            count(&pool).await.is_ok_and(|now| now > before)
        })
        .await;
        // Nobody can find out by looking for them.
        sqlx::query("delete from pgqrs.messages")
            .execute(&pool)
            .await?;
        let sent = sending.await??;
        let mut first = std::collections::HashMap::from([("held".to_owned(), held)]);
        for (place, (key, sent)) in keys.iter().zip(sent.outcomes()).enumerate() {
            let expected = first.get(key).copied();
            assert_eq!(sent.new, expected.is_none(), "{place} {key}");
            assert_eq!(
                sent.id,
                *first.entry(key.clone()).or_insert(sent.id),
                "{place} {key}"
            );
            assert_eq!(
                sent.same_payload,
                expected.map(|_| key != "held"),
                "{place} {key}"
            );
        }
        assert_eq!(count(&pool).await?, 0, "it isn't sent again");
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn what_is_appended_is_in_the_array_once_whatever_breaks(pool: PgPool) -> TestResult {
    const SENDERS: u64 = 8;
    const ENDED: i64 = 150;
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .max_connections(3)
        .retry_for(Duration::from_secs(60));
    let store = pgqrs::connect_with(options.build()).await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut sending = JoinSet::new();
    for sender in 0..SENDERS {
        let (store, is_over) = (store.clone(), Arc::clone(&is_over));
        sending.spawn(async move {
            let mut sent = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let element = sent.len() as u64 * SENDERS + sender;
                let enqueue = pgqrs::enqueue().message(&[element]).to("tasks");
                let append = enqueue.unique_until_claimed("a").or_append();
                append.execute(&store).await?;
                sent.push(element);
            }
            Ok::<_, Error>(sent)
        });
    }
    // At any moment of a statement, or between two.
    let mut ended = 0;
    while ended < ENDED {
        let all = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where datname = current_database() and application_name = 'pgqrs'";
        let these: i64 = sqlx::query_scalar(all).fetch_one(&pool).await?;
        ended += these;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut expected = Vec::new();
    while let Some(sent) = sending.join_next().await {
        expected.extend(sent??);
    }
    expected.sort_unstable();
    let [payload] = &payloads(&pool).await?[..] else {
        panic!("more than one array");
    };
    let mut elements: Vec<u64> = serde_json::from_str(payload)?;
    elements.sort_unstable();
    assert!(
        elements == expected,
        "{} of {}",
        elements.len(),
        expected.len()
    );
    Ok(())
}
