"""Schedules: messages that are sent at regular times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar

from pgqrs import _arguments, _pgqrs
from pgqrs.message import Message
from pgqrs.queue import Priority, PriorityName, Queue

T = TypeVar("T")

ScheduleChange = Literal["created", "replaced", "unchanged"]
"""What an installation has changed: ``unchanged`` if one of the same or a higher version was there."""

FiringOutcome = Literal[
    "ready", "delayed", "leased", "dead", "archived", "done", "unfinished", "queue closed"
]
"""What became of a time at which a schedule was fired: see :class:`ScheduleFiring`."""


@dataclass(frozen=True)
class Missed:
    """What a schedule does about times that it missed, because no process ran, or the server was away."""

    kind: str
    """``once``, ``skip`` or ``all``."""
    older_than: timedelta | None = None
    """For ``skip``: from then on a time is too old."""
    at_most: int | None = None
    """For ``all``: for how many of the last ones a message is sent."""

    @staticmethod
    def once() -> Missed:
        """One message, for the last of them: the default.

        Returns:
            The policy.
        """
        return Missed("once")

    @staticmethod
    def skip(older_than: float | timedelta) -> Missed:
        """One message, for the last of them, unless that is older than this. Then there is none until the next time.

        Args:
            older_than: In seconds or as a ``timedelta``.

        Returns:
            The policy.

        Raises:
            TypeError, ValueError: It isn't a number of seconds or a ``timedelta``, or is negative.
        """
        return Missed("skip", older_than=_arguments.duration("older_than", older_than))

    @staticmethod
    def all(at_most: int) -> Missed:
        """A message for each of the last ones.

        Args:
            at_most: For how many, from 1 to 1,000.

        Returns:
            The policy.

        Raises:
            TypeError, ValueError: It isn't an ``int``, or out of its range.
        """
        return Missed("all", at_most=_arguments.integer("at_most", at_most, 1, 1_000))


class Schedule(Generic[T]):
    """A schedule that is to be installed, by ``store.replace_schedules()`` or ``admin.set_schedule()``.

    Args:
        name: Its name: 1 to 128 bytes, unique in the database.
        queue: The queue that it sends to, or its name.
        payload: What is sent each time, as for :meth:`pgqrs.Producer.enqueue`.
        cron: When, as a cron expression of five fields, or of six with seconds: names, lists, ranges, steps, ``L``
            and ``@daily`` are allowed.
        every: When, as an interval, in seconds or as a ``timedelta``; at least 0.1 s. Pass either this or ``cron``.
        zone: The zone of the cron expression, by its name in the tz database.
        version: Only a higher one replaces what is installed.
        missed: What happens to times that passed while no process ran.
        priority: That of its messages.
        headers: Those of its messages.
        unique: A key: no message is sent while another of the queue has it.
        skip_if_unfinished: The same with a key of the schedule's own: no message is sent while the last one is
            unfinished.
        max_attempts: After how many deliveries a message becomes a dead letter; by default the queue's.
        expires_in: How long messages are of use, in seconds or as a ``timedelta``: one that isn't claimed within this
            time isn't delivered, and becomes a dead letter.
        drop_if_expired: Whether it is deleted then, instead of becoming a dead letter.

    Raises:
        InvalidCronError: The expression is invalid, or never fires.
        SerializeError, PayloadTooDeepError: The payload can't be represented in JSON.
        TypeError, ValueError: An argument is of the wrong type, or out of its range.
    """

    def __init__(
        self,
        name: str,
        queue: str | Queue[T],
        *,
        payload: T,
        cron: str | None = None,
        every: float | timedelta | None = None,
        zone: str = "UTC",
        version: int = 1,
        missed: Missed | None = None,
        priority: Priority | PriorityName = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
        unique: str | None = None,
        skip_if_unfinished: bool = False,
        max_attempts: int | None = None,
        expires_in: float | timedelta | None = None,
        drop_if_expired: bool = False,
    ) -> None:
        checked = _arguments.queue(queue)
        checked._check(payload, "payload")
        if (cron is None) == (every is None):
            raise TypeError("cron, every: a schedule has one time; pass one of the two")
        policy = Missed.once() if missed is None else missed
        if not isinstance(policy, Missed):
            raise TypeError(f"missed: expected a pgqrs.Missed, not {type(policy).__name__}")
        if checked.group_by is not None:
            raise TypeError(
                f"queue: {checked!r} computes groups, and a schedule can't send messages of groups"
            )
        message = Message(
            payload,
            unique=unique,
            max_attempts=max_attempts,
            expires_in=expires_in,
            drop_if_expired=drop_if_expired,
        )
        key, attempts, time_left, drops = _arguments.message(_arguments.with_key(checked, message))[5:]
        self._native = _pgqrs.Schedule(
            _arguments.text("name", name),
            checked.name,
            payload,
            cron=_arguments.optional_text("cron", cron),
            every=_arguments.optional_duration("every", every),
            zone=_arguments.text("zone", zone),
            version=_arguments.integer("version", version, 0, 2**31 - 1),
            missed=(policy.kind, policy.older_than, policy.at_most),
            priority=_arguments.priority(priority),
            headers=_arguments.headers(headers),
            unique=None if key is None else key[1],
            skip_if_unfinished=_arguments.flag("skip_if_unfinished", skip_if_unfinished),
            max_attempts=attempts,
            expires_in=time_left,
            drop_if_expired=drops,
        )


@dataclass(frozen=True)
class ScheduleChanges:
    """What ``store.replace_schedules()`` has changed: names, unordered."""

    created: list[str]
    """Schedules that there were none of."""
    replaced: list[str]
    """Schedules of which there was a lower version."""
    deleted: list[str]
    """Schedules of the owner that were not among the new ones."""
    is_outdated: bool
    """Whether nothing was changed, since the owner has schedules of a higher version: a newer deployment's."""


