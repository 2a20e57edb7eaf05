"""Checks of arguments: each says which one is wrong, before anything is sent."""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

from pgqrs.listings import Rate
from pgqrs.message import Message
from pgqrs.queue import Priority, Queue


def _wrong(name: str, expected: str, value: object) -> TypeError:
    return TypeError(f"{name}: expected {expected}, not {type(value).__name__}")


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a str", value)
    return str.__str__(value)


def optional_text(name: str, value: object) -> str | None:
    return None if value is None else text(name, value)


def url(name: str, value: object) -> str:
    """A URL of PostgreSQL: also one with SQLAlchemy's driver in its scheme, or libpq's ``key=value`` pairs."""
    checked = text(name, value)
    scheme, separator, rest = checked.partition("://")
    if not separator:
        if re.match(r"\s*\w+\s*=", checked):
            return _of_pairs(name, checked)
        raise ValueError(f"{name}: expected a URL, such as postgresql://localhost/mydb")
    if scheme.partition("+")[0].lower() not in ("postgresql", "postgres"):
        raise ValueError(
            f"{name}: expected a URL of PostgreSQL, as in postgresql://.., and its scheme is `{scheme}`"
        )
    return f"postgresql://{rest}"


def _of_pairs(name: str, pairs: str) -> str:
    """The URL that says the same as libpq's pairs: ``host=localhost dbname=mydb``."""
    pair = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))\s*", re.DOTALL)
    values: dict[str, str] = {}
    place = 0
    while place < len(pairs):
        found = pair.match(pairs, place)
        if found is None or found.end() == place:
            # Without the text, which may have the password.
            raise ValueError(f"{name}: expected pairs, as in host=localhost dbname=mydb")
        key, quoted, bare = found.groups()
        values[key] = re.sub(r"\\(.)", r"\1", quoted if quoted is not None else bare)
        place = found.end()
    host = values.pop("host", "") or values.get("hostaddr", "") or "localhost"
    values.pop("hostaddr", None)
    user, password = values.pop("user", ""), values.pop("password", "")
    database = values.pop("dbname", user)
    return url_of(host, values.pop("port", ""), user, password, database, values)


def url_of(host: str, port: str, user: str, password: str, database: str, parameters: dict[str, str]) -> str:
    """A URL. As with libpq, ``host`` and ``port`` can be lists, and a host the folder of a socket."""
    hosts, ports = host.split(","), port.split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts) or any(one.startswith("/") for one in hosts):
        parameters = {**parameters, "host": host, **({"port": port} if port else {})}
        hosts, ports = ["localhost"], [""]
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    where = ",".join(
        (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        for host, port in zip(hosts, ports, strict=True)
    )
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f"postgresql://{login}{'@' if login else ''}{where}/{quote(database, safe='')}{query}"


def place(value: str) -> str:
    """Hosts and database of a URL, without the login."""
    rest = re.split("[?#]", url("url", value).partition("://")[2], maxsplit=1)[0]
    authority, slash, database = rest.partition("/")
    return authority.rpartition("@")[2] + slash + database


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "a bool", value)
    return value


def one_of(name: str, value: object, values: tuple[str, ...]) -> str:
    if value not in values:
        raise ValueError(f"{name}: expected one of {', '.join(values)}, not {value!r}")
    return str(value)


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


def change(name: str, value: object) -> tuple[timedelta | None] | None:
    """A duration that is set, or unset by ``None``; ``None`` for ``...``, which leaves it as it is."""
    return None if value is ... else (optional_duration(name, value),)


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


def groups(
    at_once: object, stops: object, per_group: object
) -> tuple[tuple[int, bool, tuple[int, timedelta] | None] | None] | None:
    """A change of how a queue handles groups: nothing, none any more, or their settings."""
    stops = flag("stops_after_dead_letter", stops)
    of_group = optional_rate("groups_rate", per_group)
    if at_once is ...:
        if of_group is not None:
            raise TypeError(
                "groups_rate: pass groups_at_once as well; all settings of groups are set together"
            )
        return None
    if at_once is None:
        return (None,)
    return ((integer("groups_at_once", at_once, 1, 2**31 - 1), stops, of_group),)


