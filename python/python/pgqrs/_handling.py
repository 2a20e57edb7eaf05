"""The tasks of a consumer's handlers."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from pgqrs import _pgqrs
from pgqrs._receiving import Native, exited, failed, finished, give_back
from pgqrs.outcome import Outcome

D = TypeVar("D")


def layered(
    around: Callable[[D, Callable[[D], Awaitable[Outcome | None]]], Awaitable[Outcome | None]],
    handler: Callable[[D], Awaitable[Outcome | None]],
) -> Callable[[D], Awaitable[Outcome | None]]:
    return lambda delivery: around(delivery, handler)


_TURNS = 20
"""How many turns of the event loop go by at most, of some 10 microseconds each, before it sleeps until something comes."""


class Work:
    """The handlers of a consumer that run. How many there may be is the loop's business."""

    def __init__(
        self,
        native: _pgqrs.Consumer,
        handler: Callable[[Any], Awaitable[Outcome | None]],
        decode: Callable[[Any], object | None],
    ) -> None:
        self._native = native
        self._handler = handler
        self._decode = decode
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ended = 0
        self.error: BaseException | None = None
        """What ends the run."""

    def take(self, event: Native | int) -> None:
        if isinstance(event, int):
            # The loop has abandoned it: its handler took too long, or the consumer ends.
            task = self._tasks.get(event)
            if task is not None:
                task.cancel()
            return
        if self.error is not None:
            give_back(event)
            return
        ticket = event.ticket
        task = _start_task(self._handle(event))
        self._tasks[ticket] = task
        task.add_done_callback(lambda _: self._tasks.pop(ticket, None))

    async def events(self) -> list[Native | int]:
        """The next events; none at the end. If handlers have ended in a turn of the event loop, the deliveries that follow
        are there a moment later."""
        self._ended = 0
        for _ in range(_TURNS):
            await asyncio.sleep(0)
            if events := self._native.ready():
                return events
            if not self._ended:
                break
        following: list[Native | int] = await self._native.next()
        return following

    async def cancel(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, native: Native) -> None:
        try:
            delivery = self._decode(native)
            # The clock of `handler_timeout` starts here, and not while an event loop was busy with others.
            if delivery is None or not native.begin():
                return
            handling: object = self._handler(delivery)
            if inspect.isawaitable(handling):
                finished(native, await handling)
                return
            give_back(native)
            mistake = f"handler: {self._handler!r} is not async; write `async def`, or use `pgqrs.sync`"
            self._end(TypeError(mistake))
        except asyncio.CancelledError as error:
            if _is_cancelled():
                give_back(native)
                raise
            # It comes from what the handler has waited for.
            failed(native, error)
        except GeneratorExit:
            # Its event loop is gone.
            give_back(native)
            raise
        except Exception as error:
            failed(native, error)
        except BaseException as error:
            # Raised out of a task, `SystemExit` and its like end the event loop in the middle of everything.
            exited(native)
            self._end(error)
        finally:
            self._ended += 1

    def _end(self, error: BaseException) -> None:
        """Ends the run at once; handlers are cancelled, and their messages released."""
        if self.error is None:
            self.error = error
            self._native.abort()


if sys.version_info >= (3, 11):

    def _start_task(handling: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(handling)

    def _is_cancelled() -> bool:
        """Whether the current task was cancelled."""
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

else:

    class _Task(asyncio.Task[None]):
        """A task that knows whether it was cancelled."""

        is_cancelled = False

        def cancel(self, msg: object = None) -> bool:
            self.is_cancelled = True
            return super().cancel(msg)

    def _start_task(handling: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return _Task(handling, loop=asyncio.get_running_loop())

    def _is_cancelled() -> bool:
        """Whether the current task was cancelled."""
        task = asyncio.current_task()
        return isinstance(task, _Task) and task.is_cancelled
