"""What type checkers say of an app's handlers. Never run, only read; marked as in `queues.py`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from typing_extensions import assert_never, assert_type

import pgqrs
import pgqrs.sync
from pgqrs import App, Delivery, Outcome, testing


@dataclass
class SendEmail:
    to: str


@dataclass
class Invoice:
    number: int


EMAILS = pgqrs.Queue("emails", SendEmail)
INVOICES = pgqrs.Queue("invoices", Invoice)
ANYTHING = pgqrs.Queue("anything")

app = App("postgresql://localhost/mydb", queues=[EMAILS, INVOICES], max_connections=20)
App(7)  # expect-error
App(max_conections=20)  # expect-error


@app.handler(EMAILS, concurrency=8, lease=timedelta(minutes=1))
async def send_email(delivery: Delivery[SendEmail]) -> None:
    print(delivery.payload.to)


@app.handler(INVOICES)
def print_invoice(delivery: pgqrs.sync.Delivery[Invoice]) -> Outcome | None:
    return Outcome.done() if delivery.payload.number else None


@app.handler(ANYTHING)
async def anything(delivery: Delivery[int]) -> Outcome | None:
    return None


@app.chunk_handler(EMAILS, size=100, wait=1)
async def send_all(chunk: pgqrs.Chunk[SendEmail]) -> None: ...


@app.chunk_handler(EMAILS, size=100, wait=1)
def send_all_blocking(chunk: pgqrs.Chunk[SendEmail]) -> None: ...


@app.handler(INVOICES)  # expect-error
async def of_another(delivery: Delivery[SendEmail]) -> None: ...


@app.handler(INVOICES)  # expect-error
def of_another_blocking(delivery: pgqrs.sync.Delivery[SendEmail]) -> None: ...


@app.handler(EMAILS)  # expect-error
def blocking(delivery: Delivery[SendEmail]) -> None: ...


@app.handler(EMAILS)  # expect-error
async def returns_text(delivery: Delivery[SendEmail]) -> str:
    return "done"


@app.chunk_handler(INVOICES, size=100, wait=1)  # expect-error
async def all_of_another(chunk: pgqrs.Chunk[SendEmail]) -> None: ...


@app.handler  # expect-error
async def without_a_queue(delivery: Delivery[SendEmail]) -> None: ...


app.handler("emails")  # expect-error
app.handler(EMAILS, concurency=8)  # expect-error
app.handler(EMAILS, concurrency="8")  # expect-error
app.chunk_handler(EMAILS, size=100)  # expect-error


async def run() -> None:
    for name, report in (await app.run([EMAILS, "invoices"])).items():
        print(name, report.done)
    async with app.connected() as store:
        await (await store.producer(EMAILS)).enqueue(SendEmail("ada"))
        await (await store.producer(EMAILS)).enqueue(Invoice(7))  # expect-error


@dataclass
class Placed:
    order: int


@dataclass
class Cancelled:
    order: int
    reason: str


ORDERS = pgqrs.Queue("orders", Placed | Cancelled)
assert_type(ORDERS, pgqrs.Queue[Placed | Cancelled])
assert_type(pgqrs.Queue("times", datetime), pgqrs.Queue[datetime])
pgqrs.Queue("orders", "Placed | Cancelled | 3")  # expect-error


@app.handler(ORDERS)
async def handle_orders(delivery: Delivery[Placed | Cancelled]) -> None:
    match delivery.payload:
        case Placed(order):
            print(order)
        case Cancelled(order, reason):
            print(order, reason)
        case other:
            assert_never(other)


@app.handler(ORDERS)
async def forgets_a_kind(delivery: Delivery[Placed | Cancelled]) -> None:
    match delivery.payload:
        case Placed(order):
            print(order)
        case other:
            assert_never(other)  # expect-error


async def small_ones() -> None:
    async with pgqrs.connect("postgresql://localhost/mydb") as store:
        assert_type(store, pgqrs.Store)
        async with store.producer(ORDERS) as orders, store.consumer("tasks") as consumer:
            assert_type(orders, pgqrs.Producer[Placed | Cancelled])
            assert_type(consumer, pgqrs.Consumer[Any])
            await orders.enqueue(Cancelled(7, "too late"))
            await orders.enqueue(SendEmail("ada"))  # expect-error
            await orders.enqueue_delayed(Placed(7), 60)
            await orders.enqueue_delayed(Placed(7), seconds=60)
            await orders.enqueue_delayed(Placed(7))  # expect-error
        asyncio.create_task(store.producer(ORDERS))


def tests(connection: psycopg.Connection[Any]) -> None:
    for email in testing.enqueued(connection, EMAILS):
        assert_type(email.payload, SendEmail)
    testing.drain(connection, EMAILS, send_email)
    testing.drain(connection, INVOICES, print_invoice)
    testing.drain(connection, EMAILS, print_invoice)  # expect-error
    assert_type(testing.delivery(EMAILS, SendEmail("ada")), Delivery[SendEmail])
    testing.delivery(EMAILS, Invoice(7))  # expect-error
