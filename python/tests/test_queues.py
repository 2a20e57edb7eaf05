"""Queues while they are in use, and cancelled messages."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone

import psycopg
import pytest

import pgqrs
import pgqrs.sync

from .conftest import Database, until


async def test_a_paused_queue_is_resumed_and_a_closed_one_refuses_sends(store: pgqrs.Store) -> None:
    admin = store.admin()
    await store.queue("tasks")
    producer = await store.producer("tasks")
    await admin.pause_queue("tasks")
    info = await admin.queue("tasks")
    assert info.is_paused and info.paused_until is None
    until = datetime(2100, 1, 1, tzinfo=timezone.utc)
    await admin.pause_queue("tasks", until=until)
    assert (await admin.queue("tasks")).paused_until == until
    await producer.enqueue(1)
    consumer = await store.consumer("tasks")
    seen: list[object] = []

    async def handler(delivery: pgqrs.Delivery[object]) -> None:
        seen.append(delivery.payload)
        consumer.stop()

    running = asyncio.create_task(consumer.run(handler))
    await producer.enqueue(2)
    assert not seen
    await admin.resume_queue("tasks")
    assert (await running).done >= 1
    await admin.close_queue("tasks")
    assert (await admin.queue("tasks")).closed_at is not None
    with pytest.raises(pgqrs.QueueClosedError) as closed:
        await producer.enqueue(3)
    assert closed.value.queue == "tasks" and "reopen_queue" in str(closed.value)
    await admin.reopen_queue("tasks")
    await producer.enqueue(3)


async def test_settings_are_changed_one_by_one(store: pgqrs.Store) -> None:
    admin = store.admin()
    await store.queue("tasks")
    info = await admin.configure_queue(
        "tasks", lease=60, retry_min=1.5, retry_max=timedelta(hours=1), archive_on_ack=True, archive_for=3600
    )
    assert (info.lease, info.retry_min, info.retry_max) == (
        timedelta(minutes=1),
        timedelta(seconds=1.5),
        timedelta(hours=1),
    )
    assert (info.archive_on_ack, info.archive_for, info.dead_letters_for) == (True, timedelta(hours=1), None)
    assert not info.sensitive
    info = await admin.configure_queue("tasks", lease=None, dead_letters_for=60, sensitive=True)
    assert info.sensitive
    assert (info.lease, info.retry_min, info.max_attempts) == (None, timedelta(seconds=1.5), 20)
    assert (info.archive_on_ack, info.dead_letters_for) == (True, timedelta(minutes=1))
    with pytest.raises(pgqrs.InvalidSettingError):
        await admin.configure_queue("tasks", retry_max=0.1)
    with pytest.raises(pgqrs.LeaseOutOfRangeError):
        await admin.configure_queue("tasks", lease=0)


async def test_a_cancelled_handler_notices_and_is_cancelled_after_the_grace_time(store: pgqrs.Store) -> None:
    admin = store.admin()
    await store.queue("tasks")
    producer = await store.producer("tasks")
    consumer = await store.consumer("tasks")
    begun, noticed, cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(delivery: pgqrs.Delivery[object]) -> None:
        assert not delivery.is_cancelled and not await delivery.cancelled(timeout=0)
        begun.set()
        assert await delivery.cancelled() and delivery.is_cancelled
        noticed.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    running = asyncio.create_task(consumer.run(handler, cancel_grace=0.05))
    message = await producer.enqueue(1)
    await begun.wait()
    assert await admin.cancel("tasks", message, archive=True) == "running"
    await noticed.wait()
    await cancelled.wait()
    assert await admin.cancel("tasks", message) is None
    assert [archived.id for archived in await admin.archived("tasks")] == [message]
    consumer.stop()
    report = await running
    assert (report.cancelled, report.done, report.lost) == (1, 0, 0)


async def test_a_waiting_message_is_cancelled(store: pgqrs.Store) -> None:
    admin = store.admin()
    await store.queue("tasks")
    producer = await store.producer("tasks")
    message = await producer.enqueue(1)
    assert await admin.cancel_by_key("tasks", "key") == []
    assert await admin.cancel("tasks", message) == "waiting"
    assert await admin.cancel("tasks", message) is None


async def test_a_message_of_a_chunk_is_cancelled_and_the_handler_goes_on(store: pgqrs.Store) -> None:
    admin = store.admin()
    await store.queue("tasks")
    producer = await store.producer("tasks")
    consumer = await store.consumer("tasks")

    async def handler(chunk: pgqrs.Chunk[object]) -> None:
        if len(chunk) == 2:
            assert await admin.cancel("tasks", chunk[0].id) == "running"
            await until("it is noticed", lambda: chunk.is_cancelled(0))
            assert not chunk.is_cancelled(1)
        else:
            await admin.cancel("tasks", chunk[0].id)
            consumer.stop()
            await asyncio.Event().wait()

    running = asyncio.create_task(consumer.run_chunks(handler, size=2, wait=0, cancel_grace=0))
    await producer.enqueue_batch([1, 2])

    async def is_empty() -> bool:
        return (await admin.queue_stats("tasks")).total == 0

    await until("the first chunk is settled", is_empty)
    await producer.enqueue(3)
    report = await running
    assert (report.done, report.cancelled, report.lost) == (1, 2, 0)


def test_blocking_handlers_notice_that_their_message_was_cancelled(sync_store: pgqrs.sync.Store) -> None:
    admin = sync_store.admin()
    sync_store.queue("tasks")
    producer = sync_store.producer("tasks")
    consumer = sync_store.consumer("tasks")
    message = producer.enqueue(1)
    noticed: list[bool] = []

    def handler(delivery: pgqrs.sync.Delivery[object]) -> None:
        assert not delivery.cancelled(timeout=0)
        assert admin.cancel("tasks", delivery.id) == "running"
        noticed.append(delivery.cancelled(timeout=timedelta(seconds=30)) and delivery.is_cancelled)
        consumer.stop()

    report = consumer.run(handler)
    assert noticed == [True] and report.cancelled == 1
    assert admin.cancel("tasks", message) is None


def test_blocking_calls_pause_close_and_configure_a_queue(sync_store: pgqrs.sync.Store) -> None:
    admin = sync_store.admin()
    sync_store.queue("tasks")
    producer = sync_store.producer("tasks")
    admin.pause_queue("tasks", until=datetime(2100, 1, 1, tzinfo=timezone.utc))
    assert admin.queue("tasks").is_paused
    admin.resume_queue("tasks")
    admin.close_queue("tasks")
    for refused in (lambda: producer.enqueue(1), lambda: producer.enqueue_batch([1, 2])):
        with pytest.raises(pgqrs.QueueClosedError):
            refused()
    admin.reopen_queue("tasks")
    producer.enqueue(1)
    info = admin.configure_queue("tasks", dead_letters_for=timedelta(days=30))
    assert info.dead_letters_for == timedelta(days=30) and not info.is_paused and info.closed_at is None


def test_a_closed_queue_refuses_sends_in_transactions_of_other_drivers(
    sync_store: pgqrs.sync.Store, database: Database
) -> None:
    sync_store.queue("tasks")
    sync_store.admin().close_queue("tasks")
    with psycopg.connect(database.url) as connection:
        for refused in (
            lambda: pgqrs.enqueue_in(connection, "tasks", 1),
            lambda: pgqrs.enqueue_batch_in(connection, "tasks", [1, 2]),
        ):
            with pytest.raises(pgqrs.QueueClosedError) as closed:
                refused()
            assert closed.value.queue == "tasks"
        # The transaction can go on.
        connection.execute("select 1")
    assert sync_store.admin().queue_stats("tasks").total == 0
