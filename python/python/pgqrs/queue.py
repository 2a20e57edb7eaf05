"""Queues by name and by what they carry, and priorities."""

from __future__ import annotations

from enum import Enum
from typing import Any, Generic, Literal, TypeVar, overload

from pgqrs import _pgqrs, decoding

T = TypeVar("T")


class Priority(str, Enum):
    """Which messages of a queue are delivered first.

    A ready message of a higher priority is always delivered before one of a lower, so a queue that never runs
    out of urgent messages never delivers a low one. Each can be passed as text too: ``priority="urgent"``.
    """

    URGENT = "urgent"
    """Before all others."""
    HIGH = "high"
    """Before normal ones."""
    NORMAL = "normal"
    """The default."""
    LOW = "low"
    """When nothing else is ready."""


PriorityName = Literal["urgent", "high", "normal", "low"]


class Queue(Generic[T]):
    """A queue's name with the type of its payloads.

    Declare one as a constant, and only that type goes in and comes out, as mypy and pyright see it::

        EMAILS = pgqrs.Queue("emails", SendEmail)
        producer = await store.producer(EMAILS)
        await producer.enqueue(SendEmail(to="ada@example.com"))

    The type is a dataclass, a model of pydantic's, a ``TypedDict``, or one of ``dict``, ``list``, ``str``,
    ``int``, ``float``, ``bool`` and ``Decimal``, also with parameters: ``list[SendEmail]``. Without a type, any
    payload goes in, and what ``json.loads`` makes of it comes out. That the queue exists in the database is
    another matter: ``await store.queue(EMAILS)`` creates it if there is none.

    Messages wait in the queue while a service is deployed, so types change by the usual rules: a field that is
    added has a default, and fields that aren't known are passed over. What doesn't decode becomes a dead letter,
    which ``store.admin().requeue`` puts back once a consumer understands it.

    Raises :class:`pgqrs.InvalidQueueNameError`, and ``TypeError`` for a type that can't be represented in JSON.
    """

    __slots__ = ("_decode", "name", "payload")

    name: str
    """Its name, of 1 to 128 bytes."""
    payload: type[T] | None
    """What it carries; ``None`` is anything."""

    @overload
    def __init__(self: Queue[Any], name: str) -> None: ...
    @overload
    def __init__(self, name: str, payload: type[T]) -> None: ...
    def __init__(self, name: str, payload: type[T] | None = None) -> None:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"name: expected a str, not {type(name).__name__}")
        _pgqrs.check_queue_name(name)
        self.name = name
        self.payload = payload
        self._decode: decoding.Decode[Any] | None = None

    def _decoder(self) -> decoding.Decode[Any]:
        """Made when it is first needed, since a type may name others that are declared after it."""
        if self._decode is None:
            self._decode = decoding.decoder(self.payload)
        return self._decode

    def _check(self, payload: object, name: str) -> None:
        """What type checkers report earlier, checked at run time too."""
        expected = decoding.plain_class(self.payload)
        if expected is not None and not isinstance(payload, expected):
            raise TypeError(
                f"{name}: queue `{self.name}` carries {expected.__name__}, not {type(payload).__name__}"
            )

    def __repr__(self) -> str:
        if self.payload is None:
            return f"Queue({self.name!r})"
        return f"Queue({self.name!r}, {getattr(self.payload, '__name__', self.payload)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Queue):
            return NotImplemented
        return self.name == other.name and self.payload is other.payload  # pyright: ignore

    def __hash__(self) -> int:
        return hash(self.name)
