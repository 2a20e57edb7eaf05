"""Enqueueing and acknowledging in the caller's own transaction, on the caller's own connection, whatever the driver.

The statements are the Rust crate's; here they are only run, as each driver wants it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from pgqrs import _arguments, _pgqrs, _telemetry
from pgqrs._drivers import Rows, RunAsync, Translated, ack_types, enqueue_types, is_one, runners
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
    if queue._computes_keys():
        raise TypeError(
            f"queue: the messages of {queue!r} have keys or groups, which this statement can't store; send them with a producer"
        )
    for place, payload in enumerate(payloads):
        name = f"payloads[{place}]" if in_batch else "payload"
        _arguments.not_a_message(name, payload)
        queue._check(payload, name)
    wait, time = _arguments.times(delay, at)
    level = _arguments.priority(priority)
    texts = _telemetry.injected(_arguments.headers(headers))
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
    if is_one(connection, "sqlalchemy.orm", "scoped_session") or is_one(
        connection, "sqlalchemy.ext.asyncio", "async_scoped_session"
    ):
        connection = connection()
    if is_one(connection, "sqlalchemy.ext.asyncio", "AsyncSession"):
        connection = connection.sync_session
    return connection if is_one(connection, "sqlalchemy.orm", "Session") else None


R = TypeVar("R")


def _carried_out(
    connection: object,
    statement: _pgqrs.Statement,
    wake: Callable[[], None],
    result: Callable[[list[int]], R],
) -> R | Coroutine[Any, Any, R]:
    run, run_async = runners(connection, enqueue_types)
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
        with Translated():
            rows = await run_async(statement.sql, parameters)
        return checked(rows)

    if run_async is not None:
        return awaited(run_async)
    assert run is not None
    if is_empty:
        return result([])
    with Translated():
        rows = run(statement.sql, parameters)
    return checked(rows)


def acknowledge(connection: object, delivery: _pgqrs.Delivery) -> Coroutine[Any, Any, None] | None:
    """Acknowledges a delivery. For ``ack_in``."""
    run, run_async = runners(connection, ack_types)

    async def awaited(run_async: RunAsync) -> None:
        statement: _pgqrs.AckStatement = await delivery.ack_statement(blocking=False)
        try:
            with Translated():
                rows = await run_async(statement.sql, statement.parameters)
            statement.check([row[0] for row in rows])
        finally:
            statement.withdraw()

    if run_async is not None:
        return awaited(run_async)
    assert run is not None
    statement: _pgqrs.AckStatement = delivery.ack_statement(blocking=True)
    try:
        with Translated():
            rows = run(statement.sql, statement.parameters)
        statement.check([row[0] for row in rows])
    finally:
        statement.withdraw()
    return None
