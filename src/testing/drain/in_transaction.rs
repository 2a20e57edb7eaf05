//! A drain for handlers that work in a transaction, which is the test's.

use std::{
    future::{Future, pending},
    mem,
    sync::Arc,
};

use sqlx::PgConnection;

use super::{
    Call, Drain,
    outcome::{DrainError, FailedDelivery},
    run,
};
use crate::{
    consumer::in_transaction::{KEPT, settle_in},
    delivery::{Delivery, settlement::Settlement},
    error::error_chain,
    executor::Execute,
    handler::{Failed, Handling, IntoOutcome, IntoVerdict, Outcome, Verdict, handle, shared},
    postgres::testing,
    queue::{IntoQueue, Readable},
    transaction::{HandlerTransaction, Transaction, UsedByHandler},
};

/// Runs a handler of [`run_in_transaction`](crate::Consumer::run_in_transaction) on the messages of a queue that are
/// ready, in a test's own transaction: what the handler does in its transaction is done in the test's, which sees it and
/// rolls it back.
///
/// # Shape
/// As [`drain`](super::drain), on a transaction of [`Store::begin`](crate::Store::begin). Each call of the handler has a
/// savepoint, which is rolled back if the handler fails, as its transaction is in production. It takes another connection
/// of the store's pool meanwhile.
///
/// # Errors
/// Those of [`drain`](super::drain). A handler that keeps its transaction takes the test's along; what then is in `tx` is
/// another one.
///
/// # Source
/// `savepoint` and those of [`drain`](super::drain).
///
/// # Example
/// ```no_run
/// use pgqrs::{Delivery, HandlerTransaction, Queue, testing};
///
/// const PAYMENTS: Queue<i64> = Queue::new("payments");
/// const RECEIPTS: Queue<i64> = Queue::new("receipts");
///
/// async fn pay(delivery: Delivery<i64>, mut tx: HandlerTransaction) -> pgqrs::Result<()> {
///     pgqrs::enqueue().message(delivery.payload()).to(RECEIPTS).execute(&mut tx).await?;
///     Ok(())
/// }
///
/// # async fn example(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
/// let mut tx = store.begin().await?;
/// pgqrs::enqueue().message(&7).to(PAYMENTS).execute(&mut tx).await?;
/// testing::drain_in_transaction(&mut tx, PAYMENTS, pay).await?;
/// testing::assert_enqueued!(tx, RECEIPTS, |order| *order == 7);
/// # Ok(())
/// # }
/// ```
pub fn drain_in_transaction<'c, Q, F, R, O>(
    tx: &'c mut Transaction,
    queue: Q,
    handler: F,
) -> Drain<'c>
where
    Q: IntoQueue<Carries: Readable>,
    F: Fn(Delivery<<Q::Carries as Readable>::Payload>, HandlerTransaction) -> R + Send + Sync + 'c,
    R: Handling<O> + Send + 'c,
    O: IntoOutcome,
{
    let queue = queue.into_name();
    Drain::new(move |settings| {
        Execute::new(async move {
            let call = InTransaction {
                tx,
                spare: None,
                handler,
            };
            run(call, queue.map_err(DrainError::Pgqrs)?, settings).await
        })
    })
}

/// A handler that works in the test's transaction.
struct InTransaction<'c, F> {
    tx: &'c mut Transaction,
    /// What is in the test's variable while the handler has its transaction.
    spare: Option<Transaction>,
    handler: F,
}

impl<P, F, R> Call<P> for InTransaction<'_, F>
where
    P: Send + Sync,
    F: Fn(Delivery<P>, HandlerTransaction) -> R + Send + Sync,
    R: Future<Output: IntoOutcome> + Send,
{
    fn connection(&mut self) -> &mut PgConnection {
        self.tx
    }

    async fn call(&mut self, delivery: Delivery<P>) -> Result<Verdict, DrainError> {
        let lease = Arc::clone(delivery.lease());
        let kept = FailedDelivery {
            id: delivery.id(),
            attempt: delivery.attempt(),
            json: delivery.raw_payload().to_owned(),
            error: KEPT.to_owned(),
        };
        lease.set_in_transaction();
        testing::begin_savepoint(self.tx)
            .await
            .map_err(DrainError::Pgqrs)?;
        let spare = match self.spare.take() {
            Some(spare) => spare,
            None => self.tx.begin_another().await.map_err(DrainError::Pgqrs)?,
        };
        let (used, guard) = UsedByHandler::new(mem::replace(self.tx, spare)).await;
        // If this is dropped, the handler is dropped before it.
        let mut back = PutBack {
            tx: self.tx,
            spare: &mut self.spare,
            used: Some(used),
        };
        let handling = async { (self.handler)(delivery, guard).await.into_verdict() };
        let verdict = handle(handling, None, pending()).await;
        if !back.put_back() {
            // Its message is out of reach, as the rest of the test's transaction.
            return Err(DrainError::Failed(kept));
        }
        drop(back);
        let settlement = match &verdict {
            Verdict::Returned(Outcome::Done) => Settlement::acknowledgement(lease.subject()),
            Verdict::Returned(Outcome::Archive) => Settlement::Archive,
            _ => {
                testing::roll_back_to_savepoint(self.tx)
                    .await
                    .map_err(DrainError::Pgqrs)?;
                lease.unsettled();
                return Ok(verdict);
            }
        };
        match settle_in(self.tx, &lease, settlement).await {
            Ok(()) => {
                testing::release_savepoint(self.tx)
                    .await
                    .map_err(DrainError::Pgqrs)?;
                Ok(verdict)
            }
            Err(error) => {
                testing::roll_back_to_savepoint(self.tx)
                    .await
                    .map_err(DrainError::Pgqrs)?;
                lease.unsettled();
                let text = error_chain(&error);
                Ok(Verdict::Failed(Failed::Returned(shared(&text))))
            }
        }
    }
}

/// Puts the test's transaction back into its variable, also if the drain is dropped.
struct PutBack<'a> {
    tx: &'a mut Transaction,
    spare: &'a mut Option<Transaction>,
    used: Option<UsedByHandler>,
}

impl PutBack<'_> {
    /// `false` if the handler has kept it.
    fn put_back(&mut self) -> bool {
        let Some(own) = self.used.take().and_then(UsedByHandler::into_inner) else {
            return false;
        };
        *self.spare = Some(mem::replace(self.tx, own));
        true
    }
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        self.put_back();
    }
}
