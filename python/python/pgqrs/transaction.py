"""Enqueueing in the caller's own transaction, on the caller's own connection, whatever the driver.

The statement is the Rust crate's; here it is only run, as each driver wants it. No driver is imported: a caller
that has a connection of one has imported it.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from pgqrs import _arguments, _pgqrs
from pgqrs.errors import NotInstalledError
from pgqrs.queue import Priority, PriorityName, Queue

if TYPE_CHECKING:
    from pgqrs import sync
    from pgqrs.producer import Producer
    from pgqrs.store import Store

T = TypeVar("T")


class BlockingConnection(Protocol):
    """psycopg's ``Connection`` and ``Cursor``, SQLAlchemy's ``Connection`` and ``Session``."""

    def close(self) -> None:
        """Closes it."""


class AsyncConnection(Protocol):
    """psycopg's ``AsyncConnection`` and ``AsyncCursor``, asyncpg's ``Connection``, SQLAlchemy's
    ``AsyncConnection`` and ``AsyncSession``."""

    def close(self) -> Coroutine[Any, Any, None]:
        """Closes it.

        Returns:
            Something to await.
        """
        ...


@overload
def enqueue_in(
    connection: BlockingConnection,
    queue: str,
    payload: object,
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
    headers: Mapping[str, str] | None = None,
    store: Store | sync.Store | None = None,
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
    headers: Mapping[str, str] | None = None,
    store: Store | sync.Store | None = None,
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
    headers: Mapping[str, str] | None = None,
    store: Store | sync.Store | None = None,
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
    headers: Mapping[str, str] | None = None,
    store: Store | sync.Store | None = None,
) -> Coroutine[Any, Any, int]: ...
def enqueue_in(
    connection: Any,
    queue: str | Queue[Any] | Producer[Any] | sync.Producer[Any],
    payload: Any,
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
    headers: Mapping[str, str] | None = None,
    store: Store | sync.Store | None = None,
) -> int | Coroutine[Any, Any, int]:
    """Stores a message on your own connection: it is sent if and only if your transaction commits.

    It runs one statement, and doesn't commit. After your commit, consumers find the message at their next poll,
    unless they are woken. In a session of SQLAlchemy they are woken automatically if the target is a producer or
    ``store`` is passed. The other drivers, and SQLAlchemy's ``Connection``, don't report a commit: call
    ``store.wake(queue)`` after it. Messages with keys or limits of their own can only be sent with a producer.

    Args:
        connection: psycopg's ``Connection``, ``AsyncConnection`` or one of their cursors, asyncpg's ``Connection``,
            or SQLAlchemy's ``Connection``, ``Session``, ``AsyncConnection`` or ``AsyncSession``. With an async one,
            await this call.
        queue: A queue, its name, or a producer, through which the message is then sent.
        payload: As for :meth:`pgqrs.Producer.enqueue`.
        delay: As for :meth:`pgqrs.Producer.enqueue`.
        at: As for :meth:`pgqrs.Producer.enqueue`.
        priority: As for :meth:`pgqrs.Producer.enqueue`.
        headers: As for :meth:`pgqrs.Producer.enqueue`.
        store: The store that wakes the queue's consumers after the commit. Only for sessions of SQLAlchemy.

    Returns:
        The message's id.

    Raises:
        SerializeError, PayloadTooLargeError, PayloadTooDeepError, DelayTooLongError, InvalidHeaderError: Before
            anything is sent; your transaction can go on.
        QueueNotFoundError, QueueClosedError, WorkerSuspendedError, WorkerStoppedError: Nothing was stored, and your
            transaction can go on.
        NotInstalledError: The database has no pgqrs schema; your transaction has failed.
        TypeError: The connection is of no supported driver, or another argument is of the wrong type.
        Exception: Your driver's own errors. If the server has refused the statement, your transaction has failed.
    """
    statement = _statement(queue, [payload], False, delay, at, priority, headers)
    wake = _waker(connection, queue, store, is_ready=not delay and at is None)
    return _carried_out(connection, statement, wake, lambda ids: ids[0])


@overload
def enqueue_batch_in(
    connection: BlockingConnection,
    queue: str,
    payloads: Iterable[object],
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
    headers: Mapping[str, str] | None = None,
    store: Store | sync.Store | None = None,
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
    headers: Mapping[str, str] | None = None,
    store: Store | sync.Store | None = None,
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
    headers: Mapping[str, str] | None = None,
    store: Store | sync.Store | None = None,
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
    headers: Mapping[str, str] | None = None,
    store: Store | sync.Store | None = None,
) -> Coroutine[Any, Any, list[int]]: ...
def enqueue_batch_in(
    connection: Any,
    queue: str | Queue[Any] | Producer[Any] | sync.Producer[Any],
    payloads: Iterable[Any],
    *,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: Priority | PriorityName = Priority.NORMAL,
    headers: Mapping[str, str] | None = None,
    store: Store | sync.Store | None = None,
) -> list[int] | Coroutine[Any, Any, list[int]]:
    """Stores messages on your own connection: all of them, in this order, or none. Otherwise as :func:`enqueue_in`.

    Args:
        connection: As for :func:`enqueue_in`.
        queue: As for :func:`enqueue_in`.
        payloads: As for :meth:`pgqrs.Producer.enqueue_batch`.
        delay: As for :meth:`pgqrs.Producer.enqueue`.
        at: As for :meth:`pgqrs.Producer.enqueue`.
        priority: As for :meth:`pgqrs.Producer.enqueue`.
        headers: As for :meth:`pgqrs.Producer.enqueue`.
        store: The store that wakes the queue's consumers after the commit. Only for sessions of SQLAlchemy.

    Returns:
        The ids, in the order of the payloads.

    Raises:
        SerializeError, PayloadTooLargeError, PayloadTooDeepError, DelayTooLongError, InvalidHeaderError: Before
            anything is sent; your transaction can go on.
        QueueNotFoundError, QueueClosedError, WorkerSuspendedError, WorkerStoppedError: Nothing was stored, and your
            transaction can go on.
        NotInstalledError: The database has no pgqrs schema; your transaction has failed.
        TypeError: The connection is of no supported driver, or another argument is of the wrong type.
        Exception: Your driver's own errors. If the server has refused the statement, your transaction has failed.
    """
    statement = _statement(queue, _arguments.payloads(payloads), True, delay, at, priority, headers)
    wake = _waker(connection, queue, store, is_ready=not delay and at is None)
    return _carried_out(connection, statement, wake, lambda ids: ids)


def _statement(
    target: object,
    payloads: list[Any],
    in_batch: bool,
    delay: object,
    at: object,
    priority: object,
    headers: object,
) -> _pgqrs.Statement:
    native = getattr(target, "_native", None)
    if isinstance(native, _pgqrs.Producer):
        producer, queue = native, getattr(target, "_queue")  # noqa: B009
    elif isinstance(target, (str, Queue)):
        producer, queue = None, _arguments.queue(target)  # pyright: ignore[reportUnknownArgumentType]
    else:
        raise TypeError(f"queue: expected a str, a pgqrs.Queue or a producer, not {type(target).__name__}")
    if queue.unique_by is not None:
        raise TypeError(
            f"queue: the messages of {queue!r} have keys, which this statement can't store; send them with a producer"
        )
    for place, payload in enumerate(payloads):
        name = f"payloads[{place}]" if in_batch else "payload"
        _arguments.not_a_message(name, payload)
        queue._check(payload, name)
    wait, time = _arguments.times(delay, at)
    level = _arguments.priority(priority)
    texts = _arguments.headers(headers)
    return _pgqrs.statement(queue.name, producer, payloads, in_batch, wait, time, level, texts)


def _waker(connection: object, target: object, store: object, *, is_ready: bool) -> Callable[[], None]:
    """Called once the messages are stored: it sees to it that consumers are woken after the commit."""
    session = _session(connection)
    if store is not None:
        native_store = getattr(store, "_native", None)
        if not isinstance(native_store, _pgqrs.Store):
            raise TypeError(f"store: expected a pgqrs.Store, not {type(store).__name__}")
        if session is None:
            raise TypeError(
                "store: only a session of SQLAlchemy's reports that its commit is done; call `store.wake(queue)` "
                "after yours"
            )
        name = _arguments.queue_name(getattr(target, "_queue", target))
        wake: Callable[[], None] = partial(native_store.wake_soon, name)
        key = (id(native_store), name)
    else:
        native = getattr(target, "_native", None)
        if not isinstance(native, _pgqrs.Producer):
            return _nothing
        wake = native.wake_soon
        key = (id(native), "")
    if session is None or not is_ready:
        return _nothing
    return partial(_after_commit, session, key, wake)


def _nothing() -> None:
    pass


_WAKES = "pgqrs wakes"
"""In ``Session.info``: what is to be called after the commit, once for each queue."""

Wakes = dict["tuple[int, str]", Callable[[], None]]


def _after_commit(session: Any, key: tuple[int, str], wake: Callable[[], None]) -> None:
    wakes: Wakes | None = session.info.get(_WAKES)
    if wakes is None:
        from sqlalchemy import event

        session.info[_WAKES] = wakes = {}
        event.listen(session, "after_commit", _committed)
        event.listen(session, "after_rollback", _rolled_back)
    wakes[key] = wake


def _committed(session: Any) -> None:
    # Savepoints come here too.
    if session.in_nested_transaction():
        return
    wakes: Wakes = session.info[_WAKES]
    for wake in wakes.values():
        # A hint: without it the message is found at the next poll, and the commit is done.
        with contextlib.suppress(Exception):
            wake()
    wakes.clear()


def _rolled_back(session: Any) -> None:
    if not session.in_nested_transaction():
        session.info[_WAKES].clear()


def _session(connection: Any) -> Any:
    """SQLAlchemy's own session behind one of its kinds of sessions; ``None`` for other connections."""
    if _is(connection, "sqlalchemy.orm", "scoped_session") or _is(
        connection, "sqlalchemy.ext.asyncio", "async_scoped_session"
    ):
        connection = connection()
    if _is(connection, "sqlalchemy.ext.asyncio", "AsyncSession"):
        connection = connection.sync_session
    return connection if _is(connection, "sqlalchemy.orm", "Session") else None


