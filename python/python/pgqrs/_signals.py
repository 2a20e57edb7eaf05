"""SIGTERM, for consumers that run. All of a process's stop at once; the handler that was there before is put
back when the last of them has ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_stops: dict[int, Callable[[], None]] = {}
_previous: dict[int, Any] = {}


def _stop(number: int, frame: FrameType | None) -> None:
    for stop in list(_stops.values()):
        stop()


@contextmanager
def stopping(stop: Callable[[], None], number: int = signal.SIGTERM) -> Iterator[None]:
    """Calls ``stop`` on the signal, as long as this lasts.

    A program that has a handler of its own keeps it, and that one calls the consumer's ``stop()``. Outside of the
    main thread Python has no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _stops and signal.getsignal(number) is not signal.SIG_DFL:
        yield
        return
    key = id(stop)
    if not _stops:
        _previous[number] = signal.signal(number, _stop)
    _stops[key] = stop
    try:
        yield
    finally:
        del _stops[key]
        if not _stops:
            signal.signal(number, _previous.pop(number))


@contextmanager
def stopping_app(stop: Callable[[], None], abort: Callable[[], None]) -> Iterator[None]:
    """Calls ``stop`` on the first SIGTERM or SIGINT, and ``abort`` on the second one. The next one is the process's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {}
    received = 0

    def restore() -> None:
        while previous:
            number, handler = previous.popitem()
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received == 1:
            stop()
            return
        restore()
        abort()

    for number in (signal.SIGTERM, signal.SIGINT):
        if _is_default(number):
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def _is_default(number: int) -> bool:
    """Whether the program has no handler of its own for it. That of ``asyncio.run`` for Ctrl-C is none."""
    handler = signal.getsignal(number)
    if handler is signal.SIG_DFL or handler is signal.default_int_handler:
        return True
    called = getattr(getattr(handler, "func", None), "__qualname__", "")
    return number == signal.SIGINT and called == "Runner._on_sigint"
