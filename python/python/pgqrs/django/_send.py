"""Sends in the current transaction of Django's connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pgqrs.queue import Priority, PriorityName, Queue
from pgqrs.transaction import enqueue_batch_in, enqueue_in

T = TypeVar("T")


def enqueue(
    queue: Queue[T],
    payload: T,
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
    headers: Mapping[str, str] | None = None,
    using: str | None = None,
) -> int:
    """Stores a message on the connection that Django uses in this thread. Within ``transaction.atomic`` it is sent if and
    only if that commits; without, at once.

    Consumers find it at their next poll, within a quarter of a second by default.

    Args:
        queue: The queue.
        payload: As for :meth:`pgqrs.Producer.enqueue`.
        delay: As for :meth:`pgqrs.Producer.enqueue`.
        at: As for :meth:`pgqrs.Producer.enqueue`.
        priority: As for :meth:`pgqrs.Producer.enqueue`.
        headers: As for :meth:`pgqrs.Producer.enqueue`.
        using: The database, of ``DATABASES``; by default that of the setting ``PGQRS``.

    Returns:
        The message's id.

    Raises:
        QueueNotFoundError, QueueClosedError: Nothing was stored, and your transaction can go on.
        SerializeError, PayloadTooLargeError, PayloadTooDeepError, DelayTooLongError, InvalidHeaderError: Before
            anything is sent; your transaction can go on.
        NotInstalledError: The database has no pgqrs schema: run ``manage.py migrate``.
    """
    from pgqrs.django import _database

    connection: Any = _database.connection(using)
    id: int = enqueue_in(connection, queue, payload, delay=delay, at=at, priority=priority, headers=headers)
    return id


def enqueue_batch(
    queue: Queue[T],
    payloads: Iterable[T],
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
    headers: Mapping[str, str] | None = None,
    using: str | None = None,
) -> list[int]:
    """Stores messages, all of them or none; otherwise as :func:`enqueue`.

    Args:
        queue: The queue.
        payloads: As for :meth:`pgqrs.Producer.enqueue_batch`.
        delay: As for :meth:`pgqrs.Producer.enqueue`.
        at: As for :meth:`pgqrs.Producer.enqueue`.
        priority: As for :meth:`pgqrs.Producer.enqueue`.
        headers: As for :meth:`pgqrs.Producer.enqueue`.
        using: As for :func:`enqueue`.

    Returns:
        The ids, in the order of the payloads.

    Raises:
        Error: As from :func:`enqueue`.
    """
    from pgqrs.django import _database

    connection: Any = _database.connection(using)
    ids: list[int] = enqueue_batch_in(
        connection, queue, payloads, delay=delay, at=at, priority=priority, headers=headers
    )
    return ids


async def aenqueue(
    queue: Queue[T],
    payload: T,
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
    headers: Mapping[str, str] | None = None,
    using: str | None = None,
) -> int:
    """The same as :func:`enqueue`, in Django's thread for blocking code, as its own async calls do it.

    Args:
        queue: The queue.
        payload: As for :meth:`pgqrs.Producer.enqueue`.
        delay: As for :meth:`pgqrs.Producer.enqueue`.
        at: As for :meth:`pgqrs.Producer.enqueue`.
        priority: As for :meth:`pgqrs.Producer.enqueue`.
        headers: As for :meth:`pgqrs.Producer.enqueue`.
        using: As for :func:`enqueue`.

    Returns:
        The message's id.

    Raises:
        Error: As from :func:`enqueue`.
    """
    from asgiref.sync import sync_to_async

    send: Any = sync_to_async(enqueue, thread_sensitive=True)
    id: int = await send(queue, payload, delay=delay, at=at, priority=priority, headers=headers, using=using)
    return id
