//! Handlers that block their threads take turns, so that the runtime reads its sockets and fires its timers in between.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Semaphore,
    task::{coop::consume_budget, yield_now},
    time::Instant,
};

/// A handler that runs for longer than this without an await has blocked its thread.
const MAX_TURN: Duration = Duration::from_millis(1);

/// The turns of one consumer's handlers.
pub(super) struct Turns {
    /// One permit for each thread of the runtime. If more handlers were waiting to be polled, a thread would poll them
    /// all before it looks at a socket.
    threads: Semaphore,
    /// Whether the last handler that began has blocked its thread.
    is_blocking: AtomicBool,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            threads: Semaphore::new(Handle::current().metrics().num_workers()),
            is_blocking: AtomicBool::new(false),
        }
    }

    /// Runs a handler. Its first poll, in which blocking code usually runs, waits for its turn while handlers block.
    pub(super) async fn run<T>(&self, handling: impl Future<Output = T>) -> T {
        let turn = if self.is_blocking.load(Ordering::Relaxed) {
            self.threads.acquire().await.ok()
        } else {
            None
        };
        let mut handling = pin!(handling);
        let began = Instant::now();
        let first = poll_fn(|context| Poll::Ready(handling.as_mut().poll(context))).await;
        let is_blocking = began.elapsed() > MAX_TURN;
        if self.is_blocking.load(Ordering::Relaxed) != is_blocking {
            self.is_blocking.store(is_blocking, Ordering::Relaxed);
        }
        if is_blocking {
            // Resumed only after the runtime has looked at its sockets and timers.
            yield_now().await;
        } else {
            consume_budget().await;
        }
        drop(turn);
        match first {
            Poll::Ready(output) => output,
            Poll::Pending => handling.await,
        }
    }
}
