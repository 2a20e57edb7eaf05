"""Consumers by iteration, and how they are registered and end."""

from __future__ import annotations

import asyncio
import gc
import socket
from datetime import timedelta
from typing import Any

import pytest

import pgqrs
from pgqrs import Delivery

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
    id = await producer.enqueue({"a": 1.5}, priority="high", headers={"trace": "1"})
    consumer = await store.consumer("tasks")
    delivery = await anext(consumer)
    assert (delivery.id, delivery.payload, delivery.raw_payload) == (id, {"a": 1.5}, '{"a":1.5}')
    assert (delivery.priority, delivery.attempt, delivery.headers) == (pgqrs.Priority.HIGH, 1, {"trace": "1"})
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
