//! The statements for messages that ask for more than others: a key, a group, or limits of their own. On a store it advances its
//! writer's row, like those in `postgres/writers.rs`; on other connections there is none.

mod batch;
mod changing;
mod columns;
mod grouped;
mod keeping;
mod unique;

use std::{collections::HashMap, time::Duration};

use sqlx::{Connection, PgConnection};

pub(crate) use self::batch::{KeyedBatch, KeyedChunk, KeyedRow, KeyedTry, KeyedWritten};
use self::{
    changing::write_changing, grouped::write_grouped, keeping::write_keeping, unique::write_unique,
};
use crate::{
    error::Result,
    message::{Envelope, NewMessage, Visible},
    postgres::{
        visible, workers,
        writers::{self, Written},
    },
    sent::{Duplicate, Enqueued},
};

/// How long a statement waits for another transaction that holds one of its keys.
pub(crate) const KEY_TIMEOUT: Duration = Duration::from_secs(2);

/// Stores the messages, and returns which weren't stored since another message has their key.
pub(crate) async fn write(
    connection: &mut PgConnection,
    chunk: &KeyedChunk<'_, '_>,
    run: KeyedTry,
    envelopes: &[Envelope],
) -> Result<KeyedWritten> {
    match chunk {
        KeyedChunk::Unique(rows) => write_unique(connection, run, envelopes, rows).await,
        KeyedChunk::Keeping(rows) => write_keeping(connection, run, envelopes, rows).await,
        KeyedChunk::Changing(rows) => write_changing(connection, run, envelopes, rows).await,
        KeyedChunk::Grouped(rows) => write_grouped(connection, run, envelopes, rows).await,
    }
}

/// Inserts messages outside of a store's writers. One statement after one that draws their ids; if the batch is too large
/// for one, a transaction of several (a savepoint, inside the caller's own).
pub(crate) async fn insert(
    connection: &mut PgConnection,
    envelope: &Envelope,
    messages: &[NewMessage],
) -> Result<Enqueued> {
    let ids = writers::reserve(connection, None, messages.len()).await?;
    let rows = messages.iter().zip(&ids).map(|(message, id)| KeyedRow {
        envelope: 1,
        id: *id,
        message,
    });
    let mut batch = KeyedBatch::new(vec![envelope.clone()], rows.collect());
    let duplicates = if let [chunk] = &batch.chunks()[..] {
        insert_chunk(connection, envelope, &batch.envelopes, chunk).await?
    } else {
        let mut transaction = connection.begin().await?;
        batch.resolve(visible::resolve(&mut transaction, Visible::Now).await?);
        let mut all = HashMap::new();
        for chunk in batch.chunks() {
            all.extend(insert_chunk(&mut transaction, envelope, &batch.envelopes, &chunk).await?);
        }
        transaction.commit().await?;
        all
    };
    Ok(Enqueued::with_duplicates(&ids, &duplicates))
}

async fn insert_chunk(
    connection: &mut PgConnection,
    envelope: &Envelope,
    envelopes: &[Envelope],
    chunk: &KeyedChunk<'_, '_>,
) -> Result<HashMap<i64, Duplicate>> {
    let run = KeyedTry {
        this: None,
        continues: false,
        key_timeout: KEY_TIMEOUT,
    };
    let written = write(connection, chunk, run, envelopes).await;
    match written.map_err(|error| error.or_key_held(&envelope.queue))? {
        (Written::Stored, duplicates) => Ok(duplicates),
        _ => {
            let (queue, producer) = (&envelope.queue, envelope.producer);
            let has_groups = matches!(chunk, KeyedChunk::Grouped(_));
            Err(workers::refusal_of_send(connection, queue, producer, has_groups).await?)
        }
    }
}
