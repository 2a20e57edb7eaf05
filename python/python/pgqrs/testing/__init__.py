"""Tests of code that sends and handles messages, in the test's own transaction, which is rolled back.

A test sends on its connection, by :func:`pgqrs.enqueue_in`, and looks at what is there, or has a handler work on it::

    def test_an_order_sends_a_receipt(connection):
        place_order(connection, 7)
        (receipt,) = testing.enqueued(connection, RECEIPTS)
        assert receipt.payload.order == 7
        testing.drain(connection, RECEIPTS, send_receipt)

The connection is one of those that :func:`pgqrs.enqueue_in` takes, blocking or async; with an async one, await these
calls. Nothing waits, nothing is committed, and tests on one database don't see each other's messages.
:mod:`pgqrs.testing.fixtures` has the same as fixtures of pytest.
"""

from __future__ import annotations

from pgqrs.testing._delivery import delivery
from pgqrs.testing._drain import Drained, drain, drain_async
from pgqrs.testing._enqueued import Captured, Enqueued, capture, capture_async, enqueued

__all__ = [
    "Captured",
    "Drained",
    "Enqueued",
    "capture",
    "capture_async",
    "delivery",
    "drain",
    "drain_async",
    "enqueued",
]
