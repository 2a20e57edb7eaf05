"""Apps: handlers that are declared beside their queues, and the run of all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import pgqrs
import pgqrs.sync

from .conftest import Database, until


@dataclass
class SendEmail:
    to: str


@dataclass
class Invoice:
    number: int


EMAILS = pgqrs.Queue("emails", SendEmail)
TASKS = pgqrs.Queue("tasks")


async def test_one_run_handles_all_queues_with_async_and_blocking_handlers(
    store: pgqrs.Store, database: Database
) -> None:
    app = pgqrs.App(database.url, queues=[EMAILS, TASKS])
    threads: list[threading.Thread] = []
    got: list[Any] = []

    @app.handler(EMAILS, concurrency=2)
    async def send_email(delivery: pgqrs.Delivery[SendEmail]) -> None:
        threads.append(threading.current_thread())
        got.append(delivery.payload)
        # What it sends in turn goes through the app's own store.
        await (await app.store.producer("tasks")).enqueue("from a handler")

    @app.handler(TASKS)
    def work(delivery: pgqrs.sync.Delivery[Any]) -> pgqrs.Outcome:
        threads.append(threading.current_thread())
        got.append(delivery.payload)
        assert app.sync_store is not None
        app.stop()
        return pgqrs.Outcome.archive()

    await (await store.producer(EMAILS)).enqueue(SendEmail("ada"))
    reports = await asyncio.wait_for(app.run(), 20)
    assert got == [SendEmail("ada"), "from a handler"]
    assert (reports["emails"].done, reports["tasks"].archived) == (1, 1)
    assert threads[0] is threading.main_thread() is not threads[1]
    assert database.count() == 0
    with pytest.raises(RuntimeError, match="not connected"):
        _ = app.store
    workers = await store.admin().workers(kind="consumer")
    assert {worker.status for worker in workers} == {"stopped"}


async def test_only_the_chosen_queues_are_handled(store: pgqrs.Store, database: Database) -> None:
    app = pgqrs.App(database.url)
    got: list[str] = []

    @app.handler(pgqrs.Queue("emails"))
    async def send_email(delivery: pgqrs.Delivery[Any]) -> None:
        got.append("emails")
        app.stop()

    @app.handler(TASKS)
    async def work(delivery: pgqrs.Delivery[Any]) -> None:
        got.append("tasks")

    for queue in ("tasks", "emails"):
        await (await store.producer(queue)).enqueue(1)
    reports = await asyncio.wait_for(app.run(["emails"]), 20)
    assert (list(reports), got) == (["emails"], ["emails"])
    assert (await store.admin().queue_stats("tasks")).ready == 1
    with pytest.raises(ValueError, match="no handler for `taks`; there is one for `emails`, `tasks`"):
        await app.run(["taks"])


async def test_chunks_too_are_handled(store: pgqrs.Store, database: Database) -> None:
    app = pgqrs.App(database.url)
    sizes: list[int] = []

    @app.chunk_handler(TASKS, size=3, wait=20)
    async def save(chunk: pgqrs.Chunk[Any]) -> None:
        sizes.append(len(chunk))

    @app.chunk_handler(EMAILS, size=2, wait=20)
    def save_blocking(chunk: pgqrs.Chunk[SendEmail]) -> None:
        sizes.append(len(chunk))

    await (await store.producer("tasks")).enqueue_batch([1, 2, 3])
    await (await store.producer(EMAILS)).enqueue_batch([SendEmail("ada"), SendEmail("lin")])
    running = asyncio.create_task(app.run())
    await until("both chunks are handled", lambda: sorted(sizes) == [2, 3])
    app.stop()
    reports = await running
    assert (reports["tasks"].done, reports["emails"].done) == (3, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_handlers_of_all_queues_finish(
    store: pgqrs.Store, database: Database, number: int
) -> None:
    app = pgqrs.App(database.url)
    begun = {"emails": asyncio.Event(), "tasks": asyncio.Event()}
    may_end = threading.Event()
    finished: list[str] = []
    loop = asyncio.get_running_loop()

    @app.handler(pgqrs.Queue("emails"))
    async def send_email(delivery: pgqrs.Delivery[Any]) -> None:
        begun["emails"].set()
        await asyncio.to_thread(may_end.wait, 20)
        finished.append("emails")

    @app.handler(TASKS)
    def work(delivery: pgqrs.sync.Delivery[Any]) -> None:
        loop.call_soon_threadsafe(begun["tasks"].set)
        may_end.wait(20)
        finished.append("tasks")

    for queue in begun:
        await (await store.producer(queue)).enqueue(1)
    before = signal.getsignal(number)
    running = asyncio.create_task(app.run())
    await asyncio.gather(*(event.wait() for event in begun.values()))
    os.kill(os.getpid(), number)
    await until("it is stopping", lambda: app._is_stopped)
    may_end.set()
    reports = await asyncio.wait_for(running, 20)
    assert sorted(finished) == ["emails", "tasks"]
    assert [report.done for report in reports.values()] == [1, 1]
    assert database.count() == 0
    assert signal.getsignal(number) is before


async def test_a_second_signal_cancels_handlers_and_releases_their_messages(
    store: pgqrs.Store, database: Database
) -> None:
    app = pgqrs.App(database.url)
    begun, cancelled = asyncio.Event(), asyncio.Event()

    @app.handler(TASKS)
    async def work(delivery: pgqrs.Delivery[Any]) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    await (await store.producer("tasks")).enqueue(1)
    running = asyncio.create_task(app.run())
    await begun.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await until("it is stopping", lambda: app._is_stopped)
    assert not cancelled.is_set()
    os.kill(os.getpid(), signal.SIGINT)
    reports = await asyncio.wait_for(running, 20)
    # Twice if a claim was under way that found it again.
    assert cancelled.is_set() and reports["tasks"].released in (1, 2)
    assert database.rows("select attempt from pgqrs.messages") == [(0,)]


async def test_a_cancelled_run_releases_the_messages_of_all_queues(
    store: pgqrs.Store, database: Database
) -> None:
    app = pgqrs.App(database.url)
    begun, may_end = asyncio.Event(), threading.Event()
    at_work: list[str] = []

    def begin(queue: str) -> None:
        at_work.append(queue)
        if len(at_work) == 2:
            begun.set()

    loop = asyncio.get_running_loop()

    @app.handler(pgqrs.Queue("emails"))
    async def send_email(delivery: pgqrs.Delivery[Any]) -> None:
        begin("emails")
        try:
            await asyncio.Event().wait()
        finally:
            may_end.set()

    @app.handler(TASKS)
    def work(delivery: pgqrs.sync.Delivery[Any]) -> None:
        loop.call_soon_threadsafe(begin, "tasks")
        may_end.wait(20)

    for queue in ("tasks", "emails"):
        await (await store.producer(queue)).enqueue(1)
    running = asyncio.create_task(app.run())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 20)
    (message,) = await store.admin().messages("emails")
    assert (message.attempt, message.lease_expires_at) == (0, None)


async def test_if_one_consumer_fails_the_others_stop_gracefully_and_its_error_is_raised(
    store: pgqrs.Store, database: Database
) -> None:
    app = pgqrs.App(database.url)
    finished: list[str] = []

    @app.handler(TASKS)
    async def work(delivery: pgqrs.Delivery[Any]) -> None:
        database.change("delete from pgqrs.queues where name = 'emails'")
        # Longer than the other needs to notice, and awaited nevertheless.
        while not app._is_stopped:
            await asyncio.sleep(0.01)
        finished.append("tasks")

    @app.handler(pgqrs.Queue("emails"), poll_interval=0.01)
    async def send_email(delivery: pgqrs.Delivery[Any]) -> None: ...

    await (await store.producer("tasks")).enqueue(1)
    database.change("alter table pgqrs.workers disable trigger all")
    with pytest.raises(pgqrs.Error):
        await asyncio.wait_for(app.run(), 20)
    assert finished == ["tasks"]


async def test_no_message_is_touched_if_one_of_the_queues_does_not_exist(
    store: pgqrs.Store, database: Database
) -> None:
    app = pgqrs.App(database.url)

    @app.handler(TASKS)
    async def work(delivery: pgqrs.Delivery[Any]) -> None: ...

    @app.handler(pgqrs.Queue("nowhere"))
    def elsewhere(delivery: pgqrs.sync.Delivery[Any]) -> None: ...

    await (await store.producer("tasks")).enqueue(1)
    with pytest.raises(pgqrs.QueueNotFoundError, match="nowhere"):
        await app.run()
    assert database.rows("select attempt from pgqrs.messages") == [(0,)]


async def test_a_lifespan_is_around_the_run(store: pgqrs.Store, database: Database) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: pgqrs.App) -> AsyncIterator[None]:
        await app.store.queue("from the lifespan")
        steps.append("begins")
        yield
        steps.append("ends")

    app = pgqrs.App(database.url, lifespan=lifespan)

    @app.handler(TASKS)
    async def work(delivery: pgqrs.Delivery[Any]) -> None:
        steps.append("handles")
        app.stop()

    await (await store.producer("tasks")).enqueue(1)
    await asyncio.wait_for(app.run(), 20)
    assert steps == ["begins", "handles", "ends"]
    assert (await store.admin().queue("from the lifespan")).name == "from the lifespan"


async def test_an_app_connects_without_running(
    store: pgqrs.Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = pgqrs.App()
    with pytest.raises(ValueError, match="DATABASE_URL is not set"):
        async with app.connected():
            pass
    monkeypatch.setenv("DATABASE_URL", database.url)
    async with app.connected() as connected:
        assert app.store is connected
        await (await connected.producer("tasks")).enqueue(1)
        with pytest.raises(RuntimeError, match="connected already"):
            async with app.connected():
                pass
        with pytest.raises(RuntimeError, match="no blocking store"):
            _ = app.sync_store
    assert database.count() == 1


def test_a_second_handler_of_a_queue_is_refused() -> None:
    app = pgqrs.App()

    @app.handler(EMAILS)
    async def send_email(delivery: pgqrs.Delivery[SendEmail]) -> None: ...

    with pytest.raises(
        ValueError, match="`emails` has a handler already, `.*send_email`; `.*again` would be"
    ):

        @app.chunk_handler(EMAILS, size=10, wait=1)
        async def again(chunk: pgqrs.Chunk[SendEmail]) -> None: ...

    assert list(app.handlers) == ["emails"]
    assert repr(app) == "<App with handlers for emails>"


async def test_a_forgotten_handler_is_an_error() -> None:
    app = pgqrs.App("postgresql://nowhere.invalid/", queues=[EMAILS, TASKS])

    @app.handler(TASKS)
    async def work(delivery: pgqrs.Delivery[Any]) -> None: ...

    with pytest.raises(ValueError, match="no handler for `emails`; declare it with `@app.handler"):
        await app.run()
    with pytest.raises(ValueError, match="the app has no handlers"):
        pgqrs.App().check()


def declarations() -> dict[str, tuple[Any, str]]:
    app = pgqrs.App()
    emails: Any = app.handler(EMAILS)
    chunks: Any = app.chunk_handler(EMAILS, size=1, wait=1)

    async def of_another(delivery: pgqrs.Delivery[Invoice]) -> None: ...

    def blocking_of_another(delivery: pgqrs.sync.Delivery[Invoice]) -> None: ...

    def not_async(delivery: pgqrs.Delivery[SendEmail]) -> None: ...

    async def not_blocking(delivery: pgqrs.sync.Delivery[SendEmail]) -> None: ...

    async def of_a_payload(email: SendEmail) -> None: ...

    async def of_a_chunk(chunk: pgqrs.Chunk[SendEmail]) -> None: ...

    async def of_other_chunks(chunk: pgqrs.Chunk[Invoice]) -> None: ...

    async def of_deliveries(delivery: pgqrs.Delivery[SendEmail]) -> None: ...

    anything: Any = app
    return {
        "another payload": (
            lambda: emails(of_another),
            "annotated with `Invoice`, and queue `emails` carries `Send",
        ),
        "another payload, blocking": (lambda: emails(blocking_of_another), "annotated with `Invoice`"),
        "not async": (lambda: emails(not_async), "is a blocking function, which gets a pgqrs.sync.Delivery"),
        "async": (lambda: emails(not_blocking), "is an async function, which gets a pgqrs.Delivery"),
        "the payload itself": (
            lambda: emails(of_a_payload),
            "gets a pgqrs.Delivery, and is annotated with `SendE",
        ),
        "a chunk": (lambda: emails(of_a_chunk), "gets a pgqrs.Delivery, and is annotated with pgqrs.Chunk"),
        "another chunk": (lambda: chunks(of_other_chunks), "annotated with `Invoice`"),
        "no chunk": (lambda: chunks(of_deliveries), "gets a pgqrs.Chunk"),
        "no function": (lambda: emails(3), "handler: expected a function, not int"),
        "no queue": (lambda: anything.handler(of_another), r"not function; write `@app.handler\(QUEUE\)`"),
        "a name": (lambda: anything.handler("emails"), "queue: expected a pgqrs.Queue, not str"),
        "a type that JSON has not": (
            lambda: app.handler(pgqrs.Queue("sets", set)),
            "`set` can't be represented",
        ),
        "no setting": (lambda: anything.handler(EMAILS, concurency=8), "concurency: no such setting"),
        "no setting to connect": (lambda: anything.__class__(max=8), "max: no such setting"),
        "a setting": (lambda: anything.handler(EMAILS, lease="long"), "lease: expected a number of seconds"),
    }


@pytest.mark.parametrize("mistake", declarations())
def test_a_mistake_is_an_error_when_a_handler_is_declared(mistake: str) -> None:
    declare, message = declarations()[mistake]
    with pytest.raises(TypeError, match=message):
        declare()


def test_what_a_handler_may_be_annotated_with() -> None:
    class Base: ...

    class Derived(Base): ...

    def declare(queue: Any, hint: Any) -> None:
        async def handle(delivery: Any) -> None: ...

        handle.__annotations__["delivery"] = hint
        pgqrs.App().handler(queue)(handle)

    derived = pgqrs.Queue("tasks", list[int])
    for hint in (
        Any,
        object,
        pgqrs.Delivery,
        pgqrs.Delivery[Any],
        pgqrs.Delivery[list[int]],
        "pgqrs.Delivery[list[int]]",
        "pgqrs.Delivery[NowhereImported]",
    ):
        declare(derived, hint)
    declare(TASKS, pgqrs.Delivery[SendEmail])

    class Callable:
        async def __call__(self, delivery: pgqrs.Delivery[SendEmail]) -> None: ...

    app = pgqrs.App()
    app.handler(EMAILS)(Callable())
    assert app.handlers["emails"].is_async
