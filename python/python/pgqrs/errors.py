"""Errors: one class for each variant of the Rust crate's ``Error``, named after it.

All of them are :class:`Error`, and are in :mod:`pgqrs` too. Their fields are attributes. Nothing was stored if a call
raises one of them, unless the class says otherwise. A mistake in a call itself, such as a string instead of a number,
is a ``TypeError`` or a ``ValueError`` that names the argument.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AcquireTimeoutError",
    "AlreadySettledError",
    "ClosedError",
    "ConnectError",
    "ConnectionLostError",
    "DatabaseError",
    "DecodeError",
    "DelayTooLongError",
    "Error",
    "ForkedError",
    "GroupsNotEnabledError",
    "InvalidCronError",
    "InvalidHeaderError",
    "InvalidKeyError",
    "KeyHeldError",
    "InvalidHostnameError",
    "InvalidQueueNameError",
    "InvalidSettingError",
    "InvalidTransitionError",
    "LeaseLostError",
    "LeaseOutOfRangeError",
    "LimitOutOfRangeError",
    "MigrateError",
    "NotInstalledError",
    "NotSettledError",
    "NotStoredError",
    "OutcomeUnknownError",
    "PayloadTooDeepError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "QueueClosedError",
    "QueueExistsError",
    "QueueNotEmptyError",
    "QueueNotFoundError",
    "ScheduleNotFoundError",
    "ScheduleTakenError",
    "SchemaDistributedError",
    "SchemaNewerError",
    "SchemaOutdatedError",
    "SerializeError",
    "WorkerExistsError",
    "WorkerNotFoundError",
    "WorkerStoppedError",
    "WorkerSuspendedError",
]


class Error(Exception):
    """Why a call failed."""

    retryable: bool
    """Whether the same call can succeed if it is repeated: the reason is the connection, the load or another transaction."""

    _message: ClassVar[str | None] = None
    """The text that names Python's calls, if the Rust crate's names Rust's."""

    def __init__(self, text: str = "", *, retryable: bool = False, **fields: Any) -> None:
        self.retryable = retryable
        self._fields = fields
        for name, value in fields.items():
            setattr(self, name, value)
        if self._message is not None:
            text = self._message.format(**fields)
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        # As exceptions are passed between processes, with all of their fields.
        return _again, (type(self), str(self), self.retryable, self._fields)


def _again(kind: type[Error], text: str, retryable: bool, fields: dict[str, Any]) -> Error:
    return kind(text, retryable=retryable, **fields)


def _made(kind: str, text: str, retryable: bool, fields: dict[str, Any]) -> Error:
    """Called by the extension."""
    made: type[Error] = globals().get(f"{kind}Error", Error)
    return made(text, retryable=retryable, **fields)


class NotInstalledError(Error):
    """The database has no pgqrs schema."""

    _message = "pgqrs is not installed in this database; call `store.admin().install()`, or connect with `install=True`"


class SchemaOutdatedError(Error):
    """The database's schema is older than this version of the package."""

    _message = "the pgqrs schema of this database is older than this package; call `store.admin().install()`"


class SchemaNewerError(Error):
    """The database's schema is newer than this version of the package, so ``install`` leaves it alone."""

    installed: int
    """The version in the database."""
    compiled: int
    """The newest version that this build knows."""

    _message = (
        "the pgqrs schema of this database is version {installed}, and this version of the package knows up to "
        "{compiled}; upgrade the package"
    )


class SchemaDistributedError(Error):
    """Citus manages tables of the schema, and refuses most statements on them. The message has the remedy."""

    tables: list[str]
    """Their names, without the schema's."""


class MigrateError(Error):
    """A migration failed, or doesn't match what was applied before."""


class PermissionDeniedError(Error):
    """The role that is connected lacks a privilege. Nothing was changed."""

    role: str | None
    """The role that the store connects as; ``None`` on a connection of the caller's own."""

    object: str
    """The object that the privilege is missing on, such as ``pgqrs.messages``."""


class QueueNotFoundError(Error):
    """There is no queue of that name."""

    queue: str
    """The requested name."""

    _message = 'queue `{queue}` does not exist; create it with `store.queue("{queue}")`'


class QueueClosedError(Error):
    """The queue accepts no messages: it was closed."""

    queue: str
    """The queue that the messages were sent to."""

    _message = 'queue `{queue}` is closed; `store.admin().reopen_queue("{queue}")` reopens it'


