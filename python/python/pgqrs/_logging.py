"""The extension's events, as records of the logger ``pgqrs``."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any

from pgqrs import _pgqrs

_log = logging.getLogger("pgqrs")

_LEVELS = {"ERROR": logging.ERROR, "WARN": logging.WARNING, "INFO": logging.INFO, "DEBUG": logging.DEBUG}

CAPACITY = 10_000
"""How many events can wait to be logged."""

_ENDING = 5
"""In seconds: how long the end of the process waits for handlers of ``logging``."""

_OF_A_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime"}
"""Names that a field can't have in ``extra``."""

_thread: threading.Thread | None = None


def start(log: _pgqrs.Log) -> None:
    """Logs the events of this process; called by the extension when it has started its threads."""
    global _thread
    log.limit(CAPACITY)
    _thread = threading.Thread(target=_run, args=(log,), name="pgqrs log", daemon=True)
    _thread.start()


def end() -> None:
    """Waits until the last events are logged; called by the extension when the process ends."""
    if _thread is not None:
        _thread.join(_ENDING)


def _run(log: _pgqrs.Log) -> None:
    while (found := log.next()) is not None:
        events, dropped = found
        for level, text, fields in events:
            # A handler's own mistakes are reported by `logging`; what a filter raises is nobody's.
            with contextlib.suppress(Exception):
                _emit(_LEVELS.get(level, logging.DEBUG), text, fields)
        if dropped:
            text = "events dropped: the handlers of `logging` are slower than they come"
            _emit(logging.WARNING, text, {"dropped": dropped})


def _emit(level: int, text: str, fields: dict[str, Any]) -> None:
    if not _log.isEnabledFor(level):
        return
    extra: dict[str, Any] = {"event": text}
    for name, value in fields.items():
        attribute = name.replace(".", "_")
        extra[f"pgqrs_{attribute}" if attribute in _OF_A_RECORD else attribute] = value
    shown = [f"{name}={_shown(value)}" for name, value in fields.items()]
    _log.log(level, "%s", "  ".join([text, " ".join(shown)]) if shown else text, extra=extra)


def _shown(value: object) -> str:
    """As one word, or in quotes."""
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else repr(text)
