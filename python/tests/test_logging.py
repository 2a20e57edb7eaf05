"""The log: what the extension reports reaches `logging`, with its fields."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

import pgqrs
import pgqrs.sync
from pgqrs import _logging

from .conftest import Database, until


def records(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [record for record in caplog.records if getattr(record, "event", None) == event]


async def test_events_are_logged_with_their_fields_at_their_levels(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgqrs")
    message = await producer.enqueue("refused")
    consumer = await store.consumer("tasks", hostname="a host", port=7)

    async def handle(delivery: pgqrs.Delivery[Any]) -> pgqrs.Outcome:
        consumer.stop()
        if delivery.attempt == 1:
            raise LookupError("no such user")
        return pgqrs.Outcome.dead_letter("why")

    await consumer.run(handle)
    failed = records(caplog, "attempt failed")
    await until("it is logged", lambda: bool(records(caplog, "consumer stopped")))
    (failed,) = records(caplog, "attempt failed")
    assert (failed.levelno, failed.name) == (logging.WARNING, "pgqrs")
    assert (failed.queue, failed.message_id, failed.attempt) == ("tasks", message, 1)
    assert (failed.worker_id, failed.error) == (consumer.id, "LookupError: no such user")
    assert "queue=tasks" in failed.getMessage() and "error='LookupError: no such user'" in failed.getMessage()
    (registered,) = [one for one in records(caplog, "worker registered") if one.kind == "consumer"]
    assert (registered.levelno, registered.hostname, registered.port) == (logging.INFO, "a host", 7)
    (stopped,) = records(caplog, "consumer stopped")
    assert stopped.retried == 1


async def test_a_level_of_the_logger_holds_from_then_on(
    store: pgqrs.Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pgqrs")
    quiet = await store.producer("tasks", "quiet", 7)
    await quiet.shutdown()
    caplog.set_level(logging.INFO, "pgqrs")
    await store.producer("tasks", "loud", 7)
    await until("it is logged", lambda: bool(records(caplog, "worker registered")))
    hosts = [getattr(record, "hostname", None) for record in caplog.records]
    assert "quiet" not in hosts and "loud" in hosts


def test_blocking_calls_are_logged_too(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pgqrs")
    with pgqrs.sync.connect(database.url) as store:
        store.queue("tasks")
        store.producer("tasks", "blocking", 7)
        _logged(caplog, "worker registered", hostname="blocking")


def _logged(caplog: pytest.LogCaptureFixture, event: str, **fields: Any) -> None:
    deadline = threading.Event()
    for _ in range(2_000):
        for record in records(caplog, event):
            if all(getattr(record, name, None) == value for name, value in fields.items()):
                return
        deadline.wait(0.01)
    raise AssertionError(f"in vain: {event} {fields}")


def test_a_slow_handler_of_logging_delays_nothing_and_what_is_dropped_is_counted(database: Database) -> None:
    program = """
        import atexit, logging, sys, threading
        import pgqrs._logging, pgqrs.sync
        pgqrs._logging.CAPACITY = 20
        blocked, may_go_on, logged = threading.Event(), threading.Event(), []
        class Slow(logging.Handler):
            def emit(self, record):
                blocked.set()
                may_go_on.wait()
                logged.append(record)
        logging.getLogger("pgqrs").addHandler(Slow())
        logging.getLogger("pgqrs").setLevel(logging.INFO)
        with pgqrs.sync.connect(sys.argv[1]) as store:
            store.queue("tasks")
            store.producer("tasks")
            blocked.wait()
            # While the log stands still, calls go on.
            for _ in range(50):
                store.producer("tasks").enqueue(1)
            may_go_on.set()
        # As at the end of a process, which waits for the log.
        atexit._run_exitfuncs()
        dropped = sum(getattr(record, "dropped", 0) for record in logged)
        registered = [record for record in logged if record.event == "worker registered"]
        assert len(registered) <= 21 and dropped >= 30, (len(registered), dropped)
        assert len(registered) + dropped >= 51
        print("counted")
    """
    assert _run(program, database).stdout == "counted\n"
    assert database.count() == 50


def _run(program: str, database: Database) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), database.url],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran


def test_the_last_events_of_a_process_and_those_of_a_forked_child_are_logged(database: Database) -> None:
    program = """
        import logging, os, sys
        import pgqrs.sync
        logging.basicConfig(level="INFO", format="%(process)d %(message)s", stream=sys.stdout)
        def register():
            store = pgqrs.sync.connect(sys.argv[1], install=True)
            store.queue("tasks")
            store.producer("tasks", str(os.getpid()), 7)
        register()
        child = os.fork()
        if child == 0:
            register()
            sys.exit()
        os.waitpid(child, 0)
        print(os.getpid(), child)
    """
    ran = _run(program, database)
    lines = ran.stdout.splitlines()
    (both,) = [line.split() for line in lines if len(line.split()) == 2]
    for process in both:
        registered = [line for line in lines if f"hostname={process}" in line]
        assert [line.split()[0] for line in registered] == [process], ran.stdout


def test_fields_with_names_of_logging_itself_are_renamed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pgqrs")
    _logging._emit(logging.INFO, "text", {"message": 1, "error.type": "X", "name": "a b"})
    (record,) = records(caplog, "text")
    assert (vars(record)["pgqrs_message"], record.error_type, record.pgqrs_name) == (1, "X", "a b")
    assert record.getMessage() == "text  message=1 error.type=X name='a b'"
