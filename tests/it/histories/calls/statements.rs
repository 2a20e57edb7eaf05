//! Sends and settlements, on whatever they are executed.

use super::*;

/// Messages to be sent, on whatever it is.
pub(super) struct Sending<'a> {
    pub(super) envelope: Envelope,
    pub(super) producer: Option<&'a Producer>,
    pub(super) payloads: &'a [usize],
}

impl Sending<'_> {
    pub(super) async fn execute<E: Executor>(&self, on: E) -> pgqrs::Result<Enqueued> {
        let Envelope {
            queue,
            priority,
            delayed,
            ..
        } = self.envelope;
        let enqueue = pgqrs::enqueue()
            .messages(self.payloads)
            .priority(priority)
            .headers(self.envelope.headers());
        match (self.producer, delayed) {
            (Some(producer), true) => enqueue.worker(producer).delay(LONG).execute(on).await,
            (Some(producer), false) => enqueue.worker(producer).execute(on).await,
            (None, true) => enqueue.to(queue).delay(LONG).execute(on).await,
            (None, false) => enqueue.to(queue).execute(on).await,
        }
    }
}

pub(super) async fn settle<E: Executor>(
    delivery: Delivery<Value, Unchecked>,
    settlement: Settlement,
    on: E,
) -> Result<(), Unsettled<Value, Unchecked>> {
    match settlement {
        Settlement::Ack => delivery.try_ack(on).await,
        Settlement::Archive => delivery.try_archive(on).await,
        Settlement::Nack => delivery.try_nack(on).await,
        Settlement::RetryIn(Wait::None) => delivery.try_retry_in(Duration::ZERO, on).await,
        Settlement::RetryIn(Wait::Long) => delivery.try_retry_in(LONG, on).await,
        Settlement::Later(Wait::None) => delivery.try_later(Duration::ZERO, on).await,
        Settlement::Later(Wait::Long) => delivery.try_later(LONG, on).await,
        Settlement::SlowDown(Wait::None) => delivery.try_slow_down(Duration::ZERO, on).await,
        Settlement::SlowDown(Wait::Long) => delivery.try_slow_down(LONG, on).await,
        Settlement::DeadLetter => delivery.try_dead_letter("a reason", on).await,
    }
}

pub(super) async fn end(tx: Transaction<'static, Postgres>, commits: bool) -> pgqrs::Result<()> {
    if commits {
        tx.commit().await?
    } else {
        tx.rollback().await?
    }
    Ok(())
}
