"""Mistakes: each is a clear error, at once, and nothing is lost or stored."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.orm

import pgqrs
import pgqrs.sync

from .conftest import Database

NOW = datetime.now(timezone.utc)


async def test_an_unknown_queue_is_named_with_its_remedy(store: pgqrs.Store) -> None:
    for make in (store.producer, store.consumer):
        with pytest.raises(
            pgqrs.QueueNotFoundError, match=r'create it with `store.queue\("nowhere"\)`'
        ) as error:
            await make("nowhere")
        assert error.value.queue == "nowhere"
    with pytest.raises(pgqrs.QueueNotFoundError):
        await store.admin().queue_stats("nowhere")


async def test_a_queue_that_is_deleted_ends_its_producers(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await store.admin().delete_queue("tasks")
    with pytest.raises(pgqrs.WorkerStoppedError):
        await producer.enqueue(1)


async def test_a_database_without_the_schema_is_reported(bare: Database) -> None:
    async with await pgqrs.connect(bare.url) as store:
        for call in (
            store.queue("tasks"),
            store.producer("tasks"),
            store.consumer("tasks"),
            store.admin().queues(),
        ):
            with pytest.raises(pgqrs.NotInstalledError, match="install"):
                await call
        assert (await store.admin().verify()).state == "not_installed"
        await store.admin().install()
        verified = await store.admin().verify()
        assert (verified.state, verified.on_citus, verified.tables) == ("up_to_date", False, [])
        await store.queue("tasks")


async def test_a_fillfactor_is_one_of_six(database: Database) -> None:
    async with await pgqrs.connect(database.url) as store:
        await store.admin().set_fillfactor(70)
        for wrong in (49, 75, 101):
            with pytest.raises(ValueError, match="percent: expected 50"):
                await store.admin().set_fillfactor(wrong)  # type: ignore[arg-type]


async def test_a_closed_store_says_so(database: Database) -> None:
    store = await pgqrs.connect(database.url)
    await store.queue("tasks")
    producer = await store.producer("tasks")
    consumer = await store.consumer("tasks")
    await store.close()
    await store.close()
    for call in (
        lambda: producer.enqueue(1),
        lambda: producer.enqueue_batch([1]),
        lambda: producer.heartbeat(),
        lambda: store.queue("tasks"),
        lambda: store.producer("tasks"),
        lambda: store.admin().queues(),
        lambda: consumer.status(),
    ):
        with pytest.raises(pgqrs.ClosedError):
            await asyncio.wait_for(call(), 10)
    assert database.count() == 0


async def test_an_unreachable_server_is_reported_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(pgqrs.ConnectError) as error:
        await pgqrs.connect("postgres://postgres@127.0.0.1:9/postgres")
    assert error.value.retryable
    assert time.monotonic() - started < 5


async def test_a_refused_login_is_no_secret_and_shows_no_password(database: Database) -> None:
    url = re.sub("/[^/]*$", "/no_such_database", database.url)
    with pytest.raises(pgqrs.ConnectError, match="no_such_database") as error:
        await pgqrs.connect(url)
    assert error.value.sqlstate == "3D000"
    with pytest.raises(ValueError, match="url: expected a URL"):
        await pgqrs.connect("no URL at all")


async def raised(call: Callable[[], Any]) -> BaseException:
    try:
        result = call()
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


async def test_each_argument_of_a_wrong_type_is_named(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    consumer: Any = await store.consumer("tasks")
    admin: Any = store.admin()
    s: Any = store
    p: Any = producer
    connect: Any = pgqrs.connect
    queue: Any = pgqrs.Queue
    policy: Any = pgqrs.RetryPolicy
    outcome: Any = pgqrs.Outcome
    url = database.url
    session = sqlalchemy.orm.Session()

    async def handle(delivery: Any) -> None:
        pass

    mistakes: dict[str, list[Callable[[], Any]]] = {
        "url": [lambda: connect(3), lambda: connect(None)],
        "max_connections": [
            lambda: connect(url, max_connections="3"),
            lambda: connect(url, max_connections=True),
        ],
        "install": [lambda: connect(url, install=1)],
        "acquire_timeout": [lambda: connect(url, acquire_timeout="1")],
        "application_name": [lambda: connect(url, application_name=None)],
        "payload_limit": [lambda: connect(url, payload_limit=1.5)],
        "retry_for": [lambda: connect(url, retry_for=None)],
        "coalesce": [lambda: connect(url, coalesce="yes")],
        "pgbouncer": [lambda: connect(url, pgbouncer=None)],
        "queue": [
            lambda: s.queue(3),
            lambda: s.producer(None),
            lambda: s.consumer(b"tasks"),
            lambda: admin.queue(3),
            lambda: admin.workers(queue=3),
            lambda: pgqrs.enqueue_in(object(), 3, 1),  # type: ignore[call-overload]
        ],
        "hostname": [lambda: s.producer("tasks", 3), lambda: s.consumer("tasks", hostname=3)],
        "port": [lambda: s.producer("tasks", "host", "80"), lambda: s.consumer("tasks", port=1.0)],
        "heartbeat_interval": [
            lambda: s.producer("tasks", heartbeat_interval="1"),
            lambda: s.consumer("tasks", heartbeat_interval="1"),
        ],
        "replace": [lambda: s.producer("tasks", replace=1), lambda: s.consumer("tasks", replace=None)],
        "concurrency": [
            lambda: consumer.deliveries(concurrency="8"),
            lambda: consumer.run(handle, concurrency=1.5),
        ],
        "prefetch": [lambda: consumer.run(handle, prefetch=None), lambda: consumer.deliveries(prefetch="1")],
        "prefetch_bytes": [
            lambda: consumer.run(handle, prefetch_bytes=1.5),
            lambda: consumer.deliveries(prefetch_bytes=None),
        ],
        "lease": [lambda: consumer.run(handle, lease="30"), lambda: consumer.deliveries(lease=None)],
        "poll_interval": [
            lambda: consumer.run(handle, poll_interval=b""),
            lambda: consumer.deliveries(poll_interval="1"),
        ],
        "retry": [lambda: consumer.run(handle, retry=3), lambda: consumer.deliveries(retry=None)],
        "handler_timeout": [lambda: consumer.run(handle, handler_timeout="1")],
        "listen": [lambda: consumer.run(handle, listen=1), lambda: consumer.deliveries(listen=None)],
        "handler": [lambda: consumer.run(3)],
        "shutdown_deadline": [
            lambda: consumer.run(handle, shutdown_deadline="1"),
            lambda: consumer.deliveries(shutdown_deadline="1"),
        ],
        "store": [
            lambda: pgqrs.enqueue_in(session, "tasks", 1, store=3),  # type: ignore[call-overload]
            lambda: pgqrs.enqueue_in(object(), "tasks", 1, store=store),  # type: ignore[call-overload]
        ],
        "delay": [
            lambda: p.enqueue(1, delay="5"),
            lambda: p.enqueue(1, delay=True),
            lambda: p.enqueue_batch([1], delay=NOW),
            lambda: outcome.retry("5"),
        ],
        "delay_seconds": [lambda: p.enqueue_delayed(1, "5"), lambda: p.enqueue_delayed(1, None)],
        "at": [lambda: p.enqueue(1, at=5), lambda: p.enqueue_batch([1], at="2030-01-01")],
        "delay, at": [lambda: p.enqueue(1, delay=5, at=NOW)],
        "priority": [lambda: p.enqueue(1, priority=3), lambda: p.enqueue_batch([1], priority=None)],
        "payloads": [
            lambda: p.enqueue_batch("abc"),
            lambda: p.enqueue_batch({"a": 1}),
            lambda: p.enqueue_batch(3),
            lambda: p.enqueue_batch(b"abc"),
        ],
        "max_age": [lambda: p.is_healthy("1")],
        "reason": [lambda: outcome.dead_letter(None)],
        "message": [lambda: admin.cancel("tasks", "3"), lambda: admin.requeue("tasks", None)],
        "worker": [lambda: admin.worker("3"), lambda: admin.suspend_worker(1.0)],
        "time": [lambda: admin.reschedule("tasks", 3, 5)],
        "older_than": [lambda: admin.requeue_all("tasks", older_than="1")],
        "after": [lambda: admin.messages("tasks", after="1")],
        "limit": [lambda: admin.dead_letters("tasks", limit="1")],
        "payload": [lambda: admin.archived("tasks", payload=1)],
        "max_attempts": [lambda: admin.configure_queue("tasks", max_attempts="3")],
        "name": [lambda: queue(3)],
        "first": [lambda: policy(first="1")],
        "factor": [lambda: policy(factor="1")],
        "cap": [lambda: policy(cap=None)],
        "jitter": [lambda: policy(jitter=True)],
        "connection": [lambda: pgqrs.enqueue_in(object(), "tasks", 1)],  # type: ignore[call-overload]
    }
    for name, calls in mistakes.items():
        for call in calls:
            error = await raised(call)
            assert type(error) is TypeError, f"{name}: {error!r}"
            assert str(error).startswith(f"{name}: "), f"{name}: {error!r}"
    assert database.count() == 0


async def test_each_argument_out_of_its_range_is_named(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    naive = datetime(2030, 1, 1)
    p: Any = producer
    consumer = await store.consumer("tasks")

    async def handle(delivery: Any) -> None:
        pass

    mistakes: dict[str, list[Callable[[], Any]]] = {
        "max_connections": [lambda: pgqrs.connect(database.url, max_connections=0)],
        "acquire_timeout": [lambda: pgqrs.connect(database.url, acquire_timeout=-1)],
        "port": [
            lambda: store.producer("tasks", "host", -1),
            lambda: store.consumer("tasks", hostname="host", port=65_536),
        ],
        "concurrency": [
            lambda: consumer.run(handle, concurrency=0),
            lambda: consumer.deliveries(concurrency=0),
        ],
        "delay": [
            lambda: producer.enqueue(1, delay=-1),
            lambda: producer.enqueue(1, delay=-0.001),
            lambda: producer.enqueue(1, delay=timedelta(seconds=-1)),
            lambda: producer.enqueue_batch([1], delay=-1),
            lambda: producer.enqueue(1, delay=float("nan")),
            lambda: producer.enqueue(1, delay=float("inf")),
            lambda: producer.enqueue(1, delay=1e30),
        ],
        "delay_seconds": [lambda: producer.enqueue_delayed(1, -5)],
        "at": [lambda: producer.enqueue(1, at=naive), lambda: producer.enqueue_batch([1], at=naive)],
        "priority": [lambda: p.enqueue(1, priority="highest")],
        "time": [lambda: store.admin().reschedule("tasks", 1, naive)],
        "limit": [lambda: store.admin().messages("tasks", limit=-1)],
    }
    for name, calls in mistakes.items():
        for call in calls:
            error = await raised(call)
            assert type(error) is ValueError, f"{name}: {error!r}"
            assert str(error).startswith(f"{name}: "), f"{name}: {error!r}"
    assert "time zone" in str(await raised(lambda: producer.enqueue(1, at=naive)))
    assert database.count() == 0


async def test_names_and_hosts_that_can_not_be_are_refused(store: pgqrs.Store) -> None:
    for name in ("", " tasks", "a\nb", "x" * 129):
        with pytest.raises(pgqrs.InvalidQueueNameError) as error:
            pgqrs.Queue(name)
        assert error.value.name == name
        with pytest.raises(pgqrs.InvalidQueueNameError):
            await store.producer(name)
    with pytest.raises(pgqrs.InvalidHostnameError):
        await store.producer("tasks", "")

    async def handle(delivery: Any) -> None:
        raise AssertionError

    with pytest.raises(pgqrs.InvalidHostnameError):
        await store.consumer("tasks", hostname="a\nb")
    with pytest.raises(pgqrs.LeaseOutOfRangeError) as lease:
        await (await store.consumer("tasks")).run(handle, lease=timedelta(days=2))
    assert (lease.value.lease, lease.value.longest) == (172_800, 86_400)
    with pytest.raises(pgqrs.LeaseOutOfRangeError):
        await anext((await store.consumer("tasks")).deliveries(lease=0))
    with pytest.raises(pgqrs.DelayTooLongError):
        await (await store.producer("tasks")).enqueue(1, delay=timedelta.max)


async def test_a_typed_queue_refuses_another_payload_at_run_time_too(
    store: pgqrs.Store, database: Database
) -> None:
    producer: Any = await store.producer(pgqrs.Queue("tasks", dict))
    with pytest.raises(TypeError, match="payload: queue `tasks` carries dict, not list"):
        await producer.enqueue([])
    with pytest.raises(TypeError, match=r"payloads\[1\]: queue `tasks` carries dict, not str"):
        await producer.enqueue_batch([{}, "a"])
    assert database.count() == 0


def test_two_event_loops_can_use_one_store(database: Database) -> None:
    """One after the other, and at once, in two threads."""

    async def connected() -> tuple[pgqrs.Store, pgqrs.Producer[Any]]:
        store = await pgqrs.connect(database.url)
        await store.queue("tasks")
        return store, await store.producer("tasks")

    store, producer = asyncio.run(connected())

    async def send(start: int) -> list[int]:
        return await asyncio.gather(*(producer.enqueue(n) for n in range(start, start + 100)))

    assert len(asyncio.run(send(0))) == 100
    ids: list[int] = []
    threads = [
        threading.Thread(target=lambda start=start: ids.extend(asyncio.run(send(start))))
        for start in (100, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 200
    assert sorted(int(text) for text in database.payloads()) == list(range(300))

    async def receive() -> None:
        consumer = await store.consumer("tasks")
        for _ in range(300):
            delivery = await anext(consumer)
            await delivery.ack()
        assert database.count() == 0
        await store.close()

    asyncio.run(receive())


def test_a_loop_that_ends_in_the_middle_of_a_send_harms_no_other(database: Database) -> None:
    async def connected() -> tuple[pgqrs.Store, pgqrs.Producer[Any]]:
        store = await pgqrs.connect(database.url)
        await store.queue("tasks")
        return store, await store.producer("tasks")

    store, producer = asyncio.run(connected())

    async def abandon() -> None:
        sends = [asyncio.ensure_future(producer.enqueue(n)) for n in range(100)]
        await asyncio.sleep(0)
        assert not all(send.done() for send in sends)

    asyncio.run(abandon())
    asyncio.run(producer.enqueue("goes on"))  # type: ignore[arg-type]
    asyncio.run(store.close())
    assert '"goes on"' in database.payloads()


def test_times_that_python_has_not_are_the_nearest_it_has(
    database: Database, sync_store: pgqrs.sync.Store
) -> None:
    producer = sync_store.producer("tasks")
    admin = sync_store.admin()
    for by_hand in ["-infinity", "infinity", "12000-01-01"]:
        message = producer.enqueue("by hand")
        database.change("update pgqrs.messages set visible_at = %s where id = %s", by_hand, message)
    years = [message.visible_at.year for message in admin.messages("tasks")]
    assert years == [1, 9999, 9999]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_after_a_fork_the_child_must_connect_again_and_can(database: Database) -> None:
    """In a process of its own, since this one has other threads."""
    program = """
        import asyncio, os, sys, warnings
        import pgqrs, pgqrs.sync
        warnings.simplefilter("ignore", DeprecationWarning)
        url = sys.argv[1]
        store = pgqrs.sync.connect(url)
        store.queue("tasks")
        producer = store.producer("tasks")
        consumer = store.consumer("tasks")
        producer.enqueue("parent")

        async def in_loop():
            return await pgqrs.connect(url)

        awaited = asyncio.run(in_loop())

        def refused(call):
            try:
                call()
            except pgqrs.ForkedError as error:
                assert error.connected_in == os.getppid()
            else:
                raise AssertionError("not refused")

        child = os.fork()
        if child == 0:
            try:
                refused(lambda: producer.enqueue("child"))
                refused(lambda: store.queue("tasks"))
                refused(lambda: consumer.status())
                refused(lambda: next(consumer))
                refused(lambda: asyncio.run(awaited.queue("tasks")))
                del awaited
                with pgqrs.sync.connect(url) as own:
                    own.producer("tasks").enqueue("child")

                async def own_loop():
                    async with await pgqrs.connect(url) as own:
                        await (await own.producer("tasks")).enqueue("child, awaited")

                asyncio.run(own_loop())
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        producer.enqueue("parent again")
        store.close()
        asyncio.run(awaited.close())
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), database.url],
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    # Each process has keys of its own, drawn ahead.
    assert sorted(database.payloads()) == ['"child"', '"child, awaited"', '"parent again"', '"parent"']


