"""What ``admin.health()`` and ``store.observe()`` return."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pgqrs.listings import QueueStats, SchemaVersion, WorkerInfo

Severity = Literal["info", "warning", "critical"]
"""``warning``: it gets worse unless somebody acts. ``critical``: messages are late, or soon will be."""

FindingKind = Literal[
    "horizon_held",
    "dead_rows",
    "autovacuum_off",
    "backlog",
    "missed_heartbeats",
    "schema",
    "connections_short",
    "wraparound",
    "not_visible",
]
"""What was found; the thresholds are in the Rust crate's documentation of ``FindingKind``."""

_SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")


@dataclass(frozen=True)
class HorizonHolder:
    """A session, a prepared transaction, a replication slot or a standby that holds back vacuum."""

    source: Literal["session", "prepared_transaction", "replication_slot", "standby"]
    """What it is."""
    pid: int | None
    """The process of a session or a standby, or the one that uses a slot."""
    name: str
    """The ``application_name`` of a session or a standby, the slot's name, or the prepared transaction's identifier."""
    role: str | None
    """The role of a session or a prepared transaction."""
    state: str | None
    """The state of a session, such as ``idle in transaction``, if the role may see it."""
    query: str | None
    """The first 120 characters of a session's last statement, if the role may see it."""
    transactions: int
    """How many transactions have begun since."""
    held_for: timedelta | None
    """For how long its transaction has been open, if that is known."""
    only_catalogs: bool
    """Whether it holds back only the system's catalogs, and no row of a queue."""


@dataclass(frozen=True)
class Horizon:
    """What keeps vacuum from removing dead rows, in all tables of the database."""

    holders: list[HorizonHolder]
    """Whatever holds it back, the oldest first: at most ten, and mostly for less than a second each."""

    @property
    def transactions(self) -> int:
        """How many transactions have begun since the oldest snapshot; 0 if there is none."""
        return max((holder.transactions for holder in self.holders if not holder.only_catalogs), default=0)

    @property
    def held_for(self) -> timedelta:
        """For how long the oldest transaction has been open, as far as that is known."""
        known = (holder.held_for for holder in self.holders if holder.held_for is not None)
        return max(known, default=timedelta(0))

    @staticmethod
    def _of(rows: list[tuple[Any, ...]]) -> Horizon:
        return Horizon([HorizonHolder(*row) for row in rows])


@dataclass(frozen=True)
class TableHealth:
    """A table of the schema ``pgqrs``, as the server's statistics have it. The numbers of rows are estimates."""

    name: str
    """Its name, such as ``messages``."""
    toast: bool
    """Whether it is the one in which the large payloads of that table are."""
    live_rows: int
    """Rows."""
    dead_rows: int
    """Dead rows that vacuum has not removed yet."""
    vacuum_at: int
    """The number of dead rows from which on autovacuum vacuums it."""
    last_vacuum: timedelta | None
    """How long ago the last vacuum has finished; ``None`` if there was none."""
    last_analyze: timedelta | None
    """How long ago its statistics were last updated; ``None`` if they never were."""
    autovacuum: bool
    """Whether autovacuum is on for this table."""


@dataclass(frozen=True)
class QueueHealth:
    """A queue, and the consumers that are registered for it."""

    stats: QueueStats
    """Its messages."""
    consumers: int
    """Consumers that run."""
    suspended_consumers: int
    """Consumers that are suspended."""
    is_paused: bool
    """Whether the queue is paused, so that no consumer claims."""


@dataclass(frozen=True)
class StaleWorker:
    """A worker that is registered as running, and has missed so many heartbeats that it counts as crashed."""

    worker: WorkerInfo
    """The worker."""
    last_heartbeat: timedelta
    """How long ago its last heartbeat was."""
    others_run: bool
    """Whether another worker of its kind and queue runs."""


@dataclass(frozen=True)
class ConnectionUse:
    """Connections of clients, of all databases of the server."""

    used: int
    """Those that are open."""
    limit: int
    """How many can be open, for roles that aren't superusers."""


