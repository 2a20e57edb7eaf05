"""What an operator reads: the rows of lists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pgqrs.queue import Priority

WorkerStatus = Literal["ready", "suspended", "stopped"]
"""``ready`` and ``suspended`` go to and fro; both end in ``stopped``, which is final."""

WorkerKind = Literal["producer", "consumer"]


@dataclass(frozen=True)
class SchemaVersion:
    """How the database's schema and this version of the package fit together."""

    state: Literal["not_installed", "older", "up_to_date", "newer"]
    """``older``: ``install`` would upgrade it. ``newer``: a newer version of the package has upgraded it."""
    installed: int | None
    """The version in the database."""
    compiled: int | None
    """The version of this build."""


@dataclass(frozen=True)
class QueueInfo:
    """A queue as the database has it."""

    name: str
    """Its name."""
    max_attempts: int
    """How often a message is delivered at most, before it becomes a dead letter."""
    created_at: datetime
    """When it was created, by the database's clock."""


@dataclass(frozen=True)
class QueueStats:
    """How many messages a queue holds."""

    ready: int
    """Those that can be delivered now."""
    delayed: int
    """Those that are for later."""
    leased: int
    """Those that consumers hold."""
    oldest_ready: timedelta | None
    """For how long the oldest one that is ready has been."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.ready + self.delayed + self.leased


@dataclass(frozen=True)
class QueuedMessage:
    """A message that is in a queue."""

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
    """The producer that sent it, if one did."""
    consumer: int | None
    """The consumer that got it last, if one did."""
    last_error: str | None
    """What its last handler failed with, if it did."""
    raw_payload: str | None
    """What was enqueued, as JSON text; ``None`` unless payloads were requested."""

    @property
    def payload(self) -> Any:
        """What was enqueued, as ``json.loads`` reads it; ``None`` unless payloads were requested."""
        return _loaded(self.raw_payload)


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be handled."""

    id: int
    """Its id, as it was in the queue."""
    priority: Priority
    """Its priority."""
    enqueued_at: datetime
    """When it was enqueued."""
    attempt: int
    """How often it was delivered."""
    reason: str
    """Why it is here."""
    last_error: str | None
    """What its last handler failed with, if it did."""
    died_at: datetime
    """Since when it is here."""
    raw_payload: str | None
    """What was enqueued, as JSON text; ``None`` unless payloads were requested."""

    @property
    def payload(self) -> Any:
        """What was enqueued, as ``json.loads`` reads it; ``None`` unless payloads were requested."""
        return _loaded(self.raw_payload)


@dataclass(frozen=True)
class ArchivedMessage:
    """A message that was handled, and kept."""

    id: int
    """Its id, as it was in the queue."""
    priority: Priority
    """Its priority."""
    enqueued_at: datetime
    """When it was enqueued."""
    attempt: int
    """How often it was delivered."""
    archived_at: datetime
    """Since when it is here."""
    raw_payload: str | None
    """What was enqueued, as JSON text; ``None`` unless payloads were requested."""

    @property
    def payload(self) -> Any:
        """What was enqueued, as ``json.loads`` reads it; ``None`` unless payloads were requested."""
        return _loaded(self.raw_payload)


@dataclass(frozen=True)
class WorkerInfo:
    """A producer or a consumer as the database has it."""

    id: int
    """Its id."""
    kind: WorkerKind
    """What it does."""
    queue: str
    """The queue that it is for."""
    hostname: str
    """The host, by its own account."""
    port: int
    """The port, by its own account; 0 is anonymous."""
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
