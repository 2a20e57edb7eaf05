"""FastAPI: the service under `examples/python/web_orders.py`, as a server process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import pgqrs
import pgqrs.fastapi

from .conftest import Database

FOLDER = Path(__file__).parents[2] / "examples" / "python"


@pytest.fixture
def address(bare: Database) -> Iterator[str]:
    """Of the server."""
    with subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--port", "0", "web_orders:api"],
        cwd=FOLDER,
        env={**os.environ, "DATABASE_URL": bare.url},
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        printed: list[str] = []
        for line in server.stderr:
            printed.append(line)
            found = re.search(r"running on (http://[\d.:]+)", line)
            if found is not None:
                yield found[1]
                break
        else:
            raise AssertionError("".join(printed))
        server.terminate()
        assert "Application shutdown complete" in server.stderr.read()


def test_the_row_and_the_message_commit_together_and_requests_share_a_producer(
    address: str, bare: Database
) -> None:
    placed = httpx.post(f"{address}/orders", params={"customer": "ada@example.com"})
    assert placed.status_code == 201, placed.text
    refused = httpx.post(f"{address}/orders", params={"customer": "nobody"})
    assert refused.status_code == 422
    assert bare.rows("select number, customer from orders") == [(placed.json()["order"], "ada@example.com")]
    sent = bare.rows("select payload->>'to' from pgqrs.messages")
    assert sent == [("ada@example.com",)]

    # Requests that only send share one producer.
    with ThreadPoolExecutor(8) as threads:
        sending = [
            threads.submit(httpx.post, f"{address}/emails", params={"to": f"{number}@example.com"})
            for number in range(16)
        ]
    assert {sent.result().status_code for sent in sending} == {202}
    assert bare.count() == 17
    assert bare.rows("select hostname, status from pgqrs.workers") == [("web", "ready")]


async def test_without_the_lifespan_the_error_says_so() -> None:
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection

    with pytest.raises(RuntimeError, match=r"lifespan=pgqrs.fastapi.lifespan\(..\)"):
        pgqrs.fastapi.store(HTTPConnection({"type": "http", "app": Starlette()}))
