//! `enqueue().to(..).import(..)`: sends more messages than fit into memory, a chunk at a time. The caller's loop drives
//! it and sees its progress, and the executor determines whether each chunk is committed by itself or all of them in
//! one transaction.

use std::{fmt, iter::Fuse, marker::PhantomData};

use serde::Serialize;

use crate::{
    enqueue::{
        Common, Enqueue, send,
        states::{NoMessage, Takes, TargetIsSet, WithoutKey},
    },
    error::{Error, Result},
    executor::{Execute, Executor},
    message::NewMessage,
    payload::encode,
    postgres::columns::{CHUNK_BYTES, CHUNK_MESSAGES},
    sent::Enqueued,
};

impl<T, W, K: WithoutKey> Enqueue<NoMessage, T, W, K> {
    /// Imports very many messages from an iterator: [`Import::next`] sends a chunk at a time.
    ///
    /// Available once a target is set, until messages are set, and without a key. For messages from a stream, collect as many as are
    /// to be sent at once and use [`messages`](Self::messages).
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// let rows = (0..1_000_000).map(|row| serde_json::json!({"row": row}));
    /// let mut import = pgqrs::enqueue().to("tasks").import(rows);
    /// while import.next(&store).await?.is_some() {
    ///     println!("{} are stored", import.sent());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn import<I>(self, payloads: I) -> Import<I::IntoIter>
    where
        I: IntoIterator<Item: Serialize>,
        T: TargetIsSet + Takes<I::Item>,
    {
        Import {
            payloads: payloads.into_iter().fuse(),
            common: self.into_common(),
            chunk: Vec::new(),
            bytes: 0,
            refused: None,
            taken: 0,
            sent: 0,
            of: PhantomData,
        }
    }
}

/// A large import in progress; made by [`Enqueue::import`].
#[must_use = "an import does nothing until `.next(&store).await`"]
pub struct Import<I: Iterator> {
    payloads: Fuse<I>,
    common: Result<Common>,
    /// Taken from the iterator, and not yet stored.
    chunk: Vec<NewMessage>,
    bytes: usize,
    /// The error of a payload that can't be encoded or is too large, returned once all messages before it are sent.
    refused: Option<Error>,
    taken: usize,
    sent: usize,
    of: PhantomData<fn(I::Item)>,
}

impl<I: Iterator<Item: Serialize>> Import<I> {
    /// Stores the next chunk: up to 1,000 messages, or about 64 MiB. Returns its ids in the order of the messages, and
    /// `None` if there are no more.
    ///
    /// On a store, each chunk is committed by itself and stored exactly once; in a transaction, all chunks are stored
    /// when the caller commits. At most one chunk is in memory.
    ///
    /// # Errors
    /// As [`execute`](Enqueue::execute). The chunk is kept: the next call sends the same chunk again, so an error
    /// doesn't end the import, and no message is left out. After [`Error::OutcomeUnknown`] or [`Error::ConnectionLost`]
    /// this may store it twice. A payload that can't be encoded is reported by its place in the import, after all
    /// before it are stored, and skipped by the next call.
    ///
    /// # Example
    /// All in one transaction:
    ///
    /// ```no_run
    /// # async fn example(store: pgqrs::Store, rows: Vec<u64>) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = store.pool().begin().await?;
    /// let mut import = pgqrs::enqueue().to("tasks").import(rows);
    /// while import.next(&mut tx).await?.is_some() {}
    /// tx.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn next<'c, E>(&'c mut self, on: E) -> Execute<'c, Result<Option<Enqueued>>>
    where
        E: Executor + 'c,
        I: Send,
    {
        let limit = on.payload_limit();
        self.fill(limit);
        Execute::new(async move {
            if self.chunk.is_empty() {
                return match self.refused.take() {
                    Some(refused) => Err(refused),
                    None => Ok(None),
                };
            }
            let common = self.common.as_ref().map_err(Clone::clone)?;
            let ids = send(on, common.clone(), self.chunk.clone()).await?;
            self.sent += self.chunk.len();
            self.chunk.clear();
            self.bytes = 0;
            Ok(Some(ids))
        })
    }

    /// Returns how many messages are stored so far, or are in the caller's transaction.
    pub fn sent(&self) -> usize {
        self.sent
    }

    fn fill(&mut self, limit: usize) {
        while self.refused.is_none()
            && self.chunk.len() < CHUNK_MESSAGES
            && self.bytes < CHUNK_BYTES
        {
            let Some(payload) = self.payloads.next() else {
                return;
            };
            let index = self.taken;
            self.taken += 1;
            let encoded = encode(index, &payload).map(NewMessage::new);
            let checked = encoded.and_then(|message| {
                message.check_size(index, limit)?;
                Ok(message)
            });
            match checked {
                Ok(message) => {
                    self.bytes += message.bytes();
                    self.chunk.push(message);
                }
                Err(error) => self.refused = Some(error),
            }
        }
    }
}

/// Without payloads.
impl<I: Iterator> fmt::Debug for Import<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("common", &self.common)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}
