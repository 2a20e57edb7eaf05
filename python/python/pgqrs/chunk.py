"""A chunk: messages that a handler takes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar, overload

from pgqrs import _pgqrs
from pgqrs.outcome import Outcome
from pgqrs.queue import Priority

T = TypeVar("T")


@dataclass(frozen=True)
class ChunkMessage(Generic[T]):
    """A message of a :class:`Chunk`."""

    id: int
    """The message's id."""
    payload: T
    """The payload, as the queue's type."""
    raw_payload: str
    """The payload as it was sent, as JSON text with all its digits."""
    headers: dict[str, str]
    """The headers that the message was enqueued with; empty if there are none."""
    priority: Priority
    """The message's priority."""
    attempt: int
    """Which delivery of the message this is: 1 the first time."""
    enqueued_at: datetime
    """When the message was enqueued, by the database's clock."""

    def __repr__(self) -> str:
        # Without the payload, which has no index in a log.
        return f"<ChunkMessage {self.id} attempt {self.attempt}>"


class Chunk(Sequence[ChunkMessage[T]], Generic[T]):
    """Leased messages that a handler of :meth:`Consumer.run_chunks` takes at once: a sequence that is never empty.

    What the handler returns is for all of them: ``None`` acknowledges them, in one statement; an exception is a
    failed attempt of each. A message that ends otherwise is settled by its index, with :meth:`nack` and the methods
    beside it. They cost nothing more, and take effect when the handler ends, however it ends. The last one of a
    message counts.
    """

    def __init__(
        self, native: _pgqrs.Chunk, messages: Sequence[ChunkMessage[T]], indices: Sequence[int]
    ) -> None:
        self._native = native
        self._messages = messages
        # Those of the messages in the native chunk, which also has those whose payloads aren't of the queue's type.
        self._indices = indices

    @property
    def payloads(self) -> list[T]:
        """The payloads, in the order of the messages."""
        return [message.payload for message in self._messages]

    @overload
    def __getitem__(self, index: int) -> ChunkMessage[T]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ChunkMessage[T]]: ...

    def __getitem__(self, index: int | slice) -> ChunkMessage[T] | Sequence[ChunkMessage[T]]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[ChunkMessage[T]]:
        return iter(self._messages)

    def is_cancelled(self, index: int) -> bool:
        """Whether this message was cancelled, or deleted otherwise: what the handler does with it has no effect on it.
        The handler is cancelled only after all messages of the chunk were.

        Args:
            index: Its index in the chunk.

        Returns:
            ``True`` once this consumer knows that the message is gone.

        Raises:
            IndexError: The chunk has no such message.
        """
        return self._native.is_cancelled(self._indices[index])

    def ack(self, index: int) -> None:
        """Acknowledges this message, even if the handler raises an exception.

        Args:
            index: Its index in the chunk.

        Raises:
            IndexError: The chunk has no such message.
        """
        self.settle(index, Outcome.done())

    def archive(self, index: int) -> None:
        """Acknowledges this message, and keeps it in the archive.

        Args:
            index: Its index in the chunk.

        Raises:
            IndexError: The chunk has no such message.
        """
        self.settle(index, Outcome.archive())

    def nack(self, index: int, reason: str) -> None:
        """Fails this attempt of this message. It is delivered again later, or becomes a dead letter if its attempts
        are used up.

        Args:
            index: Its index in the chunk.
            reason: Why it failed; kept with the message.

        Raises:
            IndexError: The chunk has no such message.
        """
        self._native.settle(self._indices[index], "failed", None, reason)

    def retry_in(self, index: int, delay: float | timedelta, reason: str | None = None) -> None:
        """Fails this attempt of this message, which is delivered again after this delay.

        Args:
            index: Its index in the chunk.
            delay: How long it waits, in seconds or as a ``timedelta``.
            reason: Why it failed; kept with the message.

        Raises:
            IndexError: The chunk has no such message.
            TypeError, ValueError: The delay isn't a number of seconds or a ``timedelta``, or is negative; or the reason
                isn't text.
        """
        self.settle(index, Outcome.retry(delay, reason=reason))

    def later(self, index: int, delay: float | timedelta) -> None:
        """Puts this message off: it is delivered again after this delay, and no attempt is used.

        Args:
            index: Its index in the chunk.
            delay: How long it waits, in seconds or as a ``timedelta``.

        Raises:
            IndexError: The chunk has no such message.
            TypeError, ValueError: The delay isn't a number of seconds or a ``timedelta``, or is negative.
        """
        self.settle(index, Outcome.later(delay))

    def slow_down(self, index: int, delay: float | timedelta) -> None:
        """Puts this message off, and slows its queue down: see :meth:`Outcome.slow_down`.

        Args:
            index: Its index in the chunk.
            delay: How long all of them wait, in seconds or as a ``timedelta``.

        Raises:
            IndexError: The chunk has no such message.
            TypeError, ValueError: The delay isn't a number of seconds or a ``timedelta``, or is negative.
        """
        self.settle(index, Outcome.slow_down(delay))

    def dead_letter(self, index: int, reason: str) -> None:
        """Moves this message to the dead letters, even if attempts are left.

        Args:
            index: Its index in the chunk.
            reason: Why it can't be handled; kept with the dead letter.

        Raises:
            IndexError: The chunk has no such message.
            TypeError: The reason isn't text.
        """
        self.settle(index, Outcome.dead_letter(reason))

    def settle(self, index: int, outcome: Outcome) -> None:
        """Settles this message as a handler of single messages does by returning this outcome.

        Args:
            index: Its index in the chunk.
            outcome: The outcome.

        Raises:
            IndexError: The chunk has no such message.
        """
        self._native.settle(self._indices[index], outcome.kind, outcome.delay, outcome.reason)

    def __repr__(self) -> str:
        return f"<Chunk of {len(self)} messages>"
