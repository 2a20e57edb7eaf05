//! An acknowledgement as SQL, for connections that aren't sqlx's: the counterpart of an enqueue's
//! [`Statement`](crate::Statement).

use std::{fmt, sync::Arc};

use super::{
    Decoded, Delivery, Unsettled,
    lease::Lease,
    settlement::{Settlement, UnderWay},
};
use crate::{
    error::{Error, Result},
    message::MessageId,
    postgres::settle::statement,
    telemetry,
};

/// An acknowledgement as SQL, to be run on a connection of any driver; made by [`Delivery::ack_statement`].
///
/// # Shape
/// The parameters:
///
/// | | type | |
/// |---|---|---|
/// | `$1` | `integer` | [`queue_id`](Self::queue_id) |
/// | `$2` | `bigint` | [`id`](Self::id) |
/// | `$3` | `bigint` | [`lease_token`](Self::lease_token) |
///
/// It returns a row of one `bigint` named `id`, or no row if the lease is lost, for [`check`](Self::check).
///
/// # Transactions
/// Check the rows before you commit: only then is it known whether the message was still yours, and only then does a
/// [run](crate::Consumer::run) know that nothing is left for it to settle. Roll back if `check` returns an error; in a
/// handler it is enough to return it.
///
/// If the transaction is rolled back after `check`, the message is still there. A handler that returns an error has it
/// delivered again after the wait of the retry policy; otherwise that happens after the lease, which isn't extended any
/// more.
///
/// A statement that is dropped without `check` has settled nothing, as far as this process knows: it is as if the
/// delivery was dropped, and in a handler what it returns settles the message. [`into_delivery`](Self::into_delivery)
/// returns the delivery.
///
/// # Example
/// With sqlx's own functions; `examples/drivers` has the same for tokio-postgres, diesel-async and another version of
/// sqlx.
///
/// ```no_run
/// # use pgqrs::Delivery;
/// # use sqlx::{Connection, PgConnection};
/// async fn pay(
///     delivery: Delivery<i64>,
///     connection: &mut PgConnection,
/// ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     let mut tx = connection.begin().await?;
///     sqlx::query("update accounts set cents = cents + $1")
///         .bind(delivery.payload())
///         .execute(&mut *tx)
///         .await?;
///     let statement = delivery.ack_statement();
///     let rows: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement.sql()))
///         .bind(statement.queue_id())
///         .bind(statement.id().get())
///         .bind(statement.lease_token())
///         .fetch_all(&mut *tx)
///         .await?;
///     statement.check(rows)?; // an error rolls the work back
///     tx.commit().await?;
///     Ok(())
/// }
/// ```
#[must_use = "a statement does nothing until it is run: run it, and pass its rows to `.check(rows)`"]
pub struct AckStatement<T, D = Decoded> {
    delivery: Delivery<T, D>,
    is_archived: bool,
    under_way: UnderWay,
    settling: Settling,
}

/// The loop doesn't take a message that is gone for one that was cancelled, as long as this exists.
struct Settling(Arc<Lease>);

impl Drop for Settling {
    fn drop(&mut self) {
        self.0.set_settling(false);
    }
}

impl<T, D> Delivery<T, D> {
    /// Returns the acknowledgement as SQL, with its parameters, for a connection of any driver: so that your work and
    /// the acknowledgement commit in one transaction. If the queue keeps what is acknowledged
    /// (`archive_on_ack` in [`QueueOptions`](crate::QueueOptions)), the statement archives the message.
    ///
    /// Make it right before you run it: until it is checked or dropped, a handler isn't notified of a
    /// [cancellation](Self::cancelled). The lease is extended meanwhile.
    ///
    /// # Source
    /// `delete from pgqrs.messages where … lease_token = … returning id`, or with `insert into pgqrs.archive …` in one
    /// statement.
    pub fn ack_statement(self) -> AckStatement<T, D> {
        let settlement = self.acknowledgement();
        self.lease.set_settling(true);
        AckStatement {
            is_archived: matches!(settlement, Settlement::Archive),
            under_way: UnderWay::begin(&self.lease, settlement.verb()),
            settling: Settling(Arc::clone(&self.lease)),
            delivery: self,
        }
    }
}

