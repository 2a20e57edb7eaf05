"""The helpers for tests of code that uses this package."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import pgqrs
import pgqrs.sync
from pgqrs import Outcome, testing

from .conftest import Database


@dataclass
class SendEmail:
    to: str


EMAILS = pgqrs.Queue("emails", SendEmail)
TASKS = pgqrs.Queue("tasks", str)


@pytest.fixture
def queues(database: Database) -> None:
    with pgqrs.sync.connect(database.url) as store:
        store.queue(EMAILS)
        store.queue(TASKS)


@pytest.fixture
def connection(database: Database, queues: None) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.url) as connection:
        # The transaction has begun before anything is sent in it.
        connection.execute("select pg_sleep(0.001)")
        yield connection
        connection.rollback()
    assert database.count() == 0


def test_what_was_sent_in_the_tests_transaction_is_listed_with_its_type(
    connection: psycopg.Connection[Any],
) -> None:
    id = pgqrs.enqueue_in(connection, EMAILS, SendEmail("ada"), headers={"tenant": "acme"}, priority="urgent")
    pgqrs.enqueue_in(connection, EMAILS, SendEmail("lin"), delay=60)
    ada, lin = testing.enqueued(connection, EMAILS)
    assert (ada.id, ada.payload, ada.headers) == (id, SendEmail("ada"), {"tenant": "acme"})
    assert (ada.priority, ada.delay, ada.is_ready, ada.attempt, ada.key) == (
        "urgent",
        timedelta(0),
        True,
        0,
        None,
    )
    assert (lin.payload, lin.delay, lin.is_ready) == (SendEmail("lin"), timedelta(minutes=1), False)
    assert testing.enqueued(connection, "tasks") == []
    with pytest.raises(pgqrs.QueueNotFoundError, match="nowhere"):
        testing.enqueued(connection, "nowhere")
    pgqrs.enqueue_in(connection, "emails", {"from": "nobody"})
    with pytest.raises(pgqrs.DecodeError, match="`to` is missing"):
        testing.enqueued(connection, EMAILS)


def test_a_capture_has_what_was_sent_within_it(connection: psycopg.Connection[Any]) -> None:
    pgqrs.enqueue_in(connection, EMAILS, SendEmail("before"))
    with testing.capture(connection, EMAILS) as captured:
        pgqrs.enqueue_in(connection, EMAILS, SendEmail("ada"))
        assert captured == []
    pgqrs.enqueue_in(connection, EMAILS, SendEmail("after"))
    assert [one.payload.to for one in captured] == ["ada"]


def test_a_handler_works_on_what_was_sent_and_its_messages_are_settled(
    connection: psycopg.Connection[Any],
) -> None:
    outcomes: dict[str, Outcome | None] = {
        "nothing": None,
        "archive": Outcome.archive(),
        "later": Outcome.later(60),
        "retry": Outcome.retry(60, reason="the mailbox is full"),
        "release": Outcome.release(),
        "unknown": Outcome.undecodable("no such kind"),
        "dead": Outcome.dead_letter("why"),
    }
    pgqrs.enqueue_batch_in(connection, TASKS, [*outcomes, "acknowledged", "nacked"])
    seen: list[tuple[str, int]] = []

    def handle(delivery: pgqrs.sync.Delivery[str]) -> Outcome | None:
        seen.append((delivery.payload, delivery.attempt))
        if delivery.payload == "acknowledged":
            delivery.ack_in(connection)
            assert delivery.is_settled
            with pytest.raises(pgqrs.AlreadySettledError):
                delivery.ack()
            return None
        if delivery.payload == "nacked":
            delivery.nack(delay=60)
            return None
        return outcomes[delivery.payload]

    drained = testing.drain(connection, TASKS, handle)
    assert seen == [(payload, 1) for payload in (*outcomes, "acknowledged", "nacked")]
    assert (drained.done, drained.archived, drained.snoozed, drained.retried) == (2, 1, 1, 2)
    assert (drained.released, drained.undecodable, drained.dead) == (1, 1, 1)
    left = {one.payload: one for one in testing.enqueued(connection, TASKS)}
    assert set(left) == {"later", "retry", "release", "unknown", "nacked"}
    assert {name: one.attempt for name, one in left.items() if one.attempt} == {"retry": 1, "nacked": 1}
    ((reason,),) = connection.execute("select reason from pgqrs.dead_letters").fetchall()
    assert reason == "why"
    # Those that are put off are handled too, if that is asked for.
    again = testing.drain(connection, TASKS, lambda delivery: None, with_delayed=True)
    assert again.done == 5
    assert testing.enqueued(connection, TASKS) == []


def test_the_first_error_of_a_handler_is_raised_unless_errors_are_collected(
    connection: psycopg.Connection[Any],
) -> None:
    pgqrs.enqueue_batch_in(connection, TASKS, ["good", "bad", "worse"])

    def handle(delivery: pgqrs.sync.Delivery[str]) -> None:
        if delivery.payload != "good":
            raise LookupError(delivery.payload)

    with pytest.raises(LookupError, match="bad"):
        testing.drain(connection, TASKS, handle)
    left = {one.payload: one for one in testing.enqueued(connection, TASKS)}
    assert {name: one.attempt for name, one in left.items()} == {"bad": 1, "worse": 0}
    drained = testing.drain(connection, TASKS, handle, collect_errors=True)
    assert [str(error) for error in drained.errors] == ["worse", "bad"] or [
        str(error) for error in drained.errors
    ] == ["bad", "worse"]
    assert drained.retried == 2
    connection.execute("update pgqrs.messages set max_attempts = 3 where payload::text = '\"bad\"'")
    assert testing.drain(connection, TASKS, handle, collect_errors=True).dead == 1

    def break_the_transaction(delivery: pgqrs.sync.Delivery[str]) -> None:
        connection.execute("select 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        testing.drain(connection, TASKS, break_the_transaction)


def test_what_handlers_send_is_handled_until_the_queue_is_empty(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def count_down(delivery: pgqrs.sync.Delivery[str]) -> None:
        if delivery.payload != "0":
            pgqrs.enqueue_in(connection, TASKS, str(int(delivery.payload) - 1))

    pgqrs.enqueue_in(connection, TASKS, "3")
    assert testing.drain(connection, TASKS, count_down).done == 1
    assert testing.drain(connection, TASKS, count_down, until_empty=True, limit=1).done == 1
    assert testing.drain(connection, TASKS, count_down, until_empty=True).done == 2
    monkeypatch.setattr(testing._drain, "MOST", 20)
    pgqrs.enqueue_in(connection, TASKS, "-1")
    with pytest.raises(RuntimeError, match="20 messages of queue `tasks` were handled"):
        testing.drain(connection, TASKS, count_down, until_empty=True)


def test_messages_of_a_group_come_one_after_the_other(database: Database, queues: None) -> None:
    with pgqrs.sync.connect(database.url) as store:
        store.admin().configure_queue("tasks", groups_at_once=1)
        producer = store.producer(TASKS)
        for task, group in [("first", "a"), ("second", "a"), ("other", "b"), ("third", "a")]:
            producer.enqueue(task, group=group)
    seen: list[str] = []

    def handler(delivery: pgqrs.Delivery[str]) -> Outcome:
        seen.append(delivery.payload)
        assert delivery.group == ("b" if delivery.payload == "other" else "a")
        outcomes = {"first": Outcome.dead_letter("no"), "second": Outcome.archive()}
        return outcomes.get(delivery.payload, Outcome.done())

    with psycopg.connect(database.url) as connection:
        first, second, other, third = testing.enqueued(connection, TASKS)
        assert (first.group, first.is_ready) == ("a", True)
        assert (second.group, second.is_ready, second.delay) == ("a", False, timedelta(0))
        assert (other.group, other.is_ready) == ("b", True)
        assert (third.group, third.is_ready) == ("a", False)
        testing.drain(connection, TASKS, handler, until_empty=True, collect_errors=True)
        assert testing.enqueued(connection, TASKS) == []
    assert [task for task in seen if task != "other"] == ["first", "second", "third"]
    assert len(seen) == 4


async def test_async_connections_and_handlers(database: Database, queues: None) -> None:
    async def handle(delivery: pgqrs.Delivery[SendEmail]) -> None:
        await asyncio.sleep(0)
        assert delivery.payload == SendEmail("ada")
        await delivery.ack()

    async def check(connection: Any) -> None:
        async with testing.capture_async(connection, EMAILS) as captured:
            await pgqrs.enqueue_in(connection, EMAILS, SendEmail("ada"))
        assert captured == await testing.enqueued(connection, EMAILS)
        drained = await testing.drain_async(connection, EMAILS, handle)
        assert drained.done == 1
        assert await testing.enqueued(connection, EMAILS) == []

    async with await psycopg.AsyncConnection.connect(database.url) as connection:
        await check(connection)
        with pytest.raises(TypeError, match="drain_async"):
            testing.drain(connection, EMAILS, handle)  # type: ignore[arg-type]
        await connection.rollback()
    raw = await asyncpg.connect(database.url)
    transaction = raw.transaction()
    await transaction.start()
    await check(raw)
    await transaction.rollback()
    await raw.close()
    engine = create_async_engine(database.url.replace("postgres:", "postgresql+asyncpg:", 1))
    async with AsyncSession(engine) as session:
        await check(session)
        await session.rollback()
    await engine.dispose()
    assert database.count() == 0


def test_a_session_of_sqlalchemy_and_an_app_with_async_handlers(database: Database, queues: None) -> None:
    app = pgqrs.App()
    sent: list[str] = []

    @app.handler(EMAILS)
    async def send_email(delivery: pgqrs.Delivery[SendEmail]) -> None:
        sent.append(delivery.payload.to)

    engine = create_engine(database.url.replace("postgres:", "postgresql+psycopg:", 1))
    with Session(engine) as session:
        pgqrs.enqueue_in(session, EMAILS, SendEmail("ada"))
        assert testing.drain(session, EMAILS, app).done == 1
        with pytest.raises(TypeError, match="the app has none for queue `tasks`"):
            testing.drain(session, TASKS, app)
        session.rollback()
    engine.dispose()
    assert sent == ["ada"]


def test_tests_that_run_in_parallel_do_not_see_each_other(database: Database, queues: None) -> None:
    barrier = threading.Barrier(20)
    seen: list[list[str]] = []

    def one_test(number: int) -> None:
        with psycopg.connect(database.url) as connection:
            pgqrs.enqueue_in(connection, TASKS, str(number))
            barrier.wait(20)
            handled: list[str] = []
            testing.drain(connection, TASKS, lambda delivery: handled.append(delivery.payload))
            seen.append([*handled, *(one.payload for one in testing.enqueued(connection, TASKS))])
            barrier.wait(20)
            connection.rollback()

    threads = [threading.Thread(target=one_test, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted([str(number)] for number in range(20))
    assert database.count() == 0


async def test_a_delivery_for_a_unit_test_needs_no_database() -> None:
    delivery = testing.delivery(EMAILS, SendEmail("ada"), attempt=3, headers={"tenant": "acme"})
    assert (delivery.payload, delivery.attempt, delivery.headers) == (SendEmail("ada"), 3, {"tenant": "acme"})
    assert not delivery.is_settled and not await delivery.cancelled(0)
    await delivery.extend(60)
    await delivery.dead_letter("why")
    assert delivery.is_settled
    with pytest.raises(pgqrs.AlreadySettledError):
        await delivery.ack()
    with pytest.raises(TypeError, match="carries SendEmail"):
        testing.delivery(EMAILS, "ada")  # type: ignore[arg-type]


def test_the_fixtures_in_a_project_of_its_own(database: Database, queues: None, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["pgqrs.testing.fixtures"]\n')
    (tmp_path / "test_shop.py").write_text(
        "import pgqrs\n"
        "TASKS = pgqrs.Queue('tasks', str)\n"
        "def test_it(pgqrs_connection, enqueued, capture, drain):\n"
        "    with capture(TASKS) as captured:\n"
        "        pgqrs.enqueue_in(pgqrs_connection, TASKS, 'now')\n"
        "    assert captured == enqueued(TASKS)\n"
        "    assert drain(TASKS, lambda delivery: None).done == 1\n"
        "def test_it_was_rolled_back(enqueued):\n"
        "    assert enqueued(TASKS) == []\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"],
        cwd=tmp_path,
        env={"DATABASE_URL": database.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr
    assert database.count() == 0
