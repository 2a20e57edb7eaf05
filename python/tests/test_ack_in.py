"""`delivery.ack_in`: the work and the acknowledgement in the caller's own transaction, with each driver."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import psycopg
import pytest

import pgqrs
import pgqrs.sync

from .conftest import Database, until
from .test_transactions import DRIVERS, begin, done

FEW = ["psycopg", "psycopg async", "asyncpg", "sqlalchemy session", "sqlalchemy async session with asyncpg"]
"""One of each kind, for what doesn't depend on the driver's details."""


@pytest.fixture
def work(database: Database) -> Database:
    """With a table for what the handlers do."""
    database.change("create table work (number int)")
    return database


def worked(database: Database) -> list[int]:
    return [number for (number,) in database.rows("select number from work order by number")]


async def handled(store: pgqrs.Store, database: Database, handle: Any, **settings: Any) -> pgqrs.Report:
    """Runs a consumer until no message is left."""
    consumer = await store.consumer("tasks")
    retry = pgqrs.RetryPolicy.fixed(0)
    running = asyncio.create_task(consumer.run(handle, poll_interval=0.02, retry=retry, **settings))
    await until("all messages are handled", lambda: running.done() or database.count() == 0)
    consumer.stop()
    return await running


@pytest.mark.parametrize("driver", DRIVERS)
async def test_work_and_acknowledgement_commit_together_or_not_at_all(
    driver: str, work: Database, store: pgqrs.Store
) -> None:
    await (await store.producer("tasks")).enqueue(7)
    attempts = []

    async def handle(delivery: pgqrs.Delivery[Any]) -> None:
        attempts.append(delivery.attempt)
        async with AsyncExitStack() as stack:
            transaction = await begin(driver, work.url, stack)
            await done(transaction.run("insert into work values (7)"))
            assert await done(delivery.ack_in(transaction.connection)) is None
            assert delivery.is_settled
            with pytest.raises(pgqrs.AlreadySettledError):
                await done(delivery.ack_in(transaction.connection))
            # Nobody else sees anything of it yet.
            assert (worked(work), work.count()) == ([], 1)
            if delivery.attempt == 1:
                await done(transaction.rollback())
                raise ValueError("rolled back")
            await done(transaction.commit())

    report = await handled(store, work, handle)
    assert (report.done, report.retried, report.lost, report.cancelled) == (1, 1, 0, 0)
    assert attempts == [1, 2]
    assert worked(work) == [7]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_lost_lease_raises_and_the_caller_rolls_back(
    driver: str, work: Database, store: pgqrs.Store
) -> None:
    await (await store.producer("tasks")).enqueue(7)
    consumer = await store.consumer("tasks")

    async def handle(delivery: pgqrs.Delivery[Any]) -> None:
        # As if another consumer had claimed it.
        work.change("update pgqrs.messages set lease_token = lease_token + 1")
        async with AsyncExitStack() as stack:
            transaction = await begin(driver, work.url, stack)
            await done(transaction.run("insert into work values (7)"))
            try:
                with pytest.raises(pgqrs.LeaseLostError) as lost:
                    await done(delivery.ack_in(transaction.connection))
                assert lost.value.message == delivery.id
                assert not delivery.is_settled
            finally:
                await done(transaction.rollback())
                consumer.stop()
            raise lost.value

    report = await consumer.run(handle)
    assert (report.done, report.lost) == (0, 1)
    assert (worked(work), work.count()) == ([], 1)


@pytest.mark.parametrize("driver", FEW)
async def test_a_queue_that_archives_does_so_in_the_transaction_too(
    driver: str, work: Database, store: pgqrs.Store
) -> None:
    await store.admin().configure_queue("tasks", archive_on_ack=True)
    id = await (await store.producer("tasks")).enqueue({"order": 7})

    async def handle(delivery: pgqrs.Delivery[Any]) -> None:
        async with AsyncExitStack() as stack:
            transaction = await begin(driver, work.url, stack)
            await done(delivery.ack_in(transaction.connection))
            await done(transaction.commit())

    report = await handled(store, work, handle)
    assert (report.done, report.lost) == (1, 0)
    assert work.rows("select id, payload::text from pgqrs.archive") == [(id, '{"order":7}')]


@pytest.mark.parametrize("driver", FEW)
async def test_in_an_iteration_the_next_message_comes_after_the_acknowledgement(
    driver: str, work: Database, store: pgqrs.Store
) -> None:
    await (await store.producer("tasks")).enqueue_batch([1, 2, 3])
    consumer = await store.consumer("tasks")
    async for delivery in consumer:
        async with AsyncExitStack() as stack:
            transaction = await begin(driver, work.url, stack)
            await done(transaction.run(f"insert into work values ({delivery.payload})"))
            await done(delivery.ack_in(transaction.connection))
            await done(transaction.commit())
        # In any order: several are delivered at once.
        if work.count() == 0:
            break
    assert (worked(work), work.count()) == ([1, 2, 3], 0)


@pytest.mark.parametrize("driver", ["psycopg", "sqlalchemy", "sqlalchemy session"])
def test_the_blocking_twin_acknowledges_on_blocking_connections(
    driver: str, work: Database, sync_store: pgqrs.sync.Store
) -> None:
    sync_store.producer("tasks").enqueue_batch([1, 2])
    consumer = sync_store.consumer("tasks")

    def handle(delivery: pgqrs.sync.Delivery[Any]) -> None:
        async def transact() -> None:
            async with AsyncExitStack() as stack:
                transaction = await begin(driver, work.url, stack)
                transaction.run(f"insert into work values ({delivery.payload})")
                assert delivery.ack_in(transaction.connection) is None
                if delivery.attempt == 1:
                    transaction.rollback()
                    raise ValueError("rolled back")
                transaction.commit()

        try:
            asyncio.run(transact())
        finally:
            if work.count() == 0:
                consumer.stop()

    report = consumer.run(handle, retry=pgqrs.RetryPolicy.fixed(0), poll_interval=0.02)
    assert (report.done, report.retried, report.lost) == (2, 2, 0)
    assert (worked(work), work.count()) == ([1, 2], 0)


async def test_after_an_error_of_the_driver_the_delivery_can_be_settled_otherwise(
    work: Database, store: pgqrs.Store
) -> None:
    await (await store.producer("tasks")).enqueue(7)

    async def handle(delivery: pgqrs.Delivery[Any]) -> None:
        with pytest.raises(TypeError, match="expected a connection of psycopg"):
            delivery.ack_in(work)  # type: ignore[call-overload]  # pyright: ignore
        closed = await asyncpg.connect(work.url)
        await closed.close()
        with pytest.raises(asyncpg.InterfaceError):
            await delivery.ack_in(closed)
        blocking = psycopg.connect(work.url)
        blocking.close()
        with pytest.raises(psycopg.OperationalError):
            delivery.ack_in(blocking)
        assert not delivery.is_settled
        await delivery.extend(60)
        await delivery.ack()

    report = await handled(store, work, handle)
    assert (report.done, report.retried, report.lost) == (1, 0, 0)


@pytest.mark.parametrize("driver", ["psycopg async", "asyncpg", "sqlalchemy async session"])
async def test_a_call_that_is_cancelled_leaves_the_delivery_unsettled(
    driver: str, work: Database, store: pgqrs.Store
) -> None:
    await (await store.producer("tasks")).enqueue(7)

    async def handle(delivery: pgqrs.Delivery[Any]) -> None:
        async with AsyncExitStack() as stack:
            transaction = await begin(driver, work.url, stack)
            with psycopg.connect(work.url) as holder:
                holder.execute("select from pgqrs.messages for update")
                acknowledging = asyncio.ensure_future(delivery.ack_in(transaction.connection))
                waits = (
                    "select 1 from pg_stat_activity where datname = current_database()"
                    " and wait_event_type = 'Lock' and query like 'delete from pgqrs.messages%%'"
                )
                await until("the statement waits", lambda: bool(work.rows(waits)))
                assert delivery.is_settled
                acknowledging.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await acknowledging
                assert not delivery.is_settled

    report = await handled(store, work, handle)
    assert (report.done, report.lost) == (1, 0)
