#![doc = include_str!("../README.md")]

mod admin;
mod consumer;
mod delivery;
mod dequeue;
mod enqueue;
mod error;
mod heartbeat;
mod lifecycle;
mod message;
mod postgres;
mod producer;
mod queue;
mod store;
mod telemetry;
mod worker;

/// The states of the builders, for the documentation: they can't be built outside this crate.
pub mod state {
    pub use crate::{
        dequeue::{FromQueue, NoSource, SourceIsSet, SourceNotSet},
        enqueue::{
            AtOnce, ByWorker, FitsInto, Later, MessageIsSet, MessageNotSet, Messages, NoMessage,
            NoTarget, Takes, TargetIsSet, TargetNotSet, TimeNotSet, ToQueue,
        },
        worker::{CanDequeue, CanEnqueue, Receives, Sends},
    };
}

pub use crate::{
    admin::{Admin, admin},
    consumer::{Consumer, ConsumerBuilder, consumer},
    delivery::{Delivery, Unsettled},
    dequeue::{Dequeue, dequeue},
    enqueue::{Enqueue, IntoDelay, enqueue},
    error::{Error, Result},
    lifecycle::{WorkerId, WorkerKind, WorkerStatus},
    message::{Enqueued, MessageId, Priority},
    postgres::{
        queues::{QueueInfo, QueueStats},
        schema::{MIGRATOR, SchemaVersion},
        workers::{HeldMessage, WorkerFilter, WorkerInfo},
    },
    producer::{Producer, ProducerBuilder, producer},
    queue::{Carries, IntoQueue, InvalidQueueName, Queue, QueueName, Readable, Untyped},
    store::{ConnectOptions, Execute, Executor, Store, connect, connect_with},
    worker::Worker,
};
