"""The statements of test helpers, which the Rust crate has; here they are only run, as each driver wants it."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, TypeVar

from pgqrs import _pgqrs
from pgqrs._drivers import Rows, Translated, runners

T = TypeVar("T")

Query = tuple[str, Sequence[Any]]
"""A statement's name, and its parameters."""

Steps = Generator[Query, Rows, T]
"""A helper, written once for blocking and async connections: it yields statements, and is sent their rows."""


def _types(name: str) -> Any:
    """SQLAlchemy's types of a statement's parameters."""

    def types() -> list[Any]:
        from sqlalchemy import ARRAY, BigInteger, Boolean, Integer, Text

        receipt: list[Any] = [Integer(), BigInteger(), BigInteger()]
        of: dict[str, list[Any]] = {
            "list": [Text(), BigInteger()],
            "take": [Text(), BigInteger(), ARRAY(BigInteger()), Boolean()],
            "ack": receipt,
            "ack_in_group": receipt,
            "archive": receipt,
            "archive_in_group": receipt,
            "put_back": [*receipt, BigInteger(), Integer(), Integer(), Text()],
            "dead_letter": [*receipt, Text(), Text()],
        }
        return of[name]

    return types


NAMES = ("list", "take", "ack", "ack_in_group", "archive", "archive_in_group", "put_back", "dead_letter")

_TYPES = {name: _types(name) for name in NAMES}


def is_async(connection: object) -> bool:
    return runners(connection, _TYPES["list"])[1] is not None


def run(connection: object, query: Query) -> Rows:
    """Runs a statement on a blocking connection."""
    name, parameters = query
    blocking, _ = runners(connection, _TYPES[name])
    assert blocking is not None
    with Translated():
        return blocking(_pgqrs.test_statement(name), parameters)


async def run_async(connection: object, query: Query) -> Rows:
    """Runs a statement on an async connection."""
    name, parameters = query
    _, awaited = runners(connection, _TYPES[name])
    assert awaited is not None
    with Translated():
        return await awaited(_pgqrs.test_statement(name), parameters)


def carried_out(connection: object, steps: Steps[T]) -> T | Coroutine[Any, Any, T]:
    """Runs the statements of a helper. To be awaited if the connection is async."""
    if is_async(connection):
        return _carried_out_async(connection, steps)
    try:
        query = next(steps)
        while True:
            query = steps.send(run(connection, query))
    except StopIteration as end:
        result: T = end.value
        return result


async def _carried_out_async(connection: object, steps: Steps[T]) -> T:
    try:
        query = next(steps)
        while True:
            query = steps.send(await run_async(connection, query))
    except StopIteration as end:
        result: T = end.value
        return result


def headers(text: str | None) -> dict[str, str]:
    return {} if text is None else json.loads(text)
