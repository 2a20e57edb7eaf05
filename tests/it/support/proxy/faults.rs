//! Faults that break a connection at any byte in either direction: drawn from a seed, or ordered for the connection
//! whose client sends next.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::Notify;

/// What happens to a connection, after a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// The client's bytes after these are lost, and the connection is cut.
    CutRequest,
    /// The server's bytes after these are lost, and the connection is cut.
    CutAnswer,
    /// The server's bytes after these are lost, but it executes the statement before the connection is cut.
    SwallowAnswer,
    /// Nothing passes in either direction any more, and the connection stays open.
    Stall,
    /// It takes longer.
    Delay,
}

/// One in this number of random faults is a stall, which takes longest to be noticed.
const STALLS: u32 = 40;

pub(super) struct Faults {
    random: Mutex<StdRng>,
    is_armed: AtomicBool,
    happened: AtomicUsize,
    order: Mutex<Order>,
    disarmed: Notify,
}

#[derive(Default)]
struct Order {
    fault: Option<(Fault, usize)>,
    /// How often an order was cancelled. A fault that was taken before doesn't happen afterwards.
    cancellations: u64,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            is_armed: AtomicBool::new(false),
            happened: AtomicUsize::new(0),
            order: Mutex::default(),
            disarmed: Notify::new(),
        }
    }

    pub(super) fn arm(&self, armed: bool) {
        self.is_armed.store(armed, Ordering::SeqCst);
        self.disarmed.notify_waiters();
    }

    pub(super) async fn disarmed(&self) {
        self.disarmed.notified().await;
    }

    pub(super) fn order(&self, fault: Fault, bytes: usize) {
        self.order.lock().expect("not poisoned").fault = Some((fault, bytes));
    }

    pub(super) fn cancel_order(&self) {
        let mut order = self.order.lock().expect("not poisoned");
        order.fault = None;
        order.cancellations += 1;
    }

    pub(super) fn happened(&self) -> usize {
        self.happened.load(Ordering::SeqCst)
    }

    /// The next fault of a connection, which happens if faults are armed.
    pub(super) fn draw(&self) -> NextFault {
        let mut random = self.random.lock().expect("not poisoned");
        let kind = match random.random_range(0..STALLS) {
            0 => Fault::Stall,
            n => [
                Fault::CutRequest,
                Fault::CutAnswer,
                Fault::SwallowAnswer,
                Fault::SwallowAnswer,
                Fault::Delay,
            ][n as usize % 5],
        };
        NextFault {
            kind,
            // Small ones interrupt the login, large ones a statement.
            bytes_left: 1 << random.random_range(6..15_u32),
            ordered: None,
        }
    }
}

pub(super) struct NextFault {
    kind: Fault,
    bytes_left: usize,
    /// If it was ordered, the number of cancellations before.
    ordered: Option<u64>,
}

impl NextFault {
    pub(super) fn kind(&self) -> Fault {
        self.kind
    }

    /// Counts the bytes that were read. If the fault happens among them, returns how many of them still pass.
    pub(super) fn strikes_at(
        &mut self,
        faults: &Faults,
        from_client: bool,
        read: usize,
    ) -> Option<usize> {
        let cancellations = {
            let mut order = faults.order.lock().expect("not poisoned");
            if from_client && let Some((kind, bytes_left)) = order.fault.take() {
                *self = Self {
                    kind,
                    bytes_left,
                    ordered: Some(order.cancellations),
                };
            }
            order.cancellations
        };
        let counts = match self.kind {
            Fault::CutRequest => from_client,
            Fault::CutAnswer | Fault::SwallowAnswer => !from_client,
            Fault::Stall | Fault::Delay => true,
        };
        if !counts {
            return None;
        }
        let is_due = faults.is_armed.load(Ordering::SeqCst) || self.ordered == Some(cancellations);
        if is_due && self.bytes_left < read {
            faults.happened.fetch_add(1, Ordering::SeqCst);
            return Some(self.bytes_left);
        }
        self.bytes_left = self.bytes_left.saturating_sub(read);
        None
    }
}
