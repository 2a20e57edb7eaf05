"""What administrative calls return."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from pgqrs.queue import Priority

WorkerStatus = Literal["ready", "suspended", "stopped"]
"""The state of a worker. ``stopped`` is final."""

WorkerKind = Literal["producer", "consumer"]


Cancelled = Literal["waiting", "running"]
"""What a cancelled message was: ``waiting`` to be delivered, or claimed by a consumer, whose handler may be
``running``."""


@dataclass(frozen=True)
class SchemaVersion:
    """How the database's schema compares with the one that this version of the package requires."""

    state: Literal["not_installed", "older", "up_to_date", "newer", "distributed"]
    """``older``: ``install`` would upgrade it. ``newer``: a newer version of the package has upgraded it.
    ``distributed``: Citus manages tables of it, and refuses most statements on them; ``install`` says what to do."""
    installed: int | None
    """The version in the database."""
    compiled: int | None
    """The version of this build."""
    on_citus: bool = False
    """Whether the database is on a node of Citus, if that was found out: with ``up_to_date``, whose tables are local to
    the node, and with ``distributed``."""
    tables: list[str] = field(default_factory=list)
    """With ``distributed``: the tables, without the schema's name."""


@dataclass(frozen=True)
class Rate:
    """How many attempts start within a time, on average: ``Rate(100, per=60)``.

    What isn't used is saved up to one burst: what comes in a second, or in ``per`` if that is shorter, and at least one.
    So at most ``messages`` and a burst less one start within ``per``, wherever it begins. For an even pace, write the
    rate with one message: ``Rate(1, per=0.01)``.
    """

    messages: int
    """How many messages, from 1."""
    per: float | timedelta
    """Within which time, in seconds or as a ``timedelta``: from a millisecond to 365 days."""


def _rate(row: tuple[int, timedelta] | None) -> Rate | None:
    return None if row is None else Rate(*row)


@dataclass(frozen=True)
class QueueInfo:
    """A queue, with its settings."""

    name: str
    """Its name."""
    max_attempts: int
    """How often a message is delivered at most, before it becomes a dead letter."""
    created_at: datetime
    """When it was created, by the database's clock."""
    lease: timedelta | None
    """How long its messages are leased; ``None`` if consumers decide."""
    retry_min: timedelta | None
    """How long a message waits after its first attempt failed; ``None`` if consumers decide."""
    retry_max: timedelta | None
    """How long a message waits after a failed attempt, at most; ``None`` if consumers decide."""
    archive_on_ack: bool
    """Whether acknowledged messages are archived."""
    archive_for: timedelta | None
    """How long archived messages are kept; ``None`` is for ever."""
    dead_letters_for: timedelta | None
    """How long dead letters are kept; ``None`` is for ever."""
    sensitive: bool
    """Whether the operators' page and the command hide its payloads."""
    groups_at_once: int | None
    """How many messages of a group are on their way at a time; ``None`` if it takes no groups."""
    stops_after_dead_letter: bool
    """Whether a group waits for an operator after one of its messages became a dead letter."""
    groups_rate: Rate | None
    """How many attempts of each group start within a time; ``None`` if there is no limit."""
    max_running: int | None
    """How many of its messages are leased at a time, by all consumers together; ``None`` if there is no limit."""
    rate: Rate | None
    """How many attempts start within a time, by all consumers together; ``None`` if there is no limit."""
    is_paused: bool
    """Whether it is paused now, by the database's clock: nothing is claimed."""
    paused_until: datetime | None
    """When the pause ends; ``None`` if it isn't paused, or paused until it is resumed."""
    slowed_until: datetime | None
    """Until when nothing is claimed since a handler has slowed it down; ``None`` if none has."""
    closed_at: datetime | None
    """Since when it refuses sends; ``None`` if it accepts them."""

    @staticmethod
    def _of(row: tuple[Any, ...]) -> QueueInfo:
        sensitive, at_once, stops, groups_rate, max_running, rate, *state = row[-1]
        limits = [sensitive, at_once, stops, _rate(groups_rate), max_running, _rate(rate)]
        fields: list[Any] = [*row[:-1], *limits, *state]
        return QueueInfo(*fields)


