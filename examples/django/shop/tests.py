"""Tests of the shop, in Django's own test cases: each in a transaction that is rolled back, or on real commits."""

from typing import Any, cast

from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

from pgqrs import testing
from pgqrs.django import app, enqueue
from pgqrs.django.testing import PurgedQueues
from shop.jobs import CONFIRMATIONS, Confirm
from shop.models import Order

django = cast(Any, connection)


class Orders(TestCase):
    def test_an_order_sends_a_confirmation(self) -> None:
        with testing.capture(django, CONFIRMATIONS) as captured:
            answer = self.client.post("/orders", {"customer": "ada"})
        self.assertEqual(answer.status_code, 201)
        self.assertEqual([one.payload for one in captured], [Confirm(answer.json()["order"])])

        self.assertEqual(testing.drain(django, CONFIRMATIONS, app).done, 1)
        self.assertTrue(Order.objects.get().is_mailed)
        self.assertEqual(testing.enqueued(django, CONFIRMATIONS), [])

    def test_an_order_that_is_declined_sends_nothing(self) -> None:
        answer = self.client.post("/orders", {"customer": "ada", "declined": "1"})
        self.assertEqual(answer.status_code, 402)
        self.assertEqual(testing.enqueued(django, CONFIRMATIONS), [])
        self.assertFalse(Order.objects.exists())

    def test_a_confirmation_of_no_order_fails(self) -> None:
        enqueue(CONFIRMATIONS, Confirm(0))
        with self.assertRaises(Order.DoesNotExist):
            testing.drain(django, CONFIRMATIONS, app)

    def test_a_send_is_one_statement(self) -> None:
        with self.assertNumQueries(1):
            enqueue(CONFIRMATIONS, Confirm(1))


class Commits(PurgedQueues, TransactionTestCase):
    def test_a_rolled_back_transaction_sends_nothing(self) -> None:
        with self.assertRaises(ValueError), transaction.atomic():
            enqueue(CONFIRMATIONS, Confirm(1))
            raise ValueError
        self.assertEqual(testing.enqueued(django, CONFIRMATIONS), [])

    def test_without_a_transaction_it_is_sent_at_once(self) -> None:
        enqueue(CONFIRMATIONS, Confirm(2))
        transaction.get_connection().close()
        (sent,) = testing.enqueued(django, CONFIRMATIONS)
        self.assertEqual(sent.payload, Confirm(2))

    def test_queues_are_empty_after_the_other_tests(self) -> None:
        self.assertEqual(testing.enqueued(django, CONFIRMATIONS), [])
        enqueue(CONFIRMATIONS, Confirm(3))
