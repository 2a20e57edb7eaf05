//! A handler that works in a transaction, in which its message is acknowledged.

use std::{future::Future, sync::Arc};

use tokio::time::timeout;

use crate::{
    delivery::{
        Delivery,
        settlement::{Settlement, settle_lease},
    },
    error::Result,
    handler::{HandlerError, IntoOutcome, IntoVerdict, Outcome},
    pool::{STATEMENT_TIMEOUT, no_answer},
    store::Store,
    transaction::{HandlerTransaction, UsedByHandler},
};

/// Begins a transaction, calls the handler, acknowledges the message, and commits.
pub(super) async fn in_transaction<T, F, R>(
    store: Store,
    handler: &F,
    delivery: Delivery<T>,
) -> Result<Outcome, HandlerError>
where
    F: Fn(Delivery<T>, HandlerTransaction) -> R,
    R: Future<Output: IntoOutcome>,
{
    let lease = Arc::clone(delivery.lease());
    let tx = store.begin().await.map_err(HandlerError::of)?;
    let (used, tx) = UsedByHandler::new(tx).await;
    let returned = handler(delivery, tx).await.into_verdict();
    let Some(mut tx) = used.into_inner() else {
        let kept =
            "the handler has kept its transaction, so nothing was committed; await what uses it";
        return Err(returned.err().unwrap_or_else(|| HandlerError::of(kept)));
    };
    let settlement = match &returned {
        Ok(Outcome::Done) => Settlement::acknowledgement(lease.subject()),
        Ok(Outcome::Archive) => Settlement::Archive,
        // Before the loop settles it in another transaction.
        _ => {
            let _ = answered(tx.rollback()).await;
            return returned;
        }
    };
    // The handler may have settled it itself.
    if !lease.is_settled()
        && let Err(error) = answered(settle_lease(&lease, Ok(settlement), &mut tx)).await
    {
        let _ = answered(tx.rollback()).await;
        return Err(HandlerError::of(error));
    }
    answered(tx.commit()).await.map_err(HandlerError::of)?;
    returned
}

async fn answered<T>(statement: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = timeout(STATEMENT_TIMEOUT, statement).await;
    answer.unwrap_or_else(|_| Err(no_answer()))
}
