"""The same names, without ``await``: for Django, Flask and scripts.

Quick start::

    import pgqrs.sync

    with pgqrs.sync.connect("postgresql://localhost/mydb", install=True) as store:
        store.queue("tasks")
        producer = store.producer("tasks")
        message = producer.enqueue({"task": "send_email", "to": "user@example.com"})

Calls wait, and let other threads run meanwhile; Ctrl-C ends the wait. Stores, producers and consumers can be used
from many threads at once.
"""

from pgqrs.chunk import Chunk, ChunkMessage
from pgqrs.queue import Priority, Queue
from pgqrs.sync.admin import Admin
from pgqrs.sync.consumer import Around, ChunkAround, ChunkHandler, Consumer, Handler
from pgqrs.sync.delivery import Delivery
from pgqrs.sync.observer import Observer
from pgqrs.sync.producer import Producer
from pgqrs.sync.store import Store, connect

__all__ = [
    "Admin",
    "Around",
    "Chunk",
    "ChunkAround",
    "ChunkHandler",
    "ChunkMessage",
    "Consumer",
    "Delivery",
    "Handler",
    "Observer",
    "Priority",
    "Producer",
    "Queue",
    "Store",
    "connect",
]
