"""Enqueueing in the caller's own transaction, on the caller's own connection, whatever the driver.

The statement is the Rust crate's; here it is only run, as each driver wants it. No driver is imported: whoever has
a connection of one has imported it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from pgqrs import _arguments, _pgqrs
from pgqrs.errors import NotInstalledError
from pgqrs.queue import Priority, PriorityName, Queue

if TYPE_CHECKING:
    from pgqrs import sync
    from pgqrs.producer import Producer

T = TypeVar("T")


class BlockingConnection(Protocol):
    """psycopg's ``Connection`` and ``Cursor``, SQLAlchemy's ``Connection`` and ``Session``."""

    def close(self) -> None: ...


class AsyncConnection(Protocol):
    """psycopg's ``AsyncConnection`` and ``AsyncCursor``, asyncpg's ``Connection``, SQLAlchemy's
    ``AsyncConnection`` and ``AsyncSession``."""

    def close(self) -> Coroutine[Any, Any, None]: ...


@overload
def enqueue_in(
    connection: BlockingConnection,
    queue: str,
    payload: object,
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
) -> int: ...
@overload
def enqueue_in(
    connection: BlockingConnection,
    queue: Queue[T] | Producer[T] | sync.Producer[T],
    payload: T,
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
) -> int: ...
@overload
def enqueue_in(
    connection: AsyncConnection,
    queue: str,
    payload: object,
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
) -> Coroutine[Any, Any, int]: ...
@overload
def enqueue_in(
    connection: AsyncConnection,
    queue: Queue[T] | Producer[T] | sync.Producer[T],
    payload: T,
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
) -> Coroutine[Any, Any, int]: ...
def enqueue_in(
    connection: Any,
    queue: str | Queue[Any] | Producer[Any] | sync.Producer[Any],
    payload: Any,
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
) -> int | Coroutine[Any, Any, int]:
    """Stores a message on your own connection, and gives its id: it is sent if, and only if, your transaction
    commits.

    The connection is psycopg's ``Connection``, ``AsyncConnection`` or one of their cursors, asyncpg's
    ``Connection``, or SQLAlchemy's ``Connection``, ``Session``, ``AsyncConnection`` or ``AsyncSession``. With one
    that is async, this is to be awaited. Nothing is committed here. The target is a queue, or a producer, through
    which the message is then sent; payloads and times are as in :meth:`pgqrs.Producer.enqueue`.

    One statement is run. In a transaction, an error of the server's makes that transaction fail.

    Raises what :meth:`pgqrs.Producer.enqueue` raises before it sends; :class:`pgqrs.QueueNotFoundError`,
    :class:`pgqrs.WorkerSuspendedError`, :class:`pgqrs.WorkerStoppedError`, after which your transaction can go on;
    :class:`pgqrs.NotInstalledError`; and your driver's own errors.
    """
    plan = _plan(_statement(queue, [payload], False, delay, at, priority))
    return _carried_out(connection, plan, lambda ids: ids[0])


@overload
def enqueue_batch_in(
    connection: BlockingConnection,
    queue: str,
    payloads: Iterable[object],
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
) -> list[int]: ...
@overload
def enqueue_batch_in(
    connection: BlockingConnection,
    queue: Queue[T] | Producer[T] | sync.Producer[T],
    payloads: Iterable[T],
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
) -> list[int]: ...
@overload
def enqueue_batch_in(
    connection: AsyncConnection,
    queue: str,
    payloads: Iterable[object],
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
) -> Coroutine[Any, Any, list[int]]: ...
@overload
def enqueue_batch_in(
    connection: AsyncConnection,
    queue: Queue[T] | Producer[T] | sync.Producer[T],
    payloads: Iterable[T],
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
) -> Coroutine[Any, Any, list[int]]: ...
def enqueue_batch_in(
    connection: Any,
    queue: str | Queue[Any] | Producer[Any] | sync.Producer[Any],
    payloads: Iterable[Any],
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
) -> list[int] | Coroutine[Any, Any, list[int]]:
    """Stores messages on your own connection, all of them or none, and gives their ids in the order of the
    payloads. Otherwise as :func:`enqueue_in`."""
    batch = _arguments.payloads(payloads)
    plan = _plan(_statement(queue, batch, True, delay, at, priority))
    return _carried_out(connection, plan, lambda ids: ids)


def _statement(
    target: object,
    payloads: list[Any],
    in_batch: bool,
    delay: object,
    at: object,
    priority: object,
) -> _pgqrs.Statement:
    native = getattr(target, "_native", None)
    if isinstance(native, _pgqrs.Producer):
        producer, queue = native, getattr(target, "_queue")  # noqa: B009
    elif isinstance(target, (str, Queue)):
        producer, queue = None, _arguments.queue(target)  # pyright: ignore[reportUnknownArgumentType]
    else:
        raise TypeError(f"queue: expected a str, a pgqrs.Queue or a producer, not {type(target).__name__}")
    for place, payload in enumerate(payloads):
        queue._check(payload, f"payloads[{place}]" if in_batch else "payload")
    wait, time = _arguments.times(delay, at)
    level = _arguments.priority(priority)
    return _pgqrs.statement(queue.name, producer, payloads, in_batch, wait, time, level)


Rows = Sequence[Sequence[Any]]

Plan = Generator["tuple[str, Sequence[Any]]", Rows, "list[int]"]
"""Statements to run, one after the other, and what they come to."""


def _plan(statement: _pgqrs.Statement) -> Plan:
    parameters = statement.parameters
    if not parameters[-1]:
        return []
    rows = yield statement.sql, parameters
    if rows:
        # The keys were drawn in the order of the payloads.
        return sorted(row[0] for row in rows)
    standing: tuple[str, bool] | None = None
    if statement.refusal_sql is not None:
        for row in (yield statement.refusal_sql, statement.refusal_parameters):
            standing = (row[0], row[1])
    raise statement.refusal(standing)


R = TypeVar("R")


def _carried_out(
    connection: object, plan: Plan, result: Callable[[list[int]], R]
) -> R | Coroutine[Any, Any, R]:
    run, run_async = _runners(connection)
    if run_async is not None:
        return _awaited(plan, run_async, result)
    assert run is not None
    try:
        sql, parameters = next(plan)
        while True:
            with _Translated():
                rows = run(sql, parameters)
            sql, parameters = plan.send(rows)
    except StopIteration as end:
        return result(end.value)


async def _awaited(
    plan: Plan, run: Callable[..., Coroutine[Any, Any, Rows]], result: Callable[[list[int]], R]
) -> R:
    try:
        sql, parameters = next(plan)
        while True:
            with _Translated():
                rows = await run(sql, parameters)
            sql, parameters = plan.send(rows)
    except StopIteration as end:
        return result(end.value)


class _Translated:
    """A missing table or schema is a schema that isn't installed; whatever else, the caller knows."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # SQLAlchemy keeps the driver's own error.
        origin = getattr(error, "orig", error)
        sqlstate = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
        if sqlstate in ("42P01", "3F000"):
            raise NotInstalledError from error


