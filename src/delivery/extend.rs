//! Extending a delivery's lease.

use std::{sync::Arc, time::Duration};

use super::{Delivery, lease::check_lease};
use crate::{
    error::{Error, Result},
    executor::Execute,
    postgres::settle,
    telemetry,
};

impl<T, D> Delivery<T, D> {
    /// Sets the lease to end after `lease` from now, if the work takes longer than expected. A `lease` shorter than
    /// what is left shortens it.
    ///
    /// # Units
    /// From a millisecond to a day, by the database's clock.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::LeaseOutOfRange`]; connection errors.
    ///
    /// # Source
    /// `update pgqrs.messages set lease_until = … where … lease_token = …`
    pub fn extend(&self, lease: Duration) -> Execute<'_, Result<()>> {
        let (held, store) = (Arc::clone(&self.lease), self.store.clone());
        Execute::new(async move {
            check_lease(lease)?;
            let Some(store) = store else {
                return Ok(());
            };
            let extended = store
                .run(async |connection| settle::extend(connection, held.receipt(), lease).await)
                .await?;
            match extended {
                Some(until) => {
                    held.extended(until);
                    Ok(())
                }
                None => {
                    telemetry::lease_lost(held.subject(), "extend");
                    Err(Error::LeaseLost {
                        message: held.receipt().id,
                    })
                }
            }
        })
    }
}
