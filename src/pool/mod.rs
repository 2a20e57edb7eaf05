//! The connections of a store, and the tasks that keep one for the store's own needs: heartbeats, NOTIFY and LISTEN.

mod connection;
mod heartbeat;
mod hosts;
mod notify;
mod search;
mod server;

pub(crate) use connection::{
    Connections, LONG_STATEMENT_TIMEOUT, STATEMENT_TIMEOUT, StoreConnection, acquire, pool_options,
    pool_options_for,
};
pub(crate) use heartbeat::{HeartbeatGuard, Heartbeats};
pub(crate) use hosts::{Candidate, Hosts, SessionAttributes, first_suitable};
pub(crate) use notify::{CANCELLED, Notifier, WakeSubscription};
pub(crate) use server::{PING_TIMEOUT, no_answer, runtime_ended, server_name};
