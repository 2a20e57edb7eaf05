"""Consumers: registered receivers of one queue. Handlers run in threads here."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import TracebackType
from typing import ClassVar, Generic, TypeVar

from pgqrs import _arguments, _pgqrs, _signals
from pgqrs._receiving import DEADLINE, decoded, failed, finished, give_back
from pgqrs.errors import NotSettledError, WorkerStoppedError
from pgqrs.listings import WorkerStatus
from pgqrs.outcome import Outcome, Report
from pgqrs.queue import Queue
from pgqrs.sync.delivery import Delivery

T = TypeVar("T")

Handler = Callable[[Delivery[T]], "Outcome | None"]
"""What :meth:`Consumer.run` takes."""


class Consumer(Generic[T]):
    """A registered receiver of one queue; made by :meth:`pgqrs.sync.Store.consumer`.

    There are two ways to receive. :meth:`run` calls a handler for each message, several at once, in threads::

        def handle(delivery: pgqrs.sync.Delivery[SendEmail]) -> None:
            send(delivery.payload)

        consumer.run(handle)

    Iteration gives one delivery at a time, to be settled by its verbs::

        for delivery in consumer:
            send(delivery.payload)
            delivery.ack()

    Either way it claims ahead, keeps leases alive, retries with exponential back-off, and goes on when the
    database restarts. A message whose payload doesn't have the queue's type becomes a dead letter, and is not
    delivered. A consumer runs once: when it has ended, register another.
    """

    HANDLERS: ClassVar[int] = 8
    """How many handlers :meth:`run` has at work at once, unless told."""

    def __init__(
        self,
        native: _pgqrs.Consumer,
        queue: Queue[T],
        hostname: str,
        port: int,
        concurrency: int | None,
    ) -> None:
        self._native = native
        self._queue = queue
        self._hostname = hostname
        self._port = port
        self._concurrency = concurrency
        self._started = False
        self._ready: deque[_pgqrs.Delivery] = deque()
        self._out: weakref.WeakSet[Delivery[T]] = weakref.WeakSet()
        self._iterates = False

    @property
    def id(self) -> int:
        """Its key. Another one from when it begins to run with another ``concurrency`` than it was registered
        with."""
        return self._native.id

    @property
    def queue(self) -> Queue[T]:
        """The queue that it receives from."""
        return self._queue

    @property
    def hostname(self) -> str:
        """The host that it was registered with."""
        return self._hostname

    @property
    def port(self) -> int:
        """The port that it was registered with; 0 is anonymous."""
        return self._port

    def run(
        self,
        handler: Handler[T],
        *,
        concurrency: int | None = None,
        shutdown_deadline: float | timedelta = DEADLINE,
    ) -> Report:
        """Receives messages and hands each to the handler, until it is told to stop; and says what it has done.

        What the handler returns is an :class:`pgqrs.Outcome`, and ``None`` acknowledges the message. An exception
        is a failed attempt, after which the message waits as the consumer's ``retry`` says, or becomes a dead
        letter where its attempts are used up. A handler can also settle the delivery by itself. While it runs,
        its message's lease is kept alive.

        It stops with :meth:`stop`, on SIGTERM, unless the program has a handler of its own for that, on Ctrl-C,
        or when others have stopped it. Then no more is claimed, and handlers may finish. Python can't break off a
        thread: one that is at work after ``shutdown_deadline`` seconds, or for longer than the consumer's
        ``handler_timeout``, is waited for, but its message is given back.

        Acknowledgements travel in batches, and aren't waited for until they are on the server's disk.

        Raises :class:`pgqrs.NotInstalledError`, :class:`pgqrs.QueueNotFoundError`, :class:`pgqrs.ClosedError`:
        what waiting doesn't mend.
        """
        if not callable(handler):
            raise TypeError(f"handler: expected a function, not {type(handler).__name__}")
        handlers = _arguments.optional_integer("concurrency", concurrency, 1, 10_000)
        at_once = handlers or self._concurrency or self.HANDLERS
        self._start(at_once, shutdown_deadline)
        interrupt: KeyboardInterrupt | None = None
        with (
            _signals.stopping(self.stop),
            ThreadPoolExecutor(at_once, thread_name_prefix="pgqrs") as threads,
        ):
            going = True
            while going:
                # Ctrl-C comes anywhere in here, and then too handlers may finish.
                try:
                    while self._ready:
                        threads.submit(self._handle, handler, self._ready.popleft())
                    events = self._native.next()
                    self._ready.extend(event for event in events if not isinstance(event, int))
                    going = bool(events)
                except KeyboardInterrupt as error:
                    interrupt = error
                    self.stop()
        if interrupt is not None:
            raise interrupt
        return Report(**self._native.report())

    def _handle(self, handler: Handler[T], native: _pgqrs.Delivery) -> None:
        delivery = decoded(Delivery, native, self._queue)
        if delivery is None:
            return
        try:
            finished(native, handler(delivery))
        except Exception as error:
            failed(native, error)
        except BaseException:
            give_back(native)
            raise

    def __iter__(self) -> Iterator[Delivery[T]]:
        return self

    def __next__(self) -> Delivery[T]:
        if not self._started:
            self._start(self._concurrency or 1, DEADLINE)
            self._iterates = True
        if (self._concurrency or 1) == 1:
            for out in self._out:
                if not out.is_settled:
                    raise NotSettledError(message=out.id)
        while True:
            while self._ready:
                delivery = decoded(Delivery, self._ready.popleft(), self._queue)
                if delivery is not None:
                    self._out.add(delivery)
                    return delivery
            events = self._native.next()
            if not events:
                self._native.report()
                raise StopIteration
            self._ready.extend(event for event in events if not isinstance(event, int))

    def stop(self) -> None:
        """Lets it come to its end: nothing more is claimed, and what is under way may finish. Returns at once."""
        self._native.stop()

    def heartbeat(self) -> None:
        """Says that it lives. This happens by itself too.

        Raises :class:`pgqrs.WorkerStoppedError` where it was stopped, removed, or taken over.
        """
        self._native.heartbeat()

    def suspend(self) -> None:
        """Holds it back: until it is resumed, it receives nothing.

        Raises :class:`pgqrs.InvalidTransitionError` where it isn't ready, :class:`pgqrs.WorkerStoppedError`
        where it is gone.
        """
        self._native.suspend()

    def resume(self) -> None:
        """Lets it go on.

        Raises :class:`pgqrs.InvalidTransitionError` where it isn't suspended,
        :class:`pgqrs.WorkerStoppedError` where it is gone.
        """
        self._native.resume()

    def shutdown(self) -> None:
        """Ends it, for good, and frees its identity: stops it if it runs, and gives back what it has given out to
        iteration and is not settled. On a consumer that has ended, nothing happens."""
        self._native.stop()
        if self._iterates:
            for delivery in list(self._out):
                give_back(delivery._native)
            while self._ready:
                give_back(self._ready.popleft())
            # What is on its way. After that the loop comes to its end.
            while events := self._native.next():
                for event in events:
                    give_back(event)
        self._native.shutdown()

    def status(self) -> WorkerStatus:
        """Its state, as the database has it now. A consumer that was removed is stopped."""
        status: WorkerStatus = self._native.status()
        return status

    def is_healthy(self, max_age: float | timedelta) -> bool:
        """Whether it lives and was heard of within this time, in seconds or as a ``timedelta``."""
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

    def _start(self, concurrency: int, deadline: float | timedelta) -> None:
        until = _arguments.duration("shutdown_deadline", deadline)
        if self._started:
            raise WorkerStoppedError(
                f"consumer {self.id} runs, or has run; register another with `store.consumer(..)`",
                worker=self.id,
            )
        self._started = True
        self._native.start(concurrency, until)

    def __repr__(self) -> str:
        return f"<Consumer {self.id} {self._hostname}:{self._port} for {self._queue!r}>"
