# Made by generate_sync.py of pgqrs/store.py.
"""A connected database."""

from __future__ import annotations

import weakref
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar, overload

from pgqrs import _arguments, _pgqrs
from pgqrs.sync.admin import Admin
from pgqrs.sync.consumer import Consumer
from pgqrs.errors import Error
from pgqrs.outcome import RetryPolicy
from pgqrs.sync.producer import Producer
from pgqrs.queue import Queue

T = TypeVar("T")

_CLOSING = timedelta(seconds=5)
"""For how long handlers that are at work are waited for when their store is closed."""


def connect(
    url: str,
    *,
    max_connections: int = 10,
    install: bool = False,
    acquire_timeout: float | timedelta = 10,
    application_name: str = "pgqrs",
    payload_limit: int = 64 << 20,
    retry_for: float | timedelta = 30,
    coalesce: bool = True,
    pgbouncer: bool = False,
) -> Store:
    """Connects to a database: ``postgresql://user:password@host:port/database``.

    - ``max_connections``: the most that the store holds at once;
    - ``install``: whether to create or upgrade the schema ``pgqrs``, which needs the rights for it;
    - ``acquire_timeout``: how long a call waits for a connection, in seconds or as a ``timedelta``;
    - ``application_name``: what ``pg_stat_activity`` shows;
    - ``payload_limit``: the most bytes that one payload may have as JSON;
    - ``retry_for``: for how long a send is tried again where the connection breaks or the server is away, an hour
      at most;
    - ``coalesce``: whether sends that wait at the same time share a statement and its commit;
    - ``pgbouncer``: whether the URL leads to PgBouncer.

    Raises :class:`pgqrs.ConnectError` where the server can't be reached or refuses the login.
    """
    native: _pgqrs.Store = _pgqrs.connect(
        _arguments.text("url", url),
        max_connections=_arguments.integer("max_connections", max_connections, 1, 2**32 - 1),
        install=_arguments.flag("install", install),
        acquire_timeout=_arguments.duration("acquire_timeout", acquire_timeout),
        application_name=_arguments.text("application_name", application_name),
        payload_limit=_arguments.integer("payload_limit", payload_limit, 1, 2**31),
        retry_for=_arguments.duration("retry_for", retry_for),
        coalesce=_arguments.flag("coalesce", coalesce),
        pgbouncer=_arguments.flag("pgbouncer", pgbouncer),
        blocking=True,
    )
    return Store(native)


