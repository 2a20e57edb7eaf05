# Made by generate_sync.py of pgqrs/group_admin.py.
"""Administration of groups."""

from __future__ import annotations

from typing import Any

from pgqrs import _arguments, _pgqrs
from pgqrs.listings import GroupInfo, GroupOrder, Rate
from pgqrs.queue import Queue


class GroupAdmin:
    """The calls of :class:`pgqrs.Admin` about groups."""

    _native: _pgqrs.Admin

    def groups(
        self, queue: str | Queue[Any], *, order: GroupOrder = "parked", limit: int = 100
    ) -> list[GroupInfo]:
        """Lists groups of a queue that have messages, or settings of their own.

        Args:
            queue: Its name, or the queue.
            order: By the number of parked messages, by the age of the first one, or only those that are ``stopped``.
            limit: The maximum number of groups.

        Returns:
            The groups, in that order.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        rows = self._native.of_groups().groups(
            _arguments.queue_name(queue),
            _arguments.one_of("order", order, ("parked", "oldest", "stopped")),
            _arguments.integer("limit", limit, 1, 2**31 - 1),
        )
        return [GroupInfo._of(row) for row in rows]

    def group(self, queue: str | Queue[Any], group: str) -> GroupInfo | None:
        """Looks up a group.

        Args:
            queue: Its queue's name, or the queue.
            group: The group.

        Returns:
            The group; ``None`` if it has neither messages nor settings of its own.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        name, group = _arguments.queue_name(queue), _arguments.text("group", group)
        row = self._native.of_groups().group(name, group)
        return None if row is None else GroupInfo._of(row)

    def promote_groups(self, queue: str | Queue[Any]) -> None:
        """Promotes as many parked messages of each group as there is room for, such as after the queue's limit was raised.
        Without it, they are promoted as others are settled.

        Args:
            queue: Its name, or the queue.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        self._native.of_groups().promote_groups(_arguments.queue_name(queue))

    def stop_group(self, queue: str | Queue[Any], group: str) -> None:
        """Stops a group: nothing is promoted any more, and all that is sent to it is parked. Messages that are on their way
        are handled.

        Args:
            queue: Its queue's name, or the queue.
            group: The group, which needn't have messages yet.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        name, group = _arguments.queue_name(queue), _arguments.text("group", group)
        self._native.of_groups().stop_group(name, group)

    def resume_group(self, queue: str | Queue[Any], group: str) -> bool:
        """Resumes a group that an operator or a dead letter has stopped.

        Args:
            queue: Its queue's name, or the queue.
            group: The group.

        Returns:
            Whether it was stopped.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        resumed: bool = self._native.of_groups().resume_group(
            _arguments.queue_name(queue), _arguments.text("group", group)
        )
        return resumed

    def set_group_limit(self, queue: str | Queue[Any], group: str, at_once: int | None) -> None:
        """Sets how many messages of this group are on their way at a time, in place of its queue's limit. It outlives the
        group's messages.

        Args:
            queue: Its queue's name, or the queue.
            group: The group, which needn't have messages yet.
            at_once: The limit, from 1; or ``None``, so that its queue's holds again.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        limit = None if at_once is None else _arguments.integer("at_once", at_once, 1, 2**31 - 1)
        self._native.of_groups().set_group_limit(
            _arguments.queue_name(queue), _arguments.text("group", group), limit
        )

    def set_group_rate(self, queue: str | Queue[Any], group: str, rate: Rate | None) -> None:
        """Sets how many attempts of this group start within a time, in place of the rate of its queue's groups. It outlives
        the group's messages, and counts for messages that are let in from then on.

        Args:
            queue: Its queue's name, or the queue.
            group: The group, which needn't have messages yet.
            rate: The rate; or ``None``, so that its queue's holds again.

        Raises:
            QueueNotFoundError: There is no such queue.
            InvalidSettingError: The rate's time is out of its limits.
        """
        self._native.of_groups().set_group_rate(
            _arguments.queue_name(queue),
            _arguments.text("group", group),
            _arguments.optional_rate("rate", rate),
        )

    def purge_group(self, queue: str | Queue[Any], group: str) -> int:
        """Deletes the parked messages of a group.

        Args:
            queue: Its queue's name, or the queue.
            group: The group.

        Returns:
            How many were deleted.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        purged: int = self._native.of_groups().purge_group(
            _arguments.queue_name(queue), _arguments.text("group", group)
        )
        return purged