def integer_change(name: str, value: object) -> tuple[int | None] | None:
    """A change of a limit: nothing, none any more, or a limit."""
    if value is ...:
        return None
    return (None if value is None else integer(name, value, 1, 2**31 - 1),)


def optional_rate(name: str, value: object) -> tuple[int, timedelta] | None:
    if value is None:
        return None
    if not isinstance(value, Rate):
        raise _wrong(name, "a pgqrs.Rate", value)
    return integer("messages", value.messages, 1, 2**31 - 1), duration("per", value.per)


def rate_change(value: object) -> tuple[tuple[int, timedelta] | None] | None:
    """A change of a rate: nothing, none any more, or a rate."""
    return None if value is ... else (optional_rate("rate", value),)


Key = tuple[str, str, str, "timedelta | None"]
NativeMessage = tuple[
    Any,
    "timedelta | None",
    "datetime | None",
    "str | None",
    "list[tuple[str, str]]",
    "Key | None",
    "int | None",
    "timedelta | None",
    bool,
]


def key(message: Message[Any]) -> Key | None:
    """Which kind of key a message has, the key, what a duplicate does, and a time."""
    named = {
        "unique": message.unique,
        "unique_until_claimed": message.unique_until_claimed,
        "once_within": message.once_within,
        "group": message.group,
    }
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise TypeError(f"{', '.join(given)}: a message has one key or group; pass one of them")
    changes = text("on_duplicate", message.on_duplicate)
    if changes not in ("keep", "replace", "postpone", "append"):
        raise ValueError(f"on_duplicate: expected 'keep', 'replace', 'postpone' or 'append', not {changes!r}")
    if changes != "keep" and given != ["unique_until_claimed"]:
        raise TypeError("on_duplicate: only a message that waits can be changed: pass unique_until_claimed")
    if (changes == "postpone") != (message.max_wait is not None):
        raise TypeError("max_wait: on_duplicate='postpone' needs it, and nothing else takes it")
    if message.once_within is not None:
        if not isinstance(message.once_within, tuple) or len(message.once_within) != 2:  # pyright: ignore
            raise _wrong("once_within", "a key and a time, as in ('request-7', 3600)", message.once_within)
        value, window = message.once_within
        return "once_within", _sendable("once_within", value), changes, duration("once_within", window)
    if not given:
        return None
    value = _sendable(given[0], named[given[0]])
    return given[0], value, changes, optional_duration("max_wait", message.max_wait)


def message(value: Message[Any]) -> NativeMessage:
    """A message with its options, as the extension takes it."""
    wait, when = times(value.delay, value.at)
    return (
        value.payload,
        wait,
        when,
        None if value.priority is None else priority(value.priority),
        headers(value.headers),
        key(value),
        optional_integer("max_attempts", value.max_attempts, 1, 2**31 - 1),
        optional_duration("expires_in", value.expires_in),
        flag("drop_if_expired", value.drop_if_expired),
    )


def with_key(queue: Queue[Any], value: Message[Any]) -> Message[Any]:
    """With the key or the group that its queue computes."""
    own = (value.unique, value.unique_until_claimed, value.once_within, value.group)
    has_own = any(key is not None for key in own)
    if queue.group_by is not None:
        if has_own:
            raise TypeError(
                f"group: {queue!r} computes the group of each message; pass neither a key nor a group"
            )
        return replace(value, group=text("group_by's group", queue.group_by(value.payload)))
    if queue.unique_by is None or has_own:
        return value
    return replace(value, unique=text("unique_by's key", queue.unique_by(value.payload)))


def not_a_message(name: str, value: object) -> None:
    """A message in place of its payload would be stored as a dataclass is, without its options."""
    if isinstance(value, Message):
        raise TypeError(
            f"{name}: expected a payload, not a pgqrs.Message; pass it to the producer's enqueue_batch([..])"
        )


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
