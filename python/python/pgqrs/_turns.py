"""Sends that are begun at once, spread over turns of the event loop: a turn that begins thousands of them would hold up
everything else that the loop has to do."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

AT_ONCE = 512
"""How many sends begin in one turn, which takes a few milliseconds."""


class _Turn:
    """The sends of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.begun = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def next(self) -> None:
        """Called in each turn that follows one with sends."""
        self.begun = 0
        while self.waiting and self.begun < AT_ONCE:
            waiting = self.waiting.popleft()
            # Its call may have been cancelled.
            if not waiting.done():
                waiting.set_result(None)
                self.begun += 1
        if self.begun or self.waiting:
            self.loop.call_soon(self.next)


class _Local(threading.local):
    turn: _Turn | None = None


_local = _Local()


async def begin() -> None:
    """Waits until a send may begin: not at all, unless many have begun in this turn. In the order of the calls."""
    loop = asyncio.get_running_loop()
    turn = _local.turn
    if turn is None or turn.loop is not loop:
        turn = _local.turn = _Turn(loop)
    if turn.begun < AT_ONCE and not turn.waiting:
        turn.begun += 1
        if turn.begun == 1:
            loop.call_soon(turn.next)
        return
    waiting: asyncio.Future[None] = loop.create_future()
    turn.waiting.append(waiting)
    await waiting
