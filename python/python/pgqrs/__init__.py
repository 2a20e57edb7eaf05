"""A message queue in your own PostgreSQL.

Quick start::

    import pgqrs

    store = await pgqrs.connect("postgresql://localhost/mydb", install=True)
    await store.queue("tasks")
    producer = await store.producer("tasks")
    message = await producer.enqueue({"task": "send_email", "to": "user@example.com"})

- :func:`connect` gives a :class:`Store`; that gives a :class:`Producer` and a :class:`Consumer`.
- :class:`Queue` ties a queue to the type of its payloads, for type checkers and for consumers.
- :func:`enqueue_in` enqueues in your own transaction, with psycopg, asyncpg or SQLAlchemy.
- :mod:`pgqrs.sync` has the same names without ``await``.
- All errors are an :class:`Error`.
"""

from pgqrs._pgqrs import __version__
from pgqrs.admin import Admin
from pgqrs.consumer import Consumer, Handler
from pgqrs.delivery import Delivery
from pgqrs.errors import *  # noqa: F403
from pgqrs.errors import __all__ as _errors
from pgqrs.listings import (
    ArchivedMessage,
    DeadLetter,
    HeldMessage,
    QueuedMessage,
    QueueInfo,
    QueueStats,
    SchemaVersion,
    WorkerInfo,
    WorkerKind,
    WorkerStatus,
)
from pgqrs.outcome import Outcome, Report, RetryPolicy
from pgqrs.producer import Producer
from pgqrs.queue import Priority, Queue
from pgqrs.store import Store, connect
from pgqrs.transaction import enqueue_batch_in, enqueue_in

__all__ = [
    "Admin",
    "ArchivedMessage",
    "Consumer",
    "DeadLetter",
    "Delivery",
    "Handler",
    "HeldMessage",
    "Outcome",
    "Priority",
    "Producer",
    "Queue",
    "QueueInfo",
    "QueueStats",
    "QueuedMessage",
    "Report",
    "RetryPolicy",
    "SchemaVersion",
    "Store",
    "WorkerInfo",
    "WorkerKind",
    "WorkerStatus",
    "__version__",
    "connect",
    "enqueue_batch_in",
    "enqueue_in",
]
__all__ += _errors