class QueueExistsError(Error):
    """There is a queue of that name already."""

    queue: str
    """The name that is taken."""

    _message = 'queue `{queue}` exists already; `store.queue("{queue}")` returns it'


class QueueNotEmptyError(Error):
    """A queue that holds messages can't be deleted."""

    queue: str
    """The queue that was to be deleted."""
    messages: int
    """How many messages it holds: ready, delayed and leased."""

    _message = 'queue `{queue}` still holds {messages} messages; empty it with `store.admin().purge_queue("{queue}")` first'


class WorkerExistsError(Error):
    """A worker of this kind, host, port and queue is running."""

    kind: str
    """What it does: ``producer`` or ``consumer``."""
    hostname: str
    """Its host."""
    port: int
    """Its port."""
    queue: str
    """Its queue."""
    last_heartbeat: float
    """How long ago its last heartbeat was, in seconds, by the database's clock."""
    crashed_after: float
    """How long after its last heartbeat it counts as crashed, in seconds, and its identity is free."""

    _message = (
        "a {kind} `{hostname}:{port}` for queue `{queue}` is registered already: its last heartbeat was "
        "{last_heartbeat:.1f} s ago, and it counts as crashed after {crashed_after:.1f} s; wait for that, replace it "
        "with `replace=True`, or choose another port"
    )


class WorkerNotFoundError(Error):
    """There is no such worker."""

    worker: int
    """The requested id."""


class WorkerSuspendedError(Error):
    """The worker is suspended, so its enqueues and dequeues are refused."""

    worker: int
    """The worker."""

    _message = "worker {worker} is suspended; resume it with `store.admin().resume_worker({worker})`"


class WorkerStoppedError(Error):
    """The worker was stopped, removed, or taken over by another after it had missed its heartbeats."""

    worker: int
    """The worker."""


class InvalidTransitionError(Error):
    """The worker can't make this transition from its current state."""

    worker: int
    """The worker."""
    current: str
    """Its current state."""
    wanted: str
    """The requested state."""


class InvalidHostnameError(Error):
    """A worker's host name is invalid."""

    hostname: str
    """The string that was refused."""


class InvalidSettingError(Error):
    """A setting is out of its range."""

    setting: str
    """Its name."""
    value: str
    """What it was set to."""
    expected: str
    """The allowed values."""


class InvalidCronError(Error):
    """A cron expression is invalid, or never fires."""

    expression: str
    """The expression that was refused."""


class ScheduleNotFoundError(Error):
    """There is no schedule of that name."""

    schedule: str
    """The name that was asked for."""

    _message = "there is no schedule {schedule!r}; `store.admin().schedules()` lists those that there are"


class ScheduleTakenError(Error):
    """There is a schedule of that name that belongs to another owner. Nothing was changed."""

    schedule: str
    """The name that is taken."""
    owner: str | None
    """The owner that it belongs to."""

    _message = (
        "schedule {schedule!r} belongs to another owner, {owner!r}; choose another name, or delete that one with "
        "`store.admin().delete_schedule({schedule!r})`"
    )


class InvalidHeaderError(Error):
    """A header's name or value is invalid, or an enqueue's headers are too large together."""

    name: str
    """The name of the header that was refused."""


class InvalidKeyError(Error):
    """A message's key can't be stored. Nothing was sent."""

    index: int
    """Its place in the batch, from 0."""
    problem: str
    """What is wrong with it."""


class KeyHeldError(Error):
    """Another open transaction has stored the same key, and was waited for in vain. The call can be retried."""

    queue: str
    """The queue."""


class GroupsNotEnabledError(Error):
    """The queue takes no messages of groups: ``admin().configure_queue(queue, groups_at_once=1)`` has it take them."""

    queue: str
    """The queue."""


class InvalidQueueNameError(Error):
    """A queue's name is invalid."""

    name: str
    """The string that was refused."""


class SerializeError(Error):
    """A payload can't be represented in JSON. Nothing was sent."""

    index: int
    """Its place in the batch, from 0."""
    path: str
    """Where in the payload it is, as in ``payload.items[3].price``."""
    reason: str
    """What is wrong with it."""

    _message = "{path}: {reason}"


