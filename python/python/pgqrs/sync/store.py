# Made by generate_sync.py of pgqrs/store.py.
"""A connected database."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar, overload

from pgqrs import _arguments, _measuring, _pgqrs
from pgqrs.sync.admin import Admin
from pgqrs.sync.consumer import Consumer
from pgqrs.errors import Error
from pgqrs.sync.observer import Observer
from pgqrs.sync.producer import Producer
from pgqrs.queue import Priority, PriorityName, Queue
from pgqrs.schedule import Missed, Schedule, ScheduleChange, ScheduleChanges, Scheduler

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
    listen_url: str | None = None,
) -> Store:
    """Connects to a database.

    Args:
        url: ``postgresql://user:password@host:port/database``. What SQLAlchemy calls ``postgresql+asyncpg://`` is
            understood too, and so are libpq's pairs: ``host=localhost dbname=mydb``. With several hosts, as in
            ``postgresql://one:5432,two:5432/mydb``, the store is connected to the one that accepts writes, and follows
            the primary in a fail-over. ``target_session_attrs`` can be ``read-write``, ``primary`` or ``any``, and
            defaults to the first of these.
        max_connections: The most connections that the store opens.
        install: Whether to create or upgrade the schema ``pgqrs``, which needs the privilege to do so.
        acquire_timeout: How long a call waits for a connection, in seconds or as a ``timedelta``.
        application_name: The name of the connections in ``pg_stat_activity``.
        payload_limit: The most bytes that one payload may have as JSON.
        retry_for: How long a send is retried if the connection breaks or the server is unavailable, in seconds or as
            a ``timedelta``; at most an hour.
        coalesce: Whether sends that wait at the same time share a statement and its commit.
        pgbouncer: Whether the URL leads to PgBouncer, if the store can't detect it.
        listen_url: A URL of the same server past the pooler, for LISTEN. Without it, consumers behind a pooler find
            messages of other processes by polling.

    Returns:
        The store.

    Raises:
        ConnectError: The server can't be reached, or refuses the login.
        AcquireTimeoutError: It didn't answer in time.
        MigrateError, SchemaNewerError, PermissionDeniedError: The schema could not be installed.
        TypeError, ValueError: An argument is of the wrong type, or out of its range.
    """
    _measuring.start()
    native: _pgqrs.Store = _pgqrs.connect(
        _arguments.url("url", url),
        max_connections=_arguments.integer("max_connections", max_connections, 1, 2**32 - 1),
        install=_arguments.flag("install", install),
        acquire_timeout=_arguments.duration("acquire_timeout", acquire_timeout),
        application_name=_arguments.text("application_name", application_name),
        payload_limit=_arguments.integer("payload_limit", payload_limit, 1, 2**31),
        retry_for=_arguments.duration("retry_for", retry_for),
        coalesce=_arguments.flag("coalesce", coalesce),
        pgbouncer=_arguments.flag("pgbouncer", pgbouncer),
        listen_url=None if listen_url is None else _arguments.url("listen_url", listen_url),
        blocking=True,
    )
    return Store(native, _arguments.place(url))


class Store:
    """A connected database; made by :func:`pgqrs.sync.connect`.

    All of a process's stores share one runtime, in threads of its own. A store can be used from any thread and
    any event loop of the process that connected. After ``fork``, the child has to connect by itself:
    :class:`pgqrs.ForkedError` says so.
    """

    def __init__(self, native: _pgqrs.Store, place: str) -> None:
        self._native = native
        self._place = place
        self._workers: weakref.WeakSet[Producer[Any] | Consumer[Any]] = weakref.WeakSet()

    @overload
    def queue(self, queue: str) -> Queue[Any]: ...
    @overload
    def queue(self, queue: Queue[T]) -> Queue[T]: ...
    def queue(self, queue: str | Queue[Any]) -> Queue[Any]:
        """Returns a queue, and creates it if it doesn't exist.

        Args:
            queue: The queue, or its name.

        Returns:
            The queue.

        Raises:
            InvalidQueueNameError: The name is invalid.
            NotInstalledError: The database has no pgqrs schema.
            ConnectError, ConnectionLostError, AcquireTimeoutError, ClosedError: The database is unavailable.
        """
        checked = _arguments.queue(queue)
        self._native.queue(checked.name)
        return checked

    def wake(self, queue: str | Queue[Any]) -> None:
        """Wakes the consumers of a queue, in this process and in others: after the commit of your own transaction in
        which you have enqueued. Otherwise they find its messages at their next poll.

        :func:`pgqrs.enqueue_in` says when that happens automatically.

        Args:
            queue: The queue, or its name.

        Raises:
            InvalidQueueNameError: The name is invalid.
        """
        self._native.wake(_arguments.queue_name(queue))

    @overload
    def producer(
        self,
        queue: str,
        hostname: str = "localhost",
        port: int = 0,
        *,
        heartbeat_interval: float | timedelta = 15,
        replace: bool = False,
    ) -> Producer[Any]: ...
    @overload
    def producer(
        self,
        queue: Queue[T],
        hostname: str = "localhost",
        port: int = 0,
        *,
        heartbeat_interval: float | timedelta = 15,
        replace: bool = False,
    ) -> Producer[T]: ...
    def producer(
        self,
        queue: str | Queue[Any],
        hostname: str = "localhost",
        port: int = 0,
        *,
        heartbeat_interval: float | timedelta = 15,
        replace: bool = False,
    ) -> Producer[Any]:
        """Registers a producer of a queue.

        If a producer with the same host, port and queue has crashed, this one takes its place.

        Args:
            queue: The queue, or its name.
            hostname: The host that operators see.
            port: With 0 the producer is anonymous, and there can be any number of those. With any other port, only one
                producer with this host, port and queue can run at a time.
            heartbeat_interval: How often it sends a heartbeat, in seconds or as a ``timedelta``. If it misses four in a
                row, it counts as crashed.
            replace: Whether to replace a running producer with the same host, port and queue, which is then stopped: to
                restart a crashed service at once, before its old producer counts as crashed.

        Returns:
            The producer.

        Raises:
            QueueNotFoundError: There is no such queue.
            NotInstalledError: The database has no pgqrs schema.
            WorkerExistsError: One with the same host, port and queue is running.
            InvalidHostnameError: The host is empty, too long, or has control characters.
        """
        checked = _arguments.queue(queue)
        hostname = _arguments.text("hostname", hostname)
        port = _arguments.integer("port", port, 0, 65_535)
        native: _pgqrs.Producer = self._native.producer(
            checked.name,
            hostname,
            port,
            heartbeat_interval=_arguments.duration("heartbeat_interval", heartbeat_interval),
            replace=_arguments.flag("replace", replace),
        )
        producer = Producer(native, checked, hostname, port)
        self._workers.add(producer)
        return producer

    @overload
    def consumer(
        self,
        queue: str,
        *,
        hostname: str | None = None,
        port: int = 0,
        heartbeat_interval: float | timedelta = 15,
        replace: bool = False,
    ) -> Consumer[Any]: ...
    @overload
    def consumer(
        self,
        queue: Queue[T],
        *,
        hostname: str | None = None,
        port: int = 0,
        heartbeat_interval: float | timedelta = 15,
        replace: bool = False,
    ) -> Consumer[T]: ...
    def consumer(
        self,
        queue: str | Queue[Any],
        *,
        hostname: str | None = None,
        port: int = 0,
        heartbeat_interval: float | timedelta = 15,
        replace: bool = False,
    ) -> Consumer[Any]:
        """Registers a consumer of a queue. It receives nothing until it runs, or is iterated over.

        It is anonymous, with the machine's host name, unless it has a port. If a consumer with the same host, port and
        queue has crashed, this one takes its place.

        Args:
            queue: The queue, or its name.
            hostname: The host that operators see; defaults to the machine's.
            port: With 0 the consumer is anonymous, and there can be any number of those. With any other port, only one
                consumer with this host, port and queue can run at a time.
            heartbeat_interval: How often it sends a heartbeat, in seconds or as a ``timedelta``. If it misses four in a
                row, it counts as crashed.
            replace: Whether to replace a running consumer with the same host, port and queue, which is then stopped: to
                restart a crashed service at once, before its old consumer counts as crashed.

        Returns:
            The consumer.

        Raises:
            QueueNotFoundError: There is no such queue.
            NotInstalledError: The database has no pgqrs schema.
            WorkerExistsError: One with the same host, port and queue is running.
            InvalidHostnameError: The host is empty, too long, or has control characters.
            TypeError: The queue's type can't be represented in JSON.
        """
        checked = _arguments.queue(queue)
        checked._decoder()
        native: _pgqrs.Consumer = self._native.consumer(
            checked.name,
            _arguments.identity(hostname, port),
            heartbeat_interval=_arguments.duration("heartbeat_interval", heartbeat_interval),
            replace=_arguments.flag("replace", replace),
        )
        consumer = Consumer(native, checked)
        self._workers.add(consumer)
        return consumer

    def observe(self, interval: float | timedelta = 60) -> Observer:
        """Reads regularly how many messages the queues hold, how long the oldest ready ones have waited, and what
        holds back vacuum, until the observer is stopped. The first time is during this call.

        Each observer costs its statements, so that one process, or a few, should observe, and not each consumer.

        Args:
            interval: In seconds or as a ``timedelta``. It varies by a tenth at random. Less than a second counts as a
                second, and more than a day as a day.

        Returns:
            The observer.

        Raises:
            PermissionDeniedError: The role may not read the queues.
            NotInstalledError: The database has no pgqrs schema.
        """
        native: _pgqrs.Observer = self._native.observe(_arguments.duration("interval", interval))
        return Observer(native)

    def schedule(
        self,
        name: str,
        queue: str | Queue[T],
        *,
        payload: T,
        cron: str | None = None,
        every: float | timedelta | None = None,
        zone: str = "UTC",
        version: int = 1,
        missed: Missed | None = None,
        priority: Priority | PriorityName = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
        unique: str | None = None,
        skip_if_unfinished: bool = False,
        max_attempts: int | None = None,
        expires_in: float | timedelta | None = None,
        drop_if_expired: bool = False,
    ) -> ScheduleChange:
        """Installs a schedule: its message is sent at the times of a cron expression, or at an interval, by whichever
        process runs a consumer, or a :meth:`scheduler`.

        If one of that name is there already, only a higher version replaces it.

        Args:
            name: Its name: 1 to 128 bytes, unique in the database.
            queue: The queue that it sends to, or its name.
            payload: What is sent each time, as for :meth:`pgqrs.sync.Producer.enqueue`.
            cron: When, as a cron expression of five fields, or of six with seconds.
            every: When, as an interval, in seconds or as a ``timedelta``; at least 0.1 s. Pass either this or ``cron``.
            zone: The zone of the cron expression, by its name in the tz database.
            version: Only a higher one replaces what is installed.
            missed: What happens to times that passed while no process ran; defaults to ``Missed.once()``.
            priority: That of its messages.
            headers: Those of its messages, as for :meth:`pgqrs.sync.Producer.enqueue`.
            unique: A key: no message is sent while another of the queue has it.
            skip_if_unfinished: The same with a key of the schedule's own: no message is sent while the last one is
                unfinished.
            max_attempts: After how many deliveries a message becomes a dead letter; by default the queue's.
            expires_in: How long messages are of use, in seconds or as a ``timedelta``: one that isn't claimed within
                this time isn't delivered, and becomes a dead letter.
            drop_if_expired: Whether it is deleted then, instead of becoming a dead letter.

        Returns:
            ``created``, ``replaced`` or ``unchanged``.

        Raises:
            InvalidCronError: The expression is invalid, or never fires.
            InvalidSettingError, InvalidHeaderError, InvalidKeyError, SerializeError, PayloadTooLargeError,
                PayloadTooDeepError: Before anything is sent.
            QueueNotFoundError: There is no such queue.
            ScheduleTakenError: The name belongs to an owner.
            TypeError, ValueError: An argument is of the wrong type, or out of its range.
        """
        schedule = Schedule(
            name,
            queue,
            payload=payload,
            cron=cron,
            every=every,
            zone=zone,
            version=version,
            missed=missed,
            priority=priority,
            headers=headers,
            unique=unique,
            skip_if_unfinished=skip_if_unfinished,
            max_attempts=max_attempts,
            expires_in=expires_in,
            drop_if_expired=drop_if_expired,
        )
        change: ScheduleChange = self._native.schedule(schedule._native)
        return change

    def replace_schedules(
        self, owner: str, schedules: Iterable[Schedule[Any]], *, version: int = 0
    ) -> ScheduleChanges:
        """Makes these the schedules of an owner, such as a service, exactly: those that are missing are created, those
        of a lower version replaced, and the owner's others deleted. All of it is done, or nothing.

        Args:
            owner: The owner.
            schedules: Its schedules.
            version: That of all of them. If the owner has schedules of a higher version, nothing is changed. With 0,
                the highest one of theirs.

        Returns:
            What has changed.

        Raises:
            QueueNotFoundError: There is no such queue.
            ScheduleTakenError: A name belongs to another owner, or to none.
            InvalidSettingError, InvalidHeaderError, PayloadTooLargeError: Before anything is sent.
            TypeError, ValueError: An argument is of the wrong type, or out of its range.
        """
        natives = [schedule._native for schedule in schedules]
        checked = _arguments.integer("version", version, 0, 2**31 - 1)
        changes = self._native.replace_schedules(_arguments.text("owner", owner), natives, checked)
        return ScheduleChanges(*changes)

    def scheduler(self) -> Scheduler:
        """Fires schedules until it is stopped: in a process that runs no consumer. Each running consumer does so too.

        Returns:
            The scheduler; keep it.

        Raises:
            PermissionDeniedError: The role may not fire schedules.
            NotInstalledError: The database has no pgqrs schema.
        """
        return Scheduler(self._native.scheduler())

    def admin(self) -> Admin:
        """Returns the administrative calls: for the schema, queues, messages, dead letters, the archive and workers.

        Returns:
            The administrative calls.
        """
        return Admin(_pgqrs.Admin(self._native))

    def close(self) -> None:
        """Shuts down the store's producers and consumers, and closes its connections.

        Calls that are made afterwards raise :class:`pgqrs.ClosedError`. Closing it again does nothing.
        """
        for worker in list(self._workers):
            self._workers.discard(worker)
            try:
                worker.shutdown()
                if isinstance(worker, Consumer):
                    # What its handlers have done is still to be settled.
                    worker._native.ended(_CLOSING)
            except Error:
                # If the database is unavailable, it counts as crashed after a while.
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

    def __repr__(self) -> str:
        # Without the password, which has no place in a log.
        return f"<Store {self._place}>"
