"""An application's handlers, each declared beside its queue, and the worker that runs them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypedDict, TypeVar

from pgqrs import _arguments, _signals
from pgqrs.consumer import Consumer
from pgqrs.declaration import (
    ChunkDeclaration,
    Declaration,
    Declared,
    RunSettings,
    check_annotation,
    check_settings,
    is_async,
    named,
)
from pgqrs.outcome import Outcome, Report
from pgqrs.queue import Queue
from pgqrs.store import Store, connect
from pgqrs.sync.consumer import Consumer as BlockingConsumer
from pgqrs.sync.store import Store as BlockingStore
from pgqrs.sync.store import connect as connect_blocking

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

T = TypeVar("T")
R = TypeVar("R", bound="Outcome | None")


class ConnectSettings(TypedDict, total=False):
    """The settings of :func:`pgqrs.connect` that :class:`App` passes on."""

    max_connections: int
    """As for :func:`pgqrs.connect`."""
    install: bool
    """As for :func:`pgqrs.connect`."""
    acquire_timeout: float | timedelta
    """As for :func:`pgqrs.connect`."""
    application_name: str
    """As for :func:`pgqrs.connect`."""
    payload_limit: int
    """As for :func:`pgqrs.connect`."""
    retry_for: float | timedelta
    """As for :func:`pgqrs.connect`."""
    coalesce: bool
    """As for :func:`pgqrs.connect`."""
    pgbouncer: bool
    """As for :func:`pgqrs.connect`."""
    listen_url: str | None
    """As for :func:`pgqrs.connect`."""


Lifespan = Callable[["App"], AbstractAsyncContextManager[None]]
"""What an app does around its run, as for :class:`App`."""


@dataclass
class _Running:
    """What an app has while it runs."""

    store: Store
    blocking_store: BlockingStore | None
    consumers: list[Consumer[Any] | BlockingConsumer[Any]] = field(default_factory=list)


class App:
    """The handlers of an application, which a worker runs::

        app = pgqrs.App("postgresql://localhost/mydb")
        EMAILS = pgqrs.Queue("emails", SendEmail)

        @app.handler(EMAILS, concurrency=8)
        async def send_email(delivery: pgqrs.Delivery[SendEmail]) -> None:
            await send(delivery.payload)

    ``python -m pgqrs worker package.module:app`` runs all of them, in one process, until SIGTERM or Ctrl-C.

    Args:
        url: As for :func:`pgqrs.connect`; defaults to the environment's ``DATABASE_URL``, which is read when the app
            connects.
        queues: Queues that must have a handler when the app runs, so that none is forgotten.
        lifespan: An async context manager around the run, as a function of the app: for what its handlers share, such
            as a pool of connections.
        settings: As for :func:`pgqrs.connect`.

    Raises:
        TypeError: An argument is of the wrong type.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        queues: Iterable[Queue[Any]] = (),
        lifespan: Lifespan | None = None,
        **settings: Unpack[ConnectSettings],
    ) -> None:
        self._url = _arguments.optional_text("url", url)
        self._queues = [_arguments.queue(queue) for queue in queues]
        self._lifespan = lifespan
        unknown = sorted(set(settings) - set(ConnectSettings.__annotations__))
        if unknown:
            raise TypeError(f"{', '.join(unknown)}: no such setting of `pgqrs.connect`")
        self._settings = settings
        self._declared: dict[str, Declared] = {}
        self._running: _Running | None = None
        self._is_stopped = False

    @property
    def handlers(self) -> Mapping[str, Declared]:
        """The handlers that are declared, by the names of their queues."""
        return dict(self._declared)

    @property
    def queues(self) -> list[Queue[Any]]:
        """The queues of the app: those that have handlers, and those that must have one."""
        named = {declared.queue.name: declared.queue for declared in self._declared.values()}
        return list({**{queue.name: queue for queue in self._queues}, **named}.values())

    @property
    def url(self) -> str:
        """The URL that it connects to."""
        url = self._url or os.environ.get("DATABASE_URL")
        if not url:
            raise ValueError("url: the app has none, and DATABASE_URL is not set")
        return url

    @property
    def store(self) -> Store:
        """The connected store, while the app runs, or within ``async with app.connected()``."""
        if self._running is None:
            raise RuntimeError(
                "the app is not connected: it has a store while it runs, or in `app.connected()`"
            )
        return self._running.store

    @property
    def sync_store(self) -> BlockingStore:
        """The connected store of blocking handlers, while the app runs, if it has such handlers."""
        if self._running is None or self._running.blocking_store is None:
            raise RuntimeError("the app has no blocking store: it has one while it runs blocking handlers")
        return self._running.blocking_store

    def handler(self, queue: Queue[T], **settings: Unpack[RunSettings]) -> Declaration[T]:
        """Declares the handler of a queue, as a decorator.

        An ``async`` function gets a :class:`pgqrs.Delivery`. Any other function gets a :class:`pgqrs.sync.Delivery`,
        and runs in threads, so that it may block. What it returns or raises means the same as in
        :meth:`pgqrs.Consumer.run`.

        Args:
            queue: The queue.
            settings: As for :meth:`pgqrs.Consumer.run`.

        Returns:
            The decorator, which returns the function as it is.

        Raises:
            TypeError: The queue isn't a :class:`pgqrs.Queue`, its type can't be represented in JSON, a setting is of
                the wrong type; or, from the decorator, the function isn't annotated for this queue.
            ValueError: A setting is out of its range; or, from the decorator, the queue has a handler already.
        """
        return Declaration(self._declaring("handler", queue, settings, None))

    def chunk_handler(
        self, queue: Queue[T], *, size: int, wait: float | timedelta, **settings: Unpack[RunSettings]
    ) -> ChunkDeclaration[T]:
        """Declares the handler of a queue that gets many messages at once, as a decorator.

        The function, ``async`` or not, gets a :class:`pgqrs.Chunk`, as for :meth:`pgqrs.Consumer.run_chunks`.

        Args:
            queue: The queue.
            size: As for :meth:`pgqrs.Consumer.run_chunks`.
            wait: As for :meth:`pgqrs.Consumer.run_chunks`.
            settings: As for :meth:`pgqrs.Consumer.run_chunks`.

        Returns:
            The decorator, which returns the function as it is.

        Raises:
            TypeError: As from :meth:`handler`.
            ValueError: As from :meth:`handler`.
        """
        return ChunkDeclaration(self._declaring("chunk_handler", queue, settings, (size, wait)))

    def _declaring(
        self, by: str, queue: object, settings: RunSettings, chunk: tuple[int, float | timedelta] | None
    ) -> Callable[[Callable[[Any], Any]], None]:
        if not isinstance(queue, Queue):
            hint = f"; write `@app.{by}(QUEUE)`" if callable(queue) else ""
            raise TypeError(f"queue: expected a pgqrs.Queue, not {type(queue).__name__}{hint}")
        checked: Queue[Any] = queue
        checked._decoder()
        check_settings(settings, chunk)

        def declare(handler: Callable[[Any], Any]) -> None:
            if not callable(handler):
                raise TypeError(f"handler: expected a function, not {type(handler).__name__}")
            known = self._declared.get(checked.name)
            if known is not None:
                raise ValueError(
                    f"queue `{checked.name}` has a handler already, `{named(known.handler)}`; "
                    f"`{named(handler)}` would be a second one"
                )
            of_async = is_async(handler)
            check_annotation(handler, checked, of_async, is_chunk=chunk is not None)
            self._declared[checked.name] = Declared(checked, handler, of_async, settings, chunk)

        return declare

    def check(self) -> None:
        """Checks that no queue's handler was forgotten. A run begins with it.

        Raises:
            ValueError: One of ``queues`` has no handler, or there are no handlers at all.
        """
        missing = [f"`{queue.name}`" for queue in self._queues if queue.name not in self._declared]
        if missing:
            raise ValueError(f"no handler for {', '.join(missing)}; declare it with `@app.handler(QUEUE)`")
        if not self._declared:
            raise ValueError("the app has no handlers; declare one with `@app.handler(QUEUE)`")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Store]:
        """Connects without running handlers: for a service that sends, or for a script::

            async with app.connected() as store:
                producer = await store.producer(EMAILS)

        Returns:
            The store, for ``async with``.

        Raises:
            ConnectError, AcquireTimeoutError: The server can't be reached.
            RuntimeError: The app is connected already.
            ValueError: The app has no URL.
        """
        async with self._connecting(blocking=False) as running:
            yield running.store

    @asynccontextmanager
    async def _connecting(self, *, blocking: bool) -> AsyncIterator[_Running]:
        if self._running is not None:
            raise RuntimeError("the app is connected already, and can't be a second time")
        async with await connect(self.url, **self._connect_settings()) as store:
            if not blocking:
                running = self._running = _Running(store, None)
                try:
                    yield running
                finally:
                    self._running = None
                return
            blocking_store = await asyncio.to_thread(connect_blocking, self.url, **self._connect_settings())
            try:
                running = self._running = _Running(store, blocking_store)
                yield running
            finally:
                self._running = None
                await asyncio.to_thread(blocking_store.close)

    async def run(self, queues: Iterable[str | Queue[Any]] | None = None) -> dict[str, Report]:
        """Connects, and runs the handlers until the app is stopped: by :meth:`stop`, on SIGTERM or on Ctrl-C, unless the
        program has its own handler for that signal. Handlers then finish as :meth:`pgqrs.Consumer.run` says. A second
        signal ends it at once: handlers are cancelled, and their messages released.

        Args:
            queues: Those whose handlers run; by default all that have one.

        Returns:
            The report of each queue, by its name.

        Raises:
            ValueError: A handler was forgotten, a queue has none, or the app has no URL.
            QueueNotFoundError: There is no such queue in the database.
            ConnectError, AcquireTimeoutError: The server can't be reached.
            Error: A consumer ended with an error that a retry can't fix. The others were stopped gracefully.
            RuntimeError: The app runs already.
        """
        self.check()
        declared = self._selected(queues)
        blocking = [one for one in declared if not one.is_async]
        self._is_stopped = False
        async with self._connecting(blocking=bool(blocking)) as running:
            lifespan = self._lifespan
            async with _nothing() if lifespan is None else lifespan(self):
                # All are registered before the first one receives: if one can't be, no message was touched.
                for one in declared:
                    running.consumers.append(await self._consumer(one, running))
                if self._is_stopped:
                    self.stop()
                threads = ThreadPoolExecutor(max(len(blocking), 1), thread_name_prefix="pgqrs-worker")
                try:
                    with _signals.stopping_app(self.stop, self._abort):
                        reports = await self._until_ended(declared, running, threads)
                finally:
                    threads.shutdown(wait=False)
        return {one.queue.name: report for one, report in zip(declared, reports)}

    def stop(self) -> None:
        """Stops the run gracefully. Returns at once; callable from any thread and from a handler of a signal."""
        self._is_stopped = True
        for consumer in self._consumers():
            consumer.stop()

    def _abort(self) -> None:
        for consumer in self._consumers():
            consumer._native.abort()

    def _consumers(self) -> list[Consumer[Any] | BlockingConsumer[Any]]:
        return [] if self._running is None else list(self._running.consumers)

    def _connect_settings(self) -> ConnectSettings:
        return self._settings

    def _called(self, declared: Declared) -> Callable[[Any], Any]:
        """The function that is called for it."""
        return declared.handler

    def _selected(self, queues: Iterable[str | Queue[Any]] | None) -> list[Declared]:
        if queues is None:
            return list(self._declared.values())
        names = list(dict.fromkeys(_arguments.queue_name(queue) for queue in queues))
        unknown = [f"`{name}`" for name in names if name not in self._declared]
        if unknown:
            known = ", ".join(f"`{name}`" for name in self._declared)
            raise ValueError(f"no handler for {', '.join(unknown)}; there is one for {known}")
        return [self._declared[name] for name in names]

    async def _consumer(self, declared: Declared, running: _Running) -> Consumer[Any] | BlockingConsumer[Any]:
        if declared.is_async:
            return await running.store.consumer(declared.queue)
        assert running.blocking_store is not None
        return await asyncio.to_thread(running.blocking_store.consumer, declared.queue)

    async def _until_ended(
        self, declared: list[Declared], running: _Running, threads: ThreadPoolExecutor
    ) -> list[Report]:
        runs: list[asyncio.Future[Report]] = []
        for one, consumer in zip(declared, running.consumers):
            run: Any = consumer.run
            if one.chunk is not None:
                run = partial(consumer.run_chunks, size=one.chunk[0], wait=one.chunk[1])
            call = partial(run, self._called(one), **one.settings)
            if one.is_async:
                runs.append(asyncio.ensure_future(call()))
            else:
                runs.append(asyncio.get_running_loop().run_in_executor(threads, call))
        try:
            await asyncio.wait(runs, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            # As for a consumer: handlers are cancelled, and their messages released.
            for one, run_of_one in zip(declared, runs):
                if one.is_async:
                    run_of_one.cancel()
            self._abort()
            await asyncio.wait(runs)
            raise
        if any(not run_of_one.done() for run_of_one in runs):
            self.stop()
        # The first error is raised after the others have ended.
        outcomes = await asyncio.gather(*runs, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Report)]

    def __repr__(self) -> str:
        return f"<App with handlers for {', '.join(self._declared) or 'no queue'}>"


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


__all__ = ["App", "ChunkDeclaration", "ConnectSettings", "Declaration", "Declared", "Lifespan", "RunSettings"]