class Store:
    """A connected database; made by :func:`pgqrs.sync.connect`.

    All of a process's stores share one runtime, in threads of its own. A store can be used from any thread and
    any event loop of the process that connected. After ``fork``, the child has to connect by itself:
    :class:`pgqrs.ForkedError` says so.
    """

    def __init__(self, native: _pgqrs.Store) -> None:
        self._native = native
        self._workers: weakref.WeakSet[Producer[Any] | Consumer[Any]] = weakref.WeakSet()

    @overload
    def queue(self, queue: str) -> Queue[Any]: ...
    @overload
    def queue(self, queue: Queue[T]) -> Queue[T]: ...
    def queue(self, queue: str | Queue[Any]) -> Queue[Any]:
        """A queue, created if there is none of that name.

        Raises :class:`pgqrs.InvalidQueueNameError`, :class:`pgqrs.NotInstalledError`.
        """
        checked = _arguments.queue(queue)
        self._native.queue(checked.name)
        return checked

    @overload
    def producer(
        self,
        queue: str,
        hostname: str = "localhost",
        port: int = 0,
        *,
        heartbeat_interval: float | timedelta = 15,
    ) -> Producer[Any]: ...
    @overload
    def producer(
        self,
        queue: Queue[T],
        hostname: str = "localhost",
        port: int = 0,
        *,
        heartbeat_interval: float | timedelta = 15,
    ) -> Producer[T]: ...
    def producer(
        self,
        queue: str | Queue[Any],
        hostname: str = "localhost",
        port: int = 0,
        *,
        heartbeat_interval: float | timedelta = 15,
    ) -> Producer[Any]:
        """Registers a producer of a queue.

        The host and the port are what others will know it by; with port 0 it is anonymous. Where a producer of
        the same host, port and queue has crashed, this one takes its place.

        Raises :class:`pgqrs.QueueNotFoundError`, :class:`pgqrs.NotInstalledError`;
        :class:`pgqrs.WorkerExistsError` where one of the same host, port and queue lives;
        :class:`pgqrs.InvalidHostnameError`.
        """
        checked = _arguments.queue(queue)
        hostname = _arguments.text("hostname", hostname)
        port = _arguments.integer("port", port, 0, 65_535)
        native: _pgqrs.Producer = self._native.producer(
            checked.name,
            hostname,
            port,
            heartbeat_interval=_arguments.duration("heartbeat_interval", heartbeat_interval),
        )
        producer = Producer(native, checked, hostname, port)
        self._workers.add(producer)
        return producer

    @overload
    def consumer(
        self,
        queue: str,
        hostname: str = "localhost",
        port: int = 0,
        *,
        concurrency: int | None = None,
        prefetch: int = 512,
        lease: float | timedelta = 30,
        poll_interval: float | timedelta = 0.25,
        retry: RetryPolicy = RetryPolicy(),
        handler_timeout: float | timedelta | None = None,
        listen: bool = True,
        heartbeat_interval: float | timedelta = 15,
    ) -> Consumer[Any]: ...
    @overload
    def consumer(
        self,
        queue: Queue[T],
        hostname: str = "localhost",
        port: int = 0,
        *,
        concurrency: int | None = None,
        prefetch: int = 512,
        lease: float | timedelta = 30,
        poll_interval: float | timedelta = 0.25,
        retry: RetryPolicy = RetryPolicy(),
        handler_timeout: float | timedelta | None = None,
        listen: bool = True,
        heartbeat_interval: float | timedelta = 15,
    ) -> Consumer[T]: ...
    def consumer(
        self,
        queue: str | Queue[Any],
        hostname: str = "localhost",
        port: int = 0,
        *,
        concurrency: int | None = None,
        prefetch: int = 512,
        lease: float | timedelta = 30,
        poll_interval: float | timedelta = 0.25,
        retry: RetryPolicy = RetryPolicy(),
        handler_timeout: float | timedelta | None = None,
        listen: bool = True,
        heartbeat_interval: float | timedelta = 15,
    ) -> Consumer[Any]:
        """Registers a consumer of a queue. It receives nothing before it runs, or is iterated over.

        - ``concurrency``: how many deliveries may be unsettled at once; 8 for ``run`` and 1 for iteration, unless
          told;
        - ``prefetch``: the most messages to hold ready beyond those; fewer where handlers take their time;
        - ``lease``: how long a message stays away from others if this consumer crashes. While it is handled, its
          lease is extended every third of this;
        - ``poll_interval``: how soon a message is found that nothing hints at: a delayed one, or one enqueued in a
          transaction;
        - ``retry``: how long a message waits after a failed attempt;
        - ``handler_timeout``: cuts a handler off after this time, and counts that as a failed attempt;
        - ``listen``: whether to be woken by other processes through LISTEN.

        Times are in seconds, or a ``timedelta``.

        Raises what :meth:`producer` raises, and :class:`pgqrs.LeaseOutOfRangeError`; ``TypeError`` where the
        queue's type has no form in JSON.
        """
        checked = _arguments.queue(queue)
        checked._decoder()
        hostname = _arguments.text("hostname", hostname)
        port = _arguments.integer("port", port, 0, 65_535)
        handlers = _arguments.optional_integer("concurrency", concurrency, 1, 10_000)
        if not isinstance(retry, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"retry: expected a pgqrs.RetryPolicy, not {type(retry).__name__}")
        native: _pgqrs.Consumer = self._native.consumer(
            checked.name,
            hostname,
            port,
            concurrency=handlers or Consumer.HANDLERS,
            prefetch=_arguments.integer("prefetch", prefetch, 0, 5_000),
            lease=_arguments.duration("lease", lease),
            poll_interval=_arguments.duration("poll_interval", poll_interval),
            retry=retry._parts(),
            handler_timeout=_arguments.optional_duration("handler_timeout", handler_timeout),
            listen=_arguments.flag("listen", listen),
            heartbeat_interval=_arguments.duration("heartbeat_interval", heartbeat_interval),
        )
        consumer = Consumer(native, checked, hostname, port, handlers)
        self._workers.add(consumer)
        return consumer

    def admin(self) -> Admin:
        """What an operator does: the schema, queues, workers, dead letters."""
        return Admin(_pgqrs.Admin(self._native))

    def close(self) -> None:
        """Shuts its producers and consumers down, and closes its connections. What is called afterwards raises
        :class:`pgqrs.ClosedError`. Closing again does nothing."""
        for worker in list(self._workers):
            self._workers.discard(worker)
            try:
                worker.shutdown()
                if isinstance(worker, Consumer):
                    # What its handlers have done is still to be told to the database.
                    worker._native.ended(_CLOSING)
            except Error:
                # Where the database is away, it counts as crashed after a while.
                continue
        self._native.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
