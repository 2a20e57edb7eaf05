"""What both kinds of consumers do with a delivery."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from pgqrs import _pgqrs
from pgqrs.errors import DecodeError
from pgqrs.outcome import Outcome
from pgqrs.queue import Queue

D = TypeVar("D")

DEADLINE = 30
"""In seconds: how long handlers may go on after a consumer was told to stop."""

_log = logging.getLogger("pgqrs")


def decoded(
    deliver: Callable[[_pgqrs.Delivery, Queue[Any]], D], native: _pgqrs.Delivery, queue: Queue[Any]
) -> D | None:
    """The delivery; or none where its payload isn't of the queue's type, and it is a dead letter now."""
    try:
        return deliver(native, queue)
    except DecodeError as error:
        native.finish("dead_letter", None, str(error))
        _log.error("message %s of queue `%s` became a dead letter: %s", native.id, queue.name, error)
        return None


def finished(native: _pgqrs.Delivery, outcome: object) -> None:
    """By what the handler has returned."""
    if outcome is None:
        outcome = Outcome.done()
    if not isinstance(outcome, Outcome):
        raise TypeError(f"a handler returns None or a pgqrs.Outcome, not {type(outcome).__name__}")
    native.finish(outcome.kind, outcome.delay, outcome.reason)


def failed(native: _pgqrs.Delivery, error: Exception) -> None:
    """By what it has raised."""
    native.finish("failed", None, f"{type(error).__name__}: {error}")
    _log.error("the handler of message %s failed", native.id, exc_info=error)


def give_back(event: _pgqrs.Delivery | int) -> None:
    """To be delivered again at once: nobody has failed."""
    if not isinstance(event, int):
        event.finish("retry", timedelta(0), None)
