"""Handlers that take many messages at once, and functions around handlers."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

import pgqrs
import pgqrs.sync
from pgqrs import Chunk, Delivery, Outcome

from .conftest import Database, until

NEVER = 3_600
"""In seconds: only full chunks are handled."""


async def test_a_chunk_is_handled_at_once_and_acknowledged(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(list(range(20)))
    consumer = await store.consumer("tasks")
    chunks: list[list[int]] = []

    async def handle(chunk: Chunk[Any]) -> None:
        assert [message.payload for message in chunk] == chunk.payloads
        chunks.append(chunk.payloads)
        if len(chunks) == 2:
            consumer.stop()

    report = await consumer.run_chunks(handle, size=10, wait=NEVER, concurrency=1)
    assert report == pgqrs.Report(done=20)
    assert chunks == [list(range(10)), list(range(10, 20))]
    assert database.count() == 0


async def test_a_chunk_that_does_not_fill_is_handled_after_its_wait(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await producer.enqueue_batch([1, 2, 3])
    consumer = await store.consumer("tasks")
    left = 3

    async def handle(chunk: Chunk[Any]) -> None:
        nonlocal left
        left -= len(chunk)
        if left == 0:
            consumer.stop()

    assert (await consumer.run_chunks(handle, size=100, wait=0.05)).done == 3


def settle_each(chunk: Chunk[Any]) -> None:
    chunk.nack(0, "thought better of it")
    chunk.ack(0)
    chunk.archive(1)
    chunk.nack(2, "a bad row")
    chunk.retry_in(3, 3_000, "the mailbox is full")
    chunk.dead_letter(4, "no such customer")
    chunk.settle(5, Outcome.release())
    with pytest.raises(IndexError):
        chunk.ack(7)


def assert_settled(report: pgqrs.Report, database: Database) -> None:
    assert report == pgqrs.Report(done=1, archived=1, retried=3, dead=1, released=1)
    failures = database.rows("select payload::text, attempt, last_error from pgqrs.messages order by id")
    assert failures == [
        ("2", 1, "a bad row"),
        ("3", 1, "the mailbox is full"),
        ("5", 0, None),
        ("6", 1, "ValueError: the upsert failed"),
    ]
    assert database.rows("select payload::text, reason from pgqrs.dead_letters") == [
        ("4", "no such customer")
    ]
    assert database.rows("select payload::text from pgqrs.archive") == [("1",)]


async def test_what_is_settled_one_by_one_is_and_the_rest_fails_with_the_handler(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(list(range(7)))
    consumer = await store.consumer("tasks")

    async def handle(chunk: Chunk[Any]) -> None:
        settle_each(chunk)
        consumer.stop()
        raise ValueError("the upsert failed")

    retry = pgqrs.RetryPolicy.fixed(600)
    # Nothing is claimed while the handler runs: what it releases would come again.
    run = consumer.run_chunks(handle, size=7, wait=NEVER, retry=retry, concurrency=1, prefetch=0)
    assert_settled(await run, database)


def test_it_is_the_same_in_threads(sync_store: pgqrs.sync.Store, database: Database) -> None:
    sync_store.producer("tasks").enqueue_batch(list(range(7)))
    consumer = sync_store.consumer("tasks")

    def handle(chunk: Chunk[Any]) -> None:
        settle_each(chunk)
        consumer.stop()
        raise ValueError("the upsert failed")

    retry = pgqrs.RetryPolicy.fixed(600)
    run = consumer.run_chunks(handle, size=7, wait=NEVER, retry=retry, concurrency=1, prefetch=0)
    assert_settled(run, database)


async def test_a_payload_of_another_type_fails_alone(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await producer.enqueue_batch(["one", 2, "three", 4])
    consumer = await store.consumer(pgqrs.Queue("tasks", int))

    async def handle(chunk: Chunk[int]) -> None:
        assert chunk.payloads == [2, 4]
        chunk.archive(1)
        consumer.stop()

    report = await consumer.run_chunks(handle, size=4, wait=NEVER)
    assert report == pgqrs.Report(done=1, archived=1, undecodable=2)


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        {0: "even"}[self.number % 2]


@pytest.mark.parametrize(
    ("carries", "bad"),
    [(Even, '{"number": 1}'), (float, "1e9999999999999999999"), (object, "[" * 5_000 + "]" * 5_000)],
    ids=["a class that raises", "a number too large", "nested too deeply"],
)
async def test_whatever_decoding_raises_only_that_message_waits(
    store: pgqrs.Store, database: Database, producer: pgqrs.Producer[Any], carries: Any, bad: str
) -> None:
    good = {"number": 2} if carries is Even else 2
    first = await producer.enqueue_batch([good, 0, good])
    database.change("update pgqrs.messages set payload = %s where id = %s", bad, first[1])
    consumer = await store.consumer(pgqrs.Queue("tasks", carries))

    async def handle(chunk: Chunk[Any]) -> None:
        assert len(chunk) == 2
        consumer.stop()

    report = await consumer.run_chunks(handle, size=3, wait=NEVER)
    assert report == pgqrs.Report(done=2, undecodable=1)


async def test_a_timeout_cancels_the_handler_and_fails_what_is_not_settled(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await producer.enqueue_batch([1, 2])
    consumer = await store.consumer("tasks")

    async def handle(chunk: Chunk[Any]) -> None:
        chunk.ack(0)
        try:
            await asyncio.sleep(NEVER)
        finally:
            consumer.stop()

    retry = pgqrs.RetryPolicy.fixed(600)
    report = await consumer.run_chunks(handle, size=2, wait=NEVER, handler_timeout=0.05, retry=retry)
    assert report == pgqrs.Report(done=1, retried=1)


async def test_a_cancelled_run_releases_its_chunks(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch([1, 2, 3])
    consumer = await store.consumer("tasks")
    begun = asyncio.Event()

    async def handle(chunk: Chunk[Any]) -> None:
        begun.set()
        await asyncio.sleep(NEVER)

    run = asyncio.create_task(consumer.run_chunks(handle, size=2, wait=NEVER))
    await begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    ready = "select payload::text, attempt from pgqrs.messages where lease_until < now() order by id"
    await until("all are ready again", lambda: database.rows(ready) == [("1", 0), ("2", 0), ("3", 0)])


async def test_bad_arguments_are_named(store: pgqrs.Store) -> None:
    consumer = await store.consumer("tasks")

    async def handle(chunk: Chunk[Any]) -> None: ...

    with pytest.raises(ValueError, match="size"):
        await consumer.run_chunks(handle, size=0, wait=1)
    with pytest.raises((TypeError, ValueError), match="wait"):
        await consumer.run_chunks(handle, size=1, wait="soon")  # type: ignore[arg-type] # pyright: ignore
    with pytest.raises(TypeError, match="handler: expected an async function"):
        await consumer.run_chunks(None, size=1, wait=1)  # type: ignore[arg-type] # pyright: ignore
    with pytest.raises(TypeError, match="around: expected an async function"):
        await consumer.run_chunks(handle, size=1, wait=1, around=1)  # type: ignore[arg-type] # pyright: ignore


async def test_around_is_called_with_each_delivery_and_what_it_returns_decides(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await producer.enqueue_batch(["fine", "skipped", "raises"])
    consumer = await store.consumer("tasks")
    log: list[str] = []

    async def handle(delivery: Delivery[Any]) -> None:
        log.append(f"handles {delivery.payload}")
        if delivery.payload == "raises":
            raise ValueError

    async def around(delivery: Delivery[Any], next: pgqrs.Handler[Any]) -> Outcome | None:
        log.append(f"begins {delivery.payload}")
        if delivery.payload == "skipped":
            return Outcome.archive()
        try:
            return await next(delivery)
        except ValueError:
            consumer.stop()
            return Outcome.dead_letter("not a value")

    report = await consumer.run(handle, around=around, concurrency=1)
    assert report == pgqrs.Report(done=1, archived=1, dead=1)
    assert log == ["begins fine", "handles fine", "begins skipped", "begins raises", "handles raises"]


def test_around_works_in_threads_and_with_chunks(sync_store: pgqrs.sync.Store) -> None:
    sync_store.producer("tasks").enqueue_batch([1, 2, 3])
    user = threading.local()
    consumer = sync_store.consumer("tasks")

    def handle(chunk: Chunk[Any]) -> None:
        assert user.name == "ada"
        chunk.archive(2)
        consumer.stop()

    def around(chunk: Chunk[Any], next: pgqrs.sync.ChunkHandler[Any]) -> Outcome | None:
        user.name = "ada"
        return next(chunk)

    report = consumer.run_chunks(handle, size=3, wait=NEVER, around=around)
    assert report == pgqrs.Report(done=2, archived=1)

    sync_store.producer("tasks").enqueue(4)
    consumer = sync_store.consumer("tasks")

    def handle_one(delivery: pgqrs.sync.Delivery[Any]) -> None:
        assert user.name == "bob"
        consumer.stop()

    def around_one(delivery: pgqrs.sync.Delivery[Any], next: pgqrs.sync.Handler[Any]) -> Outcome | None:
        user.name = "bob"
        return next(delivery)

    assert consumer.run(handle_one, around=around_one).done == 1
