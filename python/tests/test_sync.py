"""The blocking twin: the same names, and what threads add."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import pgqrs
import pgqrs.sync
from pgqrs import Outcome
from pgqrs.sync import Delivery

from .conftest import Database


def test_it_has_the_same_names_and_arguments() -> None:
    for name in pgqrs.sync.__all__:
        assert name in pgqrs.__all__
        twin, other = getattr(pgqrs.sync, name), getattr(pgqrs, name)
        if not inspect.isclass(twin):
            continue
        renamed = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}
        renamed["__anext__"] = "__next__"
        own = {renamed.get(member, member) for member in vars(other)}
        assert {member for member in vars(twin) if not member.startswith("_")} <= own
        for member in sorted(own & set(vars(twin))):
            if inspect.isfunction(vars(twin)[member]) and not member.startswith("__"):
                ours = inspect.signature(vars(twin)[member]).parameters
                assert list(ours) == list(inspect.signature(getattr(other, member)).parameters), member
    assert inspect.signature(pgqrs.sync.connect).parameters == inspect.signature(pgqrs.connect).parameters


def test_the_twins_are_what_is_made_of_the_others() -> None:
    script = Path(__file__).parents[1] / "generate_sync.py"
    ran = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_producers(sync_store: pgqrs.sync.Store, database: Database) -> None:
    with sync_store.producer("tasks", "host", 7) as producer:
        first = producer.enqueue({"a": 1})
        second = producer.enqueue_delayed({"b": 2}, timedelta(seconds=5))
        ids = producer.enqueue_batch([3, 4], priority="high")
        assert producer.status() == "ready"
        producer.heartbeat()
        producer.suspend()
        with pytest.raises(pgqrs.WorkerSuspendedError):
            producer.enqueue(5)
        producer.resume()
    assert producer.status() == "stopped"
    assert [id for (id,) in database.rows("select id from pgqrs.messages order by id")] == [
        first,
        second,
        *ids,
    ]


def test_many_threads_share_statements(sync_store: pgqrs.sync.Store, database: Database) -> None:
    producer = sync_store.producer("tasks")
    with ThreadPoolExecutor(32) as threads:
        ids = list(threads.map(producer.enqueue, range(512)))
    stored = dict(database.rows("select id, payload::text from pgqrs.messages"))
    assert [int(stored[id]) for id in ids] == list(range(512))
    ((transactions,),) = database.rows("select count(distinct xmin::text) from pgqrs.messages")
    assert transactions < 512


def test_a_waiting_call_lets_other_threads_run(sync_store: pgqrs.sync.Store) -> None:
    """If it held the GIL, nothing would ever come to the consumer."""
    consumer = sync_store.consumer("tasks")
    producer = sync_store.producer("tasks")
    sender = threading.Timer(0.1, producer.enqueue, ("sent meanwhile",))
    sender.start()
    delivery = next(consumer)
    assert delivery.payload == "sent meanwhile"
    delivery.ack()
    sender.join()


def test_iteration(sync_store: pgqrs.sync.Store, database: Database) -> None:
    producer = sync_store.producer("tasks")
    producer.enqueue_batch(["a", "b", "c", "d"])
    got = []
    with sync_store.consumer("tasks") as consumer:
        for delivery in consumer:
            got.append(delivery.payload)
            delivery.extend(60)
            delivery.archive() if delivery.payload == "b" else delivery.ack()
            if len(got) == 3:
                break
        held = next(consumer)
        with pytest.raises(pgqrs.NotSettledError):
            next(consumer)
    assert got == ["a", "b", "c"]
    assert held.payload == "d"
    assert sync_store.admin().queue_stats("tasks").ready == 1
    assert len(sync_store.admin().archived("tasks")) == 1


def test_handlers_run_in_threads(sync_store: pgqrs.sync.Store, database: Database) -> None:
    producer = sync_store.producer("tasks")
    producer.enqueue_batch([*range(9), "raises", "dead", "later"])
    consumer = sync_store.consumer("tasks")
    together = threading.Barrier(3, timeout=20)
    left = 12
    lock = threading.Lock()

    def handle(delivery: Delivery[Any]) -> Outcome | None:
        nonlocal left
        with lock:
            left -= 1
            if left == 0:
                consumer.stop()
        if isinstance(delivery.payload, int):
            together.wait()
            return None
        if delivery.payload == "raises":
            raise LookupError("no such user")
        return Outcome.dead_letter("why") if delivery.payload == "dead" else Outcome.retry()

    report = consumer.run(handle, concurrency=3, retry=pgqrs.RetryPolicy.fixed(3_000))
    assert (report.done, report.dead, report.retried) == (9, 1, 2)
    with pytest.raises(pgqrs.WorkerStoppedError):
        consumer.run(handle)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_let_handlers_finish(database: Database, sync_store: pgqrs.sync.Store, number: int) -> None:
    sync_store.producer("tasks").enqueue_batch(range(5))
    program = """
        import os, sys, time
        import pgqrs.sync

        def handle(delivery):
            os.kill(os.getpid(), int(sys.argv[2]))
            time.sleep(0.1)
            print("handled", delivery.payload, flush=True)

        with pgqrs.sync.connect(sys.argv[1]) as store:
            consumer = store.consumer("tasks")
            try:
                print(consumer.run(handle, concurrency=1))
            except KeyboardInterrupt:
                print("interrupted")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), database.url, str(int(number))],
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    handled = ran.stdout.count("handled")
    assert handled >= 1
    assert ("interrupted" if number == signal.SIGINT else f"Report(done={handled}") in ran.stdout
    stats = sync_store.admin().queue_stats("tasks")
    assert (stats.ready, stats.leased) == (5 - handled, 0)


