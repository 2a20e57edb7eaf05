"""Schedules: installed, fired, and administered, async and blocking."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

import pgqrs
import pgqrs.sync

from .conftest import Database, until


def _due(database: Database, name: str) -> None:
    database.change("update pgqrs.schedules set next_at = now() where name = %s", name)


async def test_a_schedule_is_fired_by_a_consumer_and_its_delivery_has_the_time(
    store: pgqrs.Store, database: Database
) -> None:
    change = await store.schedule(
        "daily-report",
        "tasks",
        cron="0 9 * * MON-FRI",
        zone="Europe/Berlin",
        payload={"kind": "daily"},
        headers={"tenant": "acme"},
        priority="high",
        version=3,
    )
    assert change == "created"
    _due(database, "daily-report")
    consumer = await store.consumer("tasks")
    seen: list[pgqrs.Delivery[Any]] = []

    async def handle(delivery: pgqrs.Delivery[Any]) -> None:
        seen.append(delivery)
        consumer.stop()

    await consumer.run(handle)
    (delivery,) = seen
    assert delivery.payload == {"kind": "daily"}
    assert delivery.priority == pgqrs.Priority.HIGH
    assert delivery.headers["tenant"] == "acme"
    time = delivery.scheduled_for
    assert time is not None and time.tzinfo is not None
    assert abs(datetime.now(timezone.utc) - time) < timedelta(minutes=5)
    info = await store.admin().schedule("daily-report")
    assert info.last_at == time and info.lateness is not None and info.next_at > time
    assert (info.cron, info.every, info.zone, info.version) == ("0 9 * * MON-FRI", None, "Europe/Berlin", 3)


async def test_a_message_that_no_schedule_has_sent_has_no_such_time(
    store: pgqrs.Store, producer: pgqrs.Producer[Any]
) -> None:
    await producer.enqueue(1)
    consumer = await store.consumer("tasks")
    async for delivery in consumer:
        assert delivery.scheduled_for is None
        await delivery.ack()
        consumer.stop()


async def test_only_a_higher_version_replaces_one(store: pgqrs.Store) -> None:
    for version, payload, change in [
        (2, 1, "created"),
        (2, 2, "unchanged"),
        (1, 3, "unchanged"),
        (3, 4, "replaced"),
    ]:
        done = await store.schedule("poll", "tasks", every=30, payload=payload, version=version)
        assert done == change
    (info,) = await store.admin().schedules()
    assert (info.version, info.every, info.missed) == (3, timedelta(seconds=30), pgqrs.Missed.once())
    steps = [later - earlier for earlier, later in zip(info.upcoming, info.upcoming[1:], strict=False)]
    assert steps == [timedelta(seconds=30)] * 4 and info.upcoming[0] == info.next_at


async def test_an_owners_schedules_are_exactly_these(store: pgqrs.Store) -> None:
    def schedule(name: str) -> pgqrs.Schedule[int]:
        return pgqrs.Schedule(name, "tasks", payload=1, cron="@daily", missed=pgqrs.Missed.all(3))

    await store.schedule("alone", "tasks", cron="@daily", payload=1)
    changes = await store.replace_schedules("billing", [schedule("a"), schedule("b")], version=1)
    assert sorted(changes.created) == ["a", "b"]
    changes = await store.replace_schedules("billing", [schedule("b"), schedule("c")], version=2)
    assert (changes.created, changes.replaced, changes.deleted) == (["c"], ["b"], ["a"])
    changes = await store.replace_schedules("billing", [schedule("a")], version=1)
    assert changes.is_outdated
    names = [(info.owner, info.name) for info in await store.admin().schedules()]
    assert names == [(None, "alone"), ("billing", "b"), ("billing", "c")]
    with pytest.raises(pgqrs.ScheduleTakenError) as taken:
        await store.schedule("b", "tasks", cron="@daily", payload=1)
    assert (taken.value.schedule, taken.value.owner) == ("b", "billing")


async def test_a_schedule_is_paused_resumed_fired_and_deleted(store: pgqrs.Store, database: Database) -> None:
    admin = store.admin()
    schedule = pgqrs.Schedule(
        "poll", "tasks", payload=[1], every=timedelta(minutes=1), skip_if_unfinished=True
    )
    assert [await admin.set_schedule(schedule) for _ in range(2)] == ["created", "replaced"]
    await admin.pause_schedule("poll")
    assert (await admin.schedule("poll")).paused_at is not None
    assert await admin.fire_schedule("poll") is not None
    assert await admin.fire_schedule("poll") is None
    assert database.payloads() == ["[1]"]
    (firing,) = await admin.schedule_history("poll")
    assert (firing.scheduled_for, firing.queue, firing.outcome) == (None, "tasks", "ready")
    database.change("delete from pgqrs.messages where id = %s", firing.message)
    assert [firing.outcome for firing in await admin.schedule_history("poll")] == ["done"]
    await admin.resume_schedule("poll")
    assert (await admin.schedule("poll")).paused_at is None
    await admin.delete_schedule("poll")
    with pytest.raises(pgqrs.ScheduleNotFoundError):
        await admin.schedule_history("poll")
    with pytest.raises(pgqrs.ScheduleNotFoundError) as missing:
        await admin.schedule("poll")
    assert missing.value.schedule == "poll"


async def test_what_is_sent_has_the_key_of_its_queue_and_the_limits_of_its_schedule(
    store: pgqrs.Store, database: Database
) -> None:
    orders: pgqrs.Queue[int] = pgqrs.Queue("tasks", int, unique_by=lambda order: f"order-{order}")
    await store.schedule(
        "a", orders, every=60, payload=7, max_attempts=3, expires_in=60, drop_if_expired=True
    )
    await store.schedule("b", orders, every=60, payload=7, skip_if_unfinished=True)
    await store.schedule("c", orders, every=60, payload=7, unique="other")
    await store.schedule("d", "tasks", every=60, payload=7, skip_if_unfinished=True)
    admin = store.admin()
    infos = await admin.schedules()
    assert [info.unique_key for info in infos] == ["order-7", "order-7", "other", "pgqrs-schedule-d"]
    limits = (infos[0].max_attempts, infos[0].expires_in, infos[0].drop_if_expired)
    assert limits == (3, timedelta(minutes=1), True)
    assert await admin.fire_schedule("a") is not None
    assert await admin.fire_schedule("b") is None
    assert await admin.fire_schedule("c") is not None
    await admin.close_queue("tasks")
    with pytest.raises(pgqrs.QueueClosedError):
        await admin.fire_schedule("d")
    assert database.count() == 2


async def test_wrong_arguments_are_refused_with_their_names(store: pgqrs.Store) -> None:
    with pytest.raises(pgqrs.InvalidCronError, match="the hour `25` is not in 0-23") as invalid:
        await store.schedule("a", "tasks", cron="0 25 * * *", payload=1)
    assert invalid.value.expression == "0 25 * * *"
    with pytest.raises(pgqrs.InvalidCronError, match="never fires"):
        await store.schedule("a", "tasks", cron="0 0 30 2 *", payload=1)
    with pytest.raises(pgqrs.InvalidSettingError, match="zone"):
        await store.schedule("a", "tasks", cron="@daily", zone="Mars/Olympus", payload=1)
    with pytest.raises(pgqrs.QueueNotFoundError):
        await store.schedule("a", "no such queue", cron="@daily", payload=1)
    with pytest.raises(pgqrs.SerializeError):
        await store.schedule("a", "tasks", cron="@daily", payload=object())
    with pytest.raises(ValueError, match="max_attempts"):
        await store.schedule("a", "tasks", cron="@daily", payload=1, max_attempts=0)
    with pytest.raises(TypeError, match="cron, every"):
        await store.schedule("a", "tasks", payload=1)
    with pytest.raises(TypeError, match="cron, every"):
        await store.schedule("a", "tasks", cron="@daily", every=1, payload=1)
    with pytest.raises(ValueError, match="at_most"):
        pgqrs.Missed.all(0)
    wrong: Any = "once"
    with pytest.raises(TypeError, match="missed"):
        await store.schedule("a", "tasks", cron="@daily", payload=1, missed=wrong)
    typed = pgqrs.Queue("tasks", int)
    text: Any = "text"
    with pytest.raises(TypeError):
        await store.schedule("a", typed, cron="@daily", payload=text)


async def test_a_scheduler_fires_until_it_is_stopped(store: pgqrs.Store, database: Database) -> None:
    with await store.scheduler():
        await store.schedule("often", "tasks", every=0.1, payload=1)
        await until("it has fired", lambda: database.count() >= 2)


def test_the_same_without_await(sync_store: pgqrs.sync.Store, database: Database) -> None:
    assert sync_store.schedule("a", "tasks", cron="@hourly", payload=1) == "created"
    schedule = pgqrs.Schedule("b", "tasks", payload=1, every=60)
    assert sync_store.replace_schedules("me", [schedule]).created == ["b"]
    admin = sync_store.admin()
    assert [info.name for info in admin.schedules()] == ["a", "b"]
    admin.pause_schedule("a")
    assert admin.fire_schedule("a") is not None and database.count() == 1
    assert [firing.outcome for firing in admin.schedule_history("a")] == ["ready"]
    admin.resume_schedule("a")
    admin.delete_schedule("a")
    scheduler = sync_store.scheduler()
    scheduler.stop()
    scheduler.stop()
