"""What goes in, and what comes out again: digit by digit, and refused if that isn't possible."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict

import pydantic
import pytest

import pgqrs
from pgqrs._pgqrs import encode

from .conftest import Database


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Item:
    name: str
    price: Decimal


@dataclass
class Order:
    number: int
    items: list[Item]
    note: str | None = None
    kind: ClassVar[str] = "order"
    tags: tuple[str, ...] = ()
    colour: Colour = Colour.RED


class Point(NamedTuple):
    x: int
    y: int


class Address(TypedDict, total=False):
    street: str
    number: int


class Model(pydantic.BaseModel):
    sender: str = pydantic.Field(alias="from")
    amount: Decimal
    share: float = 0.5


@pydantic.dataclasses.dataclass
class Checked:
    count: int


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0, "0"),
        (-(2**63), "-9223372036854775808"),
        (2**63, "9223372036854775808"),
        (10**400 + 1, "1" + "0" * 399 + "1"),
        (1.5, "1.5"),
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (1e300, "1e+300"),
        (5e-324, "5e-324"),
        (Decimal("1.10"), "1.10"),
        (Decimal("1E+400"), "1E+400"),
        (Decimal("-0.000000000000000000000000000001"), "-1E-30"),
        ("", '""'),
        ('"\\\n\x00é🦀', '"\\"\\\\\\n\\u0000é🦀"'),
        ([], "[]"),
        ([1, [2, (3,)]], "[1,[2,[3]]]"),
        ({}, "{}"),
        ({"b": 1, "a": {"c": None}}, '{"b":1,"a":{"c":null}}'),
        (Colour.RED, '"red"'),
        (Level.HIGH, "3"),
        (pgqrs.Priority.LOW, '"low"'),
        (Point(1, 2), "[1,2]"),
        (Address(street="High", number=3), '{"street":"High","number":3}'),
        (
            Order(7, [Item("tea", Decimal("2.50"))]),
            '{"number":7,"items":[{"name":"tea","price":2.50}],"note":null,"tags":[],"colour":"red"}',
        ),
        (Model(**{"from": "ada", "amount": "1.10"}), '{"from":"ada","amount":"1.10","share":0.5}'),
        (Checked(2), '{"count":2}'),
        ({"models": [Checked(1)]}, '{"models":[{"count":1}]}'),
    ],
)
def test_payloads_are_written_exactly(payload: Any, text: str) -> None:
    assert encode(payload) == text
    json.loads(text)


class Odd:
    pass


def endless() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


@pytest.mark.parametrize(
    ("payload", "path", "what"),
    [
        (float("nan"), "payload", "nan"),
        ({"items": [{}, {"price": float("inf")}]}, "payload.items[1].price", "inf"),
        (Decimal("NaN"), "payload", "NaN"),
        ([Decimal("-Infinity")], "payload[0]", "-Infinity"),
        ({"a b": {"1": Odd()}}, 'payload["a b"]["1"]', "`Odd`"),
        ({"when": __import__("datetime").timedelta(1)}, "payload.when", "`timedelta`"),
        ([b"bytes"], "payload[0]", "`bytes`"),
        ({"x": {1, 2}}, "payload.x", "`set`"),
        ({1: 2}, "payload", "key 1"),
        ({"a": {None: 2}}, "payload.a", "key None"),
        ("\ud800", "payload", "surrogate"),
        ({"a": ["\udfff"]}, "payload.a[0]", "surrogate"),
        (Order(1, [Item("tea", Decimal("NaN"))]), "payload.items[0].price", "NaN"),
        (Model.model_construct(sender="a", amount=Decimal(1), share=float("nan")), "payload.share", "nan"),
        (Item, "payload", "class"),
        ([10**5000], "payload[0]", "4300"),
        (lambda: None, "payload", "`function`"),
    ],
)
def test_what_json_cannot_represent_is_refused_with_its_place(payload: Any, path: str, what: str) -> None:
    with pytest.raises(pgqrs.SerializeError) as refused:
        encode(payload)
    assert refused.value.path == path
    assert refused.value.index == 0
    assert what in refused.value.reason
    assert str(refused.value) == f"{path}: {refused.value.reason}"


async def test_nothing_of_a_batch_is_sent_if_one_payload_is_refused(
    store: pgqrs.Store, database: Database
) -> None:
    producer = await store.producer("tasks")
    with pytest.raises(pgqrs.SerializeError) as refused:
        await producer.enqueue_batch([{"price": 1}, {"price": float("nan")}])
    assert refused.value.path == "payloads[1].price"
    assert refused.value.index == 1
    with pytest.raises(pgqrs.SerializeError):
        await producer.enqueue(object())
    assert database.count() == 0


def test_nesting_is_limited_to_what_consumers_can_read() -> None:
    def nested(depth: int) -> list[Any]:
        inside: list[Any] = []
        for _ in range(depth - 1):
            inside = [inside]
        return inside

    encode(nested(127))
    for deep in (nested(128), nested(100_000), endless()):
        with pytest.raises(pgqrs.PayloadTooDeepError) as refused:
            encode(deep)
        assert refused.value.limit == 127


async def test_a_payload_beyond_the_limit_is_refused_with_its_size(database: Database) -> None:
    async with await pgqrs.connect(database.url, payload_limit=10) as store:
        await store.queue("tasks")
        producer = await store.producer("tasks")
        with pytest.raises(pgqrs.PayloadTooLargeError) as refused:
            await producer.enqueue_batch(["short", "much too long"])
        assert (refused.value.index, refused.value.size, refused.value.limit) == (1, 15, 10)
        assert database.count() == 0


async def test_numbers_keep_their_digits_on_the_way(store: pgqrs.Store, database: Database) -> None:
    amounts = pgqrs.Queue("tasks", dict[str, Decimal])
    producer = await store.producer(amounts)
    exact = {"big": Decimal(10**60 + 1), "fraction": Decimal("0.1000000000000000000000000001")}
    await producer.enqueue(exact)
    assert database.payloads() == [f'{{"big":{10**60 + 1},"fraction":0.1000000000000000000000000001}}']
    consumer = await store.consumer(amounts)
    delivery = await anext(consumer)
    assert delivery.payload == exact
    assert str(delivery.payload["fraction"]) == "0.1000000000000000000000000001"
    await delivery.ack()


async def test_without_a_type_fractions_are_floats_and_integers_keep_their_size(
    store: pgqrs.Store, database: Database
) -> None:
    producer = await store.producer("tasks")
    await producer.enqueue({"n": 10**40, "x": Decimal("1.50"), "huge": Decimal("1e999")})
    consumer = await store.consumer("tasks")
    delivery = await anext(consumer)
    assert delivery.payload == {"n": 10**40, "x": 1.5, "huge": float("inf")}
    assert type(delivery.payload["x"]) is float
    assert delivery.raw_payload == f'{{"n":{10**40},"x":1.50,"huge":1E+999}}'
    await delivery.ack()


@dataclass
class Tree:
    name: str
    branches: list[Tree] = field(default_factory=list)


class Strict(TypedDict):
    name: str
    age: int | None


def decode(carries: Any) -> Callable[[str], Any]:
    return pgqrs.Queue("tasks", carries)._decoder()


@pytest.mark.parametrize(
    ("carries", "text", "value"),
    [
        (Item, '{"name":"tea","price":2.50}', Item("tea", Decimal("2.50"))),
        (Item, '{"name":"tea","price":2,"new":true}', Item("tea", Decimal(2))),
        (
            Order,
            '{"number":7,"items":[{"name":"tea","price":2.5}],"tags":["a"]}',
            Order(7, [Item("tea", Decimal("2.5"))], tags=("a",)),
        ),
        (Tree, '{"name":"a","branches":[{"name":"b"}]}', Tree("a", [Tree("b")])),
        (Strict, '{"name":"ada","age":null,"more":1}', {"name": "ada", "age": None}),
        (Address, "{}", {}),
        (float, "1", 1.0),
        (float, "1.25", 1.25),
        (int, "12345678901234567890", 12345678901234567890),
        (Decimal, "1.10", Decimal("1.10")),
        (str, '"a"', "a"),
        (bool, "true", True),
        (list, "[1.5,null]", [1.5, None]),
        (dict, '{"a":{"b":1.5}}', {"a": {"b": 1.5}}),
        (dict[str, list[int]], '{"a":[1]}', {"a": [1]}),
        (tuple[int, str], '[1,"a"]', (1, "a")),
        (int | None, "null", None),
        (int | str, '"a"', "a"),
        (Literal["a", 3], "3", 3),
        (Colour, '"red"', Colour.RED),
        (Model, '{"from":"ada","amount":"1.10"}', Model(**{"from": "ada", "amount": "1.10"})),
        (Checked, '{"count":3}', Checked(3)),
        (list[Checked], '[{"count":3}]', [Checked(3)]),
        (Any, "1.5", 1.5),
        (object, "[1.5]", [1.5]),
    ],
)
def test_payloads_are_read_as_the_type_of_their_queue(carries: Any, text: str, value: Any) -> None:
    read = decode(carries)(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("carries", "text", "reason"),
    [
        (Item, '{"name":"tea"}', "payload: `price` is missing"),
        (Item, '{"name":3,"price":1}', "payload.name: expected a string, not a number"),
        (Item, "[]", "payload: expected an object, not an array"),
        (
            Order,
            '{"number":1,"items":[{"name":"a","price":"1"}]}',
            "payload.items[0].price: expected a number",
        ),
        (Strict, '{"name":"ada"}', "payload: `age` is missing"),
        (Strict, '{"name":"ada","age":"3"}', "payload.age: none of its types fits"),
        (int, "1.5", "payload: expected an integer, not a number with a fraction"),
        (int, "true", "payload: expected an integer, not a boolean"),
        (float, '"1"', "payload: expected a number, not a string"),
        (bool, "1", "payload: expected a boolean, not a number"),
        (str, "null", "payload: expected a string, not null"),
        (list[int], "[1,{}]", "payload[1]: expected an integer, not an object"),
        (dict[str, int], '{"a":null}', "payload.a: expected an integer, not null"),
        (tuple[int, str], "[1]", "payload: expected an array of 2"),
        (Literal["a"], '"b"', "payload: expected one of 'a'"),
        (Colour, '"blue"', "payload: 'blue' is not a valid Colour"),
        (Model, '{"from":"ada"}', "payload: 1 validation error"),
        (list[Checked], '[{"count":"x"}]', "payload[0]: 1 validation error"),
        (Any, "1" * 5000, "payload: Exceeds the limit"),
    ],
)
def test_a_payload_of_another_type_is_reported_with_its_place(carries: Any, text: str, reason: str) -> None:
    with pytest.raises(ValueError) as mismatch:
        decode(carries)(text)
    assert str(mismatch.value).startswith(reason)


@dataclass
class Dated:
    when: __import__("datetime").datetime  # type: ignore[valid-type]


@pytest.mark.parametrize("carries", [bytes, set[int], dict[int, str], complex, Odd])
async def test_a_type_that_json_has_no_form_for_is_refused_before_anything_is_received(
    store: pgqrs.Store, carries: Any
) -> None:
    with pytest.raises(TypeError, match="payload: "):
        await store.consumer(pgqrs.Queue("tasks", carries))


def test_dataclass_fields_are_those_of_the_instance() -> None:
    assert [field.name for field in dataclasses.fields(Order)] == [
        "number",
        "items",
        "note",
        "tags",
        "colour",
    ]