@dataclass(frozen=True)
class Finding:
    """Something to act on. ``str(finding)`` is what was found."""

    severity: Severity
    """How urgent it is."""
    kind: FindingKind
    """What was found, for programs."""
    summary: str
    """What was found, in words."""
    remedy: str
    """What to do, with the statement to run."""
    subject: HorizonHolder | TableHealth | QueueHealth | StaleWorker | None
    """What it is about, if it is one of these."""

    def __str__(self) -> str:
        return self.summary


@dataclass(frozen=True)
class Health:
    """The state of the database and of the queues at one moment. ``print(health)`` is a report for a terminal."""

    findings: list[Finding]
    """What to act on, the most severe first; empty if there is nothing."""
    checked_at: datetime
    """When it was read, by the database's clock."""
    database: str
    """The database."""
    role: str
    """The role that looked."""
    server_version: str
    """PostgreSQL's version."""
    schema: SchemaVersion | None
    """The version of the schema; ``None`` if it could not be read."""
    autovacuum: bool
    """Whether the server runs autovacuum."""
    unfrozen_transactions: int
    """How many transactions ago the database's oldest row was frozen."""
    horizon: Horizon | None
    """What keeps vacuum from removing dead rows; ``None`` if the role may not read the server's views."""
    tables: list[TableHealth]
    """The tables of the schema."""
    queues: list[QueueHealth]
    """The queues, by name; empty if they could not be read."""
    stale_workers: list[StaleWorker]
    """Workers that missed their heartbeats."""
    connections: ConnectionUse | None
    """How many connections are in use; ``None`` if the role may not read ``pg_stat_activity``."""
    report: str
    """All of it as text."""

    @property
    def severity(self) -> Severity | None:
        """The severity of the most severe finding; ``None`` if there is no finding."""
        found: list[Severity] = [finding.severity for finding in self.findings]
        return max(found, key=_SEVERITIES.index, default=None)

    def __str__(self) -> str:
        return self.report

    @staticmethod
    def _of(row: tuple[Any, ...]) -> Health:
        report, findings, server, (holders, tables, queues, stale, connections) = row
        checked_at, database, role, server_version, schema, autovacuum, unfrozen_transactions = server
        horizon = None if holders is None else Horizon._of(holders)
        table_list = [TableHealth(*table) for table in tables]
        queue_list = [
            QueueHealth(QueueStats._of(stats), running, suspended, is_paused)
            for stats, running, suspended, is_paused in queues
        ]
        stale_list = [StaleWorker(WorkerInfo(*worker), silent, others) for worker, silent, others in stale]
        subjects: dict[str, list[Any]] = {
            "horizon_held": [] if horizon is None else horizon.holders,
            "dead_rows": table_list,
            "backlog": queue_list,
            "missed_heartbeats": stale_list,
        }
        return Health(
            findings=[
                Finding(
                    severity,
                    kind,
                    summary,
                    remedy,
                    None if place is None else subjects[kind][place],
                )
                for severity, kind, summary, remedy, place in findings
            ],
            checked_at=checked_at,
            database=database,
            role=role,
            server_version=server_version,
            schema=None if schema is None else SchemaVersion(*schema),
            autovacuum=autovacuum,
            unfrozen_transactions=unfrozen_transactions,
            horizon=horizon,
            tables=table_list,
            queues=queue_list,
            stale_workers=stale_list,
            connections=None if connections is None else ConnectionUse(*connections),
            report=report,
        )


@dataclass(frozen=True)
class Observation:
    """What was read of the queues at one moment."""

    at: datetime
    """When, by the database's clock."""
    queues: list[QueueStats]
    """The queues, by name."""
    horizon: Horizon | None
    """What holds back vacuum; ``None`` if the role may not read the server's views."""

    @staticmethod
    def _of(row: tuple[Any, ...]) -> Observation:
        at, queues, holders = row
        horizon = None if holders is None else Horizon._of(holders)
        return Observation(at, [QueueStats._of(stats) for stats in queues], horizon)
