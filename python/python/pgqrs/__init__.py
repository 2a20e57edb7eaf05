"""A message queue in your own PostgreSQL.

Send::

    import pgqrs

    async with pgqrs.connect("postgresql://localhost/mydb", install=True) as store:
        await store.queue("tasks")
        producer = await store.producer("tasks")
        message = await producer.enqueue({"task": "send_email", "to": "user@example.com"})

Handle, with ``python -m pgqrs worker module:app``::

    app = pgqrs.App("postgresql://localhost/mydb")
    EMAILS = pgqrs.Queue("emails", SendEmail)

    @app.handler(EMAILS, concurrency=8)
    async def send_email(delivery: pgqrs.Delivery[SendEmail]) -> None:
        await send(delivery.payload)

- :func:`enqueue_in` sends in your own transaction, with psycopg, asyncpg, SQLAlchemy or Django, and
  :meth:`Delivery.ack_in` acknowledges in it.
- :class:`Queue` ties a queue to the type of its payloads, for type checkers and for consumers.
- :class:`Consumer` receives in a program of your own, and :class:`Admin` looks after queues.
- :mod:`pgqrs.sync` has the same names without ``await``, :mod:`pgqrs.testing` what tests need, :mod:`pgqrs.django` and
  :mod:`pgqrs.fastapi` what those need.
- All errors are an :class:`Error`.
"""

from pgqrs._pgqrs import __version__
from pgqrs.admin import Admin
from pgqrs.app import App
from pgqrs.chunk import Chunk, ChunkMessage
from pgqrs.consumer import Around, ChunkAround, ChunkHandler, Consumer, Handler
from pgqrs.delivery import Delivery
from pgqrs.errors import (
    AcquireTimeoutError,
    AlreadySettledError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DatabaseError,
    DecodeError,
    DelayTooLongError,
    Error,
    ForkedError,
    GroupsNotEnabledError,
    InvalidCronError,
    InvalidHeaderError,
    InvalidHostnameError,
    InvalidKeyError,
    InvalidQueueNameError,
    InvalidSettingError,
    InvalidTransitionError,
    KeyHeldError,
    LeaseLostError,
    LeaseOutOfRangeError,
    LimitOutOfRangeError,
    MigrateError,
    NotInstalledError,
    NotSettledError,
    NotStoredError,
    OutcomeUnknownError,
    PayloadTooDeepError,
    PayloadTooLargeError,
    PermissionDeniedError,
    QueueClosedError,
    QueueExistsError,
    QueueNotEmptyError,
    QueueNotFoundError,
    ScheduleNotFoundError,
    ScheduleTakenError,
    SchemaDistributedError,
    SchemaNewerError,
    SchemaOutdatedError,
    SerializeError,
    WorkerExistsError,
    WorkerNotFoundError,
    WorkerStoppedError,
    WorkerSuspendedError,
)
from pgqrs.health import (
    ConnectionUse,
    Finding,
    FindingKind,
    Health,
    Horizon,
    HorizonHolder,
    Observation,
    QueueHealth,
    Severity,
    StaleWorker,
    TableHealth,
)
from pgqrs.listings import (
    ArchivedMessage,
    Count,
    DeadLetter,
    GroupInfo,
    GroupOrder,
    HeldMessage,
    QueuedMessage,
    QueueInfo,
    QueueStats,
    Rate,
    Requeued,
    SchemaVersion,
    WorkerInfo,
    WorkerKind,
    WorkerStatus,
)
from pgqrs.message import Message, OnDuplicate, Sent
from pgqrs.observer import Observer
from pgqrs.outcome import Outcome, Report, RetryPolicy, UndecodablePolicy
from pgqrs.producer import Producer
from pgqrs.queue import Priority, PriorityName, Queue
from pgqrs.schedule import (
    FiringOutcome,
    Missed,
    Schedule,
    ScheduleChange,
    ScheduleChanges,
    ScheduleFiring,
    ScheduleInfo,
    Scheduler,
)
from pgqrs.store import Store, connect
from pgqrs.transaction import enqueue_batch_in, enqueue_in

__all__ = [
    "AcquireTimeoutError",
    "Admin",
    "AlreadySettledError",
    "App",
    "ArchivedMessage",
    "Around",
    "Chunk",
    "ChunkAround",
    "ChunkHandler",
    "ChunkMessage",
    "ClosedError",
    "ConnectError",
    "ConnectionLostError",
    "ConnectionUse",
    "Consumer",
    "Count",
    "DatabaseError",
    "DeadLetter",
    "DecodeError",
    "DelayTooLongError",
    "Delivery",
    "Error",
    "Finding",
    "FindingKind",
    "FiringOutcome",
    "ForkedError",
    "GroupInfo",
    "GroupOrder",
    "GroupsNotEnabledError",
    "Handler",
    "Health",
    "HeldMessage",
    "Horizon",
    "HorizonHolder",
    "InvalidCronError",
    "InvalidHeaderError",
    "InvalidHostnameError",
    "InvalidKeyError",
    "InvalidQueueNameError",
    "InvalidSettingError",
    "InvalidTransitionError",
    "KeyHeldError",
    "LeaseLostError",
    "LeaseOutOfRangeError",
    "LimitOutOfRangeError",
    "Message",
    "MigrateError",
    "Missed",
    "NotInstalledError",
    "NotSettledError",
    "NotStoredError",
    "Observation",
    "Observer",
    "OnDuplicate",
    "Outcome",
    "OutcomeUnknownError",
    "PayloadTooDeepError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "Priority",
    "PriorityName",
    "Producer",
    "Queue",
    "QueueClosedError",
    "QueueExistsError",
    "QueueHealth",
    "QueueInfo",
    "QueueNotEmptyError",
    "QueueNotFoundError",
    "QueueStats",
    "QueuedMessage",
    "Rate",
    "Report",
    "Requeued",
    "RetryPolicy",
    "Schedule",
    "ScheduleChange",
    "ScheduleChanges",
    "ScheduleFiring",
    "ScheduleInfo",
    "ScheduleNotFoundError",
    "ScheduleTakenError",
    "Scheduler",
    "SchemaDistributedError",
    "SchemaNewerError",
    "SchemaOutdatedError",
    "SchemaVersion",
    "Sent",
    "SerializeError",
    "Severity",
    "StaleWorker",
    "Store",
    "TableHealth",
    "UndecodablePolicy",
    "WorkerExistsError",
    "WorkerInfo",
    "WorkerKind",
    "WorkerNotFoundError",
    "WorkerStatus",
    "WorkerStoppedError",
    "WorkerSuspendedError",
    "__version__",
    "connect",
    "enqueue_batch_in",
    "enqueue_in",
]
