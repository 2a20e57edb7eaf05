"""Queues, with the type of their payloads, and priorities."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from pgqrs import _pgqrs, decoding
from pgqrs.errors import DecodeError

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")


class Priority(str, Enum):
    """The priority of a message: ready messages of a higher one are delivered first.

    A queue that always has urgent messages never delivers its low ones. A priority can be passed as text too:
    ``priority="urgent"``.
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

    Declare it as a constant, and mypy and pyright refuse any other type of payload::

        EMAILS = pgqrs.Queue("emails", SendEmail)
        producer = await store.producer(EMAILS)
        await producer.enqueue(SendEmail(to="ada@example.com"))

    The type is a dataclass, a pydantic model, a ``TypedDict``, a struct of msgspec, an ``Enum``, or one of ``dict``,
    ``list``, ``str``, ``int``, ``float``, ``bool``, ``Decimal``, ``datetime``, ``date``, ``time`` and ``UUID``, also with
    parameters and as a union: ``list[SendEmail]``, ``Placed | Cancelled``. Without a type, any payload can be
    enqueued, and is read as ``json.loads`` reads it. A declaration doesn't create the queue in the database:
    ``await store.queue(EMAILS)`` does, if it doesn't exist.

    Types change while messages wait. Give a new field a default; unknown fields are ignored. A message that an old
    consumer can't decode becomes a dead letter, and can be requeued once a newer consumer runs, by
    ``store.admin().requeue``.

    Args:
        name: The name, of 1 to 128 bytes, without control characters, and without white space at either end.
        payload: The type of the payloads.
        unique_by: Computes a key from a payload: each message that is sent to this queue is ``unique`` by it, unless it has
            a key of its own.
        group_by: Computes a group from a payload, for each message that is sent to this queue. Pass either this or
            ``unique_by``.

    Raises:
        InvalidQueueNameError: The name is invalid.
        TypeError: The name isn't text. Or the type can't be represented in JSON.
    """

    __slots__ = ("_decode", "group_by", "name", "payload", "unique_by")

    name: str
    """Its name, of 1 to 128 bytes."""
    payload: TypeForm[T] | None
    """The type of its payloads; ``None`` is any."""
    unique_by: Callable[[T], str] | None
    """How a message's key is computed from its payload; ``None`` if messages have none by default."""
    group_by: Callable[[T], str] | None
    """How a message's group is computed from its payload; ``None`` if it isn't."""

    @overload
    def __init__(
        self: Queue[Any],
        name: str,
        *,
        unique_by: Callable[[Any], str] | None = None,
        group_by: Callable[[Any], str] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        payload: TypeForm[T],
        *,
        unique_by: Callable[[T], str] | None = None,
        group_by: Callable[[T], str] | None = None,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        payload: Any = None,
        *,
        unique_by: Callable[[Any], str] | None = None,
        group_by: Callable[[Any], str] | None = None,
    ) -> None:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"name: expected a str, not {type(name).__name__}")
        _pgqrs.check_queue_name(name)
        if unique_by is not None and not callable(unique_by):
            raise TypeError(f"unique_by: expected a function of a payload, not {type(unique_by).__name__}")
        if group_by is not None and not callable(group_by):
            raise TypeError(f"group_by: expected a function of a payload, not {type(group_by).__name__}")
        if unique_by is not None and group_by is not None:
            raise TypeError("unique_by, group_by: a message has a key or a group; pass one of the two")
        self.name = name
        self.payload = payload
        self.unique_by = unique_by
        self.group_by = group_by
        self._decode: decoding.Decode[Any] | None = None
        # It may name types that are declared after it; these are looked up when it is first used.
        with contextlib.suppress(NameError):
            self._decoder()

    def _decoder(self) -> decoding.Decode[Any]:
        """Made when it is first needed, since a type may name others that are declared after it."""
        if self._decode is None:
            self._decode = decoding.decoder(self.payload)
        return self._decode

    def _computes_keys(self) -> bool:
        return self.unique_by is not None or self.group_by is not None

    def _decoded(self, message: int, raw_payload: str) -> T:
        try:
            payload: T = self._decoder()(raw_payload)
        except decoding.Mismatch as mismatch:
            raise DecodeError(message=message, path=mismatch.path, reason=mismatch.reason) from mismatch
        return payload

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
