//! A handler that works in a transaction, in which its message is acknowledged.

use std::{future::Future, sync::Arc};

use tokio::time::timeout;

use crate::{
    delivery::{
        Delivery,
        lease::Lease,
        settlement::{Settlement, settle_lease},
    },
    error::Result,
    handler::{HandlerError, IntoOutcome, IntoVerdict, Outcome},
    pool::{STATEMENT_TIMEOUT, no_answer},
    postgres::settle,
    store::Store,
    transaction::{HandlerTransaction, Transaction, UsedByHandler},
};

pub(crate) const KEPT: &str =
    "the handler has kept its transaction, so nothing was committed; await what uses it";

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
    lease.set_in_transaction();
    let tx = answered(store.begin_for_handler(delivery.time_limit())).await;
    let (used, tx) = UsedByHandler::new(tx.map_err(HandlerError::of)?).await;
    let returned = handler(delivery, tx).await.into_verdict();
    let Some(mut tx) = used.into_inner() else {
        return Err(returned.err().unwrap_or_else(|| HandlerError::of(KEPT)));
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
    if let Err(error) = settle_in(&mut tx, &lease, settlement).await {
        let _ = answered(tx.rollback()).await;
        lease.unsettled();
        return Err(HandlerError::of(error));
    }
    if let Err(error) = answered(tx.commit()).await {
        if error.is_refusal() {
            lease.unsettled();
        }
        return Err(HandlerError::of(error));
    }
    returned
}

/// Settles the message, unless the handler has done so itself: which doesn't count if that was rolled back to a
/// savepoint. Fails if a statement of the transaction has failed, whose commit would roll back and return no error.
pub(crate) async fn settle_in(
    tx: &mut Transaction,
    lease: &Arc<Lease>,
    settlement: Settlement,
) -> Result<()> {
    if lease.is_settled() {
        let is_settled = settle::is_settled(tx, lease.receipt(), lease.settled_in());
        if answered(is_settled).await? {
            return Ok(());
        }
    }
    answered(settle_lease(lease, Ok(settlement), tx)).await
}

async fn answered<T>(statement: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = timeout(STATEMENT_TIMEOUT, statement).await;
    answer.unwrap_or_else(|_| Err(no_answer()))
}
