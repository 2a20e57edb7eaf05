//! [connect_options]: crate::ConnectOptions
//! [enqueue]: crate::enqueue()
//! [queue]: crate::Queue
//! [begin]: crate::Store::begin
//! [statement]: crate::Statement
//! [import]: crate::Import
//! [headers]: crate::Headers
//! [consumer]: crate::consumer()
//! [run]: crate::Run
//! [outcome]: crate::Outcome
//! [dequeue]: crate::dequeue()
//! [delivery]: crate::Delivery
//! [producer]: crate::producer()
//! [worker_trait]: crate::Worker
//! [admin]: crate::admin()
//! [error]: crate::Error
//! [python]: https://docs.rs/crate/pgqrs/latest/source/docs/python.md
//! [quickstart]: https://docs.rs/crate/pgqrs/latest/source/examples/quickstart.rs
//! [service]: https://docs.rs/crate/pgqrs/latest/source/examples/service.rs
//! [worker]: https://docs.rs/crate/pgqrs/latest/source/examples/worker.rs
//! [transactional_handler]: https://docs.rs/crate/pgqrs/latest/source/examples/transactional_handler.rs
//! [tower]: https://docs.rs/crate/pgqrs/latest/source/examples/tower.rs
//! [payload_evolution]: https://docs.rs/crate/pgqrs/latest/source/examples/payload_evolution.rs
//! [rolling_deploy]: https://docs.rs/crate/pgqrs/latest/source/examples/rolling_deploy.rs
//! [managed_producer]: https://docs.rs/crate/pgqrs/latest/source/examples/managed_producer.rs
//! [observed_worker]: https://docs.rs/crate/pgqrs/latest/source/examples/observed_worker.rs
//! [drivers]: crate::Statement
//! [first-steps]: crate::guide::first_steps
//! [sending]: crate::guide::sending
//! [consumers]: crate::guide::consumers
//! [idempotent]: crate::guide::idempotent_handlers
//! [security]: crate::guide::security
//! [poolers]: crate::guide::poolers
//! [upgrading]: crate::guide::upgrading
//! [coming-from]: https://docs.rs/pgqrs/latest/pgqrs/guide/coming_from/
//! [how-it-works]: crate::guide::how_it_works
//! [names]: crate::guide::names
//! [compile-errors]: crate::guide::compile_errors
//! [operating]: crate::guide::operating
//! [page]: crate::guide::page
//! [page_image]: https://docs.rs/crate/pgqrs/latest/source/docs/page.png
//! [queues]: crate::guide::queues
//! [rolling-deploys]: crate::guide::rolling_deploys
//! [schedules]: https://docs.rs/pgqrs/latest/pgqrs/guide/schedules/
//! [schedules_example]: https://docs.rs/crate/pgqrs/latest/source/examples/schedules.rs
//! [reliability]: crate::guide::reliability
//! [handlers]: crate::guide::handlers
//! [health]: crate::guide::health
//! [unique]: crate::guide::unique
//! [groups]: crate::guide::groups
//! [health_example]: https://docs.rs/crate/pgqrs/latest/source/examples/health.rs
//! [telemetry]: crate::guide::telemetry
//! [testing]: https://docs.rs/pgqrs/latest/pgqrs/guide/testing/
//! [tuning]: crate::guide::tuning
//! [benchmarks]: https://docs.rs/crate/pgqrs/latest/source/docs/benchmarks.md
//! [command]: crate::guide::command
// The first definition of a link counts: those above lead to docs.rs, those of the README to the repository.
#![doc = include_str!("../README.md")]

mod admin;
mod around;
mod chunk;
mod connect;
mod consume;
mod consumer;
mod count;
#[cfg(feature = "schedules")]
mod cron;
mod delivery;
mod dequeue;
mod enqueue;
mod error;
mod executor;
#[cfg(feature = "schedules")]
mod firing;
#[cfg(doc)]
pub mod guide;
mod handler;
mod headers;
mod health;
mod import;
mod key;
mod lifecycle;
mod message;
mod observe;
mod ok;
mod payload;
mod pool;
mod postgres;
mod producer;
mod queue;
mod report;
mod retry;
mod run;
#[cfg(feature = "schedules")]
mod schedule;
#[cfg(feature = "schedules")]
mod scheduler;
mod send;
mod sent;
mod signal;
mod statement;
mod store;
mod telemetry;
mod test_statement;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "schedules")]
mod times;
#[cfg(feature = "schedules")]
mod timing;
mod token;
mod trace_context;
mod transaction;
mod watermark;
mod worker;

