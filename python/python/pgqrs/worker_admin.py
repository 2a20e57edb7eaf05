"""Administration of workers, which are producers and consumers: the part of :class:`pgqrs.Admin` about them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pgqrs import _arguments, _pgqrs
from pgqrs._arguments import identifier as _id
from pgqrs.listings import HeldMessage, WorkerInfo, WorkerKind, WorkerStatus
from pgqrs.queue import Queue


class WorkerAdmin:
    """The part of :class:`pgqrs.Admin` about workers."""

    _native: _pgqrs.Admin

    async def workers(
        self,
        *,
        queue: str | Queue[Any] | None = None,
        status: WorkerStatus | None = None,
        kind: WorkerKind | None = None,
    ) -> list[WorkerInfo]:
        """Lists workers, which are producers and consumers.

        Args:
            queue: Only those of this queue, or of the queue of this name.
            status: Only those in this state: ``ready``, ``suspended`` or ``stopped``.
            kind: Only those of this kind: ``producer`` or ``consumer``.

        Returns:
            The workers, ordered by id.

        Raises:
            InvalidQueueNameError: The queue's name is invalid.
        """
        name = None if queue is None else _arguments.queue_name(queue)
        workers = [WorkerInfo(*row) for row in await self._native.workers(name)]
        return [
            worker for worker in workers if status in (None, worker.status) and kind in (None, worker.kind)
        ]

    async def worker(self, worker: int) -> WorkerInfo:
        """Looks up a worker.

        Args:
            worker: The worker's id.

        Returns:
            The worker.

        Raises:
            WorkerNotFoundError: There is no such worker.
        """
        return WorkerInfo(*await self._native.worker(_id("worker", worker)))

    async def suspend_worker(self, worker: int) -> None:
        """Suspends a worker, in whichever process it runs: its next enqueue or claim is refused.

        Args:
            worker: The worker's id.

        Raises:
            InvalidTransitionError: It isn't ready.
            WorkerNotFoundError: There is no such worker.
        """
        await self._native.suspend_worker(_id("worker", worker))

    async def resume_worker(self, worker: int) -> None:
        """Resumes a suspended worker.

        Args:
            worker: The worker's id.

        Raises:
            InvalidTransitionError: It isn't suspended.
            WorkerNotFoundError: There is no such worker.
        """
        await self._native.resume_worker(_id("worker", worker))

    async def stop_worker(self, worker: int) -> None:
        """Stops a worker, for good. If it is stopped already, nothing happens. The messages that it holds are delivered
        again when their leases run out.

        Args:
            worker: The worker's id.

        Raises:
            WorkerNotFoundError: There is no such worker.
        """
        await self._native.stop_worker(_id("worker", worker))

    async def remove_worker(self, worker: int) -> None:
        """Removes a worker, whatever its state. Its messages keep its id.

        Args:
            worker: The worker's id.

        Raises:
            WorkerNotFoundError: There is no such worker.
        """
        await self._native.remove_worker(_id("worker", worker))

    async def remove_ended_workers(self, *, older_than: float | timedelta = 0) -> int:
        """Removes workers that were stopped or have crashed.

        Args:
            older_than: How long ago their last heartbeat was, in seconds or as a ``timedelta``.

        Returns:
            How many were removed.

        Raises:
            NotInstalledError: The database has no pgqrs schema.
        """
        count: int = await self._native.remove_ended_workers(_arguments.duration("older_than", older_than))
        return count

    async def held_messages(self, worker: int) -> list[HeldMessage]:
        """Lists the messages that a worker holds. It reads all of the queue.

        Args:
            worker: The worker's id.

        Returns:
            The messages, ordered by the end of their leases.

        Raises:
            WorkerNotFoundError: There is no such worker.
        """
        rows = await self._native.held_messages(_id("worker", worker))
        return [HeldMessage(*row) for row in rows]

    async def release(self, worker: int) -> int:
        """Makes all messages of a crashed worker ready again, without waiting for their leases to run out. A worker
        that runs loses its leases.

        Args:
            worker: The worker's id.

        Returns:
            How many were released.

        Raises:
            WorkerNotFoundError: There is no such worker.
        """
        count: int = await self._native.release(_id("worker", worker))
        return count
