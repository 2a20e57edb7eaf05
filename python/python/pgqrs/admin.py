"""Administration: the schema, queues, messages, dead letters, the archive and workers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from pgqrs import _arguments, _pgqrs
from pgqrs._arguments import identifier as _id
from pgqrs._arguments import page as _page
from pgqrs.health import Health
from pgqrs.listings import (
    ArchivedMessage,
    DeadLetter,
    QueuedMessage,
    QueueInfo,
    QueueStats,
    SchemaVersion,
    with_priority,
)
from pgqrs.queue import Queue
from pgqrs.schedule_admin import ScheduleAdmin
from pgqrs.worker_admin import WorkerAdmin


class Admin(WorkerAdmin, ScheduleAdmin):
    """Administration: the schema, queues, messages, dead letters, the archive and workers; made by ``store.admin()``.

    Ages are in seconds, or a ``timedelta``. Lists have pages: pass the last id of one as ``after`` for the next.

    Besides the errors that it names, each call can raise :class:`pgqrs.NotInstalledError`,
    :class:`pgqrs.PermissionDeniedError` and, if the database is unavailable, :class:`pgqrs.ConnectError`,
    :class:`pgqrs.ConnectionLostError`, :class:`pgqrs.AcquireTimeoutError` or :class:`pgqrs.ClosedError`.
    """

    def __init__(self, native: _pgqrs.Admin) -> None:
        self._native = native

    async def install(self) -> None:
        """Creates or upgrades the schema ``pgqrs``. Several processes can do so at the same time.

        Raises:
            SchemaNewerError: A newer version of the package has upgraded it.
            MigrateError: A migration failed, or doesn't match what was applied before.
        """
        await self._native.install()

    async def verify(self) -> SchemaVersion:
        """Compares the database's schema with the one that this version of the package requires.

        Returns:
            Both versions, and how they compare.

        Raises:
            Error: The database is unavailable.
        """
        return SchemaVersion(*await self._native.verify())

    async def set_fillfactor(self, percent: Literal[50, 60, 70, 80, 90, 100]) -> None:
        """Sets how far inserts fill the pages of ``pgqrs.messages``, the table of all queues. With less, claims are
        faster; with more, a backlog takes less disk and memory. It affects pages that are filled from then on.

        Args:
            percent: How far, in percent: 50, 60, 70, 80, 90 or 100. The schema is installed with 50.

        Raises:
            DatabaseError: The role doesn't own the table.
            ValueError: It is none of these numbers.
        """
        await self._native.set_fillfactor(_arguments.integer("percent", percent, 50, 100))

    async def create_queue(self, queue: str | Queue[Any]) -> QueueInfo:
        """Creates a queue. To create it only if it doesn't exist, use :meth:`pgqrs.Store.queue`.

        Args:
            queue: The queue, or its name.

        Returns:
            The queue, with its settings.

        Raises:
            QueueExistsError: There is a queue of that name already.
            InvalidQueueNameError: The name is invalid.
        """
        return QueueInfo(*await self._native.create_queue(_arguments.queue_name(queue)))

    async def queue(self, queue: str | Queue[Any]) -> QueueInfo:
        """Looks up a queue.

        Args:
            queue: The queue, or its name.

        Returns:
            The queue, with its settings.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        return QueueInfo(*await self._native.queue(_arguments.queue_name(queue)))

    async def queues(self) -> list[QueueInfo]:
        """Lists all queues.

        Returns:
            The queues, ordered by name.

        Raises:
            NotInstalledError: The database has no pgqrs schema.
        """
        return [QueueInfo(*row) for row in await self._native.queues()]

    async def delete_queue(self, queue: str | Queue[Any]) -> None:
        """Deletes an empty queue, with its workers, dead letters and archive. No message is lost: it waits for enqueues
        in progress, and blocks new ones, of all queues, while it checks.

        Args:
            queue: The queue, or its name.

        Raises:
            QueueNotEmptyError: It still holds messages.
            QueueNotFoundError: There is no such queue.
            DatabaseError: A transaction that has enqueued stays open for more than two seconds. It can be retried.
        """
        await self._native.delete_queue(_arguments.queue_name(queue))

    async def purge_queue(self, queue: str | Queue[Any]) -> int:
        """Deletes all messages of a queue: ready, delayed and leased ones.

        Args:
            queue: The queue, or its name.

        Returns:
            How many messages were deleted.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        count: int = await self._native.purge_queue(_arguments.queue_name(queue))
        return count

    async def configure_queue(self, queue: str | Queue[Any], *, max_attempts: int | None = None) -> QueueInfo:
        """Changes settings of a queue. Those that are ``None`` stay as they are.

        Args:
            queue: The queue, or its name.
            max_attempts: How often a message is delivered before it becomes a dead letter, from 1; 20 for a new
                queue.

        Returns:
            The queue, with all of its settings.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        attempts = _arguments.optional_integer("max_attempts", max_attempts, 1, 2**31 - 1)
        return QueueInfo(*await self._native.configure_queue(_arguments.queue_name(queue), attempts))

    async def health(self) -> Health:
        """Reads what an operator should know: what holds back vacuum, dead rows, messages that wait for long, workers
        that missed their heartbeats, the schema's version, connections in use.

        Any role can call it. What the role may not see is missing, and a finding names the grant that it lacks.

        Returns:
            The findings and the facts; ``print`` it for a report.

        Raises:
            ConnectError: The server can't be reached.
        """
        return Health._of(await self._native.health())

    async def queue_stats(self, queue: str | Queue[Any]) -> QueueStats:
        """Counts the messages of a queue, up to 10,000 of each priority that are due, as many that are delayed, and as
        many dead letters: cheap, however large the queue is.

        Args:
            queue: The queue, or its name.

        Returns:
            How many messages are ready, delayed, leased and dead.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        return QueueStats._of(await self._native.queue_stats(_arguments.queue_name(queue)))

    async def all_queue_stats(self) -> list[QueueStats]:
        """Counts the messages of all queues, in one statement. If there are more than 20 queues, fewer messages of each
        are counted: 200,000 divided by the number of queues, and at least 100. At most 10,000 queues are counted.

        Returns:
            What :meth:`queue_stats` returns of each queue, ordered by name.

        Raises:
            NotInstalledError: The database has no pgqrs schema.
        """
        return [QueueStats._of(row) for row in await self._native.all_queue_stats()]

    async def exact_queue_stats(self, queue: str | Queue[Any]) -> QueueStats:
        """Counts the messages of a queue. The counts are exact, so it reads all of the queue.

        Args:
            queue: The queue, or its name.

        Returns:
            How many messages are ready, delayed, leased and dead.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        return QueueStats._of(await self._native.exact_queue_stats(_arguments.queue_name(queue)))

    async def messages(
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
        rows = await self._native.messages(_arguments.queue_name(queue), *_page(after, limit, payload))
        return [QueuedMessage(*with_priority(row[:-1]), *row[-1]) for row in rows]

    async def cancel(self, queue: str | Queue[Any], message: int) -> bool:
        """Deletes a message, unless a consumer holds it: then it may be handled already.

        Args:
            queue: The queue, or its name.
            message: The message's id.

        Returns:
            Whether it was deleted; ``False`` if there is no such message, or a consumer holds it.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        done: bool = await self._native.cancel(_arguments.queue_name(queue), _id("message", message))
        return done

    async def reschedule(self, queue: str | Queue[Any], message: int, time: datetime) -> bool:
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
        done: bool = await self._native.reschedule(
            _arguments.queue_name(queue), _id("message", message), _arguments.time("time", time)
        )
        return done

    async def dead_letters(
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
        rows = await self._native.dead_letters(_arguments.queue_name(queue), *_page(after, limit, payload))
        return [DeadLetter(*with_priority(row)) for row in rows]

    async def dead_letter_count(self, queue: str | Queue[Any]) -> int:
        """Counts the dead letters of a queue.

        Args:
            queue: The queue, or its name.

        Returns:
            How many there are.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        count: int = await self._native.dead_letter_count(_arguments.queue_name(queue))
        return count

    async def requeue(self, queue: str | Queue[Any], message: int) -> bool:
        """Puts a dead letter back into its queue: ready, and with all of its attempts available again.

        Args:
            queue: The queue, or its name.
            message: The message's id.

        Returns:
            Whether it was requeued; ``False`` if there is no such dead letter.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        done: bool = await self._native.requeue(_arguments.queue_name(queue), _id("message", message))
        return done

    async def requeue_all(self, queue: str | Queue[Any], *, older_than: float | timedelta = 0) -> int:
        """Requeues all dead letters that are at least this old.

        Args:
            queue: The queue, or its name.
            older_than: Their age, in seconds or as a ``timedelta``; with 0, all of them.

        Returns:
            How many were requeued.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        count: int = await self._native.requeue_all(
            _arguments.queue_name(queue), _arguments.duration("older_than", older_than)
        )
        return count

    async def purge_dead_letters(self, queue: str | Queue[Any], *, older_than: float | timedelta = 0) -> int:
        """Deletes dead letters that are at least this old.

        Args:
            queue: The queue, or its name.
            older_than: Their age, in seconds or as a ``timedelta``; with 0, all of them.

        Returns:
            How many were deleted.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        count: int = await self._native.purge_dead_letters(
            _arguments.queue_name(queue), _arguments.duration("older_than", older_than)
        )
        return count

    async def archived(
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
        rows = await self._native.archived(_arguments.queue_name(queue), *_page(after, limit, payload))
        return [ArchivedMessage(*with_priority(row)) for row in rows]

    async def purge_archive(self, queue: str | Queue[Any], *, older_than: float | timedelta = 0) -> int:
        """Deletes messages that were archived at least this long ago.

        Args:
            queue: The queue, or its name.
            older_than: Their age, in seconds or as a ``timedelta``; with 0, all of them.

        Returns:
            How many were deleted.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        count: int = await self._native.purge_archive(
            _arguments.queue_name(queue), _arguments.duration("older_than", older_than)
        )
        return count