class Count(int):
    """How many there are: a number, which prints as ``1,204``, or as ``10,000+`` if there may be more."""

    at_least: bool
    """Whether counting stopped at its limit, so that there may be more."""

    def __new__(cls, value: int, at_least: bool = False) -> Count:
        count = super().__new__(cls, value)
        count.at_least = at_least
        return count

    def __str__(self) -> str:
        return f"{int(self):,}{'+' if self.at_least else ''}"

    def __repr__(self) -> str:
        return f"Count({int(self)}, at_least={self.at_least})"


@dataclass(frozen=True)
class QueueStats:
    """Counts of a queue's messages, in one snapshot. Each message is in just one of them."""

    queue: str
    """The queue."""
    ready: Count
    """Messages that can be delivered now."""
    delayed: Count
    """Messages that aren't visible yet: delayed, scheduled, or waiting for a retry."""
    parked: Count
    """Messages that are parked behind others of their groups."""
    leased: Count
    """Messages that a consumer holds and whose lease still runs."""
    dead: Count
    """Dead letters, which aren't in the queue any more."""
    oldest_ready: timedelta | None
    """How long the oldest ready message has been ready; ``None`` if none is ready. If ``ready`` is not exact, of
    those that were counted."""
    stopped_groups: Count
    """Groups that are stopped: what they have parked waits for an operator."""

    @property
    def total(self) -> Count:
        """All messages of the queue: ready, delayed, parked and leased."""
        counts = (self.ready, self.delayed, self.parked, self.leased)
        return Count(sum(counts), any(count.at_least for count in counts))

    @staticmethod
    def _of(row: tuple[Any, ...]) -> QueueStats:
        queue, ready, delayed, parked, leased, dead, oldest_ready, stopped_groups = row
        return QueueStats(
            queue=queue,
            ready=Count(*ready),
            delayed=Count(*delayed),
            parked=Count(*parked),
            leased=Count(*leased),
            dead=Count(*dead),
            oldest_ready=oldest_ready,
            stopped_groups=Count(*stopped_groups),
        )


@dataclass(frozen=True)
class QueuedMessage:
    """A message of a queue, in its current state."""

    id: int
    """Its id."""
    priority: Priority
    """Its priority."""
    visible_at: datetime
    """From when on it can be delivered, if it isn't leased."""
    enqueued_at: datetime
    """When it was enqueued."""
    attempt: int
    """How often it was delivered."""
    lease_expires_at: datetime | None
    """When its lease runs out; ``None`` if no consumer holds it."""
    producer: int | None
    """The producer that it was sent through, if any."""
    consumer: int | None
    """The consumer that it was last delivered to, if any."""
    last_error: str | None
    """The error of the last attempt, if known."""
    headers: dict[str, str] = field(hash=False)
    """The headers that it was enqueued with."""
    raw_payload: str | None
    """The payload as it was sent, as JSON text; ``None`` unless payloads were requested."""
    max_attempts: int | None
    """After how many attempts it becomes a dead letter, if it has a limit of its own; otherwise that of its queue
    holds."""
    expires_at: datetime | None
    """When it expires, unless it was started before."""
    snoozes: int
    """How often a handler has put it off."""
    undecodable_since: datetime | None
    """Since when consumers have found that its payload doesn't decode."""
    group: str | None
    """Its group, if it has one."""
    is_parked: bool
    """Whether it waits for others of its group to be settled."""

    @property
    def payload(self) -> Any:
        """The payload, as ``json.loads`` reads it; ``None`` unless payloads were requested."""
        return _loaded(self.raw_payload)


