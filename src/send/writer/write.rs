//! What one statement can't carry: large batches, and messages with keys or limits of their own.

use std::{collections::HashMap, time::Duration};

use sqlx::{Connection, PgConnection};

use crate::{
    error::{Error, Result},
    message::{Envelope, Visible},
    postgres::{
        columns::Columns,
        keyed::{self, KeyedTry, KeyedWritten},
        session, visible,
        writers::{self, Batch, Try, Written, with_headers},
    },
    send::{
        batch::{self, chunks},
        pending::PendingSend,
    },
};

/// Too large for one statement: several, in one transaction.
pub(super) async fn write_large(
    connection: &mut PgConnection,
    token: i64,
    first: i64,
    pending: &PendingSend,
    timeout: Duration,
) -> Result<Written> {
    let mut transaction = connection.begin().await?;
    session::limit_idle_in_transaction(&mut transaction, timeout).await?;
    // A batch becomes visible at one time, not chunk by chunk.
    let visible = visible::resolve(&mut transaction, pending.envelope.visible).await?;
    let envelope = Envelope {
        queue: pending.envelope.queue.clone(),
        visible: Visible::Exactly(visible),
        ..pending.envelope
    };
    let (mut sequence, mut ids) = (first, &pending.ids[..]);
    for chunk in chunks(&pending.messages) {
        let (of_chunk, rest) = ids.split_at(chunk.len());
        let batch = Batch {
            envelopes: vec![&envelope],
            ids: of_chunk.to_vec(),
            envelope: vec![1; chunk.len()],
            columns: Columns::of(chunk),
        };
        let this = Try { token, sequence };
        let written = if batch.columns.has_headers() {
            with_headers::write_alike(&mut transaction, this, &envelope, &batch).await?
        } else {
            writers::write_alike(&mut transaction, this, &envelope, &batch).await?
        };
        if written != Written::Stored {
            return Ok(written);
        }
        (ids, sequence) = (rest, sequence + 2);
    }
    transaction.commit().await?;
    Ok(Written::Stored)
}

/// Messages with keys, or with limits of their own: one statement, or several in one transaction.
pub(super) async fn write_keyed(
    connection: &mut PgConnection,
    token: i64,
    first: i64,
    group: &[PendingSend],
    key_timeout: Duration,
    timeout: Duration,
) -> Result<KeyedWritten> {
    let mut batch = batch::keyed(group);
    let held = |error: Error| match group.first() {
        Some(pending) => error.or_key_held(&pending.envelope.queue),
        None => error,
    };
    let mut sequence = first;
    let run = |sequence| KeyedTry {
        this: Some(Try { token, sequence }),
        continues: sequence > first,
        key_timeout,
    };
    if let [chunk] = &batch.chunks()[..] {
        let written = keyed::write(connection, chunk, run(first), &batch.envelopes);
        return written.await.map_err(held);
    }
    let mut transaction = connection.begin().await?;
    session::limit_idle_in_transaction(&mut transaction, timeout).await?;
    batch.resolve(visible::resolve(&mut transaction, Visible::Now).await?);
    let mut all = HashMap::new();
    for chunk in batch.chunks() {
        let written = keyed::write(&mut transaction, &chunk, run(sequence), &batch.envelopes);
        let (written, duplicates) = written.await.map_err(held)?;
        if written != Written::Stored {
            return Ok((written, all));
        }
        all.extend(duplicates);
        sequence += 2;
    }
    transaction.commit().await?;
    Ok((Written::Stored, all))
}
