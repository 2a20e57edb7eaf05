"""Administration of schedules."""

from __future__ import annotations

from typing import Any

from pgqrs import _arguments, _pgqrs
from pgqrs.schedule import Schedule, ScheduleChange, ScheduleFiring, ScheduleInfo


class ScheduleAdmin:
    """The calls of :class:`pgqrs.Admin` about schedules."""

    _native: _pgqrs.Admin

    async def schedules(self) -> list[ScheduleInfo]:
        """Lists all schedules.

        Returns:
            The schedules, ordered by name.

        Raises:
            NotInstalledError: The database has no pgqrs schema.
        """
        return [ScheduleInfo._of(row) for row in await self._native.schedules()]

    async def schedule(self, name: str) -> ScheduleInfo:
        """Looks up a schedule.

        Args:
            name: Its name.

        Returns:
            The schedule.

        Raises:
            ScheduleNotFoundError: There is no such schedule.
        """
        return ScheduleInfo._of(await self._native.schedule(_arguments.text("name", name)))

    async def schedule_history(self, name: str) -> list[ScheduleFiring]:
        """Returns the last firings of a schedule, and what became of their messages.

        Args:
            name: Its name.

        Returns:
            At most 100, the newest first.

        Raises:
            ScheduleNotFoundError: There is no such schedule.
        """
        rows = await self._native.schedule_history(_arguments.text("name", name))
        return [ScheduleFiring(*row) for row in rows]

    async def set_schedule(self, schedule: Schedule[Any]) -> ScheduleChange:
        """Installs a schedule, or overwrites the one of its name, whatever its version: for schedules that users of an
        application edit.

        Args:
            schedule: The schedule.

        Returns:
            What has changed.

        Raises:
            QueueNotFoundError: There is no such queue.
            ScheduleTakenError: The name belongs to an owner.
            InvalidSettingError, InvalidHeaderError, PayloadTooLargeError: Before anything is sent.
        """
        change: ScheduleChange = await self._native.set_schedule(schedule._native)
        return change

    async def pause_schedule(self, name: str) -> None:
        """Pauses a schedule: it sends no messages until it is resumed.

        Args:
            name: Its name.

        Raises:
            ScheduleNotFoundError: There is no such schedule.
        """
        await self._native.pause_schedule(_arguments.text("name", name))

    async def resume_schedule(self, name: str) -> None:
        """Resumes a schedule, from its next time on.

        Args:
            name: Its name.

        Raises:
            ScheduleNotFoundError: There is no such schedule.
        """
        await self._native.resume_schedule(_arguments.text("name", name))

    async def fire_schedule(self, name: str) -> int | None:
        """Sends a schedule's message now, beside its times, also if it is paused.

        Args:
            name: Its name.

        Returns:
            The message's id; ``None`` if another message has its key: the last one is unfinished.

        Raises:
            ScheduleNotFoundError: There is no such schedule.
            QueueClosedError: Its queue is closed.
            KeyHeldError: An open transaction has sent a message with its key.
        """
        message: int | None = await self._native.fire_schedule(_arguments.text("name", name))
        return message

    async def delete_schedule(self, name: str) -> None:
        """Deletes a schedule. Messages that it has sent stay.

        Args:
            name: Its name.

        Raises:
            ScheduleNotFoundError: There is no such schedule.
        """
        await self._native.delete_schedule(_arguments.text("name", name))
