#![doc = include_str!("../README.md")]

mod admin;
mod delivery;
mod dequeue;
mod enqueue;
mod error;
mod message;
mod postgres;
mod queue;
mod store;
mod telemetry;

/// The states of the builders, for the documentation: they can't be built outside this crate.
pub mod state {
    pub use crate::{
        dequeue::{FromQueue, NoSource, SourceIsSet, SourceNotSet},
        enqueue::{
            AtOnce, FitsInto, Later, MessageIsSet, MessageNotSet, Messages, NoMessage, NoTarget,
            Takes, TargetIsSet, TargetNotSet, TimeNotSet, ToQueue,
        },
    };
}

pub use crate::{
    admin::{Admin, admin},
    delivery::{Delivery, Unsettled},
    dequeue::{Dequeue, dequeue},
    enqueue::{Enqueue, IntoDelay, enqueue},
    error::{Error, Result},
    message::{Enqueued, MessageId, Priority},
    postgres::{
        queues::{QueueInfo, QueueStats},
        schema::{MIGRATOR, SchemaVersion},
    },
    queue::{Carries, IntoQueue, InvalidQueueName, Queue, QueueName, Readable, Untyped},
    store::{ConnectOptions, Execute, Executor, Store, connect, connect_with},
};
