"""Queues and their handlers, which `pgqrs.django` finds by this module's name."""

from dataclasses import dataclass

from django.db import connection, transaction

import pgqrs
import pgqrs.sync
from pgqrs.django import app
from shop.models import Order


@dataclass
class Confirm:
    order: int


CONFIRMATIONS = pgqrs.Queue("confirmations", Confirm)


@app.handler(CONFIRMATIONS, concurrency=2)
def confirm(delivery: pgqrs.sync.Delivery[Confirm]) -> None:
    # The order is marked, and the message acknowledged, in one transaction: once, however often it is delivered.
    with transaction.atomic():
        order = Order.objects.select_for_update().get(id=delivery.payload.order)
        order.is_mailed = True
        order.save()
        delivery.ack_in(connection)  # type: ignore[arg-type]
    print("confirmed", order.customer, flush=True)