@dataclass(frozen=True)
class ScheduleInfo:
    """A schedule, as it is stored."""

    name: str
    """Its name."""
    queue: str
    """The queue that it sends to."""
    owner: str | None
    """Who declares it, together with others."""
    version: int
    """Its version, which only a higher one replaces."""
    cron: str | None
    """Its cron expression, if it has one."""
    every: timedelta | None
    """Its interval, if it has one."""
    zone: str
    """The zone of its expression."""
    missed: Missed
    """What it does about times that it missed."""
    unique_key: str | None
    """The key of its messages, if they have one: it sends none while another of its queue has this key."""
    priority: Priority
    """The priority of its messages."""
    max_attempts: int | None
    """After how many deliveries a message becomes a dead letter, if it doesn't follow its queue."""
    expires_in: timedelta | None
    """How long its messages are of use, from when they were sent."""
    drop_if_expired: bool
    """Whether those that have expired are deleted, instead of becoming dead letters."""
    headers: dict[str, str] = field(hash=False)
    """The headers of its messages."""
    next_at: datetime
    """Its next time, or the one that it would have if it weren't paused."""
    last_at: datetime | None
    """The last time that it has sent a message for."""
    last_fired_at: datetime | None
    """When it did so, by the database's clock."""
    paused_at: datetime | None
    """Since when it is paused."""
    upcoming: list[datetime] = field(hash=False)
    """Its next five times, from ``next_at`` on; only ``next_at`` if this version can't compute them."""

    @property
    def lateness(self) -> timedelta | None:
        """How long after its time the last message was sent."""
        if self.last_at is None or self.last_fired_at is None:
            return None
        return self.last_fired_at - self.last_at

    @staticmethod
    def _of(row: tuple[Any, ...]) -> ScheduleInfo:
        upcoming, (name, queue, owner, version, time, missed, priority, limits, headers, times) = row
        cron, every, zone = time
        unique_key, max_attempts, expires_in, drop_if_expired = limits
        next_at, last_at, last_fired_at, paused_at = times
        return ScheduleInfo(
            name=name,
            queue=queue,
            owner=owner,
            version=version,
            cron=cron,
            every=every,
            zone=zone,
            missed=Missed(*missed),
            unique_key=unique_key,
            priority=Priority(priority),
            max_attempts=max_attempts,
            expires_in=expires_in,
            drop_if_expired=drop_if_expired,
            headers=headers,
            next_at=next_at,
            last_at=last_at,
            last_fired_at=last_fired_at,
            paused_at=paused_at,
            upcoming=upcoming,
        )


@dataclass(frozen=True)
class ScheduleFiring:
    """A time at which a schedule was fired, and what became of its message."""

    scheduled_for: datetime | None
    """The time that it was for; ``None`` if it was fired by hand, beside its times."""
    fired_at: datetime
    """When it was fired, by the database's clock."""
    queue: str
    """The queue that the schedule sent to."""
    message: int | None
    """The id of the message that it sent; ``None`` if it sent none."""
    outcome: FiringOutcome
    """What became of the message: it is ``"ready"``, ``"delayed"``, ``"leased"``, ``"dead"`` or ``"archived"``, or it
    is nowhere any more: ``"done"``, which is acknowledged, if nobody has cancelled or deleted it and it hasn't
    expired. If none was sent: ``"unfinished"`` if another message had its key, or ``"queue closed"``."""


class Scheduler:
    """Fires schedules until it is stopped, or collected; made by ``store.scheduler()``."""

    def __init__(self, native: _pgqrs.Scheduler) -> None:
        self._native = native

    def stop(self) -> None:
        """Stops it.

        Raises:
            ForkedError: The store was connected before this process was forked.
        """
        self._native.stop()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
