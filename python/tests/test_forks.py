"""Processes made by `fork`: each connects by itself, and none is taken for another."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from .conftest import Database

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

CHILDREN = 12
SENDS = 5


def run(program: str, database: Database) -> None:
    """In a process of its own, since this one has other threads."""
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), database.url, str(CHILDREN), str(SENDS)],
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


def expected() -> list[str]:
    return sorted(f'"{child}: {n}"' for child in range(CHILDREN) for n in range(SENDS))


def test_each_of_many_forks_of_a_connected_process_connects_and_sends(database: Database) -> None:
    program = """
        import os, sys, traceback, warnings
        import pgqrs.sync
        warnings.simplefilter("ignore", DeprecationWarning)
        url, children, sends = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        store = pgqrs.sync.connect(url)
        store.queue("tasks")
        failed = []
        for child in range(children):
            pid = os.fork()
            if pid == 0:
                try:
                    with pgqrs.sync.connect(url) as own:
                        producer = own.producer("tasks")
                        for n in range(sends):
                            producer.enqueue(f"{child}: {n}")
                        # Left to its lease, which outlasts the test.
                        next(own.consumer("tasks").deliveries(lease=600))
                        os._exit(0)
                except BaseException:
                    traceback.print_exc()
                os._exit(1)
            _, status = os.waitpid(pid, 0)
            if status != 0:
                failed.append(child)
        store.close()
        assert not failed, failed
    """
    run(program, database)
    assert sorted(database.payloads()) == expected()
    # Each has a writer of its own, and leases of its own.
    ((writers,),) = database.rows("select count(*) from pgqrs.writers")
    assert writers >= CHILDREN
    held = "from pgqrs.messages where lease_token <> 0"
    ((consumers,),) = database.rows(f"select count(distinct consumer_id) {held}")
    assert consumers == CHILDREN
    shared = f"select lease_token {held} group by lease_token having count(distinct consumer_id) > 1"
    assert not database.rows(shared)


def test_the_processes_of_a_multiprocessing_pool_connect_and_send(database: Database) -> None:
    program = """
        import multiprocessing, sys, warnings
        import pgqrs.sync
        warnings.simplefilter("ignore", DeprecationWarning)
        url, children, sends = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

        def work(child):
            with pgqrs.sync.connect(url) as own:
                producer = own.producer("tasks")
                for n in range(sends):
                    producer.enqueue(f"{child}: {n}")

        store = pgqrs.sync.connect(url)
        store.queue("tasks")
        with multiprocessing.get_context("fork").Pool(4) as pool:
            pool.map(work, range(children), chunksize=1)
        store.close()
    """
    run(program, database)
    assert sorted(database.payloads()) == expected()
