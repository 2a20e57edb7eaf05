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
    await store.close()
    await pool.close()
    if ratio < 5:
        sys.exit("it is less than 5")


asyncio.run(main())
