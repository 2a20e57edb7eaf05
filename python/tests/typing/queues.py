"""What type checkers say of queues, producers, consumers and `enqueue_in`.

Each line that ends in `# expect-error` is a mistake, which both mypy and pyright have to report; no other line is
one. Never run, only read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

import asyncpg
import psycopg
import pydantic
import sqlalchemy.ext.asyncio
import sqlalchemy.orm
from typing_extensions import assert_type

import pgqrs
import pgqrs.sync
from pgqrs import Delivery, Outcome


@dataclass
class SendEmail:
    to: str


@dataclass
class Invoice:
    number: int


class Order(TypedDict):
    number: int


class Model(pydantic.BaseModel):
    name: str


EMAILS = pgqrs.Queue("emails", SendEmail)
ORDERS = pgqrs.Queue("orders", Order)
MODELS = pgqrs.Queue("models", Model)
NUMBERS = pgqrs.Queue("numbers", list[int])
ANYTHING = pgqrs.Queue("anything")

assert_type(EMAILS, pgqrs.Queue[SendEmail])
assert_type(ORDERS, pgqrs.Queue[Order])
assert_type(NUMBERS, pgqrs.Queue[list[int]])
assert_type(ANYTHING, pgqrs.Queue[Any])


async def producers(store: pgqrs.Store) -> None:
    emails = await store.producer(EMAILS)
    assert_type(emails, pgqrs.Producer[SendEmail])
    assert_type(await emails.enqueue(SendEmail("ada")), pgqrs.Sent)
    assert_type(await emails.enqueue_batch([SendEmail("ada")]), list[pgqrs.Sent])
    await emails.enqueue_delayed(SendEmail("ada"), 5)
    await emails.enqueue(Invoice(7))  # expect-error
    await emails.enqueue({"to": "ada"})  # expect-error
    await emails.enqueue_batch([Invoice(7)])  # expect-error
    await emails.enqueue_batch([SendEmail("ada"), "ada"])  # expect-error
    await emails.enqueue_delayed(Invoice(7), 5)  # expect-error
    await emails.enqueue(SendEmail("ada"), priority="urgent", delay=3)
    await emails.enqueue(SendEmail("ada"), priority="highest")  # expect-error
    await emails.enqueue(SendEmail("ada"), delay="3")  # expect-error
    await emails.enqueue(SendEmail("ada"), 3)  # expect-error

    orders = await store.producer(ORDERS, "host", 7)
    await orders.enqueue({"number": 7})
    await orders.enqueue({"number": "seven"})  # expect-error
    await orders.enqueue({"numer": 7})  # expect-error

    models = await store.producer(MODELS)
    await models.enqueue(Model(name="ada"))
    await models.enqueue(SendEmail("ada"))  # expect-error

    numbers = await store.producer(NUMBERS)
    await numbers.enqueue([1, 2])
    await numbers.enqueue(["a"])  # expect-error

    anything = await store.producer("anything")
    await anything.enqueue({"what": ["ever"]})
    await anything.enqueue(SendEmail("ada"))

    await store.producer(3)  # expect-error
    await store.producer("tasks", 80)  # expect-error
    await store.producer("tasks", "host", "80")  # expect-error


async def consumers(store: pgqrs.Store) -> None:
    consumer = await store.consumer(EMAILS)
    assert_type(consumer, pgqrs.Consumer[SendEmail])
    async for delivery in consumer:
        assert_type(delivery, Delivery[SendEmail])
        assert_type(delivery.payload, SendEmail)
        assert_type(delivery.payload.to, str)
        delivery.payload.number  # expect-error
        await delivery.ack()

    async def handle(delivery: Delivery[SendEmail]) -> None:
        assert_type(delivery.payload, SendEmail)

    async def decide(delivery: Delivery[SendEmail]) -> Outcome | None:
        return Outcome.dead_letter("why") if delivery.attempt > 3 else None

    async def of_another(delivery: Delivery[Invoice]) -> None:
        pass

    async def returns_text(delivery: Delivery[SendEmail]) -> str:
        return "done"

    def blocking(delivery: Delivery[SendEmail]) -> None:
        pass

    assert_type(await consumer.run(handle, concurrency=8), pgqrs.Report)
    await consumer.run(decide)
    await consumer.run(of_another)  # expect-error
    await consumer.run(returns_text)  # expect-error
    await consumer.run(blocking)  # expect-error

    async for delivery in (await store.consumer(EMAILS)).deliveries(concurrency=3, lease=60):
        assert_type(delivery, Delivery[SendEmail])
        await delivery.ack()

    await store.consumer(EMAILS, "host", 7)  # expect-error
    await store.consumer(EMAILS, hostname="host", port=7, replace=True)
    await store.consumer(EMAILS, concurrency=8)  # expect-error
    await consumer.run(handle, lease=timedelta(minutes=1), retry=pgqrs.RetryPolicy.fixed(3))
    await consumer.run(handle, lease="30")  # expect-error
    consumer.deliveries(handler_timeout=3)  # expect-error

    untyped = await store.consumer("tasks")
    assert_type(untyped, pgqrs.Consumer[Any])


async def queues(store: pgqrs.Store) -> None:
    assert_type(await store.queue(EMAILS), pgqrs.Queue[SendEmail])
    assert_type(await store.queue("tasks"), pgqrs.Queue[Any])
    pgqrs.Queue(3)  # expect-error
    pgqrs.Queue("tasks", 3)  # expect-error


def blocking_twin(store: pgqrs.sync.Store) -> None:
    emails = store.producer(EMAILS)
    assert_type(emails.enqueue(SendEmail("ada")), pgqrs.Sent)
    emails.enqueue(Invoice(7))  # expect-error
    for delivery in store.consumer(EMAILS):
        assert_type(delivery, pgqrs.sync.Delivery[SendEmail])
        assert_type(delivery.payload, SendEmail)
        delivery.ack()
    for delivery in store.consumer(EMAILS).deliveries(concurrency=3):
        assert_type(delivery, pgqrs.sync.Delivery[SendEmail])

    def handle(delivery: pgqrs.sync.Delivery[SendEmail]) -> None:
        pass

    def of_another(delivery: pgqrs.sync.Delivery[Invoice]) -> None:
        pass

    assert_type(store.consumer(EMAILS).run(handle), pgqrs.Report)
    store.consumer(EMAILS).run(of_another)  # expect-error


def transactions(
    connection: psycopg.Connection[Any],
    cursor: psycopg.Cursor[Any],
    core: sqlalchemy.Connection,
    session: sqlalchemy.orm.Session,
    producer: pgqrs.Producer[SendEmail],
    store: pgqrs.sync.Store,
) -> None:
    assert_type(pgqrs.enqueue_in(connection, EMAILS, SendEmail("ada")), int)
    assert_type(pgqrs.enqueue_in(cursor, producer, SendEmail("ada")), int)
    assert_type(pgqrs.enqueue_in(core, "anything", Invoice(7)), int)
    assert_type(pgqrs.enqueue_batch_in(session, EMAILS, [SendEmail("ada")]), list[int])
    assert_type(pgqrs.enqueue_in(session, EMAILS, SendEmail("ada"), store=store), int)
    pgqrs.enqueue_in(session, EMAILS, SendEmail("ada"), store=session)  # expect-error
    pgqrs.enqueue_in(connection, EMAILS, Invoice(7))  # expect-error
    pgqrs.enqueue_in(session, producer, Invoice(7))  # expect-error
    pgqrs.enqueue_batch_in(core, EMAILS, [Invoice(7)])  # expect-error
    pgqrs.enqueue_in("connection", EMAILS, SendEmail("ada"))  # expect-error


async def async_transactions(
    connection: psycopg.AsyncConnection[Any],
    cursor: psycopg.AsyncCursor[Any],
    raw: asyncpg.Connection[Any],
    core: sqlalchemy.ext.asyncio.AsyncConnection,
    session: sqlalchemy.ext.asyncio.AsyncSession,
) -> None:
    assert_type(await pgqrs.enqueue_in(connection, EMAILS, SendEmail("ada")), int)
    assert_type(await pgqrs.enqueue_in(cursor, EMAILS, SendEmail("ada")), int)
    assert_type(await pgqrs.enqueue_in(raw, EMAILS, SendEmail("ada")), int)
    assert_type(await pgqrs.enqueue_in(core, EMAILS, SendEmail("ada")), int)
    assert_type(await pgqrs.enqueue_batch_in(session, "anything", [1]), list[int])
    await pgqrs.enqueue_in(raw, EMAILS, Invoice(7))  # expect-error
    await pgqrs.enqueue_in(session, EMAILS, Invoice(7))  # expect-error


async def operators(store: pgqrs.Store, blocking: pgqrs.sync.Store) -> None:
    health = await store.admin().health()
    assert_type(health, pgqrs.Health)
    assert_type(health.findings, list[pgqrs.Finding])
    assert_type(blocking.admin().health(), pgqrs.Health)
    stats = await store.admin().queue_stats(EMAILS)
    assert_type(stats.ready, pgqrs.Count)
    assert_type(stats.ready + 1, int)
    async with await store.observe(60) as observer:
        assert_type(observer.latest(), pgqrs.Observation | None)
        assert_type((await observer.changed()).queues, list[pgqrs.QueueStats])
    with blocking.observe(timedelta(minutes=1)) as watcher:
        assert_type(watcher.changed(), pgqrs.Observation)
    await store.observe("a minute")  # expect-error


async def chunks(store: pgqrs.Store, blocking: pgqrs.sync.Store) -> None:
    async def save(chunk: pgqrs.Chunk[SendEmail]) -> None:
        assert_type(chunk.payloads, list[SendEmail])
        assert_type(chunk[0].payload, SendEmail)
        for message in chunk:
            assert_type(message, pgqrs.ChunkMessage[SendEmail])
        chunk.nack(0, "why")
        chunk.nack(0)  # expect-error

    async def save_invoices(chunk: pgqrs.Chunk[Invoice]) -> None: ...

    async def around(delivery: Delivery[SendEmail], next: pgqrs.Handler[SendEmail]) -> Outcome | None:
        return await next(delivery)

    async def around_chunk(
        chunk: pgqrs.Chunk[SendEmail], next: pgqrs.ChunkHandler[SendEmail]
    ) -> Outcome | None:
        return await next(chunk)

    async def forgets(delivery: Delivery[SendEmail], next: pgqrs.Handler[SendEmail]) -> Outcome | None:
        return next(delivery)  # expect-error

    async def handle(delivery: Delivery[SendEmail]) -> None: ...

    consumer = await store.consumer(EMAILS)
    assert_type(await consumer.run_chunks(save, size=100, wait=1), pgqrs.Report)
    await consumer.run_chunks(save, size=100, wait=timedelta(seconds=1), around=around_chunk)
    await consumer.run(handle, around=around)
    await consumer.run_chunks(save_invoices, size=100, wait=1)  # expect-error
    await consumer.run_chunks(save, size=100)  # expect-error
    await consumer.run_chunks(save, size=100, wait=1, around=around)  # expect-error

    def save_blocking(chunk: pgqrs.sync.Chunk[SendEmail]) -> None: ...

    emails = blocking.consumer(EMAILS)
    assert_type(emails.run_chunks(save_blocking, size=100, wait=1), pgqrs.Report)
