"""Fixtures of pytest. In ``conftest.py``::

    pytest_plugins = ["pgqrs.testing.fixtures"]

``enqueued``, ``capture`` and ``drain`` are the functions of :mod:`pgqrs.testing` on the fixture ``pgqrs_connection``. By
default that is a connection of psycopg to ``DATABASE_URL``, whose transaction is rolled back after the test. A project
whose tests have a connection already returns that one::

    @pytest.fixture
    def pgqrs_connection(session):  # a session of SQLAlchemy, or Django's connection
        return session
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest

from pgqrs import testing
from pgqrs.app import App
from pgqrs.queue import Queue
from pgqrs.testing import Captured, Drained, Enqueued
from pgqrs.testing._drain import AsyncHandler, BlockingHandler

T = TypeVar("T")


@pytest.fixture
def pgqrs_connection() -> Iterator[Any]:
    """The connection of the test: a transaction that is rolled back."""
    import psycopg

    url = os.environ.get("DATABASE_URL")
    if not url:
        pytest.fail("set DATABASE_URL to a database for tests, or define the fixture `pgqrs_connection`")
    with psycopg.connect(url) as connection:
        yield connection
        connection.rollback()


class EnqueuedFixture:
    """:func:`pgqrs.testing.enqueued` on the connection of the test."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __call__(self, queue: Queue[T]) -> list[Enqueued[T]]:
        """Lists the messages of a queue that aren't settled."""
        return testing.enqueued(self._connection, queue)  # type: ignore[no-any-return]


class CaptureFixture:
    """:func:`pgqrs.testing.capture` on the connection of the test."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __call__(self, queue: Queue[T]) -> AbstractContextManager[Captured[T]]:
        """Captures what is sent within a block."""
        return testing.capture(self._connection, queue)


class DrainFixture:
    """:func:`pgqrs.testing.drain` on the connection of the test."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __call__(
        self,
        queue: Queue[T],
        handler: BlockingHandler[T] | AsyncHandler[T] | App,
        *,
        with_delayed: bool = False,
        until_empty: bool = False,
        limit: int | None = None,
        collect_errors: bool = False,
    ) -> Drained:
        """Runs a handler on the messages of a queue that are ready, and raises its errors."""
        return testing.drain(
            self._connection,
            queue,
            handler,
            with_delayed=with_delayed,
            until_empty=until_empty,
            limit=limit,
            collect_errors=collect_errors,
        )


@pytest.fixture
def enqueued(pgqrs_connection: Any) -> EnqueuedFixture:
    """Lists what was sent to a queue: ``enqueued(EMAILS)``."""
    return EnqueuedFixture(pgqrs_connection)


@pytest.fixture
def capture(pgqrs_connection: Any) -> CaptureFixture:
    """Captures what is sent within a block: ``with capture(EMAILS) as emails``."""
    return CaptureFixture(pgqrs_connection)


@pytest.fixture
def drain(pgqrs_connection: Any) -> DrainFixture:
    """Runs a handler on what was sent to a queue: ``drain(EMAILS, send_email)``."""
    return DrainFixture(pgqrs_connection)