class PayloadTooLargeError(Error):
    """A payload takes more bytes as JSON than the store accepts."""

    index: int
    """Its place in the batch, from 0."""
    size: int
    """Its size as JSON, in bytes."""
    limit: int
    """The most that is accepted, in bytes."""

    _message = (
        "payload {index} has {size} bytes, over the limit of {limit}; store it elsewhere and enqueue a reference, "
        "or connect with a higher `payload_limit`"
    )


class PayloadTooDeepError(Error):
    """A payload is nested more deeply than JSON parsers read back, or contains itself."""

    index: int
    """Its place in the batch, from 0."""
    limit: int
    """The deepest nesting that is accepted."""

    _message = "payload {index} is nested more than {limit} levels deep, or contains itself; flatten it"


class DecodeError(Error):
    """A payload doesn't have the shape of the type that its queue carries."""

    message: int
    """The message."""
    path: str
    """Where in the payload it is."""
    reason: str
    """What is wrong there."""

    _message = "message {message}: {path}: {reason}"


class DelayTooLongError(Error):
    """A delay beyond what PostgreSQL's ``timestamptz`` can hold."""

    delay: float
    """The requested delay, in seconds."""
    limit: float
    """The longest one, in seconds."""

    _message = "a delay of {delay:g} s is beyond the longest one, {limit:g} s"


class LimitOutOfRangeError(Error):
    """The limit is zero, or higher than one statement should read."""

    limit: int
    """The requested limit."""
    highest: int
    """The highest one."""


class LeaseOutOfRangeError(Error):
    """A lease that is over at once, or that would hide a crashed consumer's messages for too long."""

    lease: float
    """The requested lease, in seconds."""
    shortest: float
    """The shortest one, in seconds."""
    longest: float
    """The longest one, in seconds."""

    _message = "a lease lasts {shortest:g} to {longest:g} s, not {lease:g}; extend it if work takes longer"


class LeaseLostError(Error):
    """The delivery no longer holds its message: the lease ran out, or the message is gone. Nothing was changed."""

    message: int
    """The message."""


class AcquireTimeoutError(Error):
    """All connections were in use, or no new one could be opened, for ``acquire_timeout``."""

    after: float
    """How long the call waited, in seconds."""

    _message = (
        "no connection to PostgreSQL was available within {after:.3g} s; check that the server runs and can be reached, or, if "
        "all connections are in use, raise `max_connections` or `acquire_timeout` in `pgqrs.connect(..)`"
    )


class ClosedError(Error):
    """The store was closed."""

    _message = "the store is closed; connect again with `pgqrs.connect(..)`"


class ConnectError(Error):
    """The server was not reached, or it refused the login."""

    sqlstate: str | None
    """PostgreSQL's code for the reason, if it came from PostgreSQL."""


class ConnectionLostError(Error):
    """The connection broke during the call. A statement whose answer was lost may or may not have taken effect."""


class NotStoredError(Error):
    """A send was retried for ``retry_for`` without success. Nothing was stored, and nothing will be."""

    after: float
    """How long it was retried, in seconds."""

    _message = (
        "nothing was stored: every attempt failed, for {after:.3g} s; check that the server runs, or raise `retry_for` in "
        "`pgqrs.connect(..)` if it takes longer to restart"
    )


class OutcomeUnknownError(Error):
    """The time for a send ran out before its outcome was known: the messages are stored once, or they never will be."""

    ids: list[int]
    """The ids that the messages have if they are stored, in their order."""

    _message = (
        "it is not known whether messages were stored: the server could not be queried in time; look for the ids {ids}, or "
        "raise `retry_for` in `pgqrs.connect(..)`"
    )


class DatabaseError(Error):
    """PostgreSQL refused the statement for a reason that has no class of its own."""

    sqlstate: str | None
    """PostgreSQL's code for the reason."""


class ForkedError(Error):
    """The store was connected before ``fork``, and is used in the child. Only the parent can use it."""

    connected_in: int
    """The process that connected."""

    _message = "this store was connected in process {connected_in}, before a fork; connect again in this one"


class AlreadySettledError(Error):
    """The delivery was settled before, or is being settled."""

    message: int
    """The message."""

    _message = "message {message} is settled already, or is being settled"


class NotSettledError(Error):
    """The next delivery was requested while the last one isn't settled, and only one is delivered at a time."""

    message: int
    """The message that waits."""

    _message = (
        "message {message} is not settled, and only one is delivered at a time; call `delivery.ack()` or "
        "another of its verbs, or iterate over `consumer.deliveries(concurrency=..)`"
    )
