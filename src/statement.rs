//! An enqueue as SQL, for connections that aren't sqlx's. What its rows mean is decided here and in
//! `postgres/statement.rs`, so that no caller has to.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};

use crate::{
    error::{Error, Result},
    lifecycle::WorkerId,
    message::{Envelope, MessageId, NewMessage},
    postgres::statement,
    queue::QueueName,
    sent::Enqueued,
};

/// An enqueue as SQL, to be run on a connection of any driver; made by
/// [`Enqueue::statement`](crate::Enqueue::statement).
///
/// # Shape
/// The parameters:
///
/// | | type | |
/// |---|---|---|
/// | `$1` | `text` | [`queue`](Self::queue) |
/// | `$2` | `smallint` | [`priority`](Self::priority) |
/// | `$3` | `timestamptz` | [`not_before`](Self::not_before) |
/// | `$4` | `bigint` | [`delay`](Self::delay) |
/// | `$5` | `bigint` | [`producer`](Self::producer) |
/// | `$6` | `text[]` | [`payloads`](Self::payloads) |
/// | `$7` | `text[]` | [`headers`](Self::headers) |
///
/// It returns rows of one `bigint` named `id`, for [`check`](Self::check). It is one statement however many messages
/// there are, and so stores all of them or none.
///
/// # Errors
/// If the enqueue is refused, such as for a queue that doesn't exist, the server returns no error: the statement stores
/// nothing, and [`check`](Self::check) returns the error.
///
/// # Example
/// With sqlx's own functions; `examples/drivers` has the same for tokio-postgres, diesel-async and another version of
/// sqlx.
///
/// ```no_run
/// # async fn example(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
/// let statement = pgqrs::enqueue().messages(&["a", "b"]).to("tasks").statement()?;
/// let rows: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement.sql()))
///     .bind(statement.queue().as_str())
///     .bind(statement.priority())
///     .bind(statement.not_before())
///     .bind(statement.delay())
///     .bind(statement.producer().map(i64::from))
///     .bind(statement.payloads())
///     .bind(statement.headers())
///     .fetch_all(store.pool())
///     .await?;
/// let ids = statement.check(rows)?; // ids[0] is that of "a"
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a statement does nothing until it is run"]
pub struct Statement {
    envelope: Envelope,
    payloads: Vec<String>,
    headers: Vec<Option<String>>,
}

impl Statement {
    pub(crate) fn new(envelope: Envelope, messages: Vec<NewMessage>) -> Self {
        let has_headers = messages.iter().any(|message| message.headers().is_some());
        let headers = messages.iter().filter(|_| has_headers);
        Self {
            envelope,
            headers: headers
                .map(|message| message.headers().map(str::to_owned))
                .collect(),
            payloads: messages.into_iter().map(NewMessage::into_payload).collect(),
        }
    }

    /// Returns the text of the statement, with `$1` to `$7`. It is the same for each enqueue.
    pub fn sql(&self) -> &'static str {
        statement::sql()
    }

    /// `$1`: the queue.
    pub fn queue(&self) -> &QueueName {
        &self.envelope.queue
    }

    /// `$2`: 0 is urgent, 3 is low.
    pub fn priority(&self) -> i16 {
        self.envelope.priority.rank()
    }

    /// `$3`: when the messages are delivered at the earliest; `None` unless set by [`at`](crate::Enqueue::at).
    pub fn not_before(&self) -> Option<DateTime<Utc>> {
        self.envelope.visible.times().not_before
    }

    /// `$4`: how long the messages aren't delivered; 0 unless set by [`delay`](crate::Enqueue::delay).
    ///
    /// # Units
    /// Microseconds, counted from the statement.
    pub fn delay(&self) -> i64 {
        self.envelope.visible.times().delay
    }

    /// `$5`: the producer that the messages are sent through, if any.
    pub fn producer(&self) -> Option<WorkerId> {
        self.envelope.producer
    }

    /// `$6`: the messages as JSON text, in their order.
    pub fn payloads(&self) -> &[String] {
        &self.payloads
    }

    /// `$7`: the headers of each message as JSON text, `None` for one without any; empty if no message has any.
    pub fn headers(&self) -> &[Option<String>] {
        &self.headers
    }

    /// Returns the ids of the messages, from the rows that the statement returned.
    ///
    /// # Shape
    /// The rows can be in any order; the ids are in the order of the messages.
    ///
    /// # Errors
    /// If nothing was stored, the error that [`execute`](crate::Enqueue::execute) would have returned:
    /// [`Error::QueueNotFound`], [`Error::QueueClosed`], [`Error::WorkerSuspended`], [`Error::WorkerStopped`]. The transaction can still be
    /// committed then, without the messages. [`Error::Database`] if these are not the rows of this statement.
    pub fn check(&self, rows: impl IntoIterator<Item = i64>) -> Result<Enqueued> {
        let mut rows: Vec<i64> = rows.into_iter().collect();
        rows.sort_unstable();
        let (queue, producer) = (&self.envelope.queue, self.envelope.producer);
        if let Some(refusal) = rows.first().copied().filter(|first| *first < 0)
            && !self.payloads.is_empty()
        {
            return Err(statement::refused(refusal, queue, producer));
        }
        rows.retain(|row| *row >= 0);
        if rows.len() != self.payloads.len() {
            let (returned, expected) = (rows.len(), self.payloads.len());
            let mismatch = format!(
                "{returned} rows instead of {expected}: pass all that the statement returned"
            );
            let source = sqlx::Error::Decode(mismatch.into());
            return Err(Error::Database(Arc::new(source)));
        }
        Ok(Enqueued::new(
            rows.into_iter().map(MessageId::from).collect(),
        ))
    }
}

/// Without the payloads, which have no place in a log.
impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement")
            .field("envelope", &self.envelope)
            .field("messages", &self.payloads.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Priority;

    fn statement(payloads: usize) -> Statement {
        let envelope = Envelope {
            queue: QueueName::new("tasks").expect("a name"),
            producer: None,
            priority: Priority::Normal,
            visible: crate::message::Visible::Now,
        };
        Statement::new(envelope, vec![NewMessage::new("1".to_owned()); payloads])
    }

    #[test]
    fn ids_are_sorted_and_anything_else_is_an_error() {
        let ids = statement(3).check([9, 7, 8]).expect("stored");
        assert_eq!(&*ids, [7, 8, 9].map(MessageId::from));
        for rows in [&[][..], &[7], &[7, 8]] {
            let refused = statement(3).check(rows.iter().copied());
            assert!(matches!(refused, Err(Error::Database(_))), "{refused:?}");
        }
        let refused = statement(3).check([-1]);
        assert!(matches!(refused, Err(Error::QueueNotFound { .. })));
    }

    #[test]
    fn an_empty_batch_is_stored_whether_or_not_its_queue_exists() {
        assert!(statement(0).check([]).expect("nothing to store").is_empty());
        assert!(
            statement(0)
                .check([-1])
                .expect("nothing to store")
                .is_empty()
        );
    }
}
