"""Consumers: registered receivers of one queue. Handlers run in threads here."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import TracebackType
from typing import Generic, TypeVar

from pgqrs import _arguments, _measuring, _pgqrs, _receiving, _signals, _telemetry
from pgqrs._receiving import Native, Settings, decoded, decoded_chunk, give_back
from pgqrs.chunk import Chunk
from pgqrs.errors import NotSettledError, WorkerStoppedError
from pgqrs.listings import WorkerStatus
from pgqrs.outcome import Outcome, Report, RetryPolicy, UndecodablePolicy
from pgqrs.queue import Queue
from pgqrs.sync._handling import Work, layered
from pgqrs.sync.delivery import Delivery

T = TypeVar("T")

Handler = Callable[[Delivery[T]], "Outcome | None"]
"""A handler, as :meth:`Consumer.run` takes it."""

Around = Callable[[Delivery[T], Handler[T]], "Outcome | None"]
"""What is around a handler, as :meth:`Consumer.run` takes it."""

ChunkHandler = Callable[[Chunk[T]], "Outcome | None"]
"""A handler of many messages, as :meth:`Consumer.run_chunks` takes it."""

ChunkAround = Callable[[Chunk[T], ChunkHandler[T]], "Outcome | None"]
"""What is around such a handler."""

_ENDING = timedelta(seconds=5)
"""How long to wait for an aborted loop, which ends within about two seconds."""


class Consumer(Generic[T]):
    """A registered receiver of messages from one queue; made by :meth:`pgqrs.sync.Store.consumer`.

    There are two ways to receive. :meth:`run` calls a handler for each message, several at once, in threads::

        def handle(delivery: pgqrs.sync.Delivery[SendEmail]) -> None:
            send(delivery.payload)

        consumer.run(handle)

    Iteration returns one delivery at a time, to be settled by its methods; :meth:`deliveries` does so with other
    settings::

        for delivery in consumer:
            send(delivery.payload)
            delivery.ack()

    Either way it claims ahead, keeps leases alive, retries with exponential back-off, and continues when the
    database restarts. A message whose payload doesn't have the queue's type is not delivered: it waits for a consumer of
    another version, for an hour by default, and then becomes a dead letter. A consumer runs once: when it has ended, register another.
    """

    def __init__(self, native: _pgqrs.Consumer, queue: Queue[T]) -> None:
        self._native = native
        self._queue = queue
        self._started = self._ended = False
        self._iteration: _Deliveries[T] | None = None

    @property
    def id(self) -> int:
        """The worker's id."""
        return self._native.id

    @property
    def queue(self) -> Queue[T]:
        """The queue that it receives from."""
        return self._queue

    @property
    def hostname(self) -> str:
        """The host that it was registered with; defaults to the machine's."""
        return self._native.hostname

    @property
    def port(self) -> int:
        """The port that it was registered with; 0 is anonymous."""
        return self._native.port

    def run(
        self,
        handler: Handler[T],
        *,
        around: Around[T] | None = None,
        concurrency: int = _receiving.HANDLERS,
        prefetch: int = _receiving.PREFETCH,
        prefetch_bytes: int = _receiving.PREFETCH_BYTES,
        lease: float | timedelta = _receiving.LEASE,
        poll_interval: float | timedelta = _receiving.POLL_INTERVAL,
        retry: RetryPolicy = RetryPolicy(),
        undecodable: UndecodablePolicy = UndecodablePolicy(),
        handler_timeout: float | timedelta | None = None,
        cancel_grace: float | timedelta = _receiving.CANCEL_GRACE,
        listen: bool = True,
        shutdown_deadline: float | timedelta = _receiving.DEADLINE,
    ) -> Report:
        """Receives messages and calls the handler with each, in threads, until it is stopped.

        The handler returns an :class:`pgqrs.Outcome`, or ``None``, which acknowledges the message. An exception is a
        failed attempt: the message is delivered again after the wait of ``retry``, or becomes a dead letter if its
        attempts are used up. A handler can also settle the delivery itself. While it runs, its message's lease is
        extended.

        It stops at :meth:`stop`, on SIGTERM, unless the program has its own handler for that, on Ctrl-C, or if
        another process stops it: no more messages are claimed, handlers finish, and all other messages are released.
        Python can't end a thread: this call waits for a handler that runs beyond the deadline, or for longer than
        ``handler_timeout``, but its message is released. ``SystemExit`` and ``KeyboardInterrupt`` in a handler end
        the consumer at once, and are raised by this call.

        Acknowledgements are made in batches, a moment after the handlers have returned: if the process crashes in
        between, those messages are delivered again. Acknowledgements are durable. A message that is released before its
        handler was called hasn't used an attempt.

        Args:
            handler: A function of a :class:`pgqrs.sync.Delivery`.
            around: Called with each delivery and the handler to pass it to; what it returns settles the message. For what
                a service does for each message::

                    def timed(delivery, next):
                        began = time.monotonic()
                        try:
                            return next(delivery)
                        finally:
                            print(delivery.id, time.monotonic() - began)
            concurrency: How many handlers run at once, each in a thread, from 1 to 10,000.
            prefetch: The most messages to hold ready beyond those being handled, up to 5,000. Fewer are held if
                handlers are slow.
            prefetch_bytes: The most bytes of payload to hold, ready or being handled. One message is fetched whatever
                its size.
            lease: How long a message stays leased if this consumer crashes, from a millisecond to a day.
                While its handler runs, the lease is extended every third of this.
            poll_interval: How often it looks for messages of which it isn't notified, such as delayed ones and those
                that were enqueued in a transaction; 0.25 s by default.
            retry: How long a message waits after a failed attempt.
            undecodable: How long a message waits whose payload doesn't have the queue's type, and after how long it
                becomes a dead letter.
            handler_timeout: Counts a handler that has run for this long since its first step as a failed attempt; by
                default, a handler may run for ever. Its thread goes on, and until it ends there is one less for others.
            cancel_grace: How long a handler may go on after its message was cancelled, until it is no longer waited
                for. Its thread goes on; it can look at ``delivery.is_cancelled``.
            listen: Whether other processes wake it through LISTEN.
            shutdown_deadline: How long stopping takes at most, but for threads that are waited for: handlers may
                settle their messages until five seconds before its end (or until its half, if it is shorter than ten
                seconds).

        Times are in seconds, or a ``timedelta``.

        Returns:
            How many messages were handled, failed, and so on.

        Raises:
            NotInstalledError, SchemaOutdatedError, PermissionDeniedError, QueueNotFoundError, ClosedError: Errors
                that a retry can't fix.
            LeaseOutOfRangeError: The lease is out of its limits.
            WorkerStoppedError: It runs, or has run, already.
        """
        _receiving.checked_handler(handler, around, "a function")
        settings = _receiving.settings(
            concurrency=concurrency,
            prefetch=prefetch,
            prefetch_bytes=prefetch_bytes,
            lease=lease,
            poll_interval=poll_interval,
            retry=retry,
            undecodable=undecodable,
            handler_timeout=handler_timeout,
            cancel_grace=cancel_grace,
            listen=listen,
            shutdown_deadline=shutdown_deadline,
        )
        called = handler if around is None else layered(around, handler)
        called = _telemetry.handling(self._queue.name, called, blocking=True)
        work = Work(self._native, called, lambda native: decoded(Delivery, native, self._queue))
        return self._receive(settings, work)

    def run_chunks(
        self,
        handler: ChunkHandler[T],
        *,
        size: int,
        wait: float | timedelta,
        around: ChunkAround[T] | None = None,
        concurrency: int = _receiving.HANDLERS,
        prefetch: int = _receiving.PREFETCH,
        prefetch_bytes: int = _receiving.PREFETCH_BYTES,
        lease: float | timedelta = _receiving.LEASE,
        poll_interval: float | timedelta = _receiving.POLL_INTERVAL,
        retry: RetryPolicy = RetryPolicy(),
        undecodable: UndecodablePolicy = UndecodablePolicy(),
        handler_timeout: float | timedelta | None = None,
        cancel_grace: float | timedelta = _receiving.CANCEL_GRACE,
        listen: bool = True,
        shutdown_deadline: float | timedelta = _receiving.DEADLINE,
    ) -> Report:
        """As :meth:`run`, with a handler that takes many messages at once: one ``insert`` for a hundred rows.

        ``None`` acknowledges all messages of a :class:`pgqrs.Chunk`, in one statement. An exception is a failed
        attempt of all of them, except those that the handler has settled one by one. A payload that doesn't have the
        queue's type waits for a consumer of another version, and its chunk has one message less.

        Args:
            handler: A function of a :class:`pgqrs.Chunk`.
            size: The most messages of a chunk, from 1 to 10,000.
            wait: How long after its first message was received a chunk that isn't full is handled.
            around: As for :meth:`run`, with a chunk.
            concurrency: How many chunks are handled at once, each in a thread, from 1 to 10,000.
            prefetch: As for :meth:`run`.
            prefetch_bytes: As for :meth:`run`.
            lease: As for :meth:`run`.
            poll_interval: As for :meth:`run`.
            retry: As for :meth:`run`.
            undecodable: As for :meth:`run`.
            handler_timeout: As for :meth:`run`, for a chunk.
            cancel_grace: As for :meth:`run`, if all messages of a chunk are cancelled.
            listen: As for :meth:`run`.
            shutdown_deadline: As for :meth:`run`.

        Times are in seconds, or a ``timedelta``.

        Returns:
            How many messages were handled, failed, and so on.

        Raises:
            NotInstalledError, SchemaOutdatedError, PermissionDeniedError, QueueNotFoundError, ClosedError: Errors
                that a retry can't fix.
            LeaseOutOfRangeError: The lease is out of its limits.
            WorkerStoppedError: It runs, or has run, already.
        """
        _receiving.checked_handler(handler, around, "a function")
        settings = _receiving.settings(
            size=size,
            wait=wait,
            concurrency=concurrency,
            prefetch=prefetch,
            prefetch_bytes=prefetch_bytes,
            lease=lease,
            poll_interval=poll_interval,
            retry=retry,
            undecodable=undecodable,
            handler_timeout=handler_timeout,
            cancel_grace=cancel_grace,
            listen=listen,
            shutdown_deadline=shutdown_deadline,
        )
        called = handler if around is None else layered(around, handler)
        called = _telemetry.handling(self._queue.name, called, blocking=True)
        work = Work(self._native, called, lambda native: decoded_chunk(native, self._queue))
        return self._receive(settings, work)

    def _receive(self, settings: Settings, work: Work) -> Report:
        _measuring.start()
        self._start(settings)
        ready: deque[Native] = deque()
        interrupt: KeyboardInterrupt | None = None
        with (
            _signals.stopping(self.stop),
            ThreadPoolExecutor(settings["concurrency"], thread_name_prefix="pgqrs") as threads,
        ):
            going = True
            while going:
                # Ctrl-C comes anywhere in here, and then too handlers may finish.
                try:
                    while ready:
                        threads.submit(work.handle, ready.popleft())
                    events = self._native.next()
                    ready.extend(event for event in events if not isinstance(event, int))
                    going = bool(events)
                except KeyboardInterrupt as error:
                    interrupt = error
                    self.stop()
        self._ended = True
        ended_by = work.error or interrupt
        if ended_by is not None:
            self._native.ended(_ENDING)
            raise ended_by
        report = Report(**self._native.report())
        _measuring.flush()
        return report

    def deliveries(
        self,
        *,
        concurrency: int = 1,
        prefetch: int = _receiving.PREFETCH,
        prefetch_bytes: int = _receiving.PREFETCH_BYTES,
        lease: float | timedelta = _receiving.LEASE,
        poll_interval: float | timedelta = _receiving.POLL_INTERVAL,
        retry: RetryPolicy = RetryPolicy(),
        undecodable: UndecodablePolicy = UndecodablePolicy(),
        listen: bool = True,
        shutdown_deadline: float | timedelta = _receiving.DEADLINE,
    ) -> Iterator[Delivery[T]]:
        """Iterates over deliveries, each to be settled by its methods. ``for delivery in consumer`` is the same with
        these defaults.

        A delivery that is dropped without being settled is a failed attempt. :meth:`shutdown`, or the end of a ``with
        consumer``, releases what isn't settled.

        Args:
            concurrency: How many deliveries may be unsettled at once. With 1, asking for the next one while the last
                one isn't settled raises :class:`pgqrs.NotSettledError`; otherwise it waits.
            prefetch: As for :meth:`run`.
            prefetch_bytes: As for :meth:`run`.
            lease: As for :meth:`run`.
            poll_interval: As for :meth:`run`.
            retry: As for :meth:`run`.
            undecodable: As for :meth:`run`.
            listen: As for :meth:`run`.
            shutdown_deadline: How long after :meth:`stop` deliveries can still be settled; the last part of it is as
                for :meth:`run`.

        Returns:
            The iterator, which ends when the consumer is stopped. Nothing is received before its first step.

        Raises:
            WorkerStoppedError: From the first step: the consumer runs, or has run, already.
            NotSettledError: From a step: the last delivery isn't settled.
            NotInstalledError, SchemaOutdatedError, PermissionDeniedError, QueueNotFoundError, ClosedError: From a
                step. These are the errors that a retry can't fix.
            TypeError, ValueError: A setting is of the wrong type, or out of its range.
        """
        settings = _receiving.settings(
            concurrency=concurrency,
            prefetch=prefetch,
            prefetch_bytes=prefetch_bytes,
            lease=lease,
            poll_interval=poll_interval,
            retry=retry,
            undecodable=undecodable,
            listen=listen,
            shutdown_deadline=shutdown_deadline,
        )
        return _Deliveries(self, settings)

    def __iter__(self) -> Iterator[Delivery[T]]:
        return self

    def __next__(self) -> Delivery[T]:
        iteration = self._iteration or self.deliveries()
        return next(iteration)

    def stop(self) -> None:
        """Stops the consumer gracefully: nothing more is claimed, and handlers finish. Returns at once."""
        self._native.stop()

    def heartbeat(self) -> None:
        """Sends a heartbeat. Heartbeats are also sent automatically.

        Raises:
            WorkerStoppedError: It was stopped, removed, or replaced.
        """
        self._native.heartbeat()

    def suspend(self) -> None:
        """Suspends the consumer: until it is resumed, it receives nothing.

        Raises:
            InvalidTransitionError: It isn't ready.
            WorkerStoppedError: It was stopped, removed, or replaced.
        """
        self._native.suspend()

    def resume(self) -> None:
        """Resumes the consumer.

        Raises:
            InvalidTransitionError: It isn't suspended.
            WorkerStoppedError: It was stopped, removed, or replaced.
        """
        self._native.resume()

    def shutdown(self) -> None:
        """Stops the consumer, for good, and frees its identity.

        A run is stopped gracefully, and deliveries that iteration has returned and that aren't settled are released.
        If the consumer has ended already, nothing happens.

        Raises:
            Error: The database is unavailable. The consumer then counts as crashed after a while.
        """
        self._native.stop()
        if self._iteration is not None:
            self._iteration._give_back()
        self._native.shutdown()

    def status(self) -> WorkerStatus:
        """Reads its current state from the database.

        Returns:
            ``ready``, ``suspended`` or ``stopped``. A consumer that was removed is ``stopped``.

        Raises:
            Error: The database is unavailable.
        """
        status: WorkerStatus = self._native.status()
        return status

    def is_healthy(self, max_age: float | timedelta) -> bool:
        """Checks that it is not stopped, and that its last heartbeat is recent.

        Args:
            max_age: The age that its last heartbeat may have, in seconds or as a ``timedelta``.

        Returns:
            Whether both are so.

        Raises:
            Error: The database is unavailable.
        """
        healthy: bool = self._native.is_healthy(_arguments.duration("max_age", max_age))
        return healthy

    def __enter__(self) -> Consumer[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def _start(self, settings: Settings) -> None:
        if self._started:
            raise WorkerStoppedError(
                f"consumer {self.id} runs, or has run; register another with `store.consumer(..)`",
                worker=self.id,
            )
        self._started = True
        self._native.start(**settings)

    def __repr__(self) -> str:
        return f"<Consumer {self.id} {self.hostname}:{self.port} for {self._queue!r}>"


class _Deliveries(Generic[T]):
    """Iterates over a consumer's deliveries."""

    def __init__(self, consumer: Consumer[T], settings: Settings) -> None:
        self._consumer = consumer
        self._settings = settings
        # What was received and not returned yet, and what was returned.
        self._ready: deque[_pgqrs.Delivery] = deque()
        self._out: weakref.WeakSet[Delivery[T]] = weakref.WeakSet()

    def __iter__(self) -> Iterator[Delivery[T]]:
        return self

    def __next__(self) -> Delivery[T]:
        consumer = self._consumer
        if consumer._iteration is not self:
            if consumer._ended:
                raise StopIteration
            consumer._start(self._settings)
            consumer._iteration = self
        if self._settings["concurrency"] == 1:
            for out in self._out:
                if not out.is_settled:
                    raise NotSettledError(message=out.id)
        native = consumer._native
        while True:
            while self._ready:
                delivery = decoded(Delivery, self._ready.popleft(), consumer._queue)
                if delivery is not None and delivery._native.begin(by_handler=False):
                    self._out.add(delivery)
                    return delivery
            events = native.next()
            if not events:
                native.report()
                raise StopIteration
            self._ready.extend(event for event in events if not isinstance(event, int))

    def _give_back(self) -> None:
        for delivery in list(self._out):
            give_back(delivery._native)
        while self._ready:
            give_back(self._ready.popleft())
        # What is on its way. After that the loop comes to its end.
        while events := self._consumer._native.next():
            for event in events:
                give_back(event)
