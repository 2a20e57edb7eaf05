"""Messages with keys, and with options of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import pgqrs

from .conftest import Database


async def test_a_second_message_with_a_key_is_a_duplicate(producer: pgqrs.Producer[Any]) -> None:
    first = await producer.enqueue({"n": 1}, unique="a")
    assert (first.new, first.same_payload) == (True, None)
    second = await producer.enqueue({"n": 1}, unique="a")
    assert (second, second.new, second.same_payload) == (first, False, True)
    third = await producer.enqueue({"n": 2}, unique="a")
    assert (third, third.new, third.same_payload) == (first, False, False)
    plain = await producer.enqueue({"n": 1})
    assert plain.new and plain != first
    window = await producer.enqueue({"n": 1}, once_within=("a", timedelta(hours=1)))
    assert window.new
    assert not (await producer.enqueue({"n": 1}, once_within=("a", 3600))).new


async def test_a_message_that_waits_is_replaced_postponed_or_appended_to(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    first = await producer.enqueue(["a"], unique_until_claimed="k")
    second = await producer.enqueue(["b"], unique_until_claimed="k", on_duplicate="append")
    assert second == first and not second.new
    assert database.payloads() == ['["a","b"]']
    await producer.enqueue(["c"], unique_until_claimed="k", on_duplicate="replace")
    await producer.enqueue(["d"], unique_until_claimed="k", on_duplicate="postpone", max_wait=60, delay=60)
    assert database.payloads() == ['["c"]']


async def test_a_batch_has_messages_that_each_ask_for_something_else(
    producer: pgqrs.Producer[Any], database: Database
) -> None:
    sent = await producer.enqueue_batch(
        [
            pgqrs.Message("one", unique="a", priority="urgent", headers={"tenant": "acme"}),
            "two",
            pgqrs.Message("one", unique="a"),
            pgqrs.Message(
                "three", delay=60, max_attempts=3, expires_in=timedelta(hours=1), drop_if_expired=True
            ),
        ],
        headers={"trace": "7"},
        max_attempts=5,
    )
    assert [one.new for one in sent] == [True, True, False, True]
    assert sent[2] == sent[0] and sent[2].same_payload
    stored = database.rows(
        """select payload ->> 0, priority, max_attempts, headers::text, drop_if_expired is true,
               expires_at = enqueued_at + interval '1 hour'
           from (select json_build_array(payload) as payload, id, priority, max_attempts, headers, drop_if_expired,
               expires_at, enqueued_at from pgqrs.messages) m order by id"""
    )
    trace = '{"trace":"7"}'
    assert stored == [
        ("one", 0, 5, '{"tenant":"acme","trace":"7"}', False, None),
        ("two", 2, 5, trace, False, None),
        ("three", 2, 3, trace, True, True),
    ]


async def test_no_send_to_a_queue_with_keys_can_forget_them(store: pgqrs.Store, database: Database) -> None:
    numbers = pgqrs.Queue("tasks", int, unique_by=lambda n: f"number {n % 10}")
    await store.queue(numbers)
    producer = await store.producer(numbers)
    first = await producer.enqueue(7)
    assert (await producer.enqueue(17)) == first
    sent = await producer.enqueue_batch([27, 8, pgqrs.Message(7, unique="own"), pgqrs.Message(8, delay=60)])
    assert [one.new for one in sent] == [False, True, True, False]
    with pytest.raises(TypeError, match="keys"):
        pgqrs.enqueue_in(object(), numbers, 9)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unique_by"):
        pgqrs.Queue("tasks", int, unique_by="n")  # type: ignore[call-overload]
    assert sorted(database.payloads()) == ["7", "7", "8"]


async def test_a_message_is_not_stored_as_a_payload(producer: pgqrs.Producer[Any]) -> None:
    with pytest.raises(TypeError, match=r"pgqrs\.Message"):
        await producer.enqueue(pgqrs.Message("one", unique="a"))
    with pytest.raises(TypeError, match=r"pgqrs\.Message"):
        pgqrs.enqueue_in(object(), "tasks", pgqrs.Message("one"))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"unique": "a", "once_within": ("a", 1)}, TypeError),
        ({"unique": "a", "on_duplicate": "replace"}, TypeError),
        ({"unique_until_claimed": "a", "on_duplicate": "swap"}, ValueError),
        ({"unique_until_claimed": "a", "on_duplicate": "postpone"}, TypeError),
        ({"unique_until_claimed": "a", "max_wait": 1}, TypeError),
        ({"once_within": "a"}, TypeError),
        ({"unique": 7}, TypeError),
        ({"max_attempts": 0}, ValueError),
        ({"unique": ""}, pgqrs.InvalidKeyError),
        ({"unique": "a\0"}, pgqrs.InvalidKeyError),
    ],
)
async def test_bad_options_are_refused(
    producer: pgqrs.Producer[Any], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await producer.enqueue("a payload", **options)


async def test_a_dead_letter_whose_key_another_has_stays_one(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], database: Database
) -> None:
    first = await producer.enqueue("one", unique="a")
    database.change(
        """with dead as (delete from pgqrs.messages returning *)
           insert into pgqrs.dead_letters (queue_id, priority, id, enqueued_at, attempt, unique_key, payload, reason)
           select queue_id, priority, id, enqueued_at, attempt, unique_key, payload, 'a reason' from dead"""
    )
    assert (await producer.enqueue("two", unique="a")).new
    assert await store.admin().requeue("tasks", first) == pgqrs.Requeued(back=0, held=1)
    assert await store.admin().requeue_all("tasks") == pgqrs.Requeued(back=0, held=1)
    database.change("delete from pgqrs.messages")
    assert await store.admin().requeue("tasks", first) == pgqrs.Requeued(back=1, held=0)