#[doc(hidden)]
pub use crate::test_statement::TestStatement;
/// The version of chrono whose types this crate's API uses.
pub use chrono;
/// The version of sqlx whose pools, connections and transactions this crate's calls run on.
pub use sqlx;

/// The states of builders and the bounds in their signatures. They can be named, and neither built nor implemented
/// outside of this crate: a builder's own methods bring it from one state into the next.
pub mod state {
    #[cfg(feature = "schedules")]
    pub use crate::schedule::states::{
        ScheduleHasMessage, ScheduleHasNoMessage, ScheduleHasNoTime, ScheduleHasTime, Timed,
        Untimed, WithMessage, WithoutMessage,
    };
    pub use crate::{
        dequeue::{FromQueue, NoSource, SourceIsSet, SourceNotSet},
        enqueue::states::{
            AtOnce, BeforeMessages, ByWorker, ChangesWaiting, FitsGrouping, FitsInto, KeyNotSet,
            Keyed, KeyedBy, KeyedUntilClaimed, Keys, KeysOf, Later, MessageIsSet, MessageNotSet,
            Messages, NoKey, NoMessage, NoTarget, Takes, TakesKeys, TargetIsSet, TargetNotSet,
            TimeNotSet, ToQueue, WithoutKey,
        },
        handler::Handling,
        store::AsStore,
        worker::{CanDequeue, CanEnqueue, Receives, Sends},
    };
    pub use crate::{
        enqueue::batch::{GroupNotSet, InGroup, NoGroup},
        queue::{Grouped, Ungrouped},
    };
}

#[cfg(feature = "schedules")]
pub use crate::{
    admin::rows::{
        firings::{FiringOutcome, ScheduleFiring},
        schedules::ScheduleInfo,
    },
    cron::{Cron, InvalidCron},
    schedule::{
        Schedule, ScheduleChange, ScheduleSpec,
        owned::{OwnedSchedules, ScheduleChanges},
        schedule,
    },
    scheduler::Scheduler,
    timing::{Missed, ScheduleTime},
};
pub use crate::{
    admin::{
        Admin, admin,
        cancel::{CancelByKey, CancelMessage},
        rows::{
            ArchivedMessage, Cancelled, DeadLetter, Fillfactor, HeldMessage, QueueInfo,
            QueueOptions, QueueOptionsBuilder, QueueStats, QueuedMessage, Requeued, SchemaVersion,
            WorkerFilter, WorkerFilterBuilder, WorkerInfo,
            groups::{AfterDeadLetter, GroupInfo, GroupOrder, Groups, GroupsBuilder},
            rate::Rate,
            search::{Cursor, DeadLetterReason, Found, MessageInfo, MessagePlace, MessageState},
        },
        search::{SearchDeadLetters, SearchMessages},
        watch::QueueWatch,
    },
    around::Next,
    chunk::Chunk,
    connect::{ConnectOptions, ConnectOptionsBuilder, connect, connect_with, pool_options},
    consumer::{Consumer, ConsumerBuilder, consumer, handle::ConsumerHandle},
    count::Count,
    delivery::{
        Decoded, Delivery, Unchecked, Unsettled,
        ack_statement::AckStatement,
        batch::{UnsettledBatch, ack_all, try_ack_all},
    },
    dequeue::{Dequeue, dequeue},
    enqueue::{
        Enqueue,
        batch::{MessageBuilder, WaitingMessageBuilder, message},
        enqueue,
        states::IntoDelay,
    },
    error::{Error, Result},
    executor::{Execute, Executor},
    handler::{HandlerError, IntoOutcome, Outcome},
    headers::{Headers, InvalidHeader},
    health::{
        ConnectionUse, Finding, FindingKind, Health, HealthPart, Horizon, HorizonHolder,
        HorizonSource, QueueHealth, Severity, StaleWorker, TableHealth,
    },
    import::Import,
    lifecycle::{WorkerId, WorkerKind, WorkerStatus},
    message::{MessageId, Page, PageBuilder, Priority, When},
    observe::{Observation, Observer},
    ok::Ok,
    postgres::{grants::Access, schema::MIGRATOR},
    producer::{Producer, ProducerBuilder, producer},
    queue::{
        Carries, IntoQueue, InvalidQueueName, Queue, QueueName, Readable, Untyped,
        grouped::GroupedQueue,
    },
    report::Report,
    retry::{RetryPolicy, RetryPolicyBuilder, UndecodablePolicy, UndecodablePolicyBuilder},
    run::Run,
    sent::{Enqueued, Sent},
    signal::shutdown_signal,
    statement::Statement,
    store::Store,
    transaction::{HandlerTransaction, Transaction},
    worker::Worker,
};
