"""Health, counts of messages, and observers."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import pgqrs
import pgqrs.sync

from .conftest import Database, until


async def test_a_new_database_has_no_findings(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue_batch([1, 2])
    health = await store.admin().health()
    assert health.findings == [] and health.severity is None
    assert str(health) == health.report and "OK" in health.report
    assert [(queue.stats.queue, queue.stats.ready) for queue in health.queues] == [
        ("emails", 0),
        ("tasks", 2),
    ]
    assert health.schema is not None and health.schema.state == "up_to_date"
    assert {table.name for table in health.tables} >= {"messages", "workers"}
    assert health.connections is not None
    assert 0 < health.connections.used < health.connections.limit
    assert health.database == database.url.rsplit("/", 1)[1]


async def test_an_idle_transaction_is_found_with_its_pid(store: pgqrs.Store, database: Database) -> None:
    with psycopg.connect(database.url) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("select 'seen'")
        health = await store.admin().health()
        assert health.horizon is not None
        pids = {holder.pid: holder for holder in health.horizon.holders}
        holder = pids[other.info.backend_pid]
        assert (holder.source, holder.state, holder.query) == (
            "session",
            "idle in transaction",
            "select 'seen'",
        )
        assert holder.held_for is not None and holder.held_for <= health.horizon.held_for
        assert isinstance(health.horizon.transactions, int)


async def test_each_finding_has_its_subject(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    await producer.enqueue(1)
    database.change("update pgqrs.messages set visible_at = visible_at - interval '2 hours'")
    database.change("update pgqrs.workers set heartbeat_at = heartbeat_at - interval '3 hours'")
    health = await store.admin().health()
    backlog, silent = health.findings
    assert health.severity == backlog.severity == "critical" and backlog.kind == "backlog"
    assert isinstance(backlog.subject, pgqrs.QueueHealth) and backlog.subject.stats.queue == "tasks"
    assert silent.severity == "warning" and silent.kind == "missed_heartbeats"
    assert isinstance(silent.subject, pgqrs.StaleWorker) and silent.subject.worker.id == producer.id
    assert silent.subject.last_heartbeat >= timedelta(hours=3)
    assert "start a consumer" in backlog.remedy and str(backlog) == backlog.summary


def test_health_blocks_in_sync(sync_store: pgqrs.sync.Store) -> None:
    assert sync_store.admin().health().findings == []


async def test_counts_stop_at_a_limit_and_say_so(store: pgqrs.Store, database: Database) -> None:
    admin = store.admin()
    database.change(
        """insert into pgqrs.messages (queue_id, priority, payload)
           select id, 2, '1' from pgqrs.queues, generate_series(1, 10001) where name = 'tasks'"""
    )
    stats = await admin.queue_stats("tasks")
    assert (str(stats.ready), f"{stats.total}", str(stats.delayed)) == ("10,000+", "10,000+", "0")
    assert stats.ready == 10_000 and stats.ready.at_least and not stats.delayed.at_least
    exact = await admin.exact_queue_stats("tasks")
    assert (str(exact.ready), exact.ready.at_least) == ("10,001", False)
    assert repr(exact.ready) == "Count(10001, at_least=False)"
    every = await admin.all_queue_stats()
    assert [stats.queue for stats in every] == ["emails", "tasks"]


async def test_an_observer_reads_at_once_and_again(store: pgqrs.Store, producer: pgqrs.Producer[Any]) -> None:
    async with await store.observe(1) as observer:
        latest = observer.latest()
        assert latest is not None and [stats.ready for stats in latest.queues] == [0, 0]
        await producer.enqueue(1)

        async def counted() -> bool:
            return (await observer.changed()).queues[1].ready == 1

        await until("the message is counted", counted)
        assert observer.error() is None
    with pytest.raises(pgqrs.ClosedError):
        await observer.changed()


def test_an_observer_blocks_in_sync_and_ends_with_its_store(database: Database) -> None:
    with pgqrs.sync.connect(database.url) as store:
        observer = store.observe(timedelta(seconds=1))
        assert observer.changed().at is not None
    with pytest.raises(pgqrs.ClosedError):
        observer.changed()


def test_a_process_that_observes_can_end(database: Database) -> None:
    script = (
        f"import pgqrs.sync; o = pgqrs.sync.connect({database.url!r}).observe(60); print(o.latest().queues)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[]\n", "")
