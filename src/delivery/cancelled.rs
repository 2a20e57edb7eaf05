//! Whether a delivery's message was cancelled.

use std::sync::Arc;

use super::Delivery;
use crate::executor::Execute;

impl<T, D> Delivery<T, D> {
    /// Waits until the message was cancelled by [`Admin::cancel`](crate::Admin::cancel), or deleted otherwise, so that
    /// the handler's work is not needed any more. For a handler that wants to stop by itself, before it is dropped after
    /// [`Run::cancel_grace`](crate::Run::cancel_grace); what it returns then has no effect on the message.
    ///
    /// The consumer is notified at once if it [listens](crate::Run::listen), and otherwise notices when it extends the
    /// lease. The future keeps nothing of the delivery borrowed. For a delivery that isn't one of a
    /// [run](crate::Consumer::run), it never becomes ready.
    ///
    /// # Example
    /// ```no_run
    /// # use pgqrs::Delivery;
    /// # async fn render(page: u32) {}
    /// async fn report(delivery: Delivery<u32>) -> pgqrs::Result<()> {
    ///     let cancelled = delivery.cancelled();
    ///     tokio::select! {
    ///         () = render(*delivery.payload()) => {}
    ///         () = cancelled => println!("{} is not needed any more", delivery.id()),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn cancelled(&self) -> Execute<'static, ()> {
        let lease = Arc::clone(&self.lease);
        Execute::new(async move { lease.cancelled().await })
    }

    /// Whether [`cancelled`](Self::cancelled) is ready: for handlers that block, and look every now and then.
    pub fn is_cancelled(&self) -> bool {
        self.lease.is_cancelled()
    }
}
