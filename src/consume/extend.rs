//! Extends the leases of a run loop's deliveries.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::{
    error::Error,
    message::{MessageId, Origin, Receipt},
    postgres::settle::extend_many,
    store::Store,
    telemetry::{self, Subject},
};

/// The result of extending leases.
pub(super) struct Extension {
    pub(super) asked: Vec<Receipt>,
    pub(super) extended: HashMap<MessageId, DateTime<Utc>>,
    /// Before the first statement.
    pub(super) sent: Instant,
    /// The first failure, and the number of leases in its statement.
    pub(super) failed: Option<(Error, usize)>,
}

/// Extends leases, in as many statements as needed. If the server rejects a statement for a reason that may apply to
/// one message, the others are extended without it.
pub(super) async fn extend(
    store: &Store,
    receipts: &[Receipt],
    origin: &Arc<Origin>,
    lease: Duration,
    timeout: Duration,
    limit: usize,
) -> Extension {
    let mut extension = Extension {
        asked: Vec::new(),
        extended: HashMap::new(),
        sent: Instant::now(),
        failed: None,
    };
    let mut batches: Vec<_> = receipts.chunks(limit.max(1)).rev().collect();
    while let Some(batch) = batches.pop() {
        let extended = async {
            let mut connection = store.reserved().await?;
            connection
                .within(timeout, async |connection| {
                    extend_many(connection, batch, lease).await
                })
                .await
        };
        match extended.await {
            Ok(extended) => {
                let extended = extended.into_iter().map(|one| (one.id, one.expires_at));
                extension.extended.extend(extended);
                extension.asked.extend(batch);
            }
            Err(error) if error.may_concern_one_message() => match batch {
                [receipt] => {
                    telemetry::extension_refused(&Subject::settled(origin, *receipt), &error);
                    extension.asked.push(*receipt);
                }
                _ => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    batches.extend([second, first]);
                }
            },
            Err(error) => {
                extension.failed = Some((error, batch.len()));
                break;
            }
        }
    }
    extension
}
