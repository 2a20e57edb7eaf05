"""How each driver runs a statement. None of them is imported: a caller that has a connection of one has imported it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any

from pgqrs.errors import NotInstalledError

Rows = Sequence[Sequence[Any]]


class Translated:
    """If a table or the schema of pgqrs is missing, it isn't installed. Any other error is the driver's own."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # SQLAlchemy keeps the driver's own error.
        origin = getattr(error, "orig", error)
        sqlstate = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
        if sqlstate in ("42P01", "3F000") and "pgqrs" in str(origin):
            raise NotInstalledError from error


Run = Callable[[str, Sequence[Any]], Rows]
RunAsync = Callable[[str, Sequence[Any]], Coroutine[Any, Any, Rows]]


Types = Callable[[], "list[Any]"]
"""SQLAlchemy's types of a statement's parameters."""


def runners(connection: Any, types: Types) -> tuple[Run | None, RunAsync | None]:
    """How to run a statement on it: blocking, or to be awaited."""
    if is_one(connection, "psycopg", "Cursor", "AsyncCursor"):
        connection = connection.connection
    if is_one(connection, "psycopg", "Connection"):

        def psycopg(sql: str, parameters: Sequence[Any]) -> Rows:
            from psycopg import RawCursor, rows

            with RawCursor(connection, row_factory=rows.tuple_row) as cursor:
                return cursor.execute(sql, parameters).fetchall()  # type: ignore[call-overload,no-any-return,unused-ignore]

        return psycopg, None
    if is_one(connection, "psycopg", "AsyncConnection"):

        async def psycopg_async(sql: str, parameters: Sequence[Any]) -> Rows:
            from psycopg import AsyncRawCursor, rows

            async with AsyncRawCursor(connection, row_factory=rows.tuple_row) as cursor:
                await cursor.execute(sql, parameters)  # type: ignore[call-overload,unused-ignore]
                return await cursor.fetchall()

        return None, psycopg_async
    if is_one(connection, "asyncpg.connection", "Connection") or is_one(
        connection, "asyncpg.pool", "PoolConnectionProxy"
    ):

        async def asyncpg(sql: str, parameters: Sequence[Any]) -> Rows:
            rows: Rows = await connection.fetch(sql, *parameters)
            return rows

        return None, asyncpg
    if is_one(connection, "sqlalchemy.engine", "Connection") or is_one(
        connection, "sqlalchemy.orm", "Session", "scoped_session"
    ):

        def sqlalchemy(sql: str, parameters: Sequence[Any]) -> Rows:
            rows: Rows = connection.execute(*_for_sqlalchemy(sql, parameters, types)).all()
            return rows

        return sqlalchemy, None
    if is_one(
        connection,
        "sqlalchemy.ext.asyncio",
        "AsyncConnection",
        "AsyncSession",
        "async_scoped_session",
    ):

        async def sqlalchemy_async(sql: str, parameters: Sequence[Any]) -> Rows:
            result = await connection.execute(*_for_sqlalchemy(sql, parameters, types))
            rows: Rows = result.all()
            return rows

        return None, sqlalchemy_async
    if is_one(connection, "django.utils.connection", "ConnectionProxy"):
        # `django.db.connection`, which stands for the one of this thread.
        connection = connection._connections[connection._alias]
    if is_one(connection, "django.db.backends.base.base", "BaseDatabaseWrapper"):

        def django(sql: str, parameters: Sequence[Any]) -> Rows:
            with connection.cursor() as cursor:
                return _of_cursor(cursor, sql, parameters)

        return django, None
    if is_one(connection, "django.db.backends.utils", "CursorWrapper"):

        def django_cursor(sql: str, parameters: Sequence[Any]) -> Rows:
            return _of_cursor(connection, sql, parameters)

        return django_cursor, None
    of = type(connection)
    raise TypeError(
        "connection: expected a connection of psycopg, asyncpg, SQLAlchemy or Django, "
        f"not {of.__module__}.{of.__qualname__}"
    )


def _of_cursor(cursor: Any, sql: str, parameters: Sequence[Any]) -> Rows:
    """By a cursor of Django's, which logs and counts its statements, and begins a transaction if it is to."""
    named = re.sub(r"\$(\d+)", r"%(p\1)s", sql.replace("%", "%%"))
    # Sequences as lists, which both of its drivers send as arrays.
    values = {
        f"p{place}": list(value) if isinstance(value, tuple) else value
        for place, value in enumerate(parameters, 1)
    }
    cursor.execute(named, values)
    rows: Rows = cursor.fetchall()
    return rows


def is_one(connection: object, module: str, *names: str) -> bool:
    loaded = sys.modules.get(module)
    classes = (getattr(loaded, name, None) for name in names)
    return any(isinstance(of, type) and isinstance(connection, of) for of in classes)


def _for_sqlalchemy(sql: str, parameters: Sequence[Any], types: Types) -> tuple[Any, dict[str, Any]]:
    values = {f"p{place}": value for place, value in enumerate(parameters, 1)}
    return _text(sql, types), values


@lru_cache
def _text(sql: str, types: Types) -> Any:
    """With SQLAlchemy's places for parameters, whatever its driver's are; and with their types, which it would
    conclude from the values otherwise, and sometimes wrongly."""
    from sqlalchemy import bindparam, text

    named = re.sub(r"\$(\d+)", r":p\1", sql.replace("::", r"\:\:"))
    kinds = enumerate(types(), 1)
    return text(named).bindparams(*(bindparam(f"p{place}", type_=kind) for place, kind in kinds))


def enqueue_types() -> list[Any]:
    from sqlalchemy import ARRAY, BigInteger, DateTime, SmallInteger, Text

    return [
        Text(),
        SmallInteger(),
        DateTime(timezone=True),
        BigInteger(),
        BigInteger(),
        ARRAY(Text()),
        ARRAY(Text()),
    ]


def ack_types() -> list[Any]:
    from sqlalchemy import BigInteger, Integer

    return [Integer(), BigInteger(), BigInteger()]
