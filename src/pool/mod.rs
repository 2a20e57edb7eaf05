//! The connections of a store, and the tasks that keep one for the store's own needs: heartbeats, NOTIFY and LISTEN.

mod connection;
mod heartbeat;
mod notify;

pub(crate) use connection::{
    Connections, LONG_STATEMENT_TIMEOUT, PING_TIMEOUT, STATEMENT_TIMEOUT, StoreConnection, acquire,
    no_answer, pool_options, runtime_ended,
};
pub(crate) use heartbeat::{HeartbeatGuard, Heartbeats};
pub(crate) use notify::{Notifier, WakeSubscription};
