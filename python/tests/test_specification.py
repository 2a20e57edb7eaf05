"""The specification's lines, as they are written there: what a reader copies must work."""

# fmt: off
from __future__ import annotations

import pytest

import pgqrs

from .conftest import Database


async def test_quick_start(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    async with await pgqrs.connect(database.url) as setup:
        await setup.queue("tasks")

    # There: `pgqrs.connect("postgresql://localhost/mydb")`.
    store = await pgqrs.connect(database.url)

    # Create a simple producer instance
    producer = await store.producer("tasks")

    # Enqueue message
    msg_id = await producer.enqueue({
        "task": "send_email",
        "to": "user@example.com"
    })
    print(f"Enqueued message ID: {msg_id}")

    assert capsys.readouterr().out == f"Enqueued message ID: {msg_id}\n"
    assert database.payloads() == ['{"task":"send_email","to":"user@example.com"}']
    await store.close()


async def test_managed_producers(store: pgqrs.Store, database: Database) -> None:
    # Create managed producer with worker tracking details
    producer = await store.producer(
        queue="tasks",
        hostname="my-service",
        port=3000
    )

    msg_id = await producer.enqueue({"task": "process_order"})

    assert database.rows("select id, producer_id from pgqrs.messages") == [(msg_id, producer.id)]
    (worker,) = await store.admin().workers()
    assert (worker.hostname, worker.port, worker.queue) == ("my-service", 3000, "tasks")


async def test_batch_messages_one_by_one(store: pgqrs.Store, database: Database) -> None:
    producer = await store.producer("emails")

    # Batch enqueue requires a loop or helper (if available)
    messages = [
        {"user_id": 1},
        {"user_id": 2}
    ]

    # Currently executed sequentially in Python unless batch helper exists
    for msg in messages:
        await producer.enqueue(msg)

    assert database.payloads() == ['{"user_id":1}', '{"user_id":2}']


async def test_delayed_messages(store: pgqrs.Store, database: Database) -> None:
    producer = await store.producer("tasks")

    # Use enqueue_delayed specific method
    await producer.enqueue_delayed(
        {"reminder": "Follow up"},
        delay_seconds=300
    )

    ((seconds,),) = database.rows(
        "select extract(epoch from visible_at - enqueued_at)::int from pgqrs.messages"
    )
    assert seconds == 300


async def test_methods_of_the_reference(store: pgqrs.Store, database: Database) -> None:
    queue, payload, seconds = "tasks", {"a": 1}, 60

    # `store.producer(queue, hostname="localhost", port=0)` -> `Producer`
    producer = await store.producer(queue, hostname="localhost", port=0)
    # `enqueue(payload)`
    await producer.enqueue(payload)
    # `enqueue_delayed(payload, seconds)`
    await producer.enqueue_delayed(payload, seconds)

    assert isinstance(producer, pgqrs.Producer)
    assert database.count() == 2
