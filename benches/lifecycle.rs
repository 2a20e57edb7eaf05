//! From enqueue to ack, beside the minimum that PostgreSQL needs for it: an insert, and a delete of the oldest rows
//! that returns them. A delete on claim loses the messages of a consumer that crashes; ours doesn't.

use std::time::Instant;

use pgqrs::Store;
use sqlx::PgPool;

use crate::{
    Outcome,
    claim::fill,
    enqueue::{encode, unnest},
    fresh,
    meter::Meter,
    queue_id,
    report::{Rounds, Table},
};

/// Life cycles in each round.
const BLOCK: usize = 20;

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    let (backlogs, rounds): (&[usize], _) = if quick {
        (&[1_000, 10_000, 100_000], 3)
    } else {
        (&[1_000, 10_000, 100_000, 1_000_000], 40)
    };
    eprintln!("filling the queues");
    for backlog in backlogs {
        fill(&store, &ours(*backlog), *backlog, 0).await?;
        store.queue(&bare(*backlog)).await?;
        sqlx::query(
            "insert into bare.messages (queue_id, priority, payload)
             select bare.id, m.priority, m.payload
             from pgqrs.queues bare, pgqrs.queues ours join pgqrs.messages m on m.queue_id = ours.id
             where bare.name = $1 and ours.name = $2 order by m.id",
        )
        .bind(bare(*backlog))
        .bind(ours(*backlog))
        .execute(store.pool())
        .await?;
    }
    sqlx::query("vacuum analyze pgqrs.messages, bare.messages")
        .execute(store.pool())
        .await?;
    let mut tables = Vec::new();
    for size in [1, 10, 100] {
        tables.push(compare(meter, &store, 1_000, size, 200, rounds).await?);
    }
    for backlog in &backlogs[1..] {
        tables.push(compare(meter, &store, *backlog, 10, 200, rounds).await?);
    }
    Ok(tables)
}

fn ours(backlog: usize) -> String {
    format!("ours {backlog}")
}

fn bare(backlog: usize) -> String {
    format!("bare {backlog}")
}

/// Compares the two on queues of their own, each with this backlog.
async fn compare(
    meter: &Meter,
    store: &Store,
    backlog: usize,
    size: usize,
    bytes: usize,
    rounds: usize,
) -> Outcome<Table> {
    let title = format!("life cycles of {size} at a time, backlog of {backlog}, {BLOCK} a round");
    let mut table = Rounds::new(meter, title, rounds);
    let (ours, bare) = (ours(backlog), bare(backlog));
    let payloads = vec!["x".repeat(bytes - 2); size];
    while table.next() {
        round(&mut table, store, &ours, &bare, &payloads).await?;
    }
    let what = format!("life cycle of {size}, backlog of {backlog}, to delete-on-claim");
    table.at_least(0.6, OURS, BARE, what);
    Ok(table.finish())
}

pub(crate) const BARE: &str = "unnest, delete on claim";
pub(crate) const OURS: &str = "enqueue, claim, ack";

/// One life cycle of each.
pub(crate) async fn round(
    table: &mut Rounds<'_>,
    store: &Store,
    ours: &str,
    bare: &str,
    payloads: &[String],
) -> Outcome {
    let size = payloads.len();
    let queue = queue_id(store.pool(), bare).await?;
    table
        .measure(BARE, size * BLOCK, async |calls| {
            for _ in 0..BLOCK {
                let started = Instant::now();
                unnest(store.pool(), queue, &encode(payloads)?).await?;
                let taken = delete(store.pool(), queue, size).await?;
                calls.push(started.elapsed());
                whole(taken, size)?;
            }
            Ok(())
        })
        .await?;
    table
        .measure(OURS, size * BLOCK, async |calls| {
            for _ in 0..BLOCK {
                let started = Instant::now();
                let enqueue = pgqrs::enqueue().messages(payloads).to(ours);
                enqueue.execute(store).await?;
                let dequeue = pgqrs::dequeue().from(ours).limit(u32::try_from(size)?);
                let deliveries = dequeue.execute(store).await?;
                let taken = deliveries.len();
                pgqrs::ack_all(deliveries, store).await?;
                calls.push(started.elapsed());
                whole(taken, size)?;
            }
            Ok(())
        })
        .await
}

fn whole(taken: usize, size: usize) -> Outcome {
    if taken == size {
        Ok(())
    } else {
        Err(format!("{taken} messages instead of {size}").into())
    }
}

async fn delete(pool: &PgPool, queue: i32, limit: usize) -> Outcome<usize> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "delete from bare.messages where ctid = any (array(
             select ctid from bare.messages
             where queue_id = $1 and priority = 2 and visible_at <= now()
             order by visible_at, id limit $2 for update skip locked
         )) returning id, payload::text",
    )
    .bind(queue)
    .bind(i64::try_from(limit)?)
    .fetch_all(pool)
    .await?;
    Ok(rows.len())
}
