//! The names of what this crate reports, with what adapters have to know of each metric. Those of spans and events are
//! beside them.

/// The target of all spans and events.
pub(super) const TARGET: &str = "pgqrs";

/// What a metric is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    /// With the upper bounds of its buckets, which the facade doesn't take.
    Histogram(&'static [f64]),
    Gauge,
}

/// A metric, as its adapters declare it.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) id: Id,
    pub(crate) name: &'static str,
    /// As UCUM has it.
    pub(crate) unit: &'static str,
    pub(crate) kind: Kind,
    pub(crate) description: &'static str,
    /// The attribute that names what it is about.
    pub(crate) subject: &'static str,
    /// The attribute of a measurement's `label`.
    pub(crate) label: &'static str,
}

/// Those that the conventions recommend for operations.
const SECONDS: Kind = Kind::Histogram(&[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
]);
/// A message can wait for hours.
const LONG_SECONDS: Kind = Kind::Histogram(&[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
    3_600.0, 21_600.0, 86_400.0,
]);
const SIZES: Kind = Kind::Histogram(&[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0,
]);

const QUEUE: &str = "messaging.destination.name";
const OPERATION: &str = "messaging.operation.name";
const STATE: &str = "db.client.connection.state";
const MESSAGE_STATE: &str = "pgqrs.message.state";
const POOL: &str = "db.client.connection.pool.name";
/// No such attribute.
const NONE: &str = "";

/// Which metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    OperationDuration,
    SentMessages,
    ConsumedMessages,
    ProcessDuration,
    WaitDuration,
    Retries,
    Snoozes,
    Undecodable,
    DeadLetters,
    Expired,
    Redeliveries,
    LeasesLost,
    Cancellations,
    Pruned,
    EmptyClaims,
    StatementMessages,
    HandlersRunning,
    Prefetched,
    Writers,
    Connections,
    MaxConnections,
    ServerAway,
    QueueMessages,
    OldestReadyAge,
    StoppedGroups,
    HorizonAge,
    HorizonTransactions,
    ObservationAge,
    MalformedTraceContexts,
    #[cfg(feature = "schedules")]
    SchedulesFired,
    #[cfg(feature = "schedules")]
    SchedulesMissed,
    #[cfg(feature = "schedules")]
    ScheduleLateness,
    Dropped,
}

impl Metric {
    const fn new(
        id: Id,
        kind: Kind,
        name: &'static str,
        unit: &'static str,
        subject: &'static str,
        label: &'static str,
        description: &'static str,
    ) -> Self {
        Self {
            id,
            name,
            unit,
            kind,
            description,
            subject,
            label,
        }
    }
}

