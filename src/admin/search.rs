//! Searching messages and dead letters, one message by its id or key, dead letters by reason.

use std::future::IntoFuture;

use super::{
    Admin,
    rows::{
        DeadLetter, QueuedMessage,
        search::{Cursor, DeadLetterReason, Found, MessageInfo, MessageState},
    },
};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::Result,
    executor::Execute,
    key,
    message::MessageId,
    postgres::{
        search::{self, Filter},
        session,
    },
    queue::{IntoQueue, QueueName},
};

/// The default number of messages of a page.
const PAGE: u32 = 50;
/// The maximum number of them.
const MAX_PAGE: u32 = 10_000;

impl Admin {
    /// Searches the messages of a queue that are in a state, such as for a page that shows them.
    ///
    /// # Shape
    /// Awaited, it returns a page of [`Found`] messages, the newest first: those that became visible last, or that
    /// become so last. [`oldest_first`](SearchMessages::oldest_first) reverses that, which is the order of delivery
    /// without priorities. With several conditions, a message has to meet all of them.
    ///
    /// It looks at no more than the first 50,000 messages of the queue that are in this state, of ready and leased ones
    /// together: [`is_cut`](Found::is_cut) says if it ended there, and a search after [`next`](Found::next) looks at the
    /// following ones. So leased messages are found [`oldest_first`](SearchMessages::oldest_first), since they are the
    /// ones that are due for the longest time.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`]. [`Error::Database`] if it takes longer than two seconds, after which the server cancels
    /// it.
    ///
    /// # Source
    /// Ranges of the index `messages_ready`, merged. Conditions are checked message by message.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// use pgqrs::MessageState;
    ///
    /// let admin = pgqrs::admin(&store);
    /// let search = admin
    ///     .search("emails", MessageState::Delayed)
    ///     .header("tenant", "acme")
    ///     .payload_at(["to", "country"], "FR");
    /// let mut found = search.clone().await?;
    /// loop {
    ///     for message in &found.items {
    ///         println!("{}: {:?}", message.id, message.last_error);
    ///     }
    ///     let Some(next) = found.next else { break };
    ///     found = search.clone().after(next).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn search(&self, queue: impl IntoQueue, state: MessageState) -> SearchMessages {
        SearchMessages {
            admin: self.clone(),
            queue: queue.into_name(),
            state,
            is_oldest_first: false,
            filter: Filter::default(),
            after: None,
            limit: PAGE,
            with_payload: false,
        }
    }

    /// Searches the dead letters of a queue.
    ///
    /// # Shape
    /// Awaited, it returns a page of [`Found`] dead letters, those with the highest id first. With several conditions, a
    /// dead letter has to meet all of them. It looks at 50,000 dead letters, as [`search`](Self::search) does.
    ///
    /// # Errors
    /// As for [`search`](Self::search).
    ///
    /// # Source
    /// The primary key of `pgqrs.dead_letters`, backwards.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// let admin = pgqrs::admin(&store);
    /// for group in admin.dead_letter_reasons("emails").await? {
    ///     println!("{} because of `{}`", group.letters, group.reason);
    ///     let newest = admin.search_dead_letters("emails").reason(group.reason).limit(3);
    ///     for letter in newest.await?.items {
    ///         println!("  {}: {:?}", letter.id, letter.last_error);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn search_dead_letters(&self, queue: impl IntoQueue) -> SearchDeadLetters {
        SearchDeadLetters {
            admin: self.clone(),
            queue: queue.into_name(),
            reason: None,
            key: None,
            filter: Filter::default(),
            after: None,
            limit: PAGE,
            with_payload: false,
        }
    }

    /// Returns the reasons of a queue's dead letters, the most frequent first, with the number of dead letters of each: of
    /// the 50,000 with the highest ids. At most 100 reasons.
    ///
    /// # Errors
    /// As for [`search`](Self::search).
    pub async fn dead_letter_reasons(
        &self,
        queue: impl IntoQueue,
    ) -> Result<Vec<DeadLetterReason>> {
        let queue = queue.into_name()?;
        let reasons = self
            .read(async |connection| search::reasons(connection, &queue).await)
            .await?;
        self.unless_absent(queue, !reasons.is_empty(), reasons)
            .await
    }

    /// Returns a message with all that is known of it, whether it is in the queue, a dead letter or archived; `None` if it
    /// is nowhere: it was acknowledged or deleted, or never was.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store, id: pgqrs::MessageId) -> pgqrs::Result<()> {
    /// use pgqrs::MessagePlace;
    ///
    /// if let Some(message) = pgqrs::admin(&store).message("emails", id).await? {
    ///     if let MessagePlace::DeadLetters { reason, died_at } = &message.place {
    ///         println!("dead since {died_at}: {reason}");
    ///     }
    ///     println!("{}", message.payload);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn message(
        &self,
        queue: impl IntoQueue,
        message: MessageId,
    ) -> Result<Option<MessageInfo>> {
        let queue = queue.into_name()?;
        let found = self
            .read(async |connection| search::find(connection, &queue, Some(message), None).await)
            .await?
            .pop();
        self.unless_absent(queue, found.is_some(), found).await
    }

    /// Returns the messages of a queue that have this unique key: at most one for each way to be unique. For a key
    /// [`once_within`](crate::Enqueue::once_within) a time, that is the message that was sent with it in this time, if it
    /// is still there, also as a dead letter. Other dead letters by their key:
    /// [`search_dead_letters`](Self::search_dead_letters).
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn messages_with_key(
        &self,
        queue: impl IntoQueue,
        key: impl Into<String>,
    ) -> Result<Vec<MessageInfo>> {
        let queue = queue.into_name()?;
        let found = match key::stored(key.into()) {
            Some(key) => {
                self.read(async |connection| {
                    search::find(connection, &queue, None, Some(&key)).await
                })
                .await?
            }
            None => Vec::new(),
        };
        self.unless_absent(queue, !found.is_empty(), found).await
    }

    /// Reads, in at most two seconds.
    async fn read<T>(
        &self,
        statement: impl AsyncFnOnce(&mut sqlx::PgConnection) -> Result<T>,
    ) -> Result<T> {
        self.store
            .run(async |connection| session::search(connection, statement).await)
            .await
    }
}