def test_ctrl_c_ends_a_blocking_call(database: Database) -> None:
    with pgqrs.sync.connect(database.url) as store:
        store.queue("tasks")
        consumer = store.consumer("tasks")
        timer = threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(consumer)
        assert time.monotonic() - started < 5


def test_ctrl_c_ends_an_async_program(database: Database) -> None:
    async def program() -> None:
        async with await pgqrs.connect(database.url) as store:
            await store.queue("tasks")
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            await anext(await store.consumer("tasks"))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(program())


def variants() -> set[str]:
    """Of the Rust crate's error, as its reviewed surface lists them."""
    surface = Path(__file__).parents[2] / "docs" / "public-api.txt"
    _, after = surface.read_text().split("enum pgqrs::Error\n", 1)
    body, _ = after.split("    derive", 1)
    return {match[1] for match in re.finditer(r"^    (\w+)", body, re.MULTILINE)}


def test_each_variant_of_the_crates_error_has_a_class_and_none_hides_a_builtin() -> None:
    import builtins

    from pgqrs import errors

    classes = {name for name in errors.__all__ if name != "Error"}
    own = {"ForkedError", "AlreadySettledError", "NotSettledError"}
    # Keys are computed here, from the payloads themselves.
    never = {"Unkeyed"}
    assert classes == {f"{variant}Error" for variant in variants() - never} | own
    for name in errors.__all__:
        assert issubclass(getattr(pgqrs, name), pgqrs.Error)
        assert not hasattr(builtins, name)
        assert getattr(errors, name).__doc__


def test_errors_travel_between_processes_with_their_fields() -> None:
    with pytest.raises(pgqrs.InvalidQueueNameError) as error:
        pgqrs.Queue(" ")
    again = pickle.loads(pickle.dumps(error.value))
    assert (type(again), str(again), again.name) == (type(error.value), str(error.value), " ")
