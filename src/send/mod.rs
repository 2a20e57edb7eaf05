//! Sends through a store. Sends that wait at the same time share one statement, and each message is stored exactly
//! once, whatever fails on the way. [`send`] is the only entry point.

mod batch;
mod batcher;
mod ids;
mod options;
mod pending;
mod rejection;
mod writer;

use std::sync::Arc;

use tokio::time::Instant;

pub(crate) use batcher::Batcher;
pub(crate) use options::SendOptions;
pub(crate) use writer::Writer;

use crate::{
    error::Result,
    message::{Envelope, NewMessage},
    pool::runtime_ended,
    postgres::keyed::KEY_TIMEOUT,
    sent::Enqueued,
};
use batcher::tasks::{DirectSend, WriterTask};
use pending::PendingSend;

/// Sends messages of one envelope, and waits until they are stored.
pub(crate) async fn send(
    batcher: &Arc<Batcher>,
    envelope: Envelope,
    messages: Vec<NewMessage>,
) -> Result<Enqueued> {
    let started = Instant::now();
    let room = batcher.room(&messages).await?;
    let retry_for = batcher.options().retry_for;
    let (pending, reply) = PendingSend::new(envelope, messages, started, retry_for, room);
    if let Some((direct, mut writer)) = DirectSend::begin(batcher, pending.is_keyed()) {
        // Boxed: the future is large, and would be moved along with each send that isn't direct.
        let stored = Box::pin(async {
            let mut group = vec![pending];
            loop {
                let delivered = writer.deliver(batcher, group, KEY_TIMEOUT).await;
                group = delivered.held;
                if group.is_empty() {
                    return delivered.stored;
                }
            }
        });
        let stored = stored.await;
        direct.finish(writer, stored);
    } else if let Some(task) = WriterTask::for_pending(batcher, pending) {
        tokio::spawn(task.run());
    }
    // Every send is answered, on drop if nothing else.
    reply.await.unwrap_or_else(|_| Err(runtime_ended()))
}