/// All of them.
pub(crate) static METRICS: &[Metric] = &[
    Metric::new(
        Id::OperationDuration,
        SECONDS,
        "messaging.client.operation.duration",
        "s",
        QUEUE,
        OPERATION,
        "Duration of sends, claims and settlements.",
    ),
    Metric::new(
        Id::SentMessages,
        Kind::Counter,
        "messaging.client.sent.messages",
        "{message}",
        QUEUE,
        OPERATION,
        "Messages that were sent, or failed to be.",
    ),
    Metric::new(
        Id::ConsumedMessages,
        Kind::Counter,
        "messaging.client.consumed.messages",
        "{message}",
        QUEUE,
        OPERATION,
        "Messages that handlers were called with, or that dequeues returned.",
    ),
    Metric::new(
        Id::ProcessDuration,
        SECONDS,
        "messaging.process.duration",
        "s",
        QUEUE,
        OPERATION,
        "Duration of handlers.",
    ),
    Metric::new(
        Id::WaitDuration,
        LONG_SECONDS,
        "pgqrs.message.wait.duration",
        "s",
        QUEUE,
        NONE,
        "Time from when a message was ready until its handler started.",
    ),
    Metric::new(
        Id::Retries,
        Kind::Counter,
        "pgqrs.message.retries",
        "{message}",
        QUEUE,
        NONE,
        "Failed attempts that are followed by another.",
    ),
    Metric::new(
        Id::Snoozes,
        Kind::Counter,
        "pgqrs.message.snoozes",
        "{message}",
        QUEUE,
        NONE,
        "Deliveries that handlers put off, without using an attempt.",
    ),
    Metric::new(
        Id::Undecodable,
        Kind::Counter,
        "pgqrs.message.undecodable",
        "{message}",
        QUEUE,
        NONE,
        "Deliveries whose payload didn't decode.",
    ),
    Metric::new(
        Id::DeadLetters,
        Kind::Counter,
        "pgqrs.message.dead_letters",
        "{message}",
        QUEUE,
        NONE,
        "Messages that were moved to the dead letters.",
    ),
    Metric::new(
        Id::Expired,
        Kind::Counter,
        "pgqrs.message.expired",
        "{message}",
        QUEUE,
        NONE,
        "Messages that expired before they were started: dead letters, or dropped.",
    ),
    Metric::new(
        Id::Redeliveries,
        Kind::Counter,
        "pgqrs.message.redeliveries",
        "{message}",
        QUEUE,
        NONE,
        "Messages that were delivered again because the lease of the previous delivery ran out.",
    ),
    Metric::new(
        Id::LeasesLost,
        Kind::Counter,
        "pgqrs.lease.lost",
        "{lease}",
        QUEUE,
        NONE,
        "Deliveries whose lease was lost before they were settled.",
    ),
    Metric::new(
        Id::Cancellations,
        Kind::Counter,
        "pgqrs.message.cancellations",
        "{message}",
        QUEUE,
        NONE,
        "Deliveries whose message was cancelled before it was settled.",
    ),
    Metric::new(
        Id::Pruned,
        Kind::Counter,
        "pgqrs.message.pruned",
        "{message}",
        QUEUE,
        NONE,
        "Archived messages and dead letters that were deleted since the queue doesn't keep them longer.",
    ),
    Metric::new(
        Id::EmptyClaims,
        Kind::Counter,
        "pgqrs.claim.empty",
        "{claim}",
        QUEUE,
        NONE,
        "Claims that found no message.",
    ),
    Metric::new(
        Id::StatementMessages,
        SIZES,
        "pgqrs.statement.messages",
        "{message}",
        NONE,
        OPERATION,
        "Messages that one statement sent, claimed or settled.",
    ),
    Metric::new(
        Id::HandlersRunning,
        Kind::Gauge,
        "pgqrs.handlers.running",
        "{handler}",
        QUEUE,
        NONE,
        "Handlers at work.",
    ),
    Metric::new(
        Id::Prefetched,
        Kind::Gauge,
        "pgqrs.messages.prefetched",
        "{message}",
        QUEUE,
        NONE,
        "Messages that were claimed and wait for a handler.",
    ),
    Metric::new(
        Id::Writers,
        Kind::Gauge,
        "pgqrs.writers.active",
        "{writer}",
        POOL,
        NONE,
        "Statements of sends that are under way.",
    ),
    Metric::new(
        Id::Connections,
        Kind::Gauge,
        "db.client.connection.count",
        "{connection}",
        POOL,
        STATE,
        "Connections of the pool, used and idle.",
    ),
    Metric::new(
        Id::MaxConnections,
        Kind::Gauge,
        "db.client.connection.max",
        "{connection}",
        POOL,
        NONE,
        "Connections that the pool can have.",
    ),
    Metric::new(
        Id::ServerAway,
        Kind::Gauge,
        "pgqrs.server.away",
        "1",
        POOL,
        NONE,
        "1 while the server can't be reached, else 0.",
    ),
    Metric::new(
        Id::QueueMessages,
        Kind::Gauge,
        "pgqrs.queue.messages",
        "{message}",
        QUEUE,
        MESSAGE_STATE,
        "Messages that are ready, delayed, parked, leased or dead, as `store.observe(..)` has counted them.",
    ),
    Metric::new(
        Id::OldestReadyAge,
        Kind::Gauge,
        "pgqrs.queue.oldest_ready.age",
        "s",
        QUEUE,
        NONE,
        "How long the oldest ready message has been ready; 0 if none is.",
    ),
    Metric::new(
        Id::StoppedGroups,
        Kind::Gauge,
        "pgqrs.queue.groups.stopped",
        "{group}",
        QUEUE,
        NONE,
        "Groups that are stopped: their parked messages wait for an operator.",
    ),
    Metric::new(
        Id::HorizonAge,
        Kind::Gauge,
        "pgqrs.horizon.age",
        "s",
        POOL,
        NONE,
        "For how long the oldest transaction has been open that holds back vacuum; 0 if its time isn't known.",
    ),
    Metric::new(
        Id::HorizonTransactions,
        Kind::Gauge,
        "pgqrs.horizon.transactions",
        "{transaction}",
        POOL,
        NONE,
        "Transactions that have begun since the oldest snapshot that holds back vacuum.",
    ),
    Metric::new(
        Id::ObservationAge,
        Kind::Gauge,
        "pgqrs.observation.age",
        "s",
        POOL,
        NONE,
        "Time since the queues were read; it grows while they can't be, and their gauges stay as they were.",
    ),
    Metric::new(
        Id::MalformedTraceContexts,
        Kind::Counter,
        "pgqrs.trace_context.malformed",
        "{message}",
        QUEUE,
        NONE,
        "Deliveries whose `traceparent` is malformed, so that their spans don't follow from it.",
    ),
    #[cfg(feature = "schedules")]
    Metric::new(
        Id::SchedulesFired,
        Kind::Counter,
        "pgqrs.schedule.fired",
        "{message}",
        QUEUE,
        NONE,
        "Messages that schedules have sent.",
    ),
    #[cfg(feature = "schedules")]
    Metric::new(
        Id::SchedulesMissed,
        Kind::Counter,
        "pgqrs.schedule.missed",
        "{time}",
        QUEUE,
        NONE,
        "Times of schedules for which no message was sent, since none of the processes ran, or the server was away.",
    ),
    #[cfg(feature = "schedules")]
    Metric::new(
        Id::ScheduleLateness,
        LONG_SECONDS,
        "pgqrs.schedule.lateness",
        "s",
        QUEUE,
        NONE,
        "How long after its time a schedule's message was sent.",
    ),
    Metric::new(
        Id::Dropped,
        Kind::Counter,
        "pgqrs.telemetry.dropped",
        "{measurement}",
        NONE,
        NONE,
        "Measurements that were dropped because the recorder was too slow.",
    ),
];
