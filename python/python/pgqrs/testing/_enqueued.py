"""What was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, overload

from pgqrs import _arguments
from pgqrs.errors import QueueNotFoundError
from pgqrs.queue import Priority, Queue
from pgqrs.testing._statements import Steps, carried_out, headers, run_async
from pgqrs.transaction import AsyncConnection, BlockingConnection

T = TypeVar("T")

RANKS = (Priority.URGENT, Priority.HIGH, Priority.NORMAL, Priority.LOW)
"""In the order of their numbers in the database."""


@dataclass(frozen=True)
class Enqueued(Generic[T]):
    """A message of a queue, as a test's transaction sees it."""

    id: int
    """Its id."""
    payload: T
    """The payload, as the queue's type."""
    priority: Priority
    """Its priority."""
    delay: timedelta
    """For how long it isn't delivered, from when it was sent: zero without a delay; ``timedelta.max`` for ever."""
    is_ready: bool
    """Whether it can be delivered now."""
    attempt: int
    """How often it was delivered."""
    key: str | None
    """The key that makes it unique, if it has one."""
    group: str | None
    """The group that it belongs to, if it has one."""
    enqueued_at: datetime
    """When it was sent, by the database's clock."""
    headers: dict[str, str] = field(hash=False)
    """Its headers; empty if it has none."""
    raw_payload: str
    """The payload as it was sent, as JSON text."""


@overload
def enqueued(connection: BlockingConnection, queue: str) -> list[Enqueued[Any]]: ...
@overload
def enqueued(connection: BlockingConnection, queue: Queue[T]) -> list[Enqueued[T]]: ...
@overload
def enqueued(connection: AsyncConnection, queue: str) -> Coroutine[Any, Any, list[Enqueued[Any]]]: ...
@overload
def enqueued(connection: AsyncConnection, queue: Queue[T]) -> Coroutine[Any, Any, list[Enqueued[T]]]: ...
def enqueued(connection: Any, queue: str | Queue[Any]) -> Any:
    """Lists the messages of a queue that aren't settled, with those that this transaction has sent.

    Args:
        connection: As for :func:`pgqrs.enqueue_in`. With an async one, await this call.
        queue: The queue, or its name.

    Returns:
        The messages, in the order in which they were sent.

    Raises:
        QueueNotFoundError: There is no such queue.
        DecodeError: A payload doesn't have the queue's type.
        TypeError: The connection is of no supported driver.
    """
    return carried_out(connection, listed(_arguments.queue(queue), 0))


def listed(queue: Queue[Any], after: int) -> Steps[list[Enqueued[Any]]]:
    rows = yield "list", (queue.name, after)
    if not rows:
        raise QueueNotFoundError(queue=queue.name)
    return [_enqueued(queue, row) for row in rows if row[0] is not None]


def _enqueued(queue: Queue[Any], row: Any) -> Enqueued[Any]:
    id, priority, attempt, enqueued_at, delay, is_ready, key, group, texts, raw_payload = row
    try:
        wait = timedelta(seconds=delay)
    except OverflowError:
        wait = timedelta.max
    return Enqueued(
        id=id,
        payload=queue._decoded(id, raw_payload),
        priority=RANKS[priority],
        delay=wait,
        is_ready=is_ready,
        attempt=attempt,
        key=key,
        group=group,
        enqueued_at=enqueued_at,
        headers=headers(texts),
        raw_payload=raw_payload,
    )


class Captured(list[Enqueued[T]]):
    """What was sent within a ``with`` block, once it has ended."""


@contextmanager
def capture(connection: BlockingConnection, queue: str | Queue[T]) -> Iterator[Captured[T]]:
    """Captures what is sent within a block::

        with testing.capture(connection, RECEIPTS) as receipts:
            place_order(connection, 7)
        assert [receipt.payload.order for receipt in receipts] == [7]

    Args:
        connection: A blocking one, as for :func:`pgqrs.enqueue_in`.
        queue: The queue, or its name.

    Returns:
        For ``with``: a list, which has the messages that are still unsettled after the block, in the order in which
        they were sent.

    Raises:
        QueueNotFoundError: There is no such queue.
        DecodeError: A payload doesn't have the queue's type.
        TypeError: The connection is of no supported driver, or async.
    """
    checked = _arguments.queue(queue)
    before: Any = carried_out(connection, _ids(checked))
    if not isinstance(before, frozenset):
        before.close()
        raise TypeError("connection: expected a blocking one; use `async with capture_async(..)`")
    captured: Captured[T] = Captured()
    yield captured
    found: Any = carried_out(connection, listed(checked, 0))
    captured.extend(one for one in found if one.id not in before)


@asynccontextmanager
async def capture_async(connection: AsyncConnection, queue: str | Queue[T]) -> AsyncIterator[Captured[T]]:
    """The same as :func:`capture`, for an async connection.

    Args:
        connection: An async one, as for :func:`pgqrs.enqueue_in`.
        queue: The queue, or its name.

    Returns:
        For ``async with``: as from :func:`capture`.

    Raises:
        QueueNotFoundError, DecodeError, TypeError: As from :func:`capture`.
    """
    checked = _arguments.queue(queue)
    before = {row[0] for row in await run_async(connection, ("list", (checked.name, 0)))}
    captured: Captured[T] = Captured()
    yield captured
    found: Any = await enqueued(connection, checked)
    captured.extend(one for one in found if one.id not in before)


def _ids(queue: Queue[Any]) -> Steps[frozenset[int]]:
    rows = yield "list", (queue.name, 0)
    return frozenset(row[0] for row in rows)
