# Made by generate_sync.py of pgqrs/delivery.py.
"""A message that this process holds under a lease."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, overload

from pgqrs import _arguments, _pgqrs, decoding
from pgqrs.errors import DecodeError
from pgqrs.queue import Priority, Queue
from pgqrs.transaction import AsyncConnection, BlockingConnection, acknowledge

T = TypeVar("T")


class Delivery(Generic[T]):
    """A leased message with its payload, delivered by a consumer.

    It is settled once, by :meth:`ack`, :meth:`ack_in`, :meth:`archive`, :meth:`nack`, :meth:`later` or :meth:`dead_letter`. Until then its
    lease is extended. One that is dropped without being settled counts as a failed attempt.
    """

    __slots__ = ("__weakref__", "_native", "payload")

    payload: T
    """The payload, as the queue's type."""

    def __init__(self, native: _pgqrs.Delivery, queue: Queue[T]) -> None:
        self._native = native
        try:
            self.payload = queue._decoder()(native.raw_payload)
        except decoding.Mismatch as mismatch:
            raise DecodeError(message=native.id, path=mismatch.path, reason=mismatch.reason) from mismatch

    @property
    def id(self) -> int:
        """The message's id."""
        return self._native.id

    @property
    def raw_payload(self) -> str:
        """The payload as it was sent, as JSON text with all its digits."""
        return self._native.raw_payload

    @property
    def headers(self) -> dict[str, str]:
        """The headers that the message was enqueued with; empty if there are none."""
        return self._native.headers

    @property
    def scheduled_for(self) -> datetime | None:
        """The time that a schedule has sent the message for, the same at each attempt; ``None`` if none has sent it."""
        return self._native.scheduled_for

    @property
    def priority(self) -> Priority:
        """The message's priority."""
        return Priority(self._native.priority)

    @property
    def attempt(self) -> int:
        """Which delivery of the message this is: 1 the first time."""
        return self._native.attempt

    @property
    def max_attempts(self) -> int:
        """After how many attempts the message becomes a dead letter: its own limit or, by default, that of its queue at
        the time of the claim."""
        return self._native.max_attempts

    @property
    def group(self) -> str | None:
        """The group that the message belongs to; ``None`` if it has none."""
        return self._native.group

    @property
    def snoozes(self) -> int:
        """How often a handler has put the message off, by :meth:`later`, :meth:`slow_down`, or those of
        :class:`pgqrs.Outcome`."""
        return self._native.snoozes

    @property
    def enqueued_at(self) -> datetime:
        """When the message was enqueued, by the database's clock."""
        return self._native.enqueued_at

    @property
    def lease_expires_at(self) -> datetime | None:
        """When the lease runs out unless it is extended, by the database's clock; ``None`` once it is settled."""
        return self._native.lease_expires_at

    @property
    def is_settled(self) -> bool:
        """Whether it was settled, or is being settled."""
        return self._native.is_settled

    @property
    def is_cancelled(self) -> bool:
        """Whether the message was cancelled, or deleted otherwise, so that the work is not needed any more."""
        return self._native.is_cancelled

    def cancelled(self, timeout: float | timedelta | None = None) -> bool:
        """Waits until the message was cancelled, or deleted otherwise, so that the work is not needed any more.

        Args:
            timeout: How long to wait at most, in seconds or as a ``timedelta``; by default, for ever.

        Returns:
            Whether it was; ``False`` after the timeout, or if the delivery is settled already.

        Raises:
            ValueError: The timeout is negative.
        """
        was: bool = self._native.cancelled(_arguments.optional_duration("timeout", timeout))
        return was

    def ack(self) -> None:
        """Acknowledges the message, which deletes it. This is durable when it returns.

        Raises:
            LeaseLostError: The message is gone, or went to another consumer. Nothing was changed.
            AlreadySettledError: The delivery is settled, or is being settled.
            ConnectionLostError, ConnectError, AcquireTimeoutError: The call can be repeated.
        """
        self._native.ack()

    @overload
    def ack_in(self, connection: BlockingConnection) -> None: ...
    @overload
    def ack_in(self, connection: AsyncConnection) -> Coroutine[Any, Any, None]: ...
    def ack_in(self, connection: Any) -> Coroutine[Any, Any, None] | None:
        """Acknowledges the message on your own connection: your work and the acknowledgement commit together, so that the
        work is done once, however often the message is delivered.

        It runs one statement, and doesn't commit. If it raises :class:`pgqrs.LeaseLostError`, roll back: let it
        propagate out of ``with connection.transaction()``, or whatever your driver has for it. If the queue archives
        what is acknowledged, so does the statement.

        If the transaction is rolled back later, the message is still there, but this delivery remains settled: raise
        out of the handler, which is a failed attempt. Otherwise, and in an iteration, the message is delivered again
        after its lease.

        Args:
            connection: As for :func:`pgqrs.enqueue_in`, of the database that the message is in. With an async one, the
                call is to be awaited.

        Returns:
            Nothing, or something to await.

        Raises:
            LeaseLostError: The message is gone, or went to another consumer. Nothing was changed; roll your work back.
            AlreadySettledError: The delivery is settled, or is being settled.
            NotInstalledError: The database has no pgqrs schema; your transaction has failed.
            TypeError: The connection is of no supported driver.
            Exception: Your driver's own errors. If the server has refused the statement, your transaction has failed. The
                delivery isn't settled.
        """
        return acknowledge(connection, self._native)

    def archive(self) -> None:
        """Acknowledges the message, and keeps it in ``pgqrs.archive``. This is durable when it returns.

        Raises:
            LeaseLostError: The message is gone, or went to another consumer. Nothing was changed.
            AlreadySettledError: The delivery is settled, or is being settled.
            ConnectionLostError, ConnectError, AcquireTimeoutError: The call can be repeated.
        """
        self._native.archive()

    def nack(self, *, delay: float | timedelta | None = None) -> None:
        """Reports a failed attempt. The message is delivered again later, or becomes a dead letter if its attempts
        are used up.

        Args:
            delay: How long it waits, in seconds or as a ``timedelta``; by default, as the ``retry`` of the consumer's
                run says.

        Raises:
            LeaseLostError: The message is gone, or went to another consumer. Nothing was changed.
            AlreadySettledError: The delivery is settled, or is being settled.
            ConnectionLostError, ConnectError, AcquireTimeoutError: The call can be repeated.
            DelayTooLongError: The delay is beyond the calendar.
        """
        self._native.nack(_arguments.optional_duration("delay", delay))

    def later(self, delay: float | timedelta) -> None:
        """Puts the message off: it is delivered again later, and this delivery doesn't count as an attempt.

        Args:
            delay: How long it waits, in seconds or as a ``timedelta``.

        Raises:
            LeaseLostError: The message is gone, or went to another consumer. Nothing was changed.
            AlreadySettledError: The delivery is settled, or is being settled.
            ConnectionLostError, ConnectError, AcquireTimeoutError: The call can be repeated.
            DelayTooLongError: The delay is beyond the calendar.
        """
        self._native.later(_arguments.duration("delay", delay))

    def slow_down(self, delay: float | timedelta) -> None:
        """Puts the message off, as :meth:`later` does, and slows its queue down: until then no process claims another
        message of it. For what the handler calls and asks for a pause, as an HTTP server does that answers 429.

        Args:
            delay: How long all of them wait, in seconds or as a ``timedelta``.

        Raises:
            LeaseLostError: The message is gone, or went to another consumer. Only the queue was slowed down.
            AlreadySettledError: The delivery is settled, or is being settled.
            ConnectionLostError, ConnectError, AcquireTimeoutError: The call can be repeated.
            DelayTooLongError: The delay is beyond the calendar.
        """
        self._native.slow_down(_arguments.duration("delay", delay))

    def dead_letter(self, reason: str) -> None:
        """Moves the message to the dead letters, even if attempts are left: for one that can't be handled.

        Args:
            reason: Why it can't be handled; kept with the dead letter.

        Raises:
            LeaseLostError: The message is gone, or went to another consumer. Nothing was changed.
            AlreadySettledError: The delivery is settled, or is being settled.
            ConnectionLostError, ConnectError, AcquireTimeoutError: The call can be repeated.
        """
        self._native.dead_letter(_arguments.text("reason", reason))

    def extend(self, lease: float | timedelta) -> None:
        """Extends the lease. The consumer does so automatically while it runs.

        Call it for a message that no other consumer must get for a while even if this one crashes.

        Args:
            lease: How long from now on, in seconds or as a ``timedelta``, from a millisecond to a day.

        Raises:
            LeaseOutOfRangeError: The lease is beyond these limits.
            LeaseLostError: The message is gone, or went to another consumer. Nothing was changed.
            AlreadySettledError: The delivery is settled, or is being settled.
            ConnectionLostError, ConnectError, AcquireTimeoutError: The call can be repeated.
        """
        self._native.extend(_arguments.duration("lease", lease))

    def __repr__(self) -> str:
        # Without the payload, which has no place in a log.
        return f"<Delivery {self.id} attempt {self.attempt}>"
