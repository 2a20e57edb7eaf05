"""What an operator does: the schema, queues, workers, dead letters and the archive."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from pgqrs import _arguments, _pgqrs
from pgqrs.listings import (
    ArchivedMessage,
    DeadLetter,
    HeldMessage,
    QueuedMessage,
    QueueInfo,
    QueueStats,
    SchemaVersion,
    WorkerInfo,
    WorkerKind,
    WorkerStatus,
)
from pgqrs.queue import Priority, Queue

_HIGHEST = 2**32 - 1


def _prioritised(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (row[0], Priority(row[1]), *row[2:])


class Admin:
    """What an operator does; made by ``store.admin()``.

    Ages and delays are in seconds, or a ``timedelta``. Lists are read by pages: pass the last id of one as
    ``after`` for the next.
    """

    def __init__(self, native: _pgqrs.Admin) -> None:
        self._native = native

    async def install(self) -> None:
        """Creates or upgrades the schema ``pgqrs``. Many can do so at once.

        Raises :class:`pgqrs.SchemaNewerError` if a newer version of the package has upgraded it, and
        :class:`pgqrs.MigrateError`.
        """
        await self._native.install()

    async def verify(self) -> SchemaVersion:
        """Whether the database and this version of the package fit together."""
        return SchemaVersion(*await self._native.verify())

    async def set_fillfactor(self, percent: Literal[50, 60, 70, 80, 90, 100]) -> None:
        """Sets how far inserts fill the pages of ``pgqrs.messages``, those of all queues.

        The less, the faster claims are; the more, the less disk and memory a backlog takes. It holds for pages that are
        filled from now on. Only the table's owner may.

        Args:
            percent: How far, in percent. The schema is installed with 50.
        """
        await self._native.set_fillfactor(_arguments.integer("percent", percent, 50, 100))

    async def create_queue(self, queue: str | Queue[Any]) -> QueueInfo:
        """Creates a queue. Raises :class:`pgqrs.QueueExistsError`; ``store.queue`` doesn't."""
        return QueueInfo(*await self._native.create_queue(_arguments.queue_name(queue)))

    async def queue(self, queue: str | Queue[Any]) -> QueueInfo:
        """A queue. Raises :class:`pgqrs.QueueNotFoundError`."""
        return QueueInfo(*await self._native.queue(_arguments.queue_name(queue)))

    async def queues(self) -> list[QueueInfo]:
        """All queues, by name."""
        return [QueueInfo(*row) for row in await self._native.queues()]

    async def delete_queue(self, queue: str | Queue[Any]) -> None:
        """Deletes a queue that is empty. Raises :class:`pgqrs.QueueNotEmptyError`."""
        await self._native.delete_queue(_arguments.queue_name(queue))

    async def purge_queue(self, queue: str | Queue[Any]) -> int:
        """Deletes all messages of a queue, and returns how many."""
        count: int = await self._native.purge_queue(_arguments.queue_name(queue))
        return count

    async def configure_queue(self, queue: str | Queue[Any], *, max_attempts: int | None = None) -> QueueInfo:
        """Changes the settings that are passed, and returns the queue with its new ones."""
        attempts = _arguments.optional_integer("max_attempts", max_attempts, 1, 2**31 - 1)
        return QueueInfo(*await self._native.configure_queue(_arguments.queue_name(queue), attempts))

    async def queue_stats(self, queue: str | Queue[Any]) -> QueueStats:
        """How many messages a queue holds."""
        return QueueStats(*await self._native.queue_stats(_arguments.queue_name(queue)))

    async def messages(
        self,
        queue: str | Queue[Any],
        *,
        after: int | None = None,
        limit: int = 100,
        payload: bool = False,
    ) -> list[QueuedMessage]:
        """Messages of a queue, by id."""
        rows = await self._native.messages(_arguments.queue_name(queue), *_page(after, limit, payload))
        return [QueuedMessage(*_prioritised(row)) for row in rows]

    async def cancel(self, queue: str | Queue[Any], message: int) -> bool:
        """Removes a message from its queue, unless it is leased. Returns whether it did."""
        done: bool = await self._native.cancel(_arguments.queue_name(queue), _id("message", message))
        return done

    async def reschedule(self, queue: str | Queue[Any], message: int, time: datetime) -> bool:
        """Delivers a message at another time, unless it is leased. Returns whether it will."""
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
        """Dead letters of a queue, by id."""
        rows = await self._native.dead_letters(_arguments.queue_name(queue), *_page(after, limit, payload))
        return [DeadLetter(*_prioritised(row)) for row in rows]

    async def dead_letter_count(self, queue: str | Queue[Any]) -> int:
        """How many dead letters a queue has."""
        count: int = await self._native.dead_letter_count(_arguments.queue_name(queue))
        return count

    async def requeue(self, queue: str | Queue[Any], message: int) -> bool:
        """Puts a dead letter back into its queue, with all of its attempts again. Returns whether there was
        one."""
        done: bool = await self._native.requeue(_arguments.queue_name(queue), _id("message", message))
        return done

    async def requeue_all(self, queue: str | Queue[Any], *, older_than: float | timedelta = 0) -> int:
        """Puts all dead letters of this age back, and returns how many."""
        count: int = await self._native.requeue_all(
            _arguments.queue_name(queue), _arguments.duration("older_than", older_than)
        )
        return count

    async def purge_dead_letters(self, queue: str | Queue[Any], *, older_than: float | timedelta = 0) -> int:
        """Deletes dead letters of this age, and returns how many."""
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
        """Archived messages of a queue, by id."""
        rows = await self._native.archived(_arguments.queue_name(queue), *_page(after, limit, payload))
        return [ArchivedMessage(*_prioritised(row)) for row in rows]

    async def purge_archive(self, queue: str | Queue[Any], *, older_than: float | timedelta = 0) -> int:
        """Deletes archived messages of this age, and returns how many."""
        count: int = await self._native.purge_archive(
            _arguments.queue_name(queue), _arguments.duration("older_than", older_than)
        )
        return count

    async def workers(
        self,
        *,
        queue: str | Queue[Any] | None = None,
        status: WorkerStatus | None = None,
        kind: WorkerKind | None = None,
    ) -> list[WorkerInfo]:
        """Producers and consumers: all of them, or those of a queue, a status, a kind."""
        name = None if queue is None else _arguments.queue_name(queue)
        workers = [WorkerInfo(*row) for row in await self._native.workers(name)]
        return [
            worker for worker in workers if status in (None, worker.status) and kind in (None, worker.kind)
        ]

    async def worker(self, worker: int) -> WorkerInfo:
        """A producer or a consumer. Raises :class:`pgqrs.WorkerNotFoundError`."""
        return WorkerInfo(*await self._native.worker(_id("worker", worker)))

    async def suspend_worker(self, worker: int) -> None:
        """Suspends a worker, in whichever process it is."""
        await self._native.suspend_worker(_id("worker", worker))

    async def resume_worker(self, worker: int) -> None:
        """Resumes a worker."""
        await self._native.resume_worker(_id("worker", worker))

    async def stop_worker(self, worker: int) -> None:
        """Ends a worker, for good."""
        await self._native.stop_worker(_id("worker", worker))

    async def remove_worker(self, worker: int) -> None:
        """Removes a worker that has ended or crashed."""
        await self._native.remove_worker(_id("worker", worker))

    async def remove_ended_workers(self, *, older_than: float | timedelta = 0) -> int:
        """Removes all that ended this long ago, and returns how many."""
        count: int = await self._native.remove_ended_workers(_arguments.duration("older_than", older_than))
        return count

    async def held_messages(self, worker: int) -> list[HeldMessage]:
        """Messages that a consumer holds."""
        rows = await self._native.held_messages(_id("worker", worker))
        return [HeldMessage(*row) for row in rows]

    async def release(self, worker: int) -> int:
        """Releases the messages that a consumer holds, as after its crash, and returns how many."""
        count: int = await self._native.release(_id("worker", worker))
        return count


def _id(name: str, value: object) -> int:
    return _arguments.integer(name, value, -(2**63), 2**63 - 1)


def _page(after: int | None, limit: int, payload: bool) -> tuple[int | None, int, bool]:
    after_id = None if after is None else _id("after", after)
    return after_id, _arguments.integer("limit", limit, 0, _HIGHEST), _arguments.flag("payload", payload)
