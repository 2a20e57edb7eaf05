"""Handlers that block, exit, are cancelled or fail, and what becomes of their messages."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import psycopg
import pytest

import pgqrs
from pgqrs import Delivery, Outcome

from .conftest import Database

Untyped = Delivery[Any]


async def once_each(store: pgqrs.Store) -> None:
    await store.admin().configure_queue("tasks", max_attempts=1)


async def test_a_handler_that_blocks_the_event_loop_costs_no_other_message_an_attempt(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await once_each(store)
    await producer.enqueue_batch(["blocks", *range(7)])
    consumer = await store.consumer("tasks")
    seen: set[Any] = set()

    async def handle(delivery: Untyped) -> None:
        seen.add(delivery.payload)
        if delivery.payload == "blocks":
            time.sleep(2)
        if len(seen) == 8:
            consumer.stop()

    report = await asyncio.wait_for(consumer.run(handle, handler_timeout=1, concurrency=8), 60)
    assert (report.done, report.dead) == (7, 1)
    (letter,) = await store.admin().dead_letters("tasks", payload=True)
    assert (letter.payload, letter.last_error) == ("blocks", "the handler timed out after 1s")


async def test_what_no_handler_began_goes_back_at_the_deadline_without_an_attempt(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(list(range(4)))
    consumer = await store.consumer("tasks")
    called: list[Any] = []

    async def handle(delivery: Untyped) -> None:
        called.append(delivery.payload)
        consumer.stop()
        # Until after the handlers' part of the deadline.
        time.sleep(3.5)

    report = await consumer.run(handle, concurrency=4, shutdown_deadline=5)
    assert report.released == 4
    # Of four that are begun at once, any may be the first.
    [first] = called
    attempts = database.rows("select payload::text::int, attempt from pgqrs.messages order by id")
    assert attempts == [(payload, int(payload == first)) for payload in range(4)]


async def test_a_handler_can_release_its_message(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await once_each(store)
    await producer.enqueue("later")
    consumer = await store.consumer("tasks")
    attempts: list[int] = []

    async def handle(delivery: Untyped) -> Outcome | None:
        attempts.append(delivery.attempt)
        if len(attempts) < 3:
            return Outcome.release()
        consumer.stop()
        return None

    report = await asyncio.wait_for(consumer.run(handle, poll_interval=0.02), 60)
    assert attempts == [1, 1, 1]
    assert (report.released, report.done, report.dead) == (2, 1, 0)


async def test_a_settlement_without_an_answer_is_reported_as_unknown(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue(1)
    consumer = await store.consumer("tasks")
    blocker = await psycopg.AsyncConnection.connect(database.url)
    async with blocker:

        async def handle(delivery: Untyped) -> None:
            await blocker.execute("lock table pgqrs.messages in access exclusive mode")
            consumer.stop()

        report = await consumer.run(handle, shutdown_deadline=1)
    assert (report.done, report.lost, report.unknown) == (0, 0, 1)


async def test_a_cancellation_from_within_a_handler_is_a_failed_attempt(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await producer.enqueue("cancels")
    consumer = await store.consumer("tasks")
    errors: list[Any] = []

    async def handle(delivery: Untyped) -> None:
        if delivery.attempt == 1:
            inner = asyncio.ensure_future(asyncio.Event().wait())
            inner.cancel("the inner work")
            await inner
        errors.extend(database.rows("select last_error from pgqrs.messages"))
        consumer.stop()

    report = await asyncio.wait_for(consumer.run(handle, retry=pgqrs.RetryPolicy.fixed(0)), 60)
    assert (report.retried, report.released, report.done) == (1, 0, 1)
    assert errors == [("CancelledError: the inner work",)]
    assert "the handler of message" in caplog.text


@pytest.mark.parametrize("exit", [SystemExit(3), KeyboardInterrupt()])
async def test_an_exit_from_a_handler_ends_the_run_at_once_and_is_raised_by_it(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database, exit: BaseException
) -> None:
    await producer.enqueue_batch(["waits", "waits", "exits", "too many"])
    consumer = await store.consumer("tasks")
    called: list[str] = []

    async def handle(delivery: Untyped) -> None:
        called.append(delivery.payload)
        if delivery.payload == "exits":
            raise exit
        await asyncio.Event().wait()

    started = time.monotonic()
    with pytest.raises(type(exit)) as raised:
        await consumer.run(handle, concurrency=3)
    assert raised.value is exit
    assert time.monotonic() - started < 15
    assert sorted(called) == ["exits", "waits", "waits"]
    stats = await store.admin().queue_stats("tasks")
    assert (stats.ready, stats.leased) == (4, 0)
    assert database.rows("select attempt from pgqrs.messages order by id") == [(0,), (0,), (1,), (0,)]
    assert await consumer.status() == "stopped"


@pytest.mark.parametrize("twin", ["async", "blocking"])
@pytest.mark.parametrize("exit", ["sys.exit(3)", "raise KeyboardInterrupt"])
async def test_an_exit_from_a_handler_ends_the_program(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database, twin: str, exit: str
) -> None:
    programs = {
        "async": f"""
            import asyncio, sys
            import pgqrs

            async def handle(delivery):
                if delivery.payload == "exits":
                    {exit}
                await asyncio.Event().wait()

            async def main():
                async with await pgqrs.connect(sys.argv[1]) as store:
                    await (await store.consumer("tasks")).run(handle, concurrency=3)

            asyncio.run(main())
        """,
        "blocking": f"""
            import sys, time
            import pgqrs.sync

            def handle(delivery):
                if delivery.payload == "exits":
                    {exit}
                time.sleep(1)

            with pgqrs.sync.connect(sys.argv[1]) as store:
                store.consumer("tasks").run(handle, concurrency=3)
        """,
    }
    await producer.enqueue_batch(["waits", "waits", "exits", "too many"])
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(programs[twin]), database.url],
        timeout=25,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == (3 if "sys" in exit else -signal.SIGINT), ran.stderr
    assert "never retrieved" not in ran.stderr
    assert ("KeyboardInterrupt" in ran.stderr) == ("Keyboard" in exit)
    stats = await store.admin().queue_stats("tasks")
    assert (stats.ready, stats.leased) == (4, 0)
    attempts = [attempt for (attempt,) in database.rows("select attempt from pgqrs.messages order by id")]
    assert attempts == [0, 0, 1, 0]


async def test_the_last_error_holds_what_led_to_it_in_one_line(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(["cause", "context", "hidden", "alone", "circle"])
    consumer = await store.consumer("tasks")
    left = 5

    async def handle(delivery: Untyped) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            consumer.stop()
        try:
            raise ValueError("b\n  c")
        except ValueError as error:
            if delivery.payload == "cause":
                raise TypeError("a") from error
            if delivery.payload == "context":
                raise LookupError  # noqa: B904
            if delivery.payload == "hidden":
                raise TypeError("a") from None
            if delivery.payload == "circle":
                error.__cause__ = error
                raise
        raise KeyError("alone")

    await consumer.run(handle, retry=pgqrs.RetryPolicy.fixed(3_000))
    assert [error for (error,) in database.rows("select last_error from pgqrs.messages order by id")] == [
        "TypeError: a: caused by ValueError: b c",
        "LookupError: caused by ValueError: b c",
        "TypeError: a",
        "KeyError: 'alone'",
        "ValueError: b c",
    ]


async def test_what_a_handler_has_returned_is_acknowledged_durably(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    database.change("create table commits (verb text, waits text)")
    database.change(
        "create function note() returns trigger language plpgsql as"
        " $$ begin insert into commits values (tg_op, current_setting('synchronous_commit')); return null; end $$"
    )
    database.change("create trigger note after delete on pgqrs.messages for each row execute function note()")
    await producer.enqueue_batch(["done", "archived"])
    consumer = await store.consumer("tasks")
    left = 2

    async def handle(delivery: Untyped) -> Outcome | None:
        nonlocal left
        left -= 1
        if left == 0:
            consumer.stop()
        return Outcome.archive() if delivery.payload == "archived" else None

    report = await consumer.run(handle)
    assert (report.done, report.archived) == (1, 1)
    assert database.rows("select verb, waits from commits") == [("DELETE", "on")] * 2
