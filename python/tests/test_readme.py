"""The package's README: each of its blocks is a program that runs."""

from __future__ import annotations

import asyncio
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import pgqrs

from .conftest import Database

CHECKOUT = Path(__file__).parents[2]


def blocks(path: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (CHECKOUT / path).read_text(), re.MULTILINE | re.DOTALL)


async def run(block: str, database: Database) -> dict[str, Any]:
    """As the body of a coroutine, on the test's database."""
    program = block.replace("postgresql://localhost/mydb", database.url)
    names: dict[str, Any] = {}
    body = textwrap.indent(program, "    ") + "\n    return locals()\n"
    exec(f"async def block():\n{body}", names)
    found: dict[str, Any] = await names["block"]()
    return found


async def test_readme(store: pgqrs.Store, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    quick_start, options, keys, typed, chunks, scheduled, transactional, acknowledging, operating = blocks(
        "python/README.md"
    )

    await run(quick_start, database)
    printed = capsys.readouterr().out
    assert re.fullmatch(
        r"Enqueued message ID: \d+\n\{'task': 'send_email', 'to': 'user@example.com'\}\n", printed
    )

    await run(options, database)
    assert database.count() == 4
    await store.admin().purge_queue("tasks")

    names = await run(keys, database)
    await names["send"](await store.producer("tasks"))
    assert re.fullmatch(r"\d+ is new\n", capsys.readouterr().out)
    assert database.count() == 3
    await store.admin().purge_queue("tasks")

    names = await run(typed, database)
    producer = await store.producer(names["EMAILS"])
    await producer.enqueue(names["SendEmail"]("ada@example.com"))

    async def stop_afterwards(delivery: pgqrs.Delivery[Any]) -> None:
        await names["handle"](delivery)
        for worker in await store.admin().workers(kind="consumer", status="ready"):
            await store.admin().stop_worker(worker.id)

    consumer = await store.consumer(names["EMAILS"])
    await consumer.run(stop_afterwards, poll_interval=0.02)
    assert capsys.readouterr().out == "to ada@example.com\n"

    await run(scheduled, database)
    printed = capsys.readouterr().out
    assert re.fullmatch(r"daily-report is next due at .+\npoll is next due at .+\n", printed)
    for schedule in await store.admin().schedules():
        await store.admin().delete_schedule(schedule.name)

    await store.queue("readings")
    readings = await store.producer("readings")
    await readings.enqueue_batch([20.5, -300.0])
    names = await run(chunks, database)
    working = asyncio.create_task(names["work"](store))
    while not await store.admin().dead_letters("readings"):
        await asyncio.sleep(0.02)
    for worker in await store.admin().workers(kind="consumer", status="ready"):
        await store.admin().stop_worker(worker.id)
    await working
    assert capsys.readouterr().out == "2 messages\n"

    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    await store.queue("receipts")
    names = await run(transactional, database)
    engine = create_async_engine(database.url.replace("postgres:", "postgresql+psycopg:", 1))
    async with AsyncSession(engine) as session:
        await names["pay"](session, 7)
    assert database.payloads() == ['{"order":7}']

    database.change("create table accounts (cents bigint)")
    database.change("insert into accounts values (100)")
    names = await run(acknowledging, database)
    producer = await store.producer("emails")
    await producer.enqueue(23)
    consumer = await store.consumer("emails")

    async def book(delivery: pgqrs.Delivery[Any]) -> None:
        await names["book"](engine, delivery)
        consumer.stop()

    report = await consumer.run(book)
    assert (report.done, report.lost) == (1, 0)
    assert database.rows("select cents from accounts") == [(123,)]
    assert database.payloads() == ['{"order":7}']
    await engine.dispose()

    names = await run(operating, database)
    await names["look"](store)
    printed = capsys.readouterr().out
    assert "OK        nothing to act on" in printed and "receipts: 1 ready, 0 dead letters" in printed
