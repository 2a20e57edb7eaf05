"""Handlers: what they get, how many run, and how a run is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import pgqrs
from pgqrs import Delivery, Outcome

from .conftest import Database, until

Untyped = Delivery[Any]


@dataclass
class SendEmail:
    to: str


EMAILS = pgqrs.Queue("emails", SendEmail)


AT_ONCE = pgqrs.UndecodablePolicy(dead_letter_after=0)


async def test_handlers_get_the_type_of_the_queue_and_others_become_dead_letters(
    store: pgqrs.Store, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    typed = await store.producer(EMAILS)
    await typed.enqueue(SendEmail("ada@example.com"))
    wrong = await (await store.producer("emails")).enqueue({"from": "nobody"})
    await typed.enqueue(SendEmail("grace@example.com"))
    got: list[SendEmail] = []
    consumer = await store.consumer(EMAILS)

    async def handle(delivery: Delivery[SendEmail]) -> None:
        got.append(delivery.payload)
        if len(got) == 2:
            consumer.stop()

    report = await consumer.run(handle, concurrency=1, undecodable=AT_ONCE)
    assert got == [SendEmail("ada@example.com"), SendEmail("grace@example.com")]
    assert (report.done, report.dead) == (2, 1)
    (letter,) = await store.admin().dead_letters("emails")
    assert (letter.id, letter.reason) == (wrong, "its payload doesn't decode")
    assert letter.last_error == f"message {wrong}: payload: `to` is missing"
    assert "`to` is missing" in caplog.text

    # The same by iteration.
    await (await store.producer("emails")).enqueue({"from": "nobody"})
    await typed.enqueue(SendEmail("lin@example.com"))
    delivery = await anext((await store.consumer(EMAILS)).deliveries(undecodable=AT_ONCE))
    assert delivery.payload == SendEmail("lin@example.com")
    await delivery.ack()

    async def both_are_dead_letters() -> bool:
        return await store.admin().dead_letter_count("emails") == 2

    await until("the second one is a dead letter, too", both_are_dead_letters)


async def test_what_a_handler_returns_decides(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: dict[str, Any] = {
        "nothing": None,
        "done": Outcome.done(),
        "archive": Outcome.archive(),
        "retry": Outcome.retry(3_000),
        "policy": Outcome.retry(),
        "reason": Outcome.retry(3_000, reason="the mailbox is full"),
        "later": Outcome.later(timedelta(hours=1)),
        "unknown": Outcome.undecodable("no such kind"),
        "dead": Outcome.dead_letter("why"),
        "wrong": 5,
    }
    ids = dict(zip(outcomes, await producer.enqueue_batch([*outcomes, "raises"]), strict=False))
    consumer = await store.consumer("tasks")
    left = len(outcomes) + 1

    async def handle(delivery: Untyped) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            consumer.stop()
        if delivery.payload == "raises":
            raise LookupError("no such user")
        return outcomes[delivery.payload]

    report = await consumer.run(handle, retry=pgqrs.RetryPolicy.fixed(timedelta(hours=3)))
    assert (report.done, report.archived, report.retried, report.dead) == (2, 1, 5, 1)
    assert (report.snoozed, report.undecodable) == (1, 1)
    admin = store.admin()
    assert [message.id for message in await admin.archived("tasks")] == [ids["archive"]]
    assert [letter.reason for letter in await admin.dead_letters("tasks")] == ["why"]
    left_over = {message.payload: message for message in await admin.messages("tasks", payload=True)}
    assert set(left_over) == {"retry", "policy", "reason", "later", "unknown", "wrong", "raises"}
    assert left_over["reason"].last_error == "the mailbox is full"
    assert left_over["retry"].last_error is None
    later, unknown = left_over["later"], left_over["unknown"]
    assert (later.attempt, later.snoozes, later.undecodable_since) == (0, 1, None)
    assert (unknown.attempt, unknown.snoozes, unknown.last_error) == (0, 0, "no such kind")
    assert unknown.undecodable_since is not None
    assert left_over["raises"].last_error == "LookupError: no such user"
    assert left_over["wrong"].last_error == "TypeError: a handler returns None or a pgqrs.Outcome, not int"
    assert left_over["policy"].visible_at - left_over["retry"].visible_at > timedelta(hours=2)
    assert "no such user" in caplog.text


async def test_a_delivery_can_be_put_off_and_says_how_often_that_was(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue("not now")
    async with await store.consumer("tasks") as consumer:
        for snoozes in range(3):
            delivery = await anext(consumer)
            assert (delivery.attempt, delivery.snoozes, delivery.max_attempts) == (1, snoozes, 20)
            await delivery.later(0)
        await (await anext(consumer)).ack()
    assert database.count() == 0
    with pytest.raises(TypeError, match="delay"):
        Outcome.later("soon")  # type: ignore[arg-type]


async def test_a_payload_of_another_type_waits_for_a_consumer_that_knows_it(
    store: pgqrs.Store, database: Database
) -> None:
    sent = await (await store.producer("emails")).enqueue({"from": "nobody"})
    older = await store.consumer(EMAILS)

    async def never(delivery: Delivery[SendEmail]) -> None:
        raise AssertionError("it can't be read")

    run = asyncio.create_task(older.run(never, undecodable=pgqrs.UndecodablePolicy(wait=0.01)))
    admin = store.admin()

    async def it_waits() -> bool:
        (message,) = await admin.messages("emails")
        return message.undecodable_since is not None

    await until("the older one has put it back", it_waits)
    newer = await store.consumer("emails")
    delivery = await anext(newer)
    assert (delivery.id, delivery.attempt, delivery.payload) == (sent, 1, {"from": "nobody"})
    await delivery.ack()
    older.stop()
    report = await run
    assert report.undecodable > 0
    assert (report.done, report.dead) == (0, 0)
    await newer.shutdown()
    assert database.count() == 0


async def test_as_many_handlers_are_at_work_as_were_asked_for(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(range(40))
    consumer = await store.consumer("tasks")
    at_work = most = handled = 0
    full = asyncio.Event()

    async def handle(delivery: Untyped) -> None:
        nonlocal at_work, most, handled
        at_work += 1
        most = max(most, at_work)
        if at_work == 12:
            full.set()
        await full.wait()
        at_work -= 1
        handled += 1
        if handled == 40:
            consumer.stop()

    report = await consumer.run(handle, concurrency=12)
    assert most == 12
    assert report.done == 40
    assert database.count() == 0


async def test_a_handler_can_settle_by_itself(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(["ack", "dead"])
    consumer = await store.consumer("tasks")
    left = 2

    async def handle(delivery: Untyped) -> None:
        nonlocal left
        if delivery.payload == "ack":
            await delivery.ack()
            assert ("ack",) not in database.rows("select payload #>> '{}' from pgqrs.messages")
        else:
            await delivery.dead_letter("by itself")
        left -= 1
        if left == 0:
            consumer.stop()

    report = await consumer.run(handle)
    assert report.lost == 0
    assert [letter.reason for letter in await store.admin().dead_letters("tasks")] == ["by itself"]
    assert database.count() == 0


async def test_a_lease_is_kept_while_its_handler_runs(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue("slow")
    consumer = await store.consumer("tasks")
    attempts: list[int] = []

    async def handle(delivery: Untyped) -> None:
        attempts.append(delivery.attempt)
        first = delivery.lease_expires_at
        assert first is not None
        await until(
            "three leases are over",
            lambda: bool(
                database.rows("select now() > %s::timestamptz + interval '0.6 seconds'", first)[0][0]
            ),
        )
        consumer.stop()

    report = await consumer.run(handle, lease=0.3)
    assert (attempts, report.done, report.lost) == ([1], 1, 0)


async def test_a_handler_that_takes_too_long_is_cut_off(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue("slow")
    consumer = await store.consumer("tasks")
    cut_off = 0

    async def handle(delivery: Untyped) -> None:
        nonlocal cut_off
        if delivery.attempt == 3:
            consumer.stop()
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut_off += 1
            raise

    report = await consumer.run(handle, handler_timeout=0.1, retry=pgqrs.RetryPolicy.fixed(0))
    assert (cut_off, report.retried, report.done) == (2, 2, 1)


async def test_handlers_may_finish_until_the_deadline_and_are_then_cut_off(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(["quick", "endless"])
    consumer = await store.consumer("tasks")
    begun = 0
    ended: list[str] = []

    async def handle(delivery: Untyped) -> None:
        nonlocal begun
        begun += 1
        if begun == 2:
            consumer.stop()
        try:
            await (asyncio.sleep(0) if delivery.payload == "quick" else asyncio.Event().wait())
        except asyncio.CancelledError:
            ended.append("cut off")
            raise
        ended.append("finished")

    report = await consumer.run(handle, concurrency=2, shutdown_deadline=0.2)
    assert sorted(ended) == ["cut off", "finished"]
    assert (report.done, report.released) == (1, 1)
    (message,) = await store.admin().messages("tasks", payload=True)
    assert (message.payload, message.lease_expires_at) == ("endless", None)


async def test_sigterm_lets_it_finish(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(range(3))
    before = signal.getsignal(signal.SIGTERM)
    consumers = [await store.consumer("tasks", hostname="host", port=port) for port in (1, 2)]
    finished: list[int] = []

    async def handle(delivery: Untyped) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        finished.append(delivery.payload)

    reports = await asyncio.wait_for(
        asyncio.gather(*(consumer.run(handle, concurrency=1) for consumer in consumers)), 20
    )
    assert sum(report.done for report in reports) == len(finished) >= 1
    assert database.count() == 3 - len(finished)
    assert signal.getsignal(signal.SIGTERM) is before
    assert [await consumer.status() for consumer in consumers] == ["stopped", "stopped"]


async def test_a_program_keeps_a_handler_of_its_own_for_sigterm(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await producer.enqueue(1)
    consumer = await store.consumer("tasks")
    received = asyncio.Event()

    def own(number: int, frame: Any) -> None:
        received.set()
        consumer.stop()

    async def handle(delivery: Untyped) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, own)
    try:
        await consumer.run(handle)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received.is_set()


async def test_a_cancelled_run_releases_its_messages(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(range(4))
    consumer = await store.consumer("tasks")
    at_work = cancelled = 0

    async def handle(delivery: Untyped) -> None:
        nonlocal at_work, cancelled
        at_work += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise

    running = asyncio.create_task(consumer.run(handle, concurrency=2))
    await until("two are at work", lambda: at_work == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cancelled == 2
    assert (await store.admin().queue_stats("tasks")).ready == 4
    attempts = database.rows("select attempt from pgqrs.messages")
    assert attempts == [(0,)] * 4
    assert await consumer.status() == "stopped"


async def test_a_handler_that_is_not_async_is_a_mistake_and_loses_nothing(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue(1)
    consumer: Any = await store.consumer("tasks")
    with pytest.raises(TypeError, match="not async"):
        await consumer.run(lambda delivery: None)
    assert database.count() == 1
