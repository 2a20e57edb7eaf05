"""What all tests have: a database of their own, and an eye on its rows."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import pgqrs
import pgqrs.sync

_SERVER = os.environ.get("PGQRS_TEST_URL", "")
_TEMPLATE = f"pgqrs_python_{os.getpid()}"
_numbers = itertools.count()

# A shell that starts the tests in the background lets them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _of(database: str) -> str:
    server, _ = _SERVER.rsplit("/", 1)
    return f"{server}/{database}"


def _administer(statement: str) -> None:
    with psycopg.connect(_SERVER, autocommit=True) as connection:
        if statement.startswith("create database") and connection.info.server_version >= 150_000:
            # Five times as fast as by the log, which is the default since then.
            statement += " strategy file_copy"
        connection.execute(statement.encode())


@pytest.fixture(scope="session")
def template() -> Iterator[str]:
    """A database with the schema, to be copied."""
    assert _SERVER, "run the tests with `cargo xtask python`"
    _administer(f"create database {_TEMPLATE}")
    with pgqrs.sync.connect(_of(_TEMPLATE), install=True):
        pass
    yield _TEMPLATE
    _administer(f"drop database {_TEMPLATE} with (force)")


@dataclass
class Database:
    """A database of the test's own."""

    url: str

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(sql.encode(), parameters).fetchall()

    def change(self, sql: str, *parameters: Any) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(sql.encode(), parameters)

    def payloads(self) -> list[str]:
        """As they are stored, in the order of their keys."""
        return [text for (text,) in self.rows("select payload::text from pgqrs.messages order by id")]

    def count(self) -> int:
        ((count,),) = self.rows("select count(*) from pgqrs.messages")
        return int(count)


@pytest.fixture
def database(template: str) -> Iterator[Database]:
    name = f"{template}_{next(_numbers)}"
    _administer(f"create database {name} template {template}")
    yield Database(_of(name))
    _administer(f"drop database {name} with (force)")


@pytest.fixture
def bare() -> Iterator[Database]:
    """A database without the schema."""
    name = f"{_TEMPLATE}_bare_{next(_numbers)}"
    _administer(f"create database {name}")
    yield Database(_of(name))
    _administer(f"drop database {name} with (force)")


@pytest.fixture
async def store(database: Database) -> AsyncIterator[pgqrs.Store]:
    """With the queues `tasks` and `emails`."""
    async with await pgqrs.connect(database.url) as store:
        await store.queue("tasks")
        await store.queue("emails")
        yield store


@pytest.fixture
async def producer(store: pgqrs.Store) -> pgqrs.Producer[Any]:
    return await store.producer("tasks")


@pytest.fixture
def sync_store(database: Database) -> Iterator[pgqrs.sync.Store]:
    """With the queues `tasks` and `emails`."""
    with pgqrs.sync.connect(database.url) as store:
        store.queue("tasks")
        store.queue("emails")
        yield store


async def until(what: str, holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits for a condition, for 20 seconds at most."""
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        held = holds()
        if held if isinstance(held, bool) else await held:
            return
        assert asyncio.get_running_loop().time() < deadline, f"in vain: {what}"
        await asyncio.sleep(0.01)


def line(printed: Iterable[str], text: str) -> str:
    """The next line that has this text, of what a process prints."""
    others: list[str] = []
    for found in printed:
        if text in found:
            return found
        others.append(found)
    raise AssertionError(f"in vain: {text!r} in {''.join(others)!r}")