impl<T, D> AckStatement<T, D> {
    /// Returns the text of the statement, with `$1` to `$3`. There are four: for queues that keep what is acknowledged and
    /// for others, and of each one for messages with a [group](crate::Enqueue::group), which lets the next one in.
    /// Consumers notice that one at their next poll, unless you wake them.
    pub fn sql(&self) -> &'static str {
        let is_grouped = self.delivery.lease.receipt().is_grouped;
        match (self.is_archived, is_grouped) {
            (false, false) => statement::ack(),
            (true, false) => statement::archive(),
            (false, true) => statement::ack_in_group(),
            (true, true) => statement::archive_in_group(),
        }
    }

    /// `$1`: the queue's id in `pgqrs.queues`.
    pub fn queue_id(&self) -> i32 {
        self.delivery.lease.receipt().queue_id
    }

    /// `$2`: the message's id.
    pub fn id(&self) -> MessageId {
        self.delivery.id()
    }

    /// `$3`: what distinguishes this delivery of the message from its other ones.
    pub fn lease_token(&self) -> i64 {
        self.delivery.lease.receipt().token
    }

    /// Checks the rows that the statement returned. Then the delivery is settled, if your transaction commits.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if there is no row: the message went to another consumer, or is gone. Nothing was changed,
    /// and your transaction could still be committed; roll it back, or the work is done twice. [`Error::Database`] if
    /// these are not the rows of this statement.
    pub fn check(self, rows: impl IntoIterator<Item = i64>) -> Result<()> {
        self.try_check(rows).map_err(Error::from)
    }

    /// As [`check`](Self::check); an error hands the delivery back.
    ///
    /// # Errors
    /// [`Unsettled`].
    pub fn try_check(self, rows: impl IntoIterator<Item = i64>) -> Result<(), Unsettled<T, D>> {
        let Self {
            delivery,
            under_way,
            settling,
            ..
        } = self;
        let lease = &settling.0;
        let settled = outcome(delivery.id(), rows);
        if let Err(Error::LeaseLost { .. }) = settled {
            let lost = || telemetry::lease_lost(lease.subject(), under_way.verb);
            under_way.span.in_scope(lost);
        }
        under_way.end(lease, &settled);
        settled.map_err(|error| Unsettled {
            delivery: Box::new(delivery),
            error,
        })
    }

    /// Returns the delivery, to be settled otherwise, such as after your driver has returned an error.
    pub fn into_delivery(self) -> Delivery<T, D> {
        self.delivery
    }
}

fn outcome(message: MessageId, rows: impl IntoIterator<Item = i64>) -> Result<()> {
    let mut rows = rows.into_iter();
    match (rows.next(), rows.next()) {
        (None, _) => Err(Error::LeaseLost { message }),
        (Some(id), None) if id == message.get() => Ok(()),
        _ => {
            let mismatch = "these rows are not those of this acknowledgement: pass all that it returned, and no others";
            let source = sqlx::Error::Decode(mismatch.into());
            Err(Error::Database(Arc::new(source)))
        }
    }
}

/// Without the payload, which has no place in a log.
impl<T, D> fmt::Debug for AckStatement<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckStatement")
            .field("delivery", &self.delivery)
            .field("is_archived", &self.is_archived)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_a_lost_lease_and_any_other_rows_are_an_error() {
        let message = MessageId::from(7);
        assert!(outcome(message, [7]).is_ok());
        let lost = outcome(message, []);
        assert!(matches!(lost, Err(Error::LeaseLost { message: id }) if id == message));
        for rows in [&[8][..], &[7, 7], &[7, 8]] {
            let refused = outcome(message, rows.iter().copied());
            assert!(matches!(refused, Err(Error::Database(_))), "{refused:?}");
        }
    }
}
