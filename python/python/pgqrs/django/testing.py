"""For Django's test cases.

In a ``TestCase`` everything is in one transaction, which is rolled back: :mod:`pgqrs.testing` works on
``django.db.connection`` there. A ``TransactionTestCase`` commits, and Django empties the tables of its models after it,
but not the queues: :class:`PurgedQueues` does.
"""

from __future__ import annotations

from pgqrs.django import _database
from pgqrs.sync import connect


class PurgedQueues:
    """Before each test of a ``TransactionTestCase``, deletes all messages of all queues. Name it before the test case::

    class Commits(PurgedQueues, TransactionTestCase): ...
    """

    def setUp(self) -> None:
        """Called before each test."""
        purge()
        set_up = getattr(super(), "setUp", None)
        if set_up is not None:
            set_up()


def purge() -> None:
    """Deletes all messages of all queues, with dead letters and the archive. Only for databases of tests.

    Raises:
        NotInstalledError: The database has no pgqrs schema.
    """
    with connect(_database.url(), max_connections=1) as store:
        admin = store.admin()
        for queue in admin.queues():
            admin.purge_queue(queue.name)
            admin.purge_dead_letters(queue.name)
            admin.purge_archive(queue.name)
