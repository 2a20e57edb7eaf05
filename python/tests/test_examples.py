"""The programs under `examples/python`: that they do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import pgqrs
import pgqrs.sync

from .conftest import Database

FOLDER = Path(__file__).parents[2] / "examples" / "python"


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[None]:
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("DATABASE_URL", database.url)
    yield
    for name in ("emails", "web_producer"):
        sys.modules.pop(name, None)


async def test_web_producer(importable: None, database: Database) -> None:
    import web_producer  # type: ignore[import-not-found]

    app: Any = web_producer.app
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
            answer = await client.post("/emails", params={"to": "ada@example.com"})
            assert answer.status_code == 202
            later = await client.post("/emails", params={"to": "lin@example.com", "minutes": 5})
            producer: pgqrs.Producer[Any] = app.state.emails
            await producer.suspend()
            refused = await client.post("/emails", params={"to": "eve@example.com"})
            assert refused.status_code == 503
    rows = database.rows(
        "select id, payload->>'to', visible_at > enqueued_at + interval '4 minutes'"
        " from pgqrs.messages order by id"
    )
    assert rows == [
        (answer.json()["message"], "ada@example.com", False),
        (later.json()["message"], "lin@example.com", True),
    ]


def test_worker(database: Database) -> None:
    environment = {**os.environ, "DATABASE_URL": database.url}
    with (
        pgqrs.sync.connect(database.url) as store,
        subprocess.Popen(
            [sys.executable, FOLDER / "worker.py"], env=environment, stdout=subprocess.PIPE, text=True
        ) as worker,
    ):
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        producer = store.producer("emails")
        producer.enqueue_batch([{"to": "nobody"}, {"to": "ada@example.com", "subject": "Welcome"}])
        assert worker.stdout.readline() == "sent 'Welcome' to ada@example.com\n"
        worker.terminate()
        assert worker.stdout.read() == "1 done, 1 dead\n"
        assert worker.wait(20) == 0
        assert [letter.reason for letter in store.admin().dead_letters("emails")] == ["no address"]


def test_transactional(database: Database) -> None:
    ran = subprocess.run(
        [sys.executable, FOLDER / "transactional.py"],
        env={**os.environ, "DATABASE_URL": database.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "order 2 was declined\nto be sent: Receipt for order 1\n"
    assert database.count() == 1
