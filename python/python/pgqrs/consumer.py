"""Consumers: registered receivers of one queue."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from types import TracebackType
from typing import ClassVar, Generic, TypeVar

from pgqrs import _arguments, _pgqrs, _signals
from pgqrs._receiving import DEADLINE, decoded, failed, finished, give_back
from pgqrs.delivery import Delivery
from pgqrs.errors import NotSettledError, WorkerStoppedError
from pgqrs.listings import WorkerStatus
from pgqrs.outcome import Outcome, Report
from pgqrs.queue import Queue

T = TypeVar("T")

Handler = Callable[[Delivery[T]], Awaitable["Outcome | None"]]
"""What :meth:`Consumer.run` takes."""


class Consumer(Generic[T]):
    """A registered receiver of one queue; made by :meth:`pgqrs.Store.consumer`.

    There are two ways to receive. :meth:`run` calls a handler for each message, several at once::

        async def handle(delivery: pgqrs.Delivery[SendEmail]) -> None:
            await send(delivery.payload)

        await consumer.run(handle)

    Iteration gives one delivery at a time, to be settled by its verbs::

        async for delivery in consumer:
            await send(delivery.payload)
            await delivery.ack()

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
        # For iteration: what came along and is still to be given out, and what is out.
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

    async def run(
        self,
        handler: Handler[T],
        *,
        concurrency: int | None = None,
        shutdown_deadline: float | timedelta = DEADLINE,
    ) -> Report:
        """Receives messages and hands each to the handler, until it is told to stop; and says what it has done.

        The handler is ``async``. What it returns is an :class:`pgqrs.Outcome`, and ``None`` acknowledges the
        message. An exception is a failed attempt, after which the message waits as the consumer's ``retry``
        says, or becomes a dead letter where its attempts are used up. A handler can also settle the delivery by
        itself. While it runs, its message's lease is kept alive.

        It stops with :meth:`stop`, on SIGTERM, unless the program has a handler of its own for that, or when
        others have stopped it. Then no more is claimed, handlers may finish for ``shutdown_deadline`` seconds, and
        what is left is given back. When this call is cancelled, handlers are cancelled too, and their messages
        given back.

        Acknowledgements travel in batches, and aren't waited for until they are on the server's disk.

        Raises :class:`pgqrs.NotInstalledError`, :class:`pgqrs.QueueNotFoundError`, :class:`pgqrs.ClosedError`:
        what waiting doesn't mend.
        """
        if not callable(handler):
            raise TypeError(f"handler: expected an async function, not {type(handler).__name__}")
        handlers = _arguments.optional_integer("concurrency", concurrency, 1, 10_000)
        await self._start(handlers or self._concurrency or self.HANDLERS, shutdown_deadline)
        work = _Work(handler, self._queue)
        try:
            with _signals.stopping(self.stop):
                while events := await self._native.next():
                    for event in events:
                        work.take(event)
                    if work.mistake is not None:
                        self.stop()
        except asyncio.CancelledError:
            self.stop()
            await work.cancel()
            while events := await self._native.next():
                for event in events:
                    give_back(event)
            raise
        report = Report(**await self._native.report())
        if work.mistake is not None:
            raise work.mistake
        return report

    def __aiter__(self) -> AsyncIterator[Delivery[T]]:
        return self

    async def __anext__(self) -> Delivery[T]:
        if not self._started:
            await self._start(self._concurrency or 1, DEADLINE)
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
            events = await self._native.next()
            if not events:
                await self._native.report()
                raise StopAsyncIteration
            self._ready.extend(event for event in events if not isinstance(event, int))

    def stop(self) -> None:
        """Lets it come to its end: nothing more is claimed, and what is under way may finish. Returns at once."""
        self._native.stop()

    async def heartbeat(self) -> None:
        """Says that it lives. This happens by itself too.

        Raises :class:`pgqrs.WorkerStoppedError` where it was stopped, removed, or taken over.
        """
        await self._native.heartbeat()

    async def suspend(self) -> None:
        """Holds it back: until it is resumed, it receives nothing.

        Raises :class:`pgqrs.InvalidTransitionError` where it isn't ready, :class:`pgqrs.WorkerStoppedError`
        where it is gone.
        """
        await self._native.suspend()

    async def resume(self) -> None:
        """Lets it go on.

        Raises :class:`pgqrs.InvalidTransitionError` where it isn't suspended,
        :class:`pgqrs.WorkerStoppedError` where it is gone.
        """
        await self._native.resume()

    async def shutdown(self) -> None:
        """Ends it, for good, and frees its identity: stops it if it runs, and gives back what it has given out to
        iteration and is not settled. On a consumer that has ended, nothing happens."""
        self._native.stop()
        if self._iterates:
            for delivery in list(self._out):
                give_back(delivery._native)
            while self._ready:
                give_back(self._ready.popleft())
            # What is on its way. After that the loop comes to its end.
            while events := await self._native.next():
                for event in events:
                    give_back(event)
        await self._native.shutdown()

    async def status(self) -> WorkerStatus:
        """Its state, as the database has it now. A consumer that was removed is stopped."""
        status: WorkerStatus = await self._native.status()
        return status

    async def is_healthy(self, max_age: float | timedelta) -> bool:
        """Whether it lives and was heard of within this time, in seconds or as a ``timedelta``."""
        healthy: bool = await self._native.is_healthy(_arguments.duration("max_age", max_age))
        return healthy

    async def __aenter__(self) -> Consumer[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown()

    async def _start(self, concurrency: int, deadline: float | timedelta) -> None:
        until = _arguments.duration("shutdown_deadline", deadline)
        if self._started:
            raise WorkerStoppedError(
                f"consumer {self.id} runs, or has run; register another with `store.consumer(..)`",
                worker=self.id,
            )
        self._started = True
        await self._native.start(concurrency, until)

    def __repr__(self) -> str:
        return f"<Consumer {self.id} {self._hostname}:{self._port} for {self._queue!r}>"


class _Work(Generic[T]):
    """The handlers of a consumer that are at work. How many there may be is the loop's business."""

    def __init__(self, handler: Handler[T], queue: Queue[T]) -> None:
        self._handler = handler
        self._queue = queue
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.mistake: TypeError | None = None

    def take(self, event: _pgqrs.Delivery | int) -> None:
        if isinstance(event, int):
            # The loop has given it up: it took too long.
            task = self._tasks.get(event)
            if task is not None:
                task.cancel()
            return
        ticket = event.ticket
        task = asyncio.get_running_loop().create_task(self._handle(event))
        self._tasks[ticket] = task
        task.add_done_callback(lambda _: self._tasks.pop(ticket, None))

    async def cancel(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, native: _pgqrs.Delivery) -> None:
        delivery = decoded(Delivery, native, self._queue)
        if delivery is None:
            return
        try:
            handling: object = self._handler(delivery)
            if not inspect.isawaitable(handling):
                self.mistake = TypeError(
                    f"handler: {self._handler!r} is not async; write `async def`, or use `pgqrs.sync`"
                )
                give_back(native)
                return
            finished(native, await handling)
        except asyncio.CancelledError:
            give_back(native)
            raise
        except Exception as error:
            failed(native, error)
