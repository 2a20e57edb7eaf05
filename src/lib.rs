#![doc = include_str!("../README.md")]

mod admin;
mod board;
mod consumer;
mod delivery;
mod dequeue;
mod enqueue;
mod error;
mod handler;
mod heartbeat;
mod import;
mod lifecycle;
mod message;
mod parcel;
mod postgres;
mod producer;
mod queue;
mod retry;
mod run;
mod send;
mod settling;
mod store;
mod telemetry;
mod wake;
mod watermark;
mod worker;
mod writer;

// The states of the builders are public and not named here: they can be held, and neither built nor
// implemented by anybody else.
pub use crate::{
    admin::{Admin, admin},
    consumer::{Consumer, ConsumerBuilder, ConsumerHandle, consumer},
    delivery::{Delivery, Unsettled, UnsettledBatch, ack_all},
    dequeue::{Dequeue, dequeue},
    enqueue::{Enqueue, IntoDelay, Statement, enqueue},
    error::{Error, Result},
    handler::{IntoOutcome, Outcome},
    import::Import,
    lifecycle::{WorkerId, WorkerKind, WorkerStatus},
    message::{Enqueued, MessageId, Page, Priority},
    postgres::{
        archive::ArchivedMessage,
        dead_letters::DeadLetter,
        messages::QueuedMessage,
        queues::{QueueInfo, QueueOptions, QueueStats},
        schema::{MIGRATOR, SchemaVersion},
        workers::{HeldMessage, WorkerFilter, WorkerInfo},
    },
    producer::{Producer, ProducerBuilder, producer},
    queue::{Carries, IntoQueue, InvalidQueueName, Queue, QueueName, Readable, Untyped},
    retry::RetryPolicy,
    run::Run,
    settling::Report,
    store::{ConnectOptions, Execute, Executor, Store, connect, connect_with},
    worker::Worker,
};
