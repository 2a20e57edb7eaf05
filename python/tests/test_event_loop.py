"""The event loop stays free while many sends are under way: they are begun, and reported, over many of its turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pgqrs
from pgqrs import _turns

from .conftest import Database


class Turns:
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.now = 0
        self._handle: asyncio.Handle | None = None

    def _next(self) -> None:
        self.now += 1
        self._handle = asyncio.get_running_loop().call_soon(self._next)

    def __enter__(self) -> Turns:
        self._next()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._handle is not None
        self._handle.cancel()


async def test_sends_that_are_begun_at_once_begin_in_their_order_over_many_turns() -> None:
    begun: list[tuple[int, int]] = []

    async def send(number: int) -> None:
        await _turns.begin()
        begun.append((number, turns.now))

    with Turns() as turns:
        await asyncio.gather(*(send(number) for number in range(3_000)))
    assert [number for number, _ in begun] == list(range(3_000))
    # What is woken in a turn goes on in the next one, together with what begins then.
    assert max(Counter(turn for _, turn in begun).values()) <= 2 * _turns.AT_ONCE
    # Afterwards nothing waits.
    with Turns() as turns:
        await send(0)
    assert turns.now == 1


async def test_a_cancelled_send_lets_the_others_begin() -> None:
    sends = [asyncio.ensure_future(_turns.begin()) for _ in range(2_000)]
    await asyncio.sleep(0)
    for send in sends[_turns.AT_ONCE : 1_000]:
        send.cancel()
    done = await asyncio.gather(*sends, return_exceptions=True)
    assert sum(isinstance(one, asyncio.CancelledError) for one in done) == 1_000 - _turns.AT_ONCE


async def test_results_of_many_sends_are_set_over_many_turns(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    ended: list[int] = []

    async def send(number: int) -> None:
        await producer.enqueue(number)
        ended.append(turns.now)

    with Turns() as turns:
        await asyncio.gather(*(send(number) for number in range(3_000)))
    assert max(Counter(ended).values()) <= 256
    assert database.count() == 3_000
