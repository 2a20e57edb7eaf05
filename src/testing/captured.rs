//! What a block of code has sent.

use serde::de::DeserializeOwned;

use super::enqueued::EnqueuedMessage;
use crate::{
    error::{Error, Result},
    executor::{self, Executor},
    postgres::testing,
    queue::{IntoQueue, Readable},
};

/// What a block of code has sent, to all queues; returned by [`capture`].
#[derive(Debug)]
pub struct Captured {
    messages: Vec<(String, EnqueuedMessage<serde_json::Value>)>,
}

impl Captured {
    /// Returns how many messages were sent.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Returns whether none was sent.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns the messages with their queue's name, in the order in which they were sent.
    pub fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = (&str, &EnqueuedMessage<serde_json::Value>)> {
        let messages = self.messages.iter();
        messages.map(|(queue, message)| (queue.as_str(), message))
    }

    /// Returns the messages of one queue, in the order in which they were sent.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode) if a payload doesn't have the shape of the queue's type;
    /// [`Error::InvalidQueueName`](crate::Error::InvalidQueueName).
    pub fn of<Q>(&self, queue: Q) -> Result<Vec<EnqueuedMessage<<Q::Carries as Readable>::Payload>>>
    where
        Q: IntoQueue<Carries: Readable>,
    {
        let name = queue.into_name()?;
        let messages = self.iter().filter(|(queue, _)| *queue == name.as_str());
        messages.map(|(_, message)| message.decoded()).collect()
    }
}

impl EnqueuedMessage<serde_json::Value> {
    fn decoded<T: DeserializeOwned>(&self) -> Result<EnqueuedMessage<T>> {
        let payload = serde_json::from_str(&self.json).map_err(|source| Error::Decode {
            message: self.id,
            source: source.into(),
        })?;
        Ok(EnqueuedMessage {
            id: self.id,
            payload,
            json: self.json.clone(),
            headers: self.headers.clone(),
            priority: self.priority,
            delay: self.delay,
            is_ready: self.is_ready,
            attempt: self.attempt,
            key: self.key.clone(),
            group: self.group.clone(),
        })
    }
}

/// Runs a block of code in a transaction, and returns its result together with what it has sent there: not what was
/// there before, and not what others send meanwhile.
///
/// # Shape
/// `tx` is a [`Transaction`](crate::Transaction), one of sqlx, or a connection in a transaction. Messages that the block
/// sends on a store, or that it sends and settles, are not among the captured ones.
///
/// # Errors
/// Those of the statements around the block, which is not run if the first one fails. Its own error is part of its
/// result.
///
/// # Source
/// `select … from pgqrs.messages`, with the rows that this transaction has stored.
///
/// # Example
/// ```no_run
/// # use pgqrs::{Queue, testing};
/// # const EMAILS: Queue<String> = Queue::new("emails");
/// # async fn register(name: &str, tx: &mut pgqrs::Transaction) -> pgqrs::Result<()> { Ok(()) }
/// # async fn example(mut tx: pgqrs::Transaction) -> Result<(), Box<dyn std::error::Error>> {
/// let (registered, sent) = testing::capture(&mut tx, async |tx| register("ada", tx).await).await?;
/// registered?;
/// assert_eq!(sent.of(EMAILS)?[0].payload, "ada");
/// assert_eq!(sent.len(), 1); // and nothing else
/// # Ok(())
/// # }
/// ```
pub async fn capture<C, R>(
    tx: &mut C,
    block: impl AsyncFnOnce(&mut C) -> R,
) -> Result<(R, Captured)>
where
    for<'a> &'a mut C: Executor,
{
    let before = executor::run(&mut *tx, async |connection| {
        testing::last_id(connection).await
    });
    let before = before.await?;
    let returned = block(tx).await;
    let sent = executor::run(&mut *tx, async |connection| {
        testing::sent_since(connection, before).await
    });
    let messages = sent.await?.into_iter().map(|message| {
        let queue = message.queue.as_str().to_owned();
        Ok((queue, EnqueuedMessage::decode(message)?))
    });
    let messages = messages.collect::<Result<_>>()?;
    Ok((returned, Captured { messages }))
}
