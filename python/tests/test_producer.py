"""Producers: what they store, when it is delivered, and their life."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import pgqrs

from .conftest import Database


def seconds_to_go(database: Database) -> list[float]:
    rows = database.rows(
        "select extract(epoch from visible_at - enqueued_at)::float from pgqrs.messages order by id"
    )
    return [float(seconds) for (seconds,) in rows]


async def test_ids_are_in_the_order_of_the_payloads(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    ids = await producer.enqueue_batch(range(2_500))
    assert len(set(ids)) == 2_500
    stored = dict(database.rows("select id, payload::text from pgqrs.messages"))
    assert [int(stored[id]) for id in ids] == list(range(2_500))


async def test_a_batch_is_stored_in_one_transaction(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch(iter(["a", "b", "c"]))
    assert database.rows("select count(distinct xmin::text) from pgqrs.messages") == [(1,)]


async def test_an_empty_batch_returns_no_ids(producer: pgqrs.Producer[Any], database: Database) -> None:
    assert await producer.enqueue_batch([]) == []
    assert database.count() == 0


async def test_delays_are_numbers_or_timedeltas(producer: pgqrs.Producer[Any], database: Database) -> None:
    await producer.enqueue(1, delay=60)
    await producer.enqueue(2, delay=0.25)
    await producer.enqueue(3, delay=timedelta(minutes=2, milliseconds=1))
    await producer.enqueue_delayed(4, seconds=300)
    await producer.enqueue_delayed(5, 1.5)
    await producer.enqueue_delayed(6, delay_seconds=timedelta(hours=1))
    await producer.enqueue_batch([7, 8], delay=10)
    await producer.enqueue(9, delay=0)
    assert seconds_to_go(database) == [60, 0.25, 120.001, 300, 1.5, 3600, 10, 10, 0]


async def test_times_are_aware_datetimes_of_any_zone(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    at = datetime(2100, 1, 2, 3, 4, 5, 678_901, tzinfo=ZoneInfo("Europe/Berlin"))
    await producer.enqueue(1, at=at)
    await producer.enqueue_batch([2], at=at.astimezone(timezone.utc))
    await producer.enqueue(3, at=datetime(1800, 1, 1, tzinfo=timezone.utc))
    first, second, past = (
        time for (time,) in database.rows("select visible_at from pgqrs.messages order by id")
    )
    assert first == second == at
    assert seconds_to_go(database)[2] == 0
    assert past > at.replace(year=2000)


async def test_priorities_are_members_or_their_names(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue(1, priority=pgqrs.Priority.URGENT)
    await producer.enqueue(2, priority="low")
    await producer.enqueue(3)
    await producer.enqueue_batch([4], priority="high")
    await producer.enqueue_delayed(5, 0, priority=pgqrs.Priority.URGENT)
    ranks = [rank for (rank,) in database.rows("select priority from pgqrs.messages order by id")]
    assert ranks == [0, 3, 2, 1, 0]


async def test_many_at_once_share_statements_and_each_gets_its_own_id(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    ids = await asyncio.gather(*(producer.enqueue({"n": n}) for n in range(512)))
    stored = dict(database.rows("select id, payload->>'n' from pgqrs.messages"))
    assert [int(stored[id]) for id in ids] == list(range(512))
    ((transactions,),) = database.rows("select count(distinct xmin::text) from pgqrs.messages")
    assert transactions < 256


async def test_among_many_each_gets_its_own_error(producer: pgqrs.Producer[Any], database: Database) -> None:
    # The server refuses one of them.
    database.change(
        "alter table pgqrs.messages add constraint refused check (payload::text <> '13') not valid"
    )
    outcomes = await asyncio.gather(*(producer.enqueue(n) for n in range(40)), return_exceptions=True)
    for n, outcome in enumerate(outcomes):
        if n == 13:
            assert isinstance(outcome, pgqrs.DatabaseError)
            assert outcome.sqlstate == "23514"
            assert not outcome.retryable
        else:
            assert isinstance(outcome, int)
    assert database.count() == 39


async def test_life_cycle(store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database) -> None:
    assert await producer.status() == "ready"
    await producer.heartbeat()
    await producer.suspend()
    assert await producer.status() == "suspended"
    with pytest.raises(pgqrs.WorkerSuspendedError) as suspended:
        await producer.enqueue(1)
    assert suspended.value.worker == producer.id
    with pytest.raises(pgqrs.WorkerSuspendedError):
        await producer.enqueue_batch([1, 2])
    with pytest.raises(pgqrs.InvalidTransitionError) as illegal:
        await producer.suspend()
    assert (illegal.value.current, illegal.value.wanted) == ("suspended", "suspended")
    await producer.resume()
    assert await producer.is_healthy(60)
    await producer.enqueue(2)
    await producer.shutdown()
    await producer.shutdown()
    assert await producer.status() == "stopped"
    assert not await producer.is_healthy(timedelta(minutes=1))
    with pytest.raises(pgqrs.WorkerStoppedError):
        await producer.enqueue(3)
    with pytest.raises(pgqrs.WorkerStoppedError):
        await producer.heartbeat()
    assert database.payloads() == ["2"]


async def test_it_is_shut_down_at_the_end_of_its_block(store: pgqrs.Store) -> None:
    with pytest.raises(KeyError):
        async with await store.producer("tasks", "host", 7) as producer:
            await producer.enqueue(1)
            raise KeyError
    assert await producer.status() == "stopped"
    # Its identity is free.
    async with await store.producer("tasks", "host", 7):
        pass


async def test_it_is_shut_down_with_its_store(database: Database, store: pgqrs.Store) -> None:
    async with await pgqrs.connect(database.url) as other:
        producer = await other.producer("tasks", "host", 7)
        consumer = await other.consumer("tasks", hostname="host", port=8)
    statuses = {worker.id: worker.status for worker in await store.admin().workers()}
    assert statuses == {producer.id: "stopped", consumer.id: "stopped"}


async def test_an_identity_is_registered_once(store: pgqrs.Store) -> None:
    first = await store.producer("tasks", "host", 7)
    with pytest.raises(pgqrs.WorkerExistsError) as exists:
        await store.producer("tasks", "host", 7)
    error = exists.value
    assert (error.kind, error.hostname, error.port, error.queue) == ("producer", "host", 7, "tasks")
    assert (first.hostname, first.port, first.queue.name) == ("host", 7, "tasks")
    assert "host:7" in repr(first)


async def test_an_operator_suspends_it_from_elsewhere(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await store.admin().suspend_worker(producer.id)
    with pytest.raises(pgqrs.WorkerSuspendedError):
        await producer.enqueue(1)
    await store.admin().resume_worker(producer.id)
    await producer.enqueue(1)


async def test_a_cancelled_send_is_not_awaited_and_harms_no_other(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    sends = [asyncio.ensure_future(producer.enqueue(n)) for n in range(64)]
    await asyncio.sleep(0)
    for send in sends[::2]:
        send.cancel()
    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    assert all(isinstance(outcome, int) for outcome in outcomes[1::2])
    kept = {int(text) for text in database.payloads()}
    assert kept >= set(range(1, 64, 2))
    await producer.enqueue("and it goes on")


async def test_a_send_waits_for_a_server_that_comes_back(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    """Its connections are cut again and again, and each message is stored once."""

    sent = asyncio.Event()

    async def cut() -> None:
        while not sent.is_set():
            await asyncio.to_thread(
                database.rows,
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()",
            )

    cutting = asyncio.create_task(cut())
    ids: list[int] = []
    for round in range(4):
        ids += await asyncio.gather(*(producer.enqueue((round, n)) for n in range(20)))
    sent.set()
    await cutting
    stored = database.rows("select id from pgqrs.messages")
    assert sorted(id for (id,) in stored) == sorted(ids)
    assert len(ids) == 80
