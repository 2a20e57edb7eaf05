"""Messages with options of their own, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Literal, TypeVar

from pgqrs.queue import Priority, PriorityName

T = TypeVar("T")

OnDuplicate = Literal["keep", "replace", "postpone", "append"]


class Sent(int):
    """The id of a message that was enqueued: an ``int``, with what became of the message."""

    new: bool
    """Whether it is stored as a message of its own. ``False`` if another message had its key: then this is the id of
    that one."""
    same_payload: bool | None
    """For a duplicate, whether the message that has the key has the same payload; ``None`` for a new message."""

    def __new__(cls, message: int, new: bool = True, same_payload: bool | None = None) -> Sent:
        sent = int.__new__(cls, message)
        sent.new = new
        sent.same_payload = same_payload
        return sent


@dataclass(frozen=True)
class Message(Generic[T]):
    """A message with options of its own, for :meth:`pgqrs.Producer.enqueue_batch`.

    What it doesn't set, it has from the batch: time, priority and limits. Headers of both are stored::

        await producer.enqueue_batch([
            pgqrs.Message(invoice, unique="invoice-7", priority="high"),
            pgqrs.Message(reminder, delay=86_400, max_attempts=3),
        ])
    """

    payload: T
    """The payload."""
    delay: float | timedelta | None = None
    """How long it is not delivered, in seconds or as a ``timedelta``."""
    at: datetime | None = None
    """The time before which it is not delivered. Pass either this or ``delay``."""
    priority: Priority | PriorityName | None = None
    """Its priority."""
    headers: Mapping[str, str] | None = None
    """Texts by name."""
    unique: str | None = None
    """No second message with this key is stored while this one exists."""
    unique_until_claimed: str | None = None
    """No second message with this key is stored while this one waits to be claimed."""
    on_duplicate: OnDuplicate = "keep"
    """What this message does, with ``unique_until_claimed``, to one that waits with the same key: ``keep`` leaves it,
    ``replace`` replaces it, ``postpone`` moves it to the time of this one, ``append`` joins the two lists."""
    max_wait: float | timedelta | None = None
    """With ``postpone``, how long after it was sent a message is delivered at the latest."""
    once_within: tuple[str, float | timedelta] | None = None
    """A key, and the time within which no second message with it is stored, whatever becomes of this one."""
    group: str | None = None
    """Its group. At most the queue's ``groups_at_once`` messages of a group are on their way at a time, in the order in
    which they were sent. A message has a key or a group."""
    max_attempts: int | None = None
    """After how many deliveries it becomes a dead letter; by default the queue's."""
    expires_in: float | timedelta | None = None
    """If it isn't claimed within this time, it isn't delivered, and becomes a dead letter."""
    drop_if_expired: bool = False
    """Whether it is deleted then, instead of becoming a dead letter."""


__all__ = ["Message", "OnDuplicate", "Sent"]
