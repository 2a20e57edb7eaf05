"""The page for those who come from other task queues: all of its blocks, run one after the other in one program."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from typing import Any

import psycopg
import pytest

import pgqrs
from pgqrs import testing

from .conftest import Database, until
from .test_readme import CHECKOUT, blocks


async def test_each_block_does_what_it_says(
    store: pgqrs.Store, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.change("create table orders (customer text)")
    database.change("create table totals (total int)")
    await store.queue("totals")
    names: dict[str, Any] = {"store": store}
    with psycopg.connect(database.url, autocommit=True) as connection:
        names["connection"] = connection
        for block in blocks("python/coming-from.md"):
            program = block.replace("postgresql://localhost/mydb", database.url)
            code = compile(program, "coming-from.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, names)
            if inspect.isawaitable(running):
                await running
        # Sent in 2, in the transaction of 3, and before both of them the urgent one of 4.
        assert names["sent"][:3] == ["eve@example.com", "ada@example.com", "ada@example.com"]
        assert names["report"].done == 3
        assert database.rows("select customer from orders") == [("ada@example.com",)]
        # What the handler of 5 does with each of its messages.
        pgqrs.enqueue_batch_in(connection, names["TRICKY"], ["no address", "not yet", "anything"])
        # In a thread of its own, since the handler is async, and a loop runs in this one.
        tricky = await asyncio.to_thread(
            testing.drain, connection, names["TRICKY"], names["app"], collect_errors=True
        )
        assert (tricky.dead, tricky.snoozed, tricky.retried) == (1, 1, 1)
        assert names["sent"][3:] == ["report weekly"]
        pgqrs.enqueue_in(connection, names["TOTALS"], 21)
    running = asyncio.create_task(names["app"].run([names["TOTALS"]]))
    await until("the total is stored", lambda: database.rows("select total from totals") != [])
    names["app"].stop()
    assert (await running)["totals"].done == 1
    assert database.rows("select total from totals") == [(42,)]
    assert "emails: 1 ready, 0 dead letters" in capsys.readouterr().out


def test_each_of_the_four_is_beside_each_block() -> None:
    text = (CHECKOUT / "python/coming-from.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert len(sections) >= 10
    for section in sections:
        for other in ("Celery", "RQ", "Dramatiq", "Procrastinate"):
            assert f"| {other} | " in section, (section.splitlines()[0], other)
