"""Many single sends at once: this package beside asyncpg, in turn, in one run.

`cargo xtask bench python` runs it, in a release build. Both store the same payloads, one message a call, and both
wait until each is durable: 512 calls, gathered. asyncpg has a pool of eight connections, and a plain
`insert … returning id` into a table of the same form.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import asyncpg

import pgqrs

AT_ONCE = 512
PAYLOAD = {"task": "send_email", "to": "user@example.com", "body": "x" * 150}

Round = Callable[[], Awaitable[object]]


async def per_second(round: Round, seconds: float) -> float:
    """How many calls a second, over a few rounds."""
    rounds, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        await round()
        rounds += 1
    return rounds * AT_ONCE / took


class Probe:
    """Measures how long the event loop lets other work wait: the time between two callbacks that follow each other."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.perf_counter()
        self._handle: asyncio.Handle | None = None

    def _look(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._handle = asyncio.get_running_loop().call_soon(self._look)

    def __enter__(self) -> Probe:
        self._last = time.perf_counter()
        self._look()
        return self

    def __exit__(self, *error: object) -> None:
        self._look()
        if self._handle is not None:
            self._handle.cancel()


async def at_once(producer: pgqrs.Producer[object], count: int) -> None:
    """Many sends that are begun in one go, and how long the loop stands still meanwhile."""
    began = time.perf_counter()
    # The tasks' first steps are one turn of the loop, whatever they do.
    sends = [asyncio.ensure_future(producer.enqueue(PAYLOAD)) for _ in range(count)]
    await asyncio.sleep(0)
    begun = time.perf_counter() - began
    with Probe() as probe:
        await asyncio.gather(*sends)
    took = time.perf_counter() - began
    print(f"{count:,} sends at once: {count / took:,.0f} a second")
    print(
        f"  to begin them {begun * 1e3:.0f} ms, and then the longest turn of the loop {probe.longest * 1e3:.1f} ms"
    )


async def handled(store: pgqrs.Store, producer: pgqrs.Producer[object], count: int) -> None:
    """A consumer with eight handlers, which do nothing."""
    for _ in range(0, count, 1_000):
        await producer.enqueue_batch([PAYLOAD] * 1_000)
    consumer = await store.consumer("bench")
    left = count

    async def handle(delivery: pgqrs.Delivery[object]) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            consumer.stop()

    began = time.perf_counter()
    with Probe() as probe:
        await consumer.run(handle, concurrency=8)
    took = time.perf_counter() - began
    print(f"{count:,} messages through 8 handlers: {count / took:,.0f} a second")
    print(f"  longest turn of the loop {probe.longest * 1e3:.1f} ms")


async def main() -> None:
    url = os.environ["PGQRS_TEST_URL"]
    quick = "--quick" in sys.argv[1:]
    turns, seconds = (5, 0.5) if quick else (15, 1.0)

    pool = await asyncpg.create_pool(url, min_size=8, max_size=8)
    await pool.execute("drop schema if exists pgqrs cascade")
    store = await pgqrs.connect(url, install=True)
    await store.queue("bench")
    producer = await store.producer("bench")
    # The same columns and the same index, by a statement that names nothing but the payload.
    await pool.execute(
        "drop table if exists plain; create table plain (like pgqrs.messages including all);"
        " alter table plain alter queue_id set default 1; alter table plain alter priority set default 2"
    )

    async def ours() -> None:
        await asyncio.gather(*(producer.enqueue(PAYLOAD) for _ in range(AT_ONCE)))

    async def insert() -> int:
        id: int = await pool.fetchval(
            "insert into plain (payload) values ($1) returning id", json.dumps(PAYLOAD)
        )
        return id

    async def theirs() -> None:
        await asyncio.gather(*(insert() for _ in range(AT_ONCE)))

    sides: dict[str, Round] = {"pgqrs": ours, "asyncpg": theirs}
    for round in sides.values():
        await per_second(round, seconds)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns):
        # In another order each time, so that none always follows the same one.
        for name in sorted(sides, reverse=bool(turn % 2)):
            rates[name].append(await per_second(sides[name], seconds))
            await pool.execute("truncate pgqrs.messages, plain")
    ratios = [a / b for a, b in zip(rates["pgqrs"], rates["asyncpg"], strict=True)]
    print(f"{AT_ONCE} single sends, gathered; {turns} rounds in turn, medians")
    for name, of in rates.items():
        print(f"  {name:8} {statistics.median(of):9.0f} a second")
    ratio = statistics.median(ratios)
    print(f"  ratio    {ratio:9.1f} (from {min(ratios):.1f} to {max(ratios):.1f}); at least 5 is wanted")
    await at_once(producer, 2_000 if quick else 20_000)
    await pool.execute("truncate pgqrs.messages")
    await handled(store, producer, 2_000 if quick else 20_000)
    await store.close()
    await pool.close()
    if ratio < 5:
        sys.exit("it is less than 5")


asyncio.run(main())
