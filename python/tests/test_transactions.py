"""`enqueue_in`: on the caller's own connection, with each driver, and gone if the caller rolls back."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio
import sqlalchemy.orm

import pgqrs
import pgqrs.sync

from .conftest import Database, until

DRIVERS = [
    "psycopg",
    "psycopg cursor",
    "psycopg with rows as dictionaries",
    "psycopg async",
    "psycopg async cursor",
    "asyncpg",
    "asyncpg pool",
    "sqlalchemy",
    "sqlalchemy session",
    "sqlalchemy scoped session",
    "sqlalchemy async with psycopg",
    "sqlalchemy async with asyncpg",
    "sqlalchemy async session",
    "sqlalchemy async session with asyncpg",
]


@dataclass
class Transaction:
    """A transaction of some driver's."""

    connection: Any
    commit: Callable[[], Any]
    rollback: Callable[[], Any]
    run: Callable[[str], Any]


async def done(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def begin(driver: str, url: str, stack: AsyncExitStack) -> Transaction:
    if driver.startswith("psycopg async"):
        connection = await stack.enter_async_context(await psycopg.AsyncConnection.connect(url))
        target: Any = connection.cursor() if driver.endswith("cursor") else connection
        return Transaction(target, connection.commit, connection.rollback, connection.execute)
    if driver.startswith("psycopg"):
        rows: Any = psycopg.rows.dict_row if "dictionaries" in driver else psycopg.rows.tuple_row
        blocking = stack.enter_context(psycopg.connect(url, row_factory=rows))
        target = blocking.cursor() if driver.endswith("cursor") else blocking
        return Transaction(target, blocking.commit, blocking.rollback, blocking.execute)
    if driver.startswith("asyncpg"):
        if driver.endswith("pool"):
            pool = await stack.enter_async_context(asyncpg.create_pool(url, min_size=1, max_size=1))
            raw: Any = await stack.enter_async_context(pool.acquire())
        else:
            raw = await asyncpg.connect(url)
            stack.push_async_callback(raw.close)
        transaction = raw.transaction()
        await transaction.start()
        return Transaction(raw, transaction.commit, transaction.rollback, raw.execute)
    dialect = "postgresql+asyncpg" if driver.endswith("asyncpg") else "postgresql+psycopg"
    address = url.replace("postgres:", f"{dialect}:", 1)
    if "async" in driver.split(" with ")[0]:
        engine = sqlalchemy.ext.asyncio.create_async_engine(address)
        stack.push_async_callback(engine.dispose)
        of = sqlalchemy.ext.asyncio.AsyncSession if "session" in driver else type(engine).connect
        async_target = await stack.enter_async_context(of(engine))
        return Transaction(
            async_target,
            async_target.commit,
            async_target.rollback,
            lambda sql: async_target.execute(sqlalchemy.text(sql)),
        )
    sync_engine = sqlalchemy.create_engine(address)
    stack.callback(sync_engine.dispose)
    sync_target: Any
    if "scoped" in driver:
        sync_target = sqlalchemy.orm.scoped_session(sqlalchemy.orm.sessionmaker(sync_engine))
        stack.callback(sync_target.remove)
    elif "session" in driver:
        sync_target = stack.enter_context(sqlalchemy.orm.Session(sync_engine))
    else:
        sync_target = stack.enter_context(sync_engine.connect())
    return Transaction(
        sync_target,
        sync_target.commit,
        sync_target.rollback,
        lambda sql: sync_target.execute(sqlalchemy.text(sql)),
    )


@pytest.fixture(params=DRIVERS)
async def transaction(
    request: pytest.FixtureRequest, database: Database, store: pgqrs.Store
) -> AsyncIterator[Transaction]:
    async with AsyncExitStack() as stack:
        yield await begin(request.param, database.url, stack)


async def test_a_message_is_sent_if_and_only_if_the_transaction_commits(
    transaction: Transaction, database: Database
) -> None:
    await done(transaction.run("create table orders (number int)"))
    await done(transaction.run("insert into orders values (7)"))
    id = await done(pgqrs.enqueue_in(transaction.connection, "tasks", {"order": 7}))
    assert type(id) is int
    assert database.count() == 0
    await done(transaction.commit())
    assert database.rows("select id, payload::text from pgqrs.messages") == [(id, '{"order":7}')]


async def test_a_message_is_gone_with_the_transaction(transaction: Transaction, database: Database) -> None:
    await done(pgqrs.enqueue_in(transaction.connection, "tasks", 1))
    await done(pgqrs.enqueue_batch_in(transaction.connection, "tasks", [2, 3]))
    await done(transaction.rollback())
    assert database.count() == 0


async def test_ids_are_in_the_order_of_the_payloads_and_all_settings_arrive(
    transaction: Transaction, database: Database, store: pgqrs.Store
) -> None:
    producer = await store.producer("tasks")
    at = datetime(2100, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    on = transaction.connection
    odd = "quotes ' \" % %s :x $1 \\ {} ,"
    ids = await done(pgqrs.enqueue_batch_in(on, producer, [odd, None, [1.5]], delay=1.5, priority="urgent"))
    later = await done(pgqrs.enqueue_in(on, pgqrs.Queue("emails"), "later", at=at))
    assert await done(pgqrs.enqueue_batch_in(on, "tasks", [])) == []
    await done(transaction.commit())
    rows = database.rows(
        "select id, payload::text, priority, producer_id, extract(epoch from visible_at - enqueued_at)::float"
        " from pgqrs.messages where queue_id = (select id from pgqrs.queues where name = 'tasks') order by id"
    )
    import json

    texts = [json.dumps(odd), "null", "[1.5]"]
    assert rows == [(id, text, 0, producer.id, 1.5) for id, text in zip(ids, texts, strict=True)]
    assert database.rows("select visible_at from pgqrs.messages where id = %s", later) == [(at,)]


async def test_refusals_are_those_of_other_sends_and_the_transaction_goes_on(
    transaction: Transaction, database: Database, store: pgqrs.Store
) -> None:
    on = transaction.connection
    with pytest.raises(pgqrs.QueueNotFoundError) as missing:
        await done(pgqrs.enqueue_in(on, "nowhere", 1))
    assert missing.value.queue == "nowhere"
    producer = await store.producer("tasks")
    await producer.suspend()
    with pytest.raises(pgqrs.WorkerSuspendedError) as suspended:
        await done(pgqrs.enqueue_in(on, producer, 1))
    assert suspended.value.worker == producer.id
    await producer.shutdown()
    with pytest.raises(pgqrs.WorkerStoppedError):
        await done(pgqrs.enqueue_batch_in(on, producer, [1, 2]))
    with pytest.raises(pgqrs.SerializeError) as refused:
        await done(pgqrs.enqueue_batch_in(on, "tasks", [1, {"x": float("nan")}]))
    assert refused.value.path == "payloads[1].x"
    with pytest.raises(TypeError, match="^payload: queue `tasks` carries dict, not int"):
        await done(pgqrs.enqueue_in(on, pgqrs.Queue("tasks", dict), 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^delay: "):
        await done(pgqrs.enqueue_in(on, "tasks", 1, delay=-1))
    await done(pgqrs.enqueue_in(on, "tasks", "goes on"))
    await done(transaction.commit())
    assert database.payloads() == ['"goes on"']


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_database_without_the_schema_is_reported(driver: str, bare: Database) -> None:
    async with AsyncExitStack() as stack:
        transaction = await begin(driver, bare.url, stack)
        with pytest.raises(pgqrs.NotInstalledError) as missing:
            await done(pgqrs.enqueue_in(transaction.connection, "tasks", 1))
        assert missing.value.__cause__ is not None
        await done(transaction.rollback())


def test_a_producer_of_the_blocking_twin_is_a_target_too(
    sync_store: pgqrs.sync.Store, database: Database
) -> None:
    producer = sync_store.producer("tasks")
    with psycopg.connect(database.url) as connection:
        id = pgqrs.enqueue_in(connection, producer, 1)
    assert database.rows("select id, producer_id from pgqrs.messages") == [(id, producer.id)]


def test_the_drivers_own_errors_are_left_as_they_are(
    sync_store: pgqrs.sync.Store, database: Database
) -> None:
    connection = psycopg.connect(database.url)
    connection.close()
    with pytest.raises(psycopg.OperationalError):
        pgqrs.enqueue_in(connection, "tasks", 1)


SESSIONS = [driver for driver in DRIVERS if "session" in driver]


class Receiver:
    """A consumer that finds nothing by itself: it has to be woken."""

    def __init__(self, store: pgqrs.Store, database: Database) -> None:
        self.received: list[Any] = []
        self._store = store
        self._database = database

    async def __aenter__(self) -> Receiver:
        self._consumer = await self._store.consumer("tasks")

        async def handle(delivery: pgqrs.Delivery[Any]) -> None:
            self.received.append(delivery.payload)

        self._running = asyncio.create_task(self._consumer.run(handle, poll_interval=3_600))
        listens = (
            "select 1 from pg_stat_activity where datname = current_database() and query ilike 'listen%%'"
        )
        await until("it listens", lambda: bool(self._database.rows(listens)))
        # By then it has looked for messages a last time.
        await (await self._store.producer("tasks")).enqueue("begin")
        await self.receives("begin")
        return self

    async def receives(self, payload: Any) -> None:
        await until(f"{payload} is received", lambda: payload in self.received)

    async def __aexit__(self, *_: object) -> None:
        self._consumer.stop()
        await self._running


@pytest.mark.parametrize("through", ["a store", "a producer"])
@pytest.mark.parametrize("driver", SESSIONS)
async def test_a_sessions_commit_wakes_consumers_in_other_processes(
    driver: str, through: str, store: pgqrs.Store, database: Database
) -> None:
    async with (
        Receiver(store, database) as receiver,
        # As another process: it has connections of its own.
        await pgqrs.connect(database.url) as other,
        AsyncExitStack() as stack,
    ):
        transaction = await begin(driver, database.url, stack)
        on = transaction.connection
        producer = await other.producer("tasks")
        target: Any = producer if through == "a producer" else "tasks"
        named = other if through == "a store" else None
        await done(pgqrs.enqueue_in(on, target, "rolled back", store=named))
        await done(transaction.rollback())
        for round in range(2):
            # A savepoint's end is not the commit.
            savepoint = on.begin_nested()
            savepoint = await done(savepoint)
            await done(pgqrs.enqueue_batch_in(on, target, [round, "and"], store=named))
            await done(savepoint.commit())
            await done(transaction.run("select 1"))
            await done(transaction.commit())
            await receiver.receives(round)
        assert "rolled back" not in receiver.received


@pytest.mark.parametrize("driver", ["psycopg async", "asyncpg", "sqlalchemy async with asyncpg"])
@pytest.mark.parametrize("waker", ["this process", "another", "a blocking one"])
async def test_consumers_can_be_woken_after_a_commit(
    driver: str, waker: str, store: pgqrs.Store, database: Database
) -> None:
    async with Receiver(store, database) as receiver, AsyncExitStack() as stack:
        transaction = await begin(driver, database.url, stack)
        await done(pgqrs.enqueue_in(transaction.connection, "tasks", "sent"))
        await done(transaction.commit())
        if waker == "this process":
            await store.wake(pgqrs.Queue("tasks"))
            await receiver.receives("sent")
        elif waker == "another":
            async with await pgqrs.connect(database.url) as other:
                await other.wake("tasks")
                await receiver.receives("sent")
        else:
            with pgqrs.sync.connect(database.url) as blocking:
                blocking.wake("tasks")
                await receiver.receives("sent")
