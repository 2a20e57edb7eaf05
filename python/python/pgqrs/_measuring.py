"""What the extension measures, recorded by the application's meter."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

from pgqrs import _telemetry
from pgqrs._pgqrs import Measurements

_ENDING = 0.5
"""In seconds: how long the end of a run, or of the process, waits until all is recorded."""

_RECORDED_HERE = {
    ("messaging.client.operation.duration", "send"),
    ("messaging.client.sent.messages", "send"),
    ("messaging.client.consumed.messages", "process"),
    ("messaging.process.duration", "process"),
}
"""Of these `_telemetry` knows more, such as the type of a handler's exception."""

_thread: threading.Thread | None = None
_is_child = False


def start() -> None:
    """Measures from now on, if the application has a meter."""
    global _thread
    if _thread is not None or _is_child or _telemetry.instruments() is None:
        return
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)
    _thread = threading.Thread(target=_run, name="pgqrs metrics", daemon=True)
    _thread.start()
    Measurements.measure(True)


def flush() -> None:
    """Waits until what was measured is recorded, for a moment at most."""
    if _thread is not None:
        Measurements.wait(_ENDING)


def is_measuring() -> bool:
    """Whether there is something to flush."""
    return _thread is not None


def end() -> None:
    """Records the last measurements; called by the extension when the process ends."""
    if _thread is not None:
        Measurements.close()
        _thread.join(_ENDING)


def _forked() -> None:
    """In a child: it has neither of the two threads, and what they share may be locked for ever."""
    global _thread, _is_child
    Measurements.measure(False)
    _thread, _is_child = None, True


def _run() -> None:
    while (found := Measurements.next()) is not None:
        # A provider can be replaced, and one that has been shut down records nothing.
        instruments = _telemetry.instruments()
        if instruments is None:
            continue
        for name, kind, unit, description, bounds, attributes, values in found:
            if (name, attributes.get("messaging.operation.name")) in _RECORDED_HERE:
                continue
            # What a meter of the application's raises is not pgqrs's.
            with contextlib.suppress(Exception):
                _record(instruments.named(name, kind, unit, description, bounds), kind, attributes, values)


def _record(instrument: Any, kind: str, attributes: dict[str, str], values: list[float]) -> None:
    if instrument is None:
        return
    if kind == "counter":
        instrument.add(int(values[0]), attributes)
    elif kind == "gauge":
        instrument.set(values[0], attributes)
    else:
        for value in values:
            instrument.record(value, attributes)
