# Made by generate_sync.py of pgqrs/producer.py.
"""Producers: registered senders to one queue."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Generic, TypeVar

from pgqrs import _arguments, _pgqrs
from pgqrs.listings import WorkerStatus
from pgqrs.queue import Priority, PriorityName, Queue

T = TypeVar("T")


class Producer(Generic[T]):
    """A registered sender to one queue; made by :meth:`pgqrs.sync.Store.producer`.

    Its messages carry its id, others see it in ``store.admin().workers()``, and an operator can suspend or stop
    it from another process, which the very next enqueue obeys. It sends a heartbeat every 15
    seconds. It ends with :meth:`shutdown`, at the end of an ``with``, or with its store.

    A send is stored exactly once, whatever breaks on the way: it is retried until its outcome is known,
    for the store's ``retry_for``. Sends that wait at the same time share a statement and its
    commit, so many tasks or threads that each send one are fast. A send that is cancelled before a statement took
    it is not made; afterwards it may be.
    """

    def __init__(self, native: _pgqrs.Producer, queue: Queue[T], hostname: str, port: int) -> None:
        self._native = native
        self._queue = queue
        self._hostname = hostname
        self._port = port

    @property
    def id(self) -> int:
        """The worker's id, recorded on its messages."""
        return self._native.id

    @property
    def queue(self) -> Queue[T]:
        """The queue that it sends to."""
        return self._queue

    @property
    def hostname(self) -> str:
        """The host that it was registered with."""
        return self._hostname

    @property
    def port(self) -> int:
        """The port that it was registered with; 0 is anonymous."""
        return self._port

    def enqueue(
        self,
        payload: T,
        *,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        priority: Priority | PriorityName = Priority.NORMAL,
    ) -> int:
        """Stores a message, and returns its id.

        The payload is a ``dict``, ``list``, ``str``, number, ``bool``, ``None``, a dataclass, a model of
        pydantic's, a member of an enumeration, or whatever is made of these. Integers of any size and a
        ``Decimal`` keep their digits.

        Nobody gets the message before ``delay`` has passed, in seconds or as a ``timedelta``, or before the time
        ``at``, an aware ``datetime``; both by the database's clock. A time in the past is now.

        Raises :class:`pgqrs.SerializeError`, which names where in the payload something can't be represented in JSON,
        :class:`pgqrs.PayloadTooLargeError` and :class:`pgqrs.PayloadTooDeepError` before anything is sent;
        :class:`pgqrs.QueueNotFoundError`, :class:`pgqrs.WorkerSuspendedError`,
        :class:`pgqrs.WorkerStoppedError`; :class:`pgqrs.NotStoredError` if the server was unavailable for too long;
        and :class:`pgqrs.OutcomeUnknownError`, the only one after which the message may be stored.
        """
        self._queue._check(payload, "payload")
        wait, time = _arguments.times(delay, at)
        level = _arguments.priority(priority)
        message: int = self._native.enqueue(payload, wait, time, level)
        return message

    def enqueue_delayed(
        self,
        payload: T,
        delay_seconds: float | timedelta = 300,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
    ) -> int:
        """Stores a message that is delivered after this many seconds at the earliest, and returns its id.

        Raises what :meth:`enqueue` raises.
        """
        wait = _arguments.duration("delay_seconds", delay_seconds)
        return self.enqueue(payload, delay=wait, priority=priority)

    def enqueue_batch(
        self,
        payloads: Iterable[T],
        *,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        priority: Priority | PriorityName = Priority.NORMAL,
    ) -> list[int]:
        """Stores messages in one transaction: all of them, in this order, or none.

        ``ids[i]`` of the result belongs to the payload at ``i``. An empty batch returns no ids and sends nothing.

        Raises what :meth:`enqueue` raises; a path then begins with the payload's place: ``payloads[3].price``.
        """
        batch = _arguments.payloads(payloads)
        for place, payload in enumerate(batch):
            self._queue._check(payload, f"payloads[{place}]")
        wait, time = _arguments.times(delay, at)
        level = _arguments.priority(priority)
        messages: list[int] = self._native.enqueue_batch(batch, wait, time, level)
        return messages

    def heartbeat(self) -> None:
        """Sends a heartbeat. This happens by itself too.

        Raises :class:`pgqrs.WorkerStoppedError` if it was stopped, removed, or taken over.
        """
        self._native.heartbeat()

    def suspend(self) -> None:
        """Suspends it: until it is resumed, its enqueues are refused.

        Raises :class:`pgqrs.InvalidTransitionError` if it isn't ready, :class:`pgqrs.WorkerStoppedError`
        if it is gone.
        """
        self._native.suspend()

    def resume(self) -> None:
        """Resumes it.

        Raises :class:`pgqrs.InvalidTransitionError` if it isn't suspended,
        :class:`pgqrs.WorkerStoppedError` if it is gone.
        """
        self._native.resume()

    def shutdown(self) -> None:
        """Ends it, for good, and frees its identity. On a producer that has ended, nothing happens."""
        self._native.shutdown()

    def status(self) -> WorkerStatus:
        """Its state, as the database has it now. A producer that was removed is stopped."""
        status: WorkerStatus = self._native.status()
        return status

    def is_healthy(self, max_age: float | timedelta) -> bool:
        """Whether it is registered and its last heartbeat is at most this old, in seconds or as a ``timedelta``."""
        healthy: bool = self._native.is_healthy(_arguments.duration("max_age", max_age))
        return healthy

    def __enter__(self) -> Producer[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"<Producer {self.id} {self._hostname}:{self._port} for {self._queue!r}>"