@dataclass(frozen=True)
class DeadLetter:
    """A message that is not delivered any more."""

    id: int
    """Its id, as it was in the queue."""
    priority: Priority
    """Its priority."""
    enqueued_at: datetime
    """When it was enqueued."""
    attempt: int
    """How often it was delivered."""
    reason: str
    """Why it is here: ``attempts used up``, ``expired``, ``its payload doesn't decode``, or the reason from the
    handler."""
    last_error: str | None
    """The error of the last attempt, if known."""
    died_at: datetime
    """When it got here, by the database's clock."""
    headers: dict[str, str] = field(hash=False)
    """The headers that it was enqueued with."""
    raw_payload: str | None
    """The payload as it was sent, as JSON text; ``None`` unless payloads were requested."""
    max_attempts: int | None
    """After how many attempts it was to become one, if it had a limit of its own."""
    group: str | None
    """Its group, if it has one."""

    @property
    def payload(self) -> Any:
        """The payload, as ``json.loads`` reads it; ``None`` unless payloads were requested."""
        return _loaded(self.raw_payload)


GroupOrder = Literal["parked", "oldest", "stopped"]
"""By what groups are listed: the number of parked messages, most first; the age of the first parked one, oldest first; or
only those that are stopped, since the longest first."""


@dataclass(frozen=True)
class GroupInfo:
    """A group of a queue, which has messages or settings of its own."""

    group: str
    """Its name."""
    live: int
    """Messages that are on their way: ready, delayed, leased, or waiting for another attempt."""
    parked: int
    """Messages that wait for those to be settled."""
    at_once: int | None
    """Its own limit, if it has one; otherwise that of its queue holds."""
    rate: Rate | None
    """Its own rate, if it has one; otherwise that of its queue's groups holds."""
    stopped_at: datetime | None
    """Since when it is stopped; ``None`` if it isn't."""
    stopped_by: int | None
    """The dead letter that has stopped it; ``None`` if an operator has."""
    oldest_parked: datetime | None
    """When the first of its parked messages was sent."""

    @staticmethod
    def _of(row: tuple[Any, ...]) -> GroupInfo:
        fields: list[Any] = [*row[:4], _rate(row[4]), *row[5:]]
        return GroupInfo(*fields)


@dataclass(frozen=True)
class Requeued:
    """What became of dead letters that were to be put back into their queue."""

    back: int
    """How many are back."""
    held: int
    """How many stay dead letters, since by now another message of the queue has their key."""


@dataclass(frozen=True)
class ArchivedMessage:
    """A message that was handled and kept."""

    id: int
    """Its id, as it was in the queue."""
    priority: Priority
    """Its priority."""
    enqueued_at: datetime
    """When it was enqueued."""
    attempt: int
    """How often it was delivered."""
    archived_at: datetime
    """When it got here, by the database's clock."""
    headers: dict[str, str] = field(hash=False)
    """The headers that it was enqueued with."""
    raw_payload: str | None
    """The payload as it was sent, as JSON text; ``None`` unless payloads were requested."""

    @property
    def payload(self) -> Any:
        """The payload, as ``json.loads`` reads it; ``None`` unless payloads were requested."""
        return _loaded(self.raw_payload)


@dataclass(frozen=True)
class WorkerInfo:
    """A registered worker."""

    id: int
    """Its id."""
    kind: WorkerKind
    """Whether it is a producer or a consumer."""
    queue: str
    """The queue that it is registered for."""
    hostname: str
    """The host that it was registered with."""
    port: int
    """The port that it was registered with; 0 is anonymous."""
    status: WorkerStatus
    """Its state."""
    started_at: datetime
    """When it was registered."""
    heartbeat_at: datetime
    """When its last heartbeat was."""
    stale: bool
    """Whether its last heartbeat is so old that it counts as crashed."""


@dataclass(frozen=True)
class HeldMessage:
    """A message that a consumer holds under a lease that still runs."""

    id: int
    """The message."""
    attempt: int
    """Which delivery of it this is: 1 the first time."""
    lease_expires_at: datetime
    """When the lease runs out."""


def _loaded(raw: str | None) -> Any:
    return None if raw is None else json.loads(raw)


def with_priority(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row of the extension, with its second column as a :class:`Priority`."""
    return (row[0], Priority(row[1]), *row[2:])
