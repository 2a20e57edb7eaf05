"""Consumers: by iteration and by a handler, to the end and beyond it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import pgqrs
from pgqrs import Delivery, Outcome

from .conftest import Database, until

Untyped = Delivery[Any]


async def test_iteration_returns_messages_in_order_to_be_acknowledged(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    ids = await producer.enqueue_batch(["a", "b", "c"])
    urgent = await producer.enqueue("first", priority="urgent")
    got: list[tuple[int, str]] = []
    async with await store.consumer("tasks") as consumer:
        async for delivery in consumer:
            got.append((delivery.id, delivery.payload))
            await delivery.ack()
            assert delivery.is_settled
            if len(got) == 4:
                break
    assert got == list(zip([urgent, *ids], ["first", "a", "b", "c"], strict=True))
    assert database.count() == 0


async def test_a_listen_url_past_a_pooler_wakes_the_consumer(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    listening = """select count(*) from pg_stat_activity
                   where query ilike 'listen%%' and datname = current_database()"""
    async with await pgqrs.connect(database.url, pgbouncer=True, listen_url=database.url) as pooled:
        # Polling would find the message in ten minutes.
        consumer = await pooled.consumer("tasks")
        received = asyncio.ensure_future(anext(consumer.deliveries(poll_interval=600)))
        await until("it listens", lambda: database.rows(listening) == [(1,)])
        await producer.enqueue("wake up")
        delivery = await asyncio.wait_for(received, 30)
        assert delivery.payload == "wake up"
        await delivery.ack()


async def test_a_delivery_has_its_messages_fields(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    id = await producer.enqueue({"a": 1.5}, priority="high")
    database.change("""update pgqrs.messages set headers = '{"trace":1}'""")
    consumer = await store.consumer("tasks")
    delivery = await anext(consumer)
    assert (delivery.id, delivery.payload, delivery.raw_payload) == (id, {"a": 1.5}, '{"a":1.5}')
    assert (delivery.priority, delivery.attempt, delivery.headers) == (pgqrs.Priority.HIGH, 1, {"trace": 1})
    ((enqueued_at, lease_until),) = database.rows("select enqueued_at, lease_until from pgqrs.messages")
    assert (delivery.enqueued_at, delivery.lease_expires_at) == (enqueued_at, lease_until)
    assert "1.5" not in repr(delivery)
    await delivery.ack()
    assert delivery.lease_expires_at is None


async def test_the_verbs_of_a_delivery_settle_it(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    done, kept, dead, failed, later = await producer.enqueue_batch(range(5))
    consumer = await store.consumer("tasks")
    received = consumer.deliveries(retry=pgqrs.RetryPolicy.fixed(3_000))
    deliveries = [await anext(received)]
    await deliveries[-1].ack()
    for settle in (
        lambda delivery: delivery.archive(),
        lambda delivery: delivery.dead_letter("no address"),
        lambda delivery: delivery.nack(),
        lambda delivery: delivery.nack(delay=timedelta(hours=2)),
    ):
        deliveries.append(await anext(received))
        await settle(deliveries[-1])
    assert [delivery.id for delivery in deliveries] == [done, kept, dead, failed, later]
    admin = store.admin()
    assert [message.id for message in await admin.archived("tasks")] == [kept]
    (letter,) = await admin.dead_letters("tasks", payload=True)
    assert (letter.id, letter.reason, letter.payload) == (dead, "no address", 2)
    waits = database.rows(
        "select id, round(extract(epoch from visible_at - now())) from pgqrs.messages order by id"
    )
    (failed_id, failed_wait), (later_id, later_wait) = waits
    assert (failed_id, later_id) == (failed, later)
    assert 2_900 < failed_wait <= 3_000 and 7_100 < later_wait <= 7_200
    for delivery in deliveries:
        with pytest.raises(pgqrs.AlreadySettledError) as again:
            await delivery.ack()
        assert again.value.message == delivery.id
        with pytest.raises(pgqrs.AlreadySettledError):
            await delivery.extend(5)


async def test_a_lost_lease_is_reported_and_changes_nothing(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue("a")
    consumer = await store.consumer("tasks")
    delivery = await anext(consumer)
    database.change("update pgqrs.messages set lease_token = 7")
    for settle in (delivery.ack, delivery.archive, delivery.nack, lambda: delivery.extend(60)):
        with pytest.raises(pgqrs.LeaseLostError) as lost:
            await settle()
        assert lost.value.message == delivery.id
    assert database.rows("select lease_token from pgqrs.messages") == [(7,)]


async def test_extending_moves_the_end_of_the_lease(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await producer.enqueue("a")
    consumer = await store.consumer("tasks")
    delivery = await anext(consumer)
    before = delivery.lease_expires_at
    await delivery.extend(timedelta(hours=1))
    after = delivery.lease_expires_at
    assert before is not None and after is not None
    assert after - before > timedelta(minutes=50)
    with pytest.raises(pgqrs.LeaseOutOfRangeError):
        await delivery.extend(timedelta(days=3))
    await delivery.ack()


async def test_a_held_delivery_keeps_its_lease(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue("a")
    consumer = await store.consumer("tasks")
    delivery = await anext(consumer.deliveries(lease=0.3))
    (first,) = database.rows("select lease_until, lease_token from pgqrs.messages")

    def extended_beyond_its_first_lease() -> bool:
        ((past,),) = database.rows("select now() > %s::timestamptz + interval '1 second'", first[0])
        return bool(past)

    await until("the first lease is over", extended_beyond_its_first_lease)
    ((token, leased),) = database.rows("select lease_token, lease_until > now() from pgqrs.messages")
    assert (token, leased) == (first[1], True)
    await delivery.ack()
    assert database.count() == 0


async def test_one_delivery_at_a_time_is_the_default(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(range(5))
    consumer = await store.consumer("tasks")
    delivery = await anext(consumer)
    with pytest.raises(pgqrs.NotSettledError) as held:
        await anext(consumer)
    assert held.value.message == delivery.id
    await delivery.ack()
    delivery = await anext(consumer)
    assert delivery.payload == 1
    await delivery.ack()

    three = (await store.consumer("tasks")).deliveries(concurrency=3)
    await consumer.shutdown()
    out = [await anext(three) for _ in range(3)]
    assert sorted(delivery.payload for delivery in out) == [2, 3, 4]
    for delivery in out:
        await delivery.ack()
    assert database.count() == 0


async def test_a_dropped_delivery_is_a_failed_attempt(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue("a")
    consumer = await store.consumer("tasks")
    received = consumer.deliveries(retry=pgqrs.RetryPolicy.fixed(0))
    delivery = await anext(received)
    assert delivery.attempt == 1
    del delivery
    gc.collect()
    delivery = await anext(received)
    assert delivery.attempt == 2
    ((error,),) = database.rows("select last_error from pgqrs.messages")
    assert error == "dropped without being settled"
    await delivery.ack()


@dataclass
class SendEmail:
    to: str


EMAILS = pgqrs.Queue("emails", SendEmail)


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

    report = await consumer.run(handle, concurrency=1)
    assert got == [SendEmail("ada@example.com"), SendEmail("grace@example.com")]
    assert (report.done, report.dead) == (2, 1)
    (letter,) = await store.admin().dead_letters("emails")
    assert (letter.id, letter.reason) == (wrong, f"message {wrong}: payload: `to` is missing")
    assert "dead letter" in caplog.text

    # The same by iteration.
    await (await store.producer("emails")).enqueue({"from": "nobody"})
    await typed.enqueue(SendEmail("lin@example.com"))
    delivery = await anext(await store.consumer(EMAILS))
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
    assert (report.done, report.archived, report.retried, report.dead) == (2, 1, 4, 1)
    admin = store.admin()
    assert [message.id for message in await admin.archived("tasks")] == [ids["archive"]]
    assert [letter.reason for letter in await admin.dead_letters("tasks")] == ["why"]
    left_over = {message.payload: message for message in await admin.messages("tasks", payload=True)}
    assert set(left_over) == {"retry", "policy", "wrong", "raises"}
    assert left_over["raises"].last_error == "LookupError: no such user"
    assert left_over["wrong"].last_error == "TypeError: a handler returns None or a pgqrs.Outcome, not int"
    assert left_over["policy"].visible_at - left_over["retry"].visible_at > timedelta(hours=2)
    assert "no such user" in caplog.text


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


async def test_it_runs_once(store: pgqrs.Store, producer: pgqrs.Producer[Any]) -> None:
    await producer.enqueue(1)
    consumer = await store.consumer("tasks")

    async def handle(delivery: Untyped) -> None:
        consumer.stop()

    await consumer.run(handle)
    with pytest.raises(pgqrs.WorkerStoppedError, match="register another"):
        await consumer.run(handle)
    with pytest.raises(StopAsyncIteration):
        await anext(consumer)


async def test_a_consumer_that_is_stopped_ends_its_iteration(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await producer.enqueue_batch(range(3))
    consumer = await store.consumer("tasks", hostname="host", port=7)
    got = 0
    async for delivery in consumer:
        await delivery.ack()
        got += 1
        if got == 3:
            consumer.stop()
    assert got == 3
    assert await consumer.status() == "stopped"


async def test_what_was_delivered_and_not_settled_is_released_at_its_end(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(range(4))
    async with await store.consumer("tasks") as consumer:
        received = consumer.deliveries(concurrency=2)
        held = [await anext(received), await anext(received)]
    assert (await store.admin().queue_stats("tasks")).ready == 4
    assert database.rows("select attempt from pgqrs.messages") == [(0,)] * 4
    for delivery in held:
        with pytest.raises(pgqrs.AlreadySettledError):
            await delivery.ack()


async def test_an_operator_stops_it_from_elsewhere(store: pgqrs.Store, producer: pgqrs.Producer[Any]) -> None:
    consumer = await store.consumer("tasks")

    async def handle(delivery: Untyped) -> None:
        await store.admin().stop_worker(consumer.id)

    await producer.enqueue(1)
    await asyncio.wait_for(consumer.run(handle, concurrency=2, poll_interval=0.02), 20)
    assert await consumer.status() == "stopped"


async def test_a_schema_that_is_taken_away_ends_it_with_an_error(
    store: pgqrs.Store, database: Database
) -> None:
    consumer = await store.consumer("tasks")

    async def handle(delivery: Untyped) -> None:
        raise AssertionError

    running = asyncio.create_task(consumer.run(handle, poll_interval=0.02))
    await asyncio.to_thread(database.change, "drop schema pgqrs cascade")
    with pytest.raises(pgqrs.NotInstalledError):
        await asyncio.wait_for(running, 20)


async def test_it_goes_on_when_its_connections_are_cut(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(range(60))
    consumer = await store.consumer("tasks")
    handled: set[int] = set()

    async def handle(delivery: Untyped) -> None:
        handled.add(delivery.payload)
        if len(handled) % 10 == 0:
            database.rows(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        if len(handled) == 60:
            consumer.stop()

    await asyncio.wait_for(consumer.run(handle, concurrency=4, poll_interval=0.02, prefetch=0), 60)
    assert handled == set(range(60))


async def test_a_consumer_is_anonymous_under_the_machines_host_name_unless_it_is_named(
    store: pgqrs.Store,
) -> None:
    first, second = await store.consumer("tasks"), await store.consumer("tasks")
    assert first.id != second.id
    assert (first.hostname, first.port) == (second.hostname, second.port) == (socket.gethostname(), 0)
    named = await store.consumer("tasks", hostname="worker", port=7)
    here = await store.consumer("tasks", port=8)
    assert (named.hostname, named.port, here.hostname, here.port) == ("worker", 7, socket.gethostname(), 8)
    workers = {(worker.hostname, worker.port) for worker in await store.admin().workers(kind="consumer")}
    assert workers == {(socket.gethostname(), 0), ("worker", 7), (socket.gethostname(), 8)}
    positional: Any = store.consumer
    with pytest.raises(TypeError, match="positional"):
        await positional("tasks", "worker", 9)


async def test_a_live_identity_is_refused_with_its_age_and_can_be_replaced(store: pgqrs.Store) -> None:
    for register, kind in ((store.consumer, "consumer"), (store.producer, "producer")):
        old: Any = await register("tasks", hostname="host", port=7, heartbeat_interval=2)
        with pytest.raises(pgqrs.WorkerExistsError, match="replace=True") as exists:
            await register("tasks", hostname="host", port=7)
        error = exists.value
        assert (error.kind, error.crashed_after, error.retryable) == (kind, 8.0, True)
        assert 0 <= error.last_heartbeat < 60
        assert f"{error.last_heartbeat:.1f} s ago, and it counts as crashed after 8.0 s" in str(error)
        new: Any = await register("tasks", hostname="host", port=7, replace=True)
        assert await new.status() == "ready"
        with pytest.raises(pgqrs.WorkerStoppedError):
            await old.heartbeat()


async def test_settings_of_a_run_leave_its_registration_alone(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue(1)
    consumer = await store.consumer("tasks", hostname="host", port=7)
    id = consumer.id

    async def handle(delivery: Untyped) -> None:
        consumer.stop()

    await consumer.run(handle, concurrency=3, prefetch=5, prefetch_bytes=1_000, lease=10, listen=False)
    assert consumer.id == id
    assert database.rows("select id from pgqrs.workers where kind = 'consumer'") == [(id,)]


async def test_an_iteration_holds_as_many_deliveries_as_its_settings_allow(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(range(6))
    consumer = await store.consumer("tasks")
    held: list[Untyped] = []
    got: list[int] = []
    async for delivery in consumer.deliveries(concurrency=3, lease=60, prefetch=0):
        held.append(delivery)
        got.append(delivery.payload)
        if len(held) == 3:
            for one in held:
                await one.ack()
            held.clear()
        if len(got) == 6:
            break
    assert sorted(got) == list(range(6))
    assert database.count() == 0
    with pytest.raises(pgqrs.WorkerStoppedError, match="register another"):
        await anext(consumer.deliveries())


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
    await producer.enqueue_batch(["blocks", *range(3)])
    consumer = await store.consumer("tasks")
    called: list[Any] = []

    async def handle(delivery: Untyped) -> None:
        called.append(delivery.payload)
        consumer.stop()
        # Until after the handlers' part of the deadline.
        time.sleep(3.5)

    report = await consumer.run(handle, concurrency=4, shutdown_deadline=5)
    assert called == ["blocks"]
    assert report.released == 4
    assert database.rows("select attempt from pgqrs.messages order by id") == [(1,), (0,), (0,), (0,)]


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
    assert called == ["waits", "waits", "exits"]
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
