//! Deletes archived messages and dead letters that are older than their queue keeps them, and what is known of groups that
//! have a rate and no messages: in chunks, for a limited time, and from one process at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    pool::STATEMENT_TIMEOUT,
    postgres::{
        groups,
        retention::{self, Pruned},
    },
    queue::QueueName,
    store::Store,
    telemetry,
};

/// Maximum number of archived messages, of dead letters, and of groups' rates that one statement deletes.
const CHUNK: u32 = 1_000;
/// How long one round takes at most, apart from its last statement.
const BUDGET: Duration = Duration::from_secs(5);
/// Between two rounds of one consumer, on average.
const INTERVAL: Duration = Duration::from_secs(60);
/// The same after a round that has used up its time.
const SHORT_INTERVAL: Duration = Duration::from_secs(1);

/// Deletes what is over. Returns how long to wait until the next round.
pub(super) async fn prune(
    store: Store,
    queue: QueueName,
    has_group_rates: bool,
    stopping: Arc<AtomicBool>,
) -> Duration {
    let until = Instant::now() + BUDGET;
    let mut sum = Pruned::default();
    let wait = loop {
        let pruned = async {
            let mut connection = store.connection().await?;
            connection
                .within(STATEMENT_TIMEOUT, async |connection| {
                    let forgotten = if has_group_rates {
                        groups::forget_rates(connection, &queue, CHUNK).await?
                    } else {
                        0
                    };
                    let pruned = retention::prune(connection, &queue, CHUNK).await?;
                    Ok((forgotten, pruned))
                })
                .await
        };
        match pruned.await {
            Ok((forgotten, pruned)) => {
                sum.archived += pruned.archived;
                sum.dead += pruned.dead;
                if pruned.archived.max(pruned.dead).max(forgotten) < u64::from(CHUNK) {
                    break INTERVAL;
                }
            }
            Err(error) => {
                telemetry::retention_failed(&queue, &error);
                break INTERVAL;
            }
        }
        if Instant::now() >= until || stopping.load(Ordering::Relaxed) {
            break SHORT_INTERVAL;
        }
    };
    if sum != Pruned::default() {
        telemetry::pruned(&queue, sum.archived, sum.dead);
    }
    // Apart from other consumers that started at the same time.
    wait.mul_f64(0.5 + rand::random::<f64>())
}
