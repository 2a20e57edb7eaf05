"""Groups: one message of each is on its way at a time, in the order in which they were sent."""

from __future__ import annotations

from datetime import timedelta

import pytest

import pgqrs


async def handled(store: pgqrs.Store, count: int) -> list[tuple[str | None, int]]:
    """What a consumer gets, one after the other."""
    seen: list[tuple[str | None, int]] = []
    consumer = await store.consumer("tasks")
    async for delivery in consumer:
        seen.append((delivery.group, delivery.payload))
        await delivery.ack()
        if len(seen) == count:
            break
    return seen


async def test_messages_of_a_group_are_handled_in_their_order(store: pgqrs.Store) -> None:
    queue = await store.admin().configure_queue("tasks", groups_at_once=1)
    assert (queue.groups_at_once, queue.stops_after_dead_letter) == (1, False)
    producer = await store.producer("tasks")
    for number in range(3):
        await producer.enqueue(number, group="a")
    await producer.enqueue_batch([pgqrs.Message(10, group="b"), pgqrs.Message(3, group="a"), 20])
    seen = await handled(store, 6)
    assert [number for group, number in seen if group == "a"] == [0, 1, 2, 3]
    assert sorted(number for group, number in seen if group != "a") == [10, 20]


async def test_a_queue_computes_the_group_of_each_message(store: pgqrs.Store) -> None:
    await store.admin().configure_queue("tasks", groups_at_once=2, stops_after_dead_letter=True)
    numbers = pgqrs.Queue("tasks", int, group_by=lambda n: f"group {n % 2}")
    producer = await store.producer(numbers)
    await producer.enqueue(1)
    await producer.enqueue_batch([2, pgqrs.Message(3, delay=timedelta(0))])
    seen = await handled(store, 3)
    assert sorted(seen, key=lambda one: one[1]) == [("group 1", 1), ("group 0", 2), ("group 1", 3)]
    with pytest.raises(TypeError, match="computes the group"):
        await producer.enqueue(1, group="mine")
    with pytest.raises(TypeError, match="a key or a group"):
        pgqrs.Queue("tasks", int, unique_by=str, group_by=str)


async def test_operators_list_stop_limit_and_purge_groups(store: pgqrs.Store) -> None:
    admin = store.admin()
    await admin.configure_queue("tasks", groups_at_once=1, stops_after_dead_letter=True)
    producer = await store.producer("tasks")
    await producer.enqueue_batch(
        [pgqrs.Message(number, group=group) for group in "ab" for number in range(2)]
    )
    await producer.enqueue(2, group="b")
    listed = await admin.groups("tasks")
    assert [(group.group, group.live, group.parked) for group in listed] == [("b", 1, 2), ("a", 1, 1)]
    assert listed[0].oldest_parked is not None
    messages = await admin.messages("tasks")
    assert [(message.group, message.is_parked) for message in messages[:2]] == [("a", False), ("a", True)]
    await admin.set_group_limit("tasks", "b", 2)
    await admin.promote_groups("tasks")
    group = await admin.group("tasks", "b")
    assert group is not None
    assert (group.live, group.parked, group.at_once) == (2, 1, 2)
    assert await admin.purge_group("tasks", "b") == 1
    await admin.set_group_limit("tasks", "b", None)
    await admin.stop_group("tasks", "a")
    assert [group.group for group in await admin.groups("tasks", order="stopped", limit=1)] == ["a"]
    stats = await admin.queue_stats("tasks")
    assert (stats.ready, stats.parked, stats.total, stats.stopped_groups) == (3, 1, 4, 1)
    assert await admin.resume_group("tasks", "a")
    assert not await admin.resume_group("tasks", "a")
    assert await admin.group("tasks", "nobody") is None
    with pytest.raises(ValueError, match="order"):
        await admin.groups("tasks", order="none")  # type: ignore[arg-type]
    with pytest.raises(pgqrs.QueueNotFoundError):
        await admin.promote_groups("absent")


async def test_a_queue_limits_what_runs(store: pgqrs.Store) -> None:
    admin = store.admin()
    queue = await admin.configure_queue("tasks", max_running=2)
    assert (queue.max_running, queue.groups_at_once) == (2, None)
    producer = await store.producer("tasks")
    await producer.enqueue_batch(list(range(5)))
    consumer = await store.consumer("tasks")
    seen = 0
    async for delivery in consumer:
        stats = await admin.queue_stats("tasks")
        assert stats.leased <= 2
        await delivery.ack()
        seen += 1
        if seen == 5:
            break
    assert (await admin.configure_queue("tasks", max_attempts=3)).max_running == 2
    assert (await admin.configure_queue("tasks", max_running=None)).max_running is None


async def test_a_queue_limits_what_starts_within_a_time(store: pgqrs.Store) -> None:
    admin = store.admin()
    rate = pgqrs.Rate(1, per=timedelta(hours=1))
    queue = await admin.configure_queue("tasks", rate=rate)
    assert (queue.rate, queue.max_running, queue.slowed_until) == (rate, None, None)
    producer = await store.producer("tasks")
    await producer.enqueue_batch(list(range(3)))
    consumer = await store.consumer("tasks")
    async for delivery in consumer:
        await delivery.ack()
        break
    assert (await admin.queue_stats("tasks")).leased == 0
    assert (await admin.configure_queue("tasks", max_attempts=3)).rate == rate
    assert (await admin.configure_queue("tasks", rate=None)).rate is None
    await admin.configure_queue("tasks", groups_at_once=2, groups_rate=rate)
    await admin.set_group_rate("tasks", "a", pgqrs.Rate(5, per=60))
    group = await admin.group("tasks", "a")
    assert group is not None and group.rate == pgqrs.Rate(5, per=timedelta(minutes=1))
    assert (await admin.queue("tasks")).groups_rate == rate
    with pytest.raises(TypeError, match="groups_at_once"):
        await admin.configure_queue("tasks", groups_rate=rate)
    with pytest.raises(TypeError, match=r"pgqrs\.Rate"):
        await admin.configure_queue("tasks", rate=5)  # type: ignore[arg-type]
    with pytest.raises(pgqrs.InvalidSettingError):
        await admin.configure_queue("tasks", rate=pgqrs.Rate(1, per=0))


async def test_a_handler_slows_its_queue_down(store: pgqrs.Store) -> None:
    admin = store.admin()
    producer = await store.producer("tasks")
    await producer.enqueue_batch(list(range(5)))

    async def busy(_: pgqrs.Delivery) -> pgqrs.Outcome:
        consumer.stop()
        return pgqrs.Outcome.slow_down(timedelta(hours=1))

    consumer = await store.consumer("tasks")
    report = await consumer.run(busy, concurrency=1)
    assert (report.snoozed, report.done, report.retried) == (1, 0, 0)
    assert (await admin.queue("tasks")).slowed_until is not None
    await admin.resume_queue("tasks")
    assert (await admin.queue("tasks")).slowed_until is None
    consumer = await store.consumer("tasks")
    async for delivery in consumer:
        await delivery.slow_down(3_600)
        break
    assert (await admin.queue("tasks")).slowed_until is not None
    assert (await admin.queue_stats("tasks")).delayed == 2


async def test_a_queue_without_groups_refuses_them(store: pgqrs.Store) -> None:
    producer = await store.producer("tasks")
    with pytest.raises(pgqrs.GroupsNotEnabledError, match="takes no messages of groups") as refused:
        await producer.enqueue(1, group="a")
    assert refused.value.queue == "tasks"
    with pytest.raises(TypeError, match="one key or group"):
        await producer.enqueue(1, group="a", unique="a")