def test_a_handler_that_waits_for_a_thread_has_not_begun(
    sync_store: pgqrs.sync.Store, database: Database
) -> None:
    """Python can't break off a thread: one that takes too long stays busy, and others wait for it."""
    sync_store.admin().configure_queue("tasks", max_attempts=1)
    sync_store.producer("tasks").enqueue_batch(["blocks", "waits for the thread"])
    consumer = sync_store.consumer("tasks")

    def handle(delivery: Delivery[Any]) -> None:
        if delivery.payload == "blocks":
            time.sleep(2)
        else:
            consumer.stop()

    # It never comes to its end if what waits is a failed attempt.
    threading.Timer(30, consumer.stop).start()
    report = consumer.run(handle, concurrency=1, handler_timeout=0.5)
    assert (report.done, report.dead) == (1, 1)


def test_what_has_waited_for_a_thread_until_the_deadline_is_not_begun_any_more(
    sync_store: pgqrs.sync.Store, database: Database
) -> None:
    sync_store.producer("tasks").enqueue_batch(["blocks", "waits for the thread"])
    consumer = sync_store.consumer("tasks")
    called = []

    def handle(delivery: Delivery[Any]) -> None:
        called.append(delivery.payload)
        # Cut off, so that the next one is delivered, and then until after the handlers' part of the deadline.
        time.sleep(1)
        consumer.stop()
        time.sleep(4)

    retry = pgqrs.RetryPolicy.fixed(3_000)
    report = consumer.run(handle, concurrency=1, handler_timeout=0.2, retry=retry, shutdown_deadline=5)
    assert called == ["blocks"]
    assert (report.retried, report.released) == (1, 1)
    assert database.rows("select attempt from pgqrs.messages order by id") == [(1,), (0,)]


def test_administration(sync_store: pgqrs.sync.Store, database: Database) -> None:
    admin = sync_store.admin()
    assert admin.verify().state == "up_to_date"
    assert [queue.name for queue in admin.queues()] == ["emails", "tasks"]
    assert admin.create_queue("new").name == "new"
    with pytest.raises(pgqrs.QueueExistsError):
        admin.create_queue("new")
    assert admin.configure_queue("new", max_attempts=3).max_attempts == 3
    assert admin.queue("new").max_attempts == 3
    producer = sync_store.producer("new", "host", 3)
    ids = producer.enqueue_batch(range(4))
    with pytest.raises(pgqrs.QueueNotEmptyError) as full:
        admin.delete_queue("new")
    assert (full.value.queue, full.value.messages) == ("new", 4)
    assert [message.id for message in admin.messages("new", limit=2)] == ids[:2]
    assert [message.payload for message in admin.messages("new", after=ids[1], payload=True)] == [2, 3]
    assert admin.cancel("new", ids[0]) and not admin.cancel("new", ids[0])
    from datetime import datetime, timezone

    assert admin.reschedule("new", ids[3], datetime(2100, 1, 1, tzinfo=timezone.utc))
    stats = admin.queue_stats("new")
    assert (stats.ready, stats.delayed, stats.leased, stats.total) == (2, 1, 0, 3)
    assert stats.oldest_ready is not None and stats.oldest_ready < timedelta(minutes=1)

    consumer = sync_store.consumer("new", hostname="host", port=4)
    delivery = next(consumer)
    (held,) = admin.held_messages(consumer.id)
    assert (held.id, held.attempt) == (delivery.id, 1)
    delivery.dead_letter("why")
    consumer.shutdown()
    assert admin.dead_letter_count("new") == 1
    (letter,) = admin.dead_letters("new", payload=True)
    assert (letter.payload, letter.reason) == (1, "why")
    assert admin.requeue("new", letter.id).back == 1 and admin.requeue("new", letter.id).back == 0
    assert admin.requeue_all("new") == pgqrs.Requeued(0, 0)
    assert admin.purge_dead_letters("new") == admin.purge_archive("new") == 0

    assert {worker.kind for worker in admin.workers(queue="new")} == {"producer", "consumer"}
    (alive,) = admin.workers(queue="new", status="ready")
    assert alive == admin.worker(producer.id)
    assert [worker.id for worker in admin.workers(kind="consumer")] != [producer.id]
    admin.suspend_worker(producer.id)
    admin.resume_worker(producer.id)
    admin.stop_worker(producer.id)
    admin.remove_worker(producer.id)
    with pytest.raises(pgqrs.WorkerNotFoundError) as gone:
        admin.worker(producer.id)
    assert gone.value.worker == producer.id
    assert admin.remove_ended_workers() >= 1
    assert admin.release(producer.id) == 0 if admin.workers(queue="new") else True
    assert admin.purge_queue("new") == 3
    admin.delete_queue("new")


def test_a_store_that_is_closed_waits_for_what_was_done(
    sync_store: pgqrs.sync.Store, database: Database
) -> None:
    sync_store.producer("tasks").enqueue_batch(range(3))
    with pgqrs.sync.connect(database.url) as store:
        consumer = store.consumer("tasks")
        begun = threading.Event()
        go_on = threading.Event()

        def handle(delivery: Delivery[Any]) -> None:
            begun.set()
            assert go_on.wait(20)

        running = threading.Thread(target=consumer.run, args=(handle,), kwargs={"concurrency": 1})
        running.start()
        assert begun.wait(20)
        threading.Timer(0.1, go_on.set).start()
    running.join()
    stats = sync_store.admin().queue_stats("tasks")
    assert (stats.ready, stats.leased) == (2, 0)
