"""Deliveries of tests: to the handler they are what a consumer delivers."""

from __future__ import annotations

import secrets
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from pgqrs import _arguments, _pgqrs
from pgqrs.delivery import Delivery
from pgqrs.errors import AlreadySettledError, LeaseLostError
from pgqrs.outcome import Outcome
from pgqrs.queue import Queue
from pgqrs.sync.delivery import Delivery as BlockingDelivery

T = TypeVar("T")


@dataclass
class NativeOfTest:
    """What a delivery is made of, in place of the extension's: it notes how it is settled."""

    id: int
    raw_payload: str
    priority: str = "normal"
    attempt: int = 1
    max_attempts: int = 20
    snoozes: int = 0
    group: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    enqueued_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    scheduled_for: datetime | None = None
    is_async: bool = True
    queue_id: int = 0
    token: int = field(default_factory=lambda: secrets.randbelow(2**62) + 1)
    outcome: Outcome | None = None
    is_acknowledged: bool = False
    """Whether that was by ``ack_in``, so that its row is gone."""
    is_cancelled: bool = False
    lease_expires_at: datetime | None = None

    @property
    def is_settled(self) -> bool:
        return self.outcome is not None or self.is_acknowledged

    def acknowledgement(self, name: str) -> str:
        """The name of the statement, which for a message of a group also lets the next one in."""
        return name if self.group is None else f"{name}_in_group"

    def _settle(self, outcome: Outcome) -> Any:
        if self.is_settled:
            raise AlreadySettledError(message=self.id)
        self.outcome = outcome
        return self._done(None)

    def _done(self, value: T) -> Coroutine[Any, Any, T] | T:
        async def done() -> T:
            return value

        return done() if self.is_async else value

    def ack(self) -> Any:
        return self._settle(Outcome.done())

    def archive(self) -> Any:
        return self._settle(Outcome.archive())

    def nack(self, delay: timedelta | None) -> Any:
        return self._settle(Outcome.retry(delay))

    def later(self, delay: timedelta) -> Any:
        return self._settle(Outcome.later(delay))

    def slow_down(self, delay: timedelta) -> Any:
        return self._settle(Outcome.slow_down(delay))

    def dead_letter(self, reason: str) -> Any:
        return self._settle(Outcome.dead_letter(reason))

    def extend(self, lease: timedelta) -> Any:
        if self.is_settled:
            raise AlreadySettledError(message=self.id)
        return self._done(None)

    def cancelled(self, timeout: timedelta | None) -> Any:
        return self._done(self.is_cancelled)

    def ack_statement(self, blocking: bool) -> Any:
        if self.is_settled:
            raise AlreadySettledError(message=self.id)
        statement = _AckOfTest(self)

        async def made() -> _AckOfTest:
            return statement

        return statement if blocking else made()


class _AckOfTest:
    """An acknowledgement as SQL."""

    def __init__(self, native: NativeOfTest) -> None:
        self._native = native
        self.sql = _pgqrs.test_statement(native.acknowledgement("ack"))
        self.parameters = (native.queue_id, native.id, native.token)

    def check(self, rows: list[int]) -> None:
        if not rows:
            raise LeaseLostError("the message is gone", message=self._native.id)
        self._native.is_acknowledged = True

    def withdraw(self) -> None:
        pass


def made(native: NativeOfTest, queue: Queue[Any]) -> Any:
    """The delivery that a handler gets."""
    of: Any = Delivery if native.is_async else BlockingDelivery
    return of(native, queue)


def delivery(
    queue: Queue[T],
    payload: T,
    *,
    id: int = 1,
    attempt: int = 1,
    max_attempts: int = 20,
    headers: Mapping[str, str] | None = None,
    group: str | None = None,
    enqueued_at: datetime | None = None,
) -> Delivery[T]:
    """Makes a delivery without a database, for a handler's unit test.

    It can be settled once, which does nothing else. The payload is encoded and decoded as by a send and a claim.

    Args:
        queue: The queue.
        payload: The payload.
        id: The message's id.
        attempt: Which delivery of the message it is.
        max_attempts: After how many the message becomes a dead letter.
        headers: The message's headers.
        group: The group that the message belongs to.
        enqueued_at: When it was sent, as an aware ``datetime``; by default now.

    Returns:
        The delivery.

    Raises:
        SerializeError: The payload can't be represented in JSON.
        TypeError: The payload isn't of the queue's type.
    """
    checked = _arguments.queue(queue)
    checked._check(payload, "payload")
    native = NativeOfTest(
        id,
        _pgqrs.encode(payload),
        attempt=attempt,
        max_attempts=max_attempts,
        group=group,
        headers=dict(_arguments.headers(headers)),
    )
    if enqueued_at is not None:
        native.enqueued_at = _arguments.time("enqueued_at", enqueued_at)
    result: Delivery[T] = made(native, checked)
    return result
