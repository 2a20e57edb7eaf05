"""Handlers at work on what a test has sent."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from pgqrs import _arguments, decoding
from pgqrs._receiving import described
from pgqrs.app import App
from pgqrs.declaration import Declared, is_async
from pgqrs.delivery import Delivery
from pgqrs.errors import DecodeError
from pgqrs.outcome import Outcome, Report
from pgqrs.queue import Queue
from pgqrs.sync.delivery import Delivery as BlockingDelivery
from pgqrs.testing._delivery import NativeOfTest, made
from pgqrs.testing._enqueued import RANKS, listed
from pgqrs.testing._statements import Query, Steps, headers, run, run_async
from pgqrs.testing._statements import is_async as is_async_connection
from pgqrs.transaction import AsyncConnection, BlockingConnection

T = TypeVar("T")

MOST = 1_000
"""A handler that sends to its own queue, or puts off its message, again and again, would never end."""

BlockingHandler = Callable[[BlockingDelivery[T]], "Outcome | None"]
AsyncHandler = Callable[[Delivery[T]], Awaitable["Outcome | None"]]


@dataclass(frozen=True)
class Drained(Report):
    """What became of a queue's messages."""

    errors: list[BaseException] = field(default_factory=list, hash=False)
    """What handlers have raised, if errors are collected."""


@dataclass
class _Call:
    """A handler's call, which a blocking and an async caller make in their own ways."""

    delivery: Any


_Steps = Generator["Query | _Call", Any, Drained]


def drain(
    connection: BlockingConnection,
    queue: Queue[T],
    handler: BlockingHandler[T] | AsyncHandler[T] | App,
    *,
    with_delayed: bool = False,
    until_empty: bool = False,
    limit: int | None = None,
    collect_errors: bool = False,
) -> Drained:
    """Runs a handler on the messages of a queue that are ready, one after the other, and settles them by what it
    returns, in the connection's transaction.

    Args:
        connection: A blocking one, as for :func:`pgqrs.enqueue_in`.
        queue: The queue.
        handler: The handler, or an app, whose handler of the queue it is. An async one runs in an event loop of its
            own.
        with_delayed: Whether messages that are delayed are handled too.
        until_empty: Whether what is sent meanwhile is handled too.
        limit: How many messages are handled at most.
        collect_errors: Whether to go on after a handler has raised; otherwise the first error is raised, once its
            message is put back as after a failed attempt.

    Returns:
        How many were handled, failed, and so on.

    Raises:
        Exception: What the handler has raised.
        QueueNotFoundError: There is no such queue.
        DecodeError: A payload doesn't have the queue's type.
        TypeError: The connection is of no supported driver, or async; the handler is of chunks.
        RuntimeError: A thousand messages were handled, and there are more.
    """
    if is_async_connection(connection):
        raise TypeError("connection: expected a blocking one; use `await drain_async(..)`")
    checked, function = _handler(queue, handler)
    if is_async(function) and asyncio._get_running_loop() is not None:
        raise TypeError(
            "handler: an async one can't be awaited here, where an event loop runs; use `await drain_async(..)` with an "
            "async connection, or `await asyncio.to_thread(drain, ..)`"
        )
    steps = _drained(checked, is_async(function), with_delayed, until_empty, limit, collect_errors)
    failure: Exception | None = None
    try:
        step = next(steps)
        while True:
            if not isinstance(step, _Call):
                with _masked_by(failure):
                    rows = run(connection, step)
                step = steps.send(rows)
                continue
            failure = None
            try:
                outcome: Any = function(step.delivery)
                if inspect.isawaitable(outcome):
                    outcome = asyncio.run(_awaited(outcome))
            except Exception as error:
                failure = error
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as end:
        drained: Drained = end.value
        return drained


@contextmanager
def _masked_by(failure: Exception | None) -> Iterator[None]:
    """A handler whose statement was refused has failed the transaction: then its own error says why, and not that of the
    next statement."""
    try:
        yield
    except Exception:
        if failure is not None:
            raise failure from None
        raise


async def _awaited(outcome: Any) -> Any:
    return await outcome


async def drain_async(
    connection: AsyncConnection,
    queue: Queue[T],
    handler: AsyncHandler[T] | App,
    *,
    with_delayed: bool = False,
    until_empty: bool = False,
    limit: int | None = None,
    collect_errors: bool = False,
) -> Drained:
    """The same as :func:`drain`, for an async connection and an async handler.

    Args:
        connection: An async one, as for :func:`pgqrs.enqueue_in`.
        queue: As for :func:`drain`.
        handler: As for :func:`drain`.
        with_delayed: As for :func:`drain`.
        until_empty: As for :func:`drain`.
        limit: As for :func:`drain`.
        collect_errors: As for :func:`drain`.

    Returns:
        As from :func:`drain`.

    Raises:
        Exception: What the handler has raised.
        QueueNotFoundError, DecodeError, TypeError, RuntimeError: As from :func:`drain`.
    """
    checked, function = _handler(queue, handler)
    steps = _drained(checked, True, with_delayed, until_empty, limit, collect_errors)
    failure: Exception | None = None
    try:
        step = next(steps)
        while True:
            if not isinstance(step, _Call):
                with _masked_by(failure):
                    rows = await run_async(connection, step)
                step = steps.send(rows)
                continue
            failure = None
            try:
                outcome = await function(step.delivery)
            except Exception as error:
                failure = error
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as end:
        drained: Drained = end.value
        return drained


