"""Checks of arguments: each says which one is wrong, before anything is sent."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from pgqrs.queue import Priority, Queue


def _wrong(name: str, expected: str, value: object) -> TypeError:
    return TypeError(f"{name}: expected {expected}, not {type(value).__name__}")


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a str", value)
    return str.__str__(value)


def optional_text(name: str, value: object) -> str | None:
    return None if value is None else text(name, value)


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "a bool", value)
    return value


def integer(name: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(name, "an int", value)
    if not least <= value <= most:
        raise ValueError(f"{name}: expected {least} to {most}, not {value}")
    return int(value)


def identity(hostname: object, port: object) -> tuple[str, int] | None:
    """A worker's host and port; ``None`` for an anonymous one under the machine's host name."""
    checked = integer("port", port, 0, 65_535)
    if hostname is not None:
        return text("hostname", hostname), checked
    return (socket.gethostname(), checked) if checked else None


def optional_integer(name: str, value: object, least: int, most: int) -> int | None:
    return None if value is None else integer(name, value, least, most)


def number(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _wrong(name, "a number", value)
    return float(value)


def duration(name: str, value: object) -> timedelta:
    """A number of seconds, or a timedelta; not negative."""
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{name}: {value} is not a number of seconds")
        try:
            duration = timedelta(seconds=value)
        except OverflowError:
            raise ValueError(f"{name}: {value} seconds are more than a timedelta holds") from None
    else:
        raise _wrong(name, "a number of seconds or a timedelta", value)
    if duration < timedelta(0):
        raise ValueError(f"{name}: {value} is negative")
    return duration


def optional_duration(name: str, value: object) -> timedelta | None:
    return None if value is None else duration(name, value)


def time(name: str, value: object) -> datetime:
    """An aware datetime, in UTC."""
    if not isinstance(value, datetime):
        raise _wrong(name, "a datetime with a time zone", value)
    if value.tzinfo is None or value.utcoffset() is None:
        raise ValueError(
            f"{name}: {value!r} has no time zone, so it is not a point in time; "
            "add one, as in `datetime.now(timezone.utc)`"
        )
    return value.astimezone(timezone.utc)


def times(delay: object, at: object) -> tuple[timedelta | None, datetime | None]:
    """When a message becomes visible: after a delay, or at a time; not both."""
    if delay is not None and at is not None:
        raise TypeError("delay, at: a message becomes visible at one time; pass one of the two")
    return optional_duration("delay", delay), None if at is None else time("at", at)


def priority(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong("priority", "a pgqrs.Priority", value)
    try:
        return Priority(value).value
    except ValueError:
        names = ", ".join(repr(priority.value) for priority in Priority)
        raise ValueError(f"priority: expected one of {names}, not {value!r}") from None


def headers(value: object) -> list[tuple[str, str]]:
    """Texts by name; what a name and a value may be is checked by the extension."""
    if value is None:
        return []
    if not isinstance(value, Mapping):
        raise _wrong("headers", "a dict of str", value)
    return [
        (_sendable("headers", name), _sendable(f"headers[{name!r}]", content))
        for name, content in value.items()  # pyright: ignore[reportUnknownVariableType]
    ]


def _sendable(name: str, value: object) -> str:
    """A text without lone surrogates, which no encoding has."""
    checked = text(name, value)
    try:
        checked.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: {error}") from None
    return checked


def queue(value: object) -> Queue[Any]:
    if isinstance(value, Queue):
        return value  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, str):
        return Queue(value)
    raise _wrong("queue", "a str or a pgqrs.Queue", value)


def queue_name(value: object) -> str:
    return queue(value).name


def payloads(value: object) -> list[Any]:
    """A batch: something that is run through once, and isn't a payload itself."""
    if isinstance(value, (str, bytes, dict)):
        raise _wrong("payloads", "an iterable of payloads, such as a list", value)
    try:
        return list(value)  # type: ignore[call-overload,no-any-return]  # pyright: ignore
    except TypeError:
        raise _wrong("payloads", "an iterable of payloads, such as a list", value) from None


def identifier(name: str, value: object) -> int:
    """The id of a message or a worker."""
    return integer(name, value, -(2**63), 2**63 - 1)


def page(after: object, limit: object, payload: object) -> tuple[int | None, int, bool]:
    after_id = None if after is None else identifier("after", after)
    return after_id, integer("limit", limit, 0, 2**32 - 1), flag("payload", payload)
