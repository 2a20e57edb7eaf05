"""Payloads of types that JSON doesn't have: they come back as they were sent."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, Optional, TypedDict
from uuid import UUID

import msgspec
import pytest

import pgqrs

from .conftest import Database


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Address:
    street: str
    since: date


@dataclass
class Order:
    id: UUID
    at: datetime
    opens: time
    price: Decimal
    colour: Colour
    address: Address
    history: list[datetime]
    by: dict[str, UUID]
    until: Optional[date] = None  # noqa: UP045


class Visit(TypedDict):
    at: datetime
    id: UUID


class Point(msgspec.Struct):
    x: int
    at: datetime
    price: Decimal
    of: Colour = Colour.RED


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str


@dataclass
class Holder:
    point: Point


@dataclass
class Placed:
    order: int


@dataclass
class Cancelled:
    order: int
    reason: str


ID = UUID("12345678-1234-5678-1234-567812345678")
AT = datetime(2030, 1, 31, 12, 0, 0, 123456, timezone(timedelta(hours=2)))
ORDER = Order(
    id=ID,
    at=AT,
    opens=time(8, 30),
    price=Decimal("12345678901234567890.10"),
    colour=Colour.RED,
    address=Address("Main", date(2020, 2, 29)),
    history=[AT, AT.replace(tzinfo=None)],
    by={"ada": ID},
)
POINT = Point(1, AT, Decimal("12345678901234567890.10"))

VALUES: dict[str, tuple[Any, Any]] = {
    "datetime": (datetime, AT),
    "date": (date, date(2030, 1, 31)),
    "time": (time, time(12, 30, tzinfo=timezone.utc)),
    "UUID": (UUID, ID),
    "Decimal": (Decimal, Decimal("0.10")),
    "enum": (Colour, Colour.RED),
    "dataclass": (Order, ORDER),
    "list": (list[Order], [ORDER, ORDER]),
    "TypedDict": (Visit, {"at": AT, "id": ID}),
    "struct": (Point, POINT),
    "list of structs": (list[Point], [POINT]),
    "dataclass of a struct": (Holder, Holder(POINT)),
    "tagged struct": (Dog, Dog("rex")),
    "union": (Placed | Cancelled, Cancelled(7, "too late")),
    "union of times": (datetime | int, AT),
}


@pytest.mark.parametrize("kind", VALUES)
async def test_a_value_comes_back_as_it_was_sent(kind: str, store: pgqrs.Store) -> None:
    carries, value = VALUES[kind]
    queue: pgqrs.Queue[Any] = pgqrs.Queue("tasks", carries)
    await (await store.producer(queue)).enqueue(value)
    delivery = await anext(await store.consumer(queue))
    assert delivery.payload == value and type(delivery.payload) is type(value)
    await delivery.ack()


async def test_what_is_stored_is_readable_by_others(store: pgqrs.Store, database: Database) -> None:
    producer = await store.producer("tasks")
    await producer.enqueue({"at": AT, "id": ID, "pet": Dog("rex"), "on": date(2030, 1, 31)})
    assert database.payloads() == [
        '{"at":"2030-01-31T12:00:00.123456+02:00","id":"12345678-1234-5678-1234-567812345678",'
        '"pet":{"type":"Dog","name":"rex"},"on":"2030-01-31"}'
    ]


@pytest.mark.parametrize("carries", [set, bytes, complex, dict[int, str], list[bytes], timedelta, "a text"])
def test_a_type_that_json_does_not_have_is_refused_when_its_queue_is_declared(carries: Any) -> None:
    with pytest.raises(TypeError, match="can't be represented in JSON|the keys of a JSON object are text"):
        pgqrs.Queue("tasks", carries)


@dataclass
class Note:
    order: int
    text: str | None = None


@dataclass
class Bare:
    order: int


@dataclass
class Tagged:
    order: int
    kind: Literal["tagged"] = "tagged"


@dataclass
class Other:
    order: int
    kind: Literal["other"] = "other"


@pytest.mark.parametrize(
    "value", [Placed(7), Cancelled(7, "why"), Note(7), Note(7, "text"), Tagged(7), Other(7)]
)
async def test_a_member_of_a_union_comes_back_as_what_it_was(value: Any, store: pgqrs.Store) -> None:
    queue = pgqrs.Queue("tasks", Note | Placed | Tagged | Cancelled | Other)
    await (await store.producer(queue)).enqueue(value)
    delivery = await anext(await store.consumer(queue))
    assert delivery.payload == value
    await delivery.ack()


def test_a_union_whose_types_are_the_same_in_json_is_refused() -> None:
    with pytest.raises(TypeError, match="`Placed` and `Bare` have the same fields"):
        pgqrs.Queue("tasks", Placed | Bare)


def test_a_type_may_name_another_that_is_declared_after_it() -> None:
    queue = pgqrs.Queue("tasks", Early)
    assert queue._decoder()('{"later":{"at":"2030-01-31T12:00:00Z"}}') == Early(
        Later(datetime(2030, 1, 31, 12, tzinfo=timezone.utc))
    )


@dataclass
class Early:
    later: Later


@dataclass
class Later:
    at: datetime


@pytest.mark.parametrize(
    ("carries", "raw", "reason"),
    [
        (datetime, '"yesterday"', "payload: expected a time, as in 2030-01-31T12:00:00+00:00"),
        (datetime, "7", "payload: expected a time, as in 2030-01-31T12:00:00+00:00, not a number"),
        (Visit, '{"at":"2030-01-31T12:00:00Z","id":"x"}', "payload.id: expected a UUID"),
        (list[date], '["2030-02-31"]', r"payload\[0\]: expected a date"),
        (Point, '{"x":1}', "payload: Object missing required field"),
        (Holder, '{"point":{"x":"one"}}', "payload.point: Expected `int`, got `str`"),
    ],
)
def test_what_is_no_such_value_is_reported_with_its_place(carries: Any, raw: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("+", r"\+")):
        pgqrs.Queue("tasks", carries)._decoder()(raw)
