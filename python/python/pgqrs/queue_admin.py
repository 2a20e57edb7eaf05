"""Administration of queues: create, count, configure, pause, close, delete."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import EllipsisType
from typing import Any

from pgqrs import _arguments, _pgqrs
from pgqrs.listings import QueueInfo, QueueStats, Rate
from pgqrs.queue import Queue


class QueueAdmin:
    """The calls of :class:`pgqrs.Admin` about queues."""

    def __init__(self, native: _pgqrs.Admin) -> None:
        self._native = native

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
        return QueueInfo._of(await self._native.create_queue(_arguments.queue_name(queue)))

    async def queue(self, queue: str | Queue[Any]) -> QueueInfo:
        """Looks up a queue.

        Args:
            queue: The queue, or its name.

        Returns:
            The queue, with its settings.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        return QueueInfo._of(await self._native.queue(_arguments.queue_name(queue)))

    async def queues(self) -> list[QueueInfo]:
        """Lists all queues.

        Returns:
            The queues, ordered by name.

        Raises:
            NotInstalledError: The database has no pgqrs schema.
        """
        return [QueueInfo._of(row) for row in await self._native.queues()]

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

    async def configure_queue(
        self,
        queue: str | Queue[Any],
        *,
        max_attempts: int | None = None,
        lease: float | timedelta | EllipsisType | None = ...,
        retry_min: float | timedelta | EllipsisType | None = ...,
        retry_max: float | timedelta | EllipsisType | None = ...,
        archive_on_ack: bool | None = None,
        archive_for: float | timedelta | EllipsisType | None = ...,
        dead_letters_for: float | timedelta | EllipsisType | None = ...,
        sensitive: bool | None = None,
        groups_at_once: int | EllipsisType | None = ...,
        stops_after_dead_letter: bool = False,
        groups_rate: Rate | None = None,
        max_running: int | EllipsisType | None = ...,
        rate: Rate | EllipsisType | None = ...,
    ) -> QueueInfo:
        """Changes settings of a queue; those that aren't passed stay as they are. Running consumers apply them from
        their next claim on. A lease, a wait and ``archive_on_ack`` take precedence over what consumers say; ``None``
        leaves that to the consumers again.

        Args:
            queue: The queue, or its name.
            max_attempts: How often a message is delivered before it becomes a dead letter, from 1; 20 for a new
                queue.
            lease: How long messages are leased, from a millisecond to a day; or ``None``.
            retry_min: The wait after the first failed attempt; or ``None``.
            retry_max: The maximum wait after a failed attempt, not shorter than ``retry_min``; or ``None``.
            archive_on_ack: Whether acknowledged messages are archived.
            archive_for: How long archived messages are kept; or ``None``, for ever. Running consumers of the queue
                delete older ones.
            dead_letters_for: How long dead letters are kept; or ``None``, for ever. Running consumers of the queue
                delete older ones.
            sensitive: Whether the operators' page and the ``pgqrs`` command hide the payloads.
            groups_at_once: How many messages of a group are on their way at a time, from 1; or ``None``, so that the queue
                takes no messages of groups, as a new queue.
            stops_after_dead_letter: With ``groups_at_once``, whether a group waits for an operator after one of its
                messages became a dead letter.
            groups_rate: With ``groups_at_once``, how many attempts of each group start within a time; or ``None``: no
                limit.
            max_running: How many messages are leased at a time, by all consumers of all processes together, from 1; or
                ``None``: no limit, as a new queue.
            rate: How many attempts start within a time, by all consumers of all processes together; or ``None``: no
                limit, as a new queue.

        Returns:
            The queue, with all of its settings.

        Raises:
            QueueNotFoundError: There is no such queue.
            LeaseOutOfRangeError: The lease is out of its limits.
            InvalidSettingError: ``retry_max`` is shorter than ``retry_min``, or the rate's time is out of its limits.
        """
        return QueueInfo._of(
            await self._native.configure_queue(
                _arguments.queue_name(queue),
                max_attempts=_arguments.optional_integer("max_attempts", max_attempts, 1, 2**31 - 1),
                lease=_arguments.change("lease", lease),
                retry_min=_arguments.change("retry_min", retry_min),
                retry_max=_arguments.change("retry_max", retry_max),
                archive_on_ack=None
                if archive_on_ack is None
                else _arguments.flag("archive_on_ack", archive_on_ack),
                archive_for=_arguments.change("archive_for", archive_for),
                dead_letters_for=_arguments.change("dead_letters_for", dead_letters_for),
                sensitive=None if sensitive is None else _arguments.flag("sensitive", sensitive),
                limits=(
                    _arguments.groups(groups_at_once, stops_after_dead_letter, groups_rate),
                    _arguments.integer_change("max_running", max_running),
                    _arguments.rate_change(rate),
                ),
            )
        )

    async def pause_queue(self, queue: str | Queue[Any], *, until: datetime | None = None) -> None:
        """Pauses a queue: nothing is claimed from it by any process, until it is resumed or until a time. Sends go on.
        Messages that consumers hold already are worked off, also those that they have prefetched.

        Args:
            queue: The queue, or its name.
            until: When the pause ends, as an aware ``datetime``; by default, when it is resumed.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        time = None if until is None else _arguments.time("until", until)
        await self._native.pause_queue(_arguments.queue_name(queue), time)

    async def resume_queue(self, queue: str | Queue[Any]) -> None:
        """Resumes a paused queue, and wakes its consumers. If it isn't paused, nothing happens.

        Args:
            queue: The queue, or its name.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        await self._native.resume_queue(_arguments.queue_name(queue))

    async def close_queue(self, queue: str | Queue[Any]) -> None:
        """Closes a queue: sends to it raise :class:`pgqrs.QueueClosedError`, in each process, and the messages that it
        holds are worked off. If it is already closed, nothing happens.

        Args:
            queue: The queue, or its name.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        await self._native.close_queue(_arguments.queue_name(queue))

    async def reopen_queue(self, queue: str | Queue[Any]) -> None:
        """Reopens a closed queue: sends are accepted again. If it isn't closed, nothing happens.

        Args:
            queue: The queue, or its name.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        await self._native.reopen_queue(_arguments.queue_name(queue))

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