/// A search of messages; made by [`Admin::search`].
#[derive(Debug, Clone)]
#[must_use = "nothing is searched until this is awaited"]
pub struct SearchMessages {
    admin: Admin,
    queue: Result<QueueName>,
    state: MessageState,
    is_oldest_first: bool,
    filter: Filter,
    after: Option<Cursor>,
    limit: u32,
    with_payload: bool,
}

impl SearchMessages {
    /// Only messages with this header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.filter.header = Some((name.into(), value.into()));
        self
    }

    /// Only messages with this value at a path in their payload: names of fields, and numbers of elements from 0 on.
    /// The value is compared as text: `true`, `12`, a string without its quotes, an object as it was sent.
    pub fn payload_at<I: IntoIterator<Item: Into<String>>>(
        mut self,
        path: I,
        value: impl Into<String>,
    ) -> Self {
        self.filter.payload = Some((path.into_iter().map(Into::into).collect(), value.into()));
        self
    }

    /// Only messages of this group.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.filter.group = Some(group.into());
        self
    }

    /// Only messages whose last attempt failed with an error that contains this text.
    pub fn error(mut self, text: impl Into<String>) -> Self {
        self.filter.error = Some(text.into());
        self
    }

    /// In the order in which they became visible, or will.
    pub fn oldest_first(mut self) -> Self {
        self.is_oldest_first = true;
        self
    }

    /// Only what follows a page that [ended here](Found::next).
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Maximum number of messages; defaults to 50, at most 10,000.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit.clamp(1, MAX_PAGE);
        self
    }

    /// Whether to read payloads too; defaults to false.
    pub fn payload(mut self, payload: bool) -> Self {
        self.with_payload = payload;
        self
    }
}

impl IntoFuture for SearchMessages {
    type Output = Result<Found<QueuedMessage>>;
    type IntoFuture = Execute<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Execute::new(async move {
            let queue = self.queue?;
            let wanted = search::Wanted {
                queue: &queue,
                state: self.state,
                filter: &self.filter,
                after: self.after,
                limit: self.limit,
                with_payload: self.with_payload,
            };
            let found = self
                .admin
                .read(async |connection| {
                    if self.is_oldest_first {
                        search::oldest_first(connection, wanted).await
                    } else {
                        search::newest_first(connection, wanted).await
                    }
                })
                .await?;
            let exists = !found.items.is_empty() || found.is_cut;
            self.admin.unless_absent(queue, exists, found).await
        })
    }
}

/// A search of dead letters; made by [`Admin::search_dead_letters`].
#[derive(Debug, Clone)]
#[must_use = "nothing is searched until this is awaited"]
pub struct SearchDeadLetters {
    admin: Admin,
    queue: Result<QueueName>,
    reason: Option<String>,
    key: Option<String>,
    filter: Filter,
    after: Option<Cursor>,
    limit: u32,
    with_payload: bool,
}

impl SearchDeadLetters {
    /// Only those with just this reason.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Only those that had this unique key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// As for [`SearchMessages::header`].
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.filter.header = Some((name.into(), value.into()));
        self
    }

    /// As for [`SearchMessages::payload_at`].
    pub fn payload_at<I: IntoIterator<Item: Into<String>>>(
        mut self,
        path: I,
        value: impl Into<String>,
    ) -> Self {
        self.filter.payload = Some((path.into_iter().map(Into::into).collect(), value.into()));
        self
    }

    /// Only dead letters of this group.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.filter.group = Some(group.into());
        self
    }

    /// As for [`SearchMessages::error`].
    pub fn error(mut self, text: impl Into<String>) -> Self {
        self.filter.error = Some(text.into());
        self
    }

    /// Only what follows a page that [ended here](Found::next).
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Maximum number of dead letters; defaults to 50, at most 10,000.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit.clamp(1, MAX_PAGE);
        self
    }

    /// Whether to read payloads too; defaults to false.
    pub fn payload(mut self, payload: bool) -> Self {
        self.with_payload = payload;
        self
    }
}

impl IntoFuture for SearchDeadLetters {
    type Output = Result<Found<DeadLetter>>;
    type IntoFuture = Execute<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Execute::new(async move {
            let queue = self.queue?;
            // A key is stored as a hash if it is long; one that can't be stored is no message's.
            let key = self.key.map(|key| key::stored(key.clone()).unwrap_or(key));
            let wanted = search::WantedLetters {
                queue: &queue,
                reason: self.reason.as_deref(),
                key: key.as_deref(),
                filter: &self.filter,
                after: self.after,
                limit: self.limit,
                with_payload: self.with_payload,
            };
            let found = self
                .admin
                .read(async |connection| search::dead_letters(connection, wanted).await)
                .await?;
            let exists = !found.items.is_empty() || found.is_cut;
            self.admin.unless_absent(queue, exists, found).await
        })
    }
}