Run = Callable[[str, Sequence[Any]], Rows]
RunAsync = Callable[[str, Sequence[Any]], Coroutine[Any, Any, Rows]]


def _runners(connection: Any) -> tuple[Run | None, RunAsync | None]:
    """How to run a statement on it: blocking, or to be awaited."""
    if _is(connection, "psycopg", "Cursor", "AsyncCursor"):
        connection = connection.connection
    if _is(connection, "psycopg", "Connection"):

        def psycopg(sql: str, parameters: Sequence[Any]) -> Rows:
            from psycopg import RawCursor, rows

            with RawCursor(connection, row_factory=rows.tuple_row) as cursor:
                return cursor.execute(sql, parameters).fetchall()  # type: ignore[call-overload,no-any-return,unused-ignore]

        return psycopg, None
    if _is(connection, "psycopg", "AsyncConnection"):

        async def psycopg_async(sql: str, parameters: Sequence[Any]) -> Rows:
            from psycopg import AsyncRawCursor, rows

            async with AsyncRawCursor(connection, row_factory=rows.tuple_row) as cursor:
                await cursor.execute(sql, parameters)  # type: ignore[call-overload,unused-ignore]
                return await cursor.fetchall()

        return None, psycopg_async
    if _is(connection, "asyncpg.connection", "Connection") or _is(
        connection, "asyncpg.pool", "PoolConnectionProxy"
    ):

        async def asyncpg(sql: str, parameters: Sequence[Any]) -> Rows:
            rows: Rows = await connection.fetch(sql, *parameters)
            return rows

        return None, asyncpg
    if _is(connection, "sqlalchemy.engine", "Connection") or _is(
        connection, "sqlalchemy.orm", "Session", "scoped_session"
    ):

        def sqlalchemy(sql: str, parameters: Sequence[Any]) -> Rows:
            rows: Rows = connection.execute(*_for_sqlalchemy(sql, parameters)).all()
            return rows

        return sqlalchemy, None
    if _is(
        connection,
        "sqlalchemy.ext.asyncio",
        "AsyncConnection",
        "AsyncSession",
        "async_scoped_session",
    ):

        async def sqlalchemy_async(sql: str, parameters: Sequence[Any]) -> Rows:
            result = await connection.execute(*_for_sqlalchemy(sql, parameters))
            rows: Rows = result.all()
            return rows

        return None, sqlalchemy_async
    of = type(connection)
    raise TypeError(
        "connection: expected a connection of psycopg, asyncpg or SQLAlchemy, "
        f"not {of.__module__}.{of.__qualname__}"
    )


def _is(connection: object, module: str, *names: str) -> bool:
    loaded = sys.modules.get(module)
    classes = (getattr(loaded, name, None) for name in names)
    return any(isinstance(of, type) and isinstance(connection, of) for of in classes)


def _for_sqlalchemy(sql: str, parameters: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    values = {f"p{place}": value for place, value in enumerate(parameters, 1)}
    return _text(sql), values


@lru_cache
def _text(sql: str) -> Any:
    """With SQLAlchemy's places for parameters, whatever its driver's are; and with their types, which it would
    conclude from the values otherwise, and sometimes wrongly."""
    from sqlalchemy import ARRAY, BigInteger, DateTime, SmallInteger, Text, bindparam, text

    named = re.sub(r"\$(\d+)", r":p\1", sql.replace("::", r"\:\:"))
    places = set(re.findall(r"\$(\d+)", sql))
    if len(places) == 2:
        kinds: dict[str, Any] = {"p1": BigInteger(), "p2": Text()}
    else:
        kinds = {
            "p1": Text(),
            "p2": SmallInteger(),
            "p3": DateTime(timezone=True),
            "p4": DateTime(timezone=True),
            "p5": BigInteger(),
            "p6": BigInteger(),
            "p7": ARRAY(Text()),
        }
    return text(named).bindparams(*(bindparam(name, type_=kind) for name, kind in kinds.items()))