Rows = Sequence[Sequence[Any]]

R = TypeVar("R")


def _carried_out(
    connection: object,
    statement: _pgqrs.Statement,
    wake: Callable[[], None],
    result: Callable[[list[int]], R],
) -> R | Coroutine[Any, Any, R]:
    run, run_async = _runners(connection)
    parameters = statement.parameters
    is_empty = not parameters[5]

    def checked(rows: Rows) -> R:
        ids = statement.check([row[0] for row in rows])
        if ids:
            wake()
        return result(ids)

    async def awaited(run_async: RunAsync) -> R:
        if is_empty:
            return result([])
        with _Translated():
            rows = await run_async(statement.sql, parameters)
        return checked(rows)

    if run_async is not None:
        return awaited(run_async)
    assert run is not None
    if is_empty:
        return result([])
    with _Translated():
        rows = run(statement.sql, parameters)
    return checked(rows)


class _Translated:
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
    kinds: dict[str, Any] = {
        "p1": Text(),
        "p2": SmallInteger(),
        "p3": DateTime(timezone=True),
        "p4": BigInteger(),
        "p5": BigInteger(),
        "p6": ARRAY(Text()),
        "p7": ARRAY(Text()),
    }
    return text(named).bindparams(*(bindparam(name, type_=kind) for name, kind in kinds.items()))
