"""How a handler is declared: its queue, its settings, and what it may be annotated with."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypedDict, TypeVar, overload

from pgqrs import _receiving
from pgqrs.chunk import Chunk
from pgqrs.delivery import Delivery
from pgqrs.outcome import Outcome, RetryPolicy, UndecodablePolicy
from pgqrs.queue import Queue
from pgqrs.sync.delivery import Delivery as BlockingDelivery

T = TypeVar("T")
R = TypeVar("R", bound="Outcome | None")


class RunSettings(TypedDict, total=False):
    """The settings of :meth:`pgqrs.Consumer.run` that a declaration of a handler takes."""

    concurrency: int
    """As for :meth:`pgqrs.Consumer.run`."""
    prefetch: int
    """As for :meth:`pgqrs.Consumer.run`."""
    prefetch_bytes: int
    """As for :meth:`pgqrs.Consumer.run`."""
    lease: float | timedelta
    """As for :meth:`pgqrs.Consumer.run`."""
    poll_interval: float | timedelta
    """As for :meth:`pgqrs.Consumer.run`."""
    retry: RetryPolicy
    """As for :meth:`pgqrs.Consumer.run`."""
    undecodable: UndecodablePolicy
    """As for :meth:`pgqrs.Consumer.run`."""
    handler_timeout: float | timedelta | None
    """As for :meth:`pgqrs.Consumer.run`."""
    cancel_grace: float | timedelta
    """As for :meth:`pgqrs.Consumer.run`."""
    listen: bool
    """As for :meth:`pgqrs.Consumer.run`."""
    shutdown_deadline: float | timedelta
    """As for :meth:`pgqrs.Consumer.run`."""


@dataclass(frozen=True)
class Declared:
    """A handler, as it was declared."""

    queue: Queue[Any]
    """Its queue."""
    handler: Callable[[Any], Any]
    """The function."""
    is_async: bool
    """Whether it is async; otherwise it runs in threads."""
    settings: RunSettings
    """The settings of its run."""
    chunk: tuple[int, float | timedelta] | None = None
    """The size of its chunks and the wait for them; ``None`` for a handler of single messages."""

    @property
    def concurrency(self) -> int:
        """How many run at once."""
        return self.settings.get("concurrency", _receiving.HANDLERS)


class Declaration(Generic[T]):
    """Declares the function that it decorates as the handler of a queue; made by :meth:`App.handler`."""

    def __init__(self, declare: Callable[[Callable[[Any], Any]], None]) -> None:
        self._declare = declare

    @overload
    def __call__(
        self, handler: Callable[[Delivery[T]], Coroutine[Any, Any, R]]
    ) -> Callable[[Delivery[T]], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, handler: Callable[[BlockingDelivery[T]], R]) -> Callable[[BlockingDelivery[T]], R]: ...
    def __call__(self, handler: Any) -> Any:
        self._declare(handler)
        return handler


class ChunkDeclaration(Generic[T]):
    """Declares the function that it decorates as the handler of a queue's chunks; made by :meth:`App.chunk_handler`."""

    def __init__(self, declare: Callable[[Callable[[Any], Any]], None]) -> None:
        self._declare = declare

    @overload
    def __call__(
        self, handler: Callable[[Chunk[T]], Coroutine[Any, Any, R]]
    ) -> Callable[[Chunk[T]], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, handler: Callable[[Chunk[T]], R]) -> Callable[[Chunk[T]], R]: ...
    def __call__(self, handler: Any) -> Any:
        self._declare(handler)
        return handler


def named(handler: Callable[..., Any]) -> str:
    return getattr(handler, "__qualname__", None) or repr(handler)


def is_async(handler: Callable[..., Any]) -> bool:
    called = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called)


def check_settings(settings: RunSettings, chunk: tuple[int, float | timedelta] | None) -> None:
    """Each by its name, when the handler is declared."""
    unknown = sorted(set(settings) - set(RunSettings.__annotations__))
    if unknown:
        raise TypeError(f"{', '.join(unknown)}: no such setting of a handler")
    defaults: dict[str, Any] = {
        "concurrency": _receiving.HANDLERS,
        "prefetch": _receiving.PREFETCH,
        "prefetch_bytes": _receiving.PREFETCH_BYTES,
        "lease": _receiving.LEASE,
        "poll_interval": _receiving.POLL_INTERVAL,
        "retry": RetryPolicy(),
        "undecodable": UndecodablePolicy(),
        "listen": True,
        "shutdown_deadline": _receiving.DEADLINE,
    }
    size, wait = chunk or (None, 0)
    _receiving.settings(**{**defaults, **settings}, size=size, wait=wait)


def check_annotation(
    handler: Callable[..., Any], queue: Queue[Any], is_async: bool, *, is_chunk: bool
) -> None:
    """What type checkers report earlier, checked at run time too: that what the handler is annotated to get is what its
    queue delivers."""
    expected: type[Any] = Chunk if is_chunk else Delivery if is_async else BlockingDelivery
    hint = _first_hint(handler)
    if hint is None or hint is Any:
        return
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (Delivery, BlockingDelivery, Chunk) and origin is not expected:
        kind = "an async" if is_async else "a blocking"
        raise TypeError(
            f"handler: `{named(handler)}` is {kind} function, which gets a {_shown(expected)}, and is annotated "
            f"with {_shown(origin)}"
        )
    if origin is not expected:
        if isinstance(origin, type) and not issubclass(expected, origin):
            raise TypeError(
                f"handler: `{named(handler)}` gets a {_shown(expected)}, and is annotated with {_shown(hint)}"
            )
        return
    if arguments and queue.payload is not None and not _fits(queue.payload, arguments[0]):
        raise TypeError(
            f"handler: `{named(handler)}` is annotated with {_shown(arguments[0])}, and queue `{queue.name}` carries "
            f"{_shown(queue.payload)}"
        )


def _first_hint(handler: Callable[..., Any]) -> Any:
    """The annotation of its first parameter; ``None`` if it has none, or one that can't be evaluated here."""
    try:
        (first, *_) = inspect.signature(handler).parameters
        called = handler if inspect.isroutine(handler) else getattr(handler, "func", type(handler).__call__)
        return typing.get_type_hints(called).get(first)
    except Exception:
        # Whatever an annotation raises, such as the name of a type that is imported for type checkers alone.
        return None


def _fits(carried: Any, annotated: Any) -> bool:
    if annotated is Any or isinstance(annotated, TypeVar) or annotated == carried:
        return True
    if isinstance(annotated, type) and isinstance(carried, type):
        return issubclass(carried, annotated)
    return carried in typing.get_args(annotated)


def _shown(hint: Any) -> str:
    name = getattr(hint, "__qualname__", None)
    if hint is BlockingDelivery:
        return "pgqrs.sync.Delivery"
    if hint in (Delivery, Chunk):
        return f"pgqrs.{name}"
    return f"`{name if isinstance(hint, type) else hint}`"
