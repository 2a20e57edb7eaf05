# Made by generate_sync.py of pgqrs/admin.py.
"""Administration: the schema, queues, messages, dead letters, the archive and workers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from pgqrs import _arguments
from pgqrs._arguments import identifier as _id
from pgqrs._arguments import page as _page
from pgqrs.sync.group_admin import GroupAdmin
from pgqrs.health import Health
from pgqrs.listings import (
    ArchivedMessage,
    Cancelled,
    DeadLetter,
    QueuedMessage,
    Requeued,
    SchemaVersion,
    with_priority,
)
from pgqrs.queue import Queue
from pgqrs.sync.queue_admin import QueueAdmin
from pgqrs.sync.schedule_admin import ScheduleAdmin
from pgqrs.sync.worker_admin import WorkerAdmin


class Admin(QueueAdmin, GroupAdmin, WorkerAdmin, ScheduleAdmin):
    """Administration: the schema, queues, messages, dead letters, the archive and workers; made by ``store.admin()``.

    Ages are in seconds, or a ``timedelta``. Lists have pages: pass the last id of one as ``after`` for the next.

    Besides the errors that it names, each call can raise :class:`pgqrs.NotInstalledError`,
    :class:`pgqrs.PermissionDeniedError` and, if the database is unavailable, :class:`pgqrs.ConnectError`,
    :class:`pgqrs.ConnectionLostError`, :class:`pgqrs.AcquireTimeoutError` or :class:`pgqrs.ClosedError`.
    """

    def install(self) -> None:
        """Creates or upgrades the schema ``pgqrs``. Several processes can do so at the same time.

        Raises:
            SchemaNewerError: A newer version of the package has upgraded it.
            SchemaDistributedError: Citus manages tables of it.
            MigrateError: A migration failed, or doesn't match what was applied before.
        """
        self._native.install()

    def verify(self) -> SchemaVersion:
        """Compares the database's schema with the one that this version of the package requires.

        Returns:
            Both versions, and how they compare.

        Raises:
            Error: The database is unavailable.
        """
        return SchemaVersion(*self._native.verify())

    def set_fillfactor(self, percent: Literal[50, 60, 70, 80, 90, 100]) -> None:
        """Sets how far inserts fill the pages of ``pgqrs.messages``, the table of all queues. With less, claims are
        faster; with more, a backlog takes less disk and memory. It affects pages that are filled from then on.

        Args:
            percent: How far, in percent: 50, 60, 70, 80, 90 or 100. The schema is installed with 50.

        Raises:
            DatabaseError: The role doesn't own the table.
            ValueError: It is none of these numbers.
        """
        self._native.set_fillfactor(_arguments.integer("percent", percent, 50, 100))

    def health(self) -> Health:
        """Reads what an operator should know: what holds back vacuum, dead rows, messages that wait for long, workers
        that missed their heartbeats, the schema's version, connections in use.

        Any role can call it. What the role may not see is missing, and a finding names the grant that it lacks.

        Returns:
            The findings and the facts; ``print`` it for a report.

        Raises:
            ConnectError: The server can't be reached.
        """
        return Health._of(self._native.health())

    def messages(
        self,
        queue: str | Queue[Any],
        *,
        after: int | None = None,
        limit: int = 100,
        payload: bool = False,
    ) -> list[QueuedMessage]:
        """Lists messages of a queue: ready, delayed and leased ones.

        Args:
            queue: The queue, or its name.
            after: The last id of the previous page; by default, the list begins with the first message.
            limit: The most entries to return.
            payload: Whether to read the payloads too.

        Returns:
            The messages, ordered by id.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        rows = self._native.messages(_arguments.queue_name(queue), *_page(after, limit, payload))
        return [QueuedMessage(*with_priority(row[:-1]), *row[-1]) for row in rows]

    def cancel(
        self, queue: str | Queue[Any], message: int, *, archive: bool = False
    ) -> Cancelled | None:
        """Cancels a message, waiting or running: deletes it. Either the message is cancelled or a consumer has settled
        it, and never both.

        The consumer of a running one is notified: :meth:`pgqrs.Delivery.cancelled` returns, and an ``async`` handler is
        cancelled after the ``cancel_grace`` of its run.

        Args:
            queue: The queue, or its name.
            message: The message's id.
            archive: Whether the message is kept in the archive.

        Returns:
            What it was: ``"waiting"``, or ``"running"`` if a consumer had claimed it. ``None`` if there is no such
            message: it is done, dead or archived already, or never was.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        was: Cancelled | None = self._native.cancel(
            _arguments.queue_name(queue), _id("message", message), _arguments.flag("archive", archive)
        )
        return was

    def cancel_by_key(
        self, queue: str | Queue[Any], key: str, *, archive: bool = False
    ) -> list[tuple[int, Cancelled]]:
        """Cancels the messages that have this unique key, as :meth:`cancel` does.

        Args:
            queue: The queue, or its name.
            key: The key.
            archive: Whether the messages are kept in the archive.

        Returns:
            The id of each cancelled message, and what it was.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        cancelled: list[tuple[int, Cancelled]] = self._native.cancel_by_key(
            _arguments.queue_name(queue), _arguments.text("key", key), _arguments.flag("archive", archive)
        )
        return cancelled

    def reschedule(self, queue: str | Queue[Any], message: int, time: datetime) -> bool:
        """Moves a message to another time, unless a consumer holds it.

        Args:
            queue: The queue, or its name.
            message: The message's id.
            time: The earliest time of its delivery, as an aware ``datetime``. A time in the past means now.

        Returns:
            Whether it was moved; ``False`` if there is no such message, or a consumer holds it.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        done: bool = self._native.reschedule(
            _arguments.queue_name(queue), _id("message", message), _arguments.time("time", time)
        )
        return done

    def dead_letters(
        self,
        queue: str | Queue[Any],
        *,
        after: int | None = None,
        limit: int = 100,
        payload: bool = False,
    ) -> list[DeadLetter]:
        """Lists dead letters of a queue.

        Args:
            queue: The queue, or its name.
            after: The last id of the previous page; by default, the list begins with the first message.
            limit: The most entries to return.
            payload: Whether to read the payloads too.

        Returns:
            The dead letters, ordered by id.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        rows = self._native.dead_letters(_arguments.queue_name(queue), *_page(after, limit, payload))
        return [DeadLetter(*with_priority(row)) for row in rows]

    def dead_letter_count(self, queue: str | Queue[Any]) -> int:
        """Counts the dead letters of a queue.

        Args:
            queue: The queue, or its name.

        Returns:
            How many there are.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        count: int = self._native.dead_letter_count(_arguments.queue_name(queue))
        return count

    def requeue(self, queue: str | Queue[Any], message: int) -> Requeued:
        """Puts a dead letter back into its queue: ready, and with all of its attempts available again.

        Args:
            queue: The queue, or its name.
            message: The message's id.

        Returns:
            Whether it is ``back``, or was ``held`` since another message has its key; neither if there is no such dead
            letter.

        Raises:
            QueueNotFoundError: There is no such queue.
            KeyHeldError: Another open transaction has stored a message with its key. It can be retried.
        """
        counts: tuple[int, int] = self._native.requeue(
            _arguments.queue_name(queue), _id("message", message)
        )
        return Requeued(*counts)

    def requeue_all(self, queue: str | Queue[Any], *, older_than: float | timedelta = 0) -> Requeued:
        """Requeues all dead letters that are at least this old.

        Args:
            queue: The queue, or its name.
            older_than: Their age, in seconds or as a ``timedelta``; with 0, all of them.

        Returns:
            How many are ``back``, and how many were ``held`` since other messages have their keys.

        Raises:
            QueueNotFoundError: There is no such queue.
            KeyHeldError: Another open transaction has stored a message with one of their keys. It can be retried.
        """
        counts: tuple[int, int] = self._native.requeue_all(
            _arguments.queue_name(queue), _arguments.duration("older_than", older_than)
        )
        return Requeued(*counts)

    def purge_dead_letters(self, queue: str | Queue[Any], *, older_than: float | timedelta = 0) -> int:
        """Deletes dead letters that are at least this old.

        Args:
            queue: The queue, or its name.
            older_than: Their age, in seconds or as a ``timedelta``; with 0, all of them.

        Returns:
            How many were deleted.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        count: int = self._native.purge_dead_letters(
            _arguments.queue_name(queue), _arguments.duration("older_than", older_than)
        )
        return count

    def archived(
        self,
        queue: str | Queue[Any],
        *,
        after: int | None = None,
        limit: int = 100,
        payload: bool = False,
    ) -> list[ArchivedMessage]:
        """Lists archived messages of a queue.

        Args:
            queue: The queue, or its name.
            after: The last id of the previous page; by default, the list begins with the first message.
            limit: The most entries to return.
            payload: Whether to read the payloads too.

        Returns:
            The messages, ordered by id.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        rows = self._native.archived(_arguments.queue_name(queue), *_page(after, limit, payload))
        return [ArchivedMessage(*with_priority(row)) for row in rows]

    def purge_archive(self, queue: str | Queue[Any], *, older_than: float | timedelta = 0) -> int:
        """Deletes messages that were archived at least this long ago.

        Args:
            queue: The queue, or its name.
            older_than: Their age, in seconds or as a ``timedelta``; with 0, all of them.

        Returns:
            How many were deleted.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        count: int = self._native.purge_archive(
            _arguments.queue_name(queue), _arguments.duration("older_than", older_than)
        )
        return count
