"""The package's README: each of its blocks is a program that runs."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import pgqrs
import pgqrs.sync

from .conftest import Database, until

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


def named(path: str) -> dict[str, str]:
    """The blocks that are files, by their names."""
    files = (re.match(r"# (\S+\.py)\n", block) for block in blocks(path))
    return {found[1]: found.string for found in files if found is not None}


async def test_readme(store: pgqrs.Store, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    quick_start, options, keys, typed, chunks, scheduled, transactional, acknowledging, operating, log = (
        block for block in blocks("python/README.md") if block not in named("python/README.md").values()
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

    names = await run(log, database)
    failing = await store.consumer("receipts")

    async def fail(delivery: pgqrs.Delivery[Any]) -> None:
        failing.stop()
        raise LookupError("no such order")

    await failing.run(fail)
    printed = ""

    def is_printed() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return "of receipts failed: LookupError: no such order" in printed

    await until("the failure is printed", is_printed)
    logger = logging.getLogger("pgqrs")
    for handler in [one for one in logger.handlers if isinstance(one, names["Failures"])]:
        logger.removeHandler(handler)


PARTS = {
    "shop/jobs.py": "examples/django/shop/jobs.py",
    "shop/views.py": "examples/django/shop/views.py",
}
"""Blocks of files of examples, which have tests of their own."""

TRIED = {"mysite/settings.py", "shop/tests.py", "web.py"}
"""Blocks that `newcomer.py` runs."""


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_examples_are_what_the_examples_have(name: str) -> None:
    _, _, block = named("python/README.md")[name].partition("\n")
    example = (CHECKOUT / PARTS[name]).read_text()
    assert block in re.sub(r"  # type: ignore\[.*?\]", "", example)


def test_the_tests_of_the_readme_pass(database: Database, tmp_path: Path) -> None:
    files = named("python/README.md")
    assert set(files) == {"jobs.py", "test_jobs.py", *PARTS, *TRIED}
    for name in ("jobs.py", "test_jobs.py"):
        (tmp_path / name).write_text(files[name])
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["pgqrs.testing.fixtures"]\n')
    with pgqrs.sync.connect(database.url) as store:
        store.queue("emails")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": database.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr
    assert database.count() == 0


def test_the_worker_of_the_readme(database: Database, tmp_path: Path) -> None:
    """Its commands, as they are written there, on its app."""
    app = named("python/README.md")["jobs.py"]
    (tmp_path / "jobs.py").write_text(app.replace("postgresql://localhost/mydb", database.url))
    text = (CHECKOUT / "python/README.md").read_text()
    commands = re.findall(r"^python -m pgqrs (.+?)(?: +#.*)?$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["install", "worker", "worker", "worker"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with pgqrs.sync.connect(database.url) as store:
        for command in commands:
            with subprocess.Popen(
                [sys.executable, "-m", "pgqrs", *command.split()],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            ) as process:
                assert process.stdout is not None
                if command.startswith("install"):
                    assert "queue `reports` is created" in process.stdout.read()
                    continue
                producer = store.producer("emails")
                producer.enqueue({"to": "ada@example.com"})
                assert process.stdout.readline() == "to ada@example.com\n"
                if "--queues" not in command:
                    store.producer("reports").enqueue("monthly")
                    assert process.stdout.readline() == "report monthly\n"
                process.terminate()
                assert process.wait(20) == 0
