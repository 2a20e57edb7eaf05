"""What both kinds of consumers do with a delivery, and the settings of their loops."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypedDict, TypeVar

from pgqrs import _arguments, _pgqrs, decoding
from pgqrs.chunk import Chunk, ChunkMessage
from pgqrs.errors import DecodeError
from pgqrs.outcome import Outcome, RetryPolicy, UndecodablePolicy
from pgqrs.queue import Priority, Queue

D = TypeVar("D")
T = TypeVar("T")

Native = _pgqrs.Delivery | _pgqrs.Chunk
"""What a handler is called with, in the extension."""

HANDLERS = 8
"""How many handlers ``run`` calls at once by default."""

PREFETCH = 2_048
"""How many messages are held ready by default, at most."""

PREFETCH_BYTES = 64 << 20
"""How many bytes of payload are held by default, at most: 64 MiB."""

LEASE = 30
"""In seconds: the default lease."""

POLL_INTERVAL = 0.25
"""In seconds: how soon a message is found by default that nothing announces."""

DEADLINE = 25
"""In seconds: how long stopping takes by default, at most. Kubernetes kills a container after 30."""

CANCEL_GRACE = 5
"""In seconds: how long a handler may go on by default after its message was cancelled."""

_log = logging.getLogger("pgqrs")


class Settings(TypedDict):
    """What the extension's ``start`` takes."""

    concurrency: int
    prefetch: int
    prefetch_bytes: int
    lease: timedelta
    poll_interval: timedelta
    retry: tuple[timedelta, float, timedelta, float]
    undecodable: tuple[timedelta, timedelta]
    handler_timeout: timedelta | None
    cancel_grace: timedelta
    listen: bool
    shutdown_deadline: timedelta
    chunk: tuple[int, timedelta] | None


def settings(
    *,
    concurrency: int,
    prefetch: int,
    prefetch_bytes: int,
    lease: float | timedelta,
    poll_interval: float | timedelta,
    retry: RetryPolicy,
    undecodable: UndecodablePolicy,
    listen: bool,
    shutdown_deadline: float | timedelta,
    handler_timeout: float | timedelta | None = None,
    cancel_grace: float | timedelta = CANCEL_GRACE,
    size: int | None = None,
    wait: float | timedelta = 0,
) -> Settings:
    """Checked, each by its name."""
    if not isinstance(retry, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"retry: expected a pgqrs.RetryPolicy, not {type(retry).__name__}")
    if not isinstance(undecodable, UndecodablePolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"undecodable: expected a pgqrs.UndecodablePolicy, not {type(undecodable).__name__}")
    return Settings(
        concurrency=_arguments.integer("concurrency", concurrency, 1, 10_000),
        prefetch=_arguments.integer("prefetch", prefetch, 0, 5_000),
        prefetch_bytes=_arguments.integer("prefetch_bytes", prefetch_bytes, 0, 2**40),
        lease=_arguments.duration("lease", lease),
        poll_interval=_arguments.duration("poll_interval", poll_interval),
        retry=retry._parts(),
        undecodable=undecodable._parts(),
        handler_timeout=_arguments.optional_duration("handler_timeout", handler_timeout),
        cancel_grace=_arguments.duration("cancel_grace", cancel_grace),
        listen=_arguments.flag("listen", listen),
        shutdown_deadline=_arguments.duration("shutdown_deadline", shutdown_deadline),
        chunk=None
        if size is None
        else (_arguments.integer("size", size, 1, 10_000), _arguments.duration("wait", wait)),
    )


def decoded(
    deliver: Callable[[_pgqrs.Delivery, Queue[Any]], D], native: _pgqrs.Delivery, queue: Queue[Any]
) -> D | None:
    """The delivery; ``None`` if its payload isn't of the queue's type, and it waits for another consumer."""
    try:
        return deliver(native, queue)
    except DecodeError as error:
        native.finish("undecodable", None, str(error))
        _log.warning("a message of queue `%s` doesn't have its type: %s", queue.name, error)
        return None


def decoded_chunk(native: _pgqrs.Chunk, queue: Queue[T]) -> Chunk[T] | None:
    """The chunk, without the messages whose payloads aren't of the queue's type, which wait for another consumer; ``None``
    if that are all of them."""
    messages: list[ChunkMessage[T]] = []
    places: list[int] = []
    for place, (id, raw_payload, headers, priority, attempt, enqueued_at) in enumerate(native.messages()):
        try:
            payload = queue._decoder()(raw_payload)
        except decoding.Mismatch as mismatch:
            error = DecodeError(message=id, path=mismatch.path, reason=mismatch.reason)
            native.settle(place, "undecodable", None, str(error))
            _log.warning("a message of queue `%s` doesn't have its type: %s", queue.name, error)
            continue
        message = ChunkMessage(id, payload, raw_payload, headers, Priority(priority), attempt, enqueued_at)
        messages.append(message)
        places.append(place)
    if not messages:
        native.finish("done")
        return None
    return Chunk(native, messages, places)


def checked_handler(handler: object, around: object, expected: str) -> None:
    """Checks that both can be called."""
    if not callable(handler):
        raise TypeError(f"handler: expected {expected}, not {type(handler).__name__}")
    if around is not None and not callable(around):
        raise TypeError(f"around: expected {expected}, not {type(around).__name__}")


def finished(native: Native, outcome: object) -> None:
    """Settles it by what the handler has returned."""
    if outcome is None:
        outcome = Outcome.done()
    if not isinstance(outcome, Outcome):
        raise TypeError(f"a handler returns None or a pgqrs.Outcome, not {type(outcome).__name__}")
    native.finish(outcome.kind, outcome.delay, outcome.reason)


def failed(native: Native, error: BaseException) -> None:
    """Settles it by what the handler has raised: a failed attempt."""
    native.finish("failed", None, described(error))
    if isinstance(native, _pgqrs.Chunk):
        _log.error("the handler of a chunk failed", exc_info=error)
    else:
        _log.error("the handler of message %s failed", native.id, exc_info=error)


def exited(native: Native) -> None:
    """The handler ends the whole program. The message is ready again at once; its attempt is used, so that one that
    ends every worker becomes a dead letter in the end."""
    native.finish("retry", timedelta(0), None)


def give_back(event: Native | int) -> None:
    """Ready again at once, as if it had not been delivered: no attempt is used."""
    if not isinstance(event, int):
        event.finish("release")


def described(error: BaseException) -> str:
    """An exception with those that led to it, in one line."""
    texts: list[str] = []
    seen: set[int] = set()
    next_one: BaseException | None = error
    while next_one is not None and id(next_one) not in seen:
        seen.add(id(next_one))
        name, text = type(next_one).__name__, " ".join(str(next_one).split())
        texts.append(f"{name}: {text}" if text else name)
        hidden = next_one.__cause__ is not None or next_one.__suppress_context__
        next_one = next_one.__cause__ if hidden else next_one.__context__
    return ": caused by ".join(texts)