def _handler(queue: object, handler: object) -> tuple[Queue[Any], Callable[[Any], Any]]:
    checked = _arguments.queue(queue)
    if isinstance(handler, App):
        declared: Declared | None = handler.handlers.get(checked.name)
        if declared is None:
            raise TypeError(f"handler: the app has none for queue `{checked.name}`")
        if declared.chunk is not None:
            raise TypeError(
                f"handler: that of queue `{checked.name}` gets chunks; call it with what it needs"
            )
        return checked, declared.handler
    if not callable(handler):
        raise TypeError(f"handler: expected a function or a pgqrs.App, not {type(handler).__name__}")
    return checked, handler


def _drained(
    queue: Queue[Any],
    is_async: bool,
    with_delayed: bool,
    until_empty: bool,
    limit: int | None,
    collect_errors: bool,
) -> _Steps:
    only: list[int] | None = None
    if not until_empty:
        found = yield from listed(queue, 0)
        only = [one.id for one in found if one.is_ready or with_delayed]
    counts = dict.fromkeys(vars(Report()), 0)
    errors: list[BaseException] = []
    handled = 0
    while limit is None or handled < limit:
        native = yield from _taken(queue, only, with_delayed, is_async)
        if native is None:
            break
        handled += 1
        if handled > MOST:
            yield from _settled(native, Outcome.release())
            raise RuntimeError(f"{MOST:,} messages of queue `{queue.name}` were handled, and there are more")
        if only is not None:
            only.remove(native.id)
        try:
            outcome = yield _Call(_delivered(native, queue))
            if outcome is not None and not isinstance(outcome, Outcome):
                raise TypeError(f"a handler returns None or a pgqrs.Outcome, not {type(outcome).__name__}")
        except Exception as error:
            count = yield from _settled(native, Outcome.retry(reason=described(error)))
            if not collect_errors:
                raise
            errors.append(error)
        else:
            count = yield from _settled(native, native.outcome or outcome or Outcome.done())
        counts[count] += 1
    return Drained(**counts, errors=errors)


def _delivered(native: NativeOfTest, queue: Queue[Any]) -> Any:
    try:
        return made(native, queue)
    except decoding.Mismatch as mismatch:
        raise DecodeError(message=native.id, path=mismatch.path, reason=mismatch.reason) from mismatch


def _taken(
    queue: Queue[Any], only: list[int] | None, with_delayed: bool, is_async: bool
) -> Steps[NativeOfTest | None]:
    native = NativeOfTest(0, "", is_async=is_async)
    rows = yield "take", (queue.name, native.token, only, with_delayed)
    if not rows:
        return None
    (
        native.queue_id,
        native.id,
        priority,
        native.attempt,
        native.max_attempts,
        native.snoozes,
        native.group,
        native.enqueued_at,
        texts,
        native.raw_payload,
    ) = rows[0]
    native.priority = RANKS[priority].value
    native.headers = headers(texts)
    return native


def _settled(native: NativeOfTest, outcome: Outcome) -> Steps[str]:
    """Settles a message in the test's transaction, and returns under which name of the report it counts."""
    receipt = (native.queue_id, native.id, native.token)
    if native.is_acknowledged:
        # By `ack_in`, on this connection or on another one.
        return "done"
    delay = outcome.delay or timedelta(0)
    kind = outcome.kind
    if kind == "retry" and native.attempt >= native.max_attempts:
        yield "dead_letter", (*receipt, "attempts used up", outcome.reason)
        return "dead"
    if kind in ("done", "archive"):
        yield native.acknowledgement("ack" if kind == "done" else "archive"), receipt
        return "done" if kind == "done" else "archived"
    if kind == "dead_letter":
        yield "dead_letter", (*receipt, outcome.reason or "", None)
        return "dead"
    returned = 0 if kind == "retry" else 1
    # The others would wait, too, for `slow_down`; in a test, they are handled.
    snoozed = 1 if kind in ("later", "slow_down") else 0
    yield "put_back", (*receipt, delay // timedelta(microseconds=1), returned, snoozed, outcome.reason)
    if snoozed:
        return "snoozed"
    return {"retry": "retried", "undecodable": "undecodable"}.get(kind, "released")
