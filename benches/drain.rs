//! Draining a full queue through a handler that does nothing, beside eight bare loops of "delete a hundred, handle,
//! commit".

use pgqrs::Store;

use crate::{
    Outcome, fresh,
    meter::Meter,
    report::{Rounds, Table},
    telemetry::work,
};

const LOOPS: usize = 8;
const BARE: &str = "eight bare loops";
const OURS: &str = "consumer.run";

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    store.queue("drain").await?;
    let (messages, rounds) = if quick { (5_000, 3) } else { (20_000, 15) };
    let title =
        format!("draining {messages} messages, handler that does nothing, concurrency {LOOPS}");
    let mut table = Rounds::new(meter, title, rounds).compared();
    while table.next() {
        fill_bare(&store, messages).await?;
        table
            .measure(BARE, messages, async |_| bare_loops(&store, LOOPS).await)
            .await?;
        fill(&store, messages).await?;
        table
            .measure(OURS, messages, async |_| {
                work::drain(&store, "drain", messages).await
            })
            .await?;
    }
    table.at_least(
        0.6,
        OURS,
        BARE,
        format!("draining {messages}, to eight bare loops"),
    );
    Ok(vec![table.finish()])
}

pub(crate) async fn fill(store: &Store, messages: usize) -> Outcome {
    sqlx::query("truncate pgqrs.messages")
        .execute(store.pool())
        .await?;
    let payloads = vec!["x".repeat(198); messages];
    pgqrs::enqueue()
        .messages(&payloads)
        .to("drain")
        .execute(store)
        .await?;
    sqlx::query("vacuum analyze pgqrs.messages")
        .execute(store.pool())
        .await?;
    sqlx::query("checkpoint").execute(store.pool()).await?;
    Ok(())
}

/// The same messages, in the bare table.
async fn fill_bare(store: &Store, messages: usize) -> Outcome {
    fill(store, messages).await?;
    sqlx::raw_sql(
        "truncate bare.messages;
         insert into bare.messages (queue_id, priority, payload)
         select queue_id, priority, payload from pgqrs.messages order by id",
    )
    .execute(store.pool())
    .await?;
    sqlx::query("vacuum analyze bare.messages")
        .execute(store.pool())
        .await?;
    sqlx::query("checkpoint").execute(store.pool()).await?;
    Ok(())
}

async fn bare_loops(store: &Store, loops: usize) -> Outcome {
    let loops: Vec<_> = (0..loops)
        .map(|_| {
            let pool = store.pool().clone();
            tokio::spawn(async move {
                let mut connection = pool.acquire().await?;
                loop {
                    let rows: Vec<(i64, String)> = sqlx::query_as(
                        "delete from bare.messages where ctid = any (array(
                             select ctid from bare.messages
                             where queue_id = (select id from pgqrs.queues where name = 'drain')
                                 and priority = 2 and visible_at <= now()
                             order by visible_at, id limit 100 for update skip locked
                         )) returning id, payload::text",
                    )
                    .fetch_all(&mut *connection)
                    .await?;
                    if rows.is_empty() {
                        return Ok::<_, sqlx::Error>(());
                    }
                }
            })
        })
        .collect();
    for each in loops {
        each.await??;
    }
    Ok(())
}
