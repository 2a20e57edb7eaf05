"""Headers: texts that travel with a message, and are read without decoding it."""

from __future__ import annotations

import pickle
from contextlib import AsyncExitStack
from typing import Any

import pytest

import pgqrs
import pgqrs.sync

from .conftest import Database
from .test_transactions import DRIVERS, begin, done

TEXTS = {"tenant": "acme", "a.b_c-1": "", "text": 'déjà "vu" 🦀\n'}


async def test_headers_of_an_enqueue_are_delivered_and_listed(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await producer.enqueue(1, headers=TEXTS)
    await producer.enqueue_batch([2, 3], headers=TEXTS)
    await producer.enqueue_delayed(4, 3_600, headers=TEXTS)
    await producer.enqueue(5)
    admin = store.admin()
    listed = await admin.messages("tasks")
    assert [message.headers for message in listed] == [TEXTS] * 4 + [{}]
    assert hash(listed[0]) == hash(listed[0])
    consumer = await store.consumer("tasks")
    deliveries = consumer.deliveries(concurrency=4)
    delivered = [await anext(deliveries) for _ in range(4)]
    first, second, third, last = sorted(delivered, key=lambda delivery: delivery.id)
    assert [delivery.headers for delivery in (first, second, third, last)] == [TEXTS] * 3 + [{}]
    await first.archive()
    await second.dead_letter("no")
    (archived,) = await admin.archived("tasks")
    (dead,) = await admin.dead_letters("tasks")
    assert (archived.headers, dead.headers) == (TEXTS, TEXTS)
    await third.ack()
    await last.ack()


def test_the_blocking_twin_has_them_too(sync_store: pgqrs.sync.Store) -> None:
    with sync_store.producer("tasks") as producer:
        producer.enqueue(1, headers=TEXTS)
        producer.enqueue_batch([2, 3], headers=TEXTS)
    consumer = sync_store.consumer("tasks")
    for _ in range(3):
        delivery = next(consumer)
        assert delivery.headers == TEXTS
        delivery.ack()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_an_enqueue_on_any_drivers_connection_has_them(
    driver: str, store: pgqrs.Store, database: Database
) -> None:
    async with AsyncExitStack() as stack:
        transaction = await begin(driver, database.url, stack)
        await done(pgqrs.enqueue_in(transaction.connection, "tasks", 1, headers=TEXTS))
        await done(pgqrs.enqueue_batch_in(transaction.connection, "tasks", [2, 3], headers=TEXTS))
        await done(pgqrs.enqueue_in(transaction.connection, "tasks", 4))
        await done(transaction.commit())
    listed = await store.admin().messages("tasks")
    assert [message.headers for message in listed] == [TEXTS] * 3 + [{}]


async def test_invalid_headers_are_refused_by_their_name_before_anything_is_sent(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    headers: Any
    for name in ("", "Tenant", "a b", "a\n", "ä", "pgqrs-x", "n" * 65):
        with pytest.raises(pgqrs.InvalidHeaderError) as refused:
            await producer.enqueue(1, headers={name: "v"})
        assert refused.value.name == name
        again = pickle.loads(pickle.dumps(refused.value))
        assert (again.name, str(again)) == (name, str(refused.value))
        with pytest.raises(pgqrs.InvalidHeaderError):
            await producer.enqueue_batch([1], headers={name: "v"})
    for headers in ({"a": "\0"}, {"a": "v" * 9_000}, {f"n{n:04}": "1234" for n in range(1_000)}):
        with pytest.raises(pgqrs.InvalidHeaderError):
            await producer.enqueue(1, headers=headers)
    for headers in (["a"], "a", {"a": 1}, {1: "a"}, {"a": None}, {"a": b"b"}):
        with pytest.raises(TypeError, match="headers"):
            await producer.enqueue(1, headers=headers)
    with pytest.raises(ValueError, match=r"headers\['a'\]: .*surrogate"):
        await producer.enqueue(1, headers={"a": "\ud800"})
    assert database.count() == 0
