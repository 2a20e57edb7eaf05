# The extension, for this package alone. Methods return an awaitable, or a value with `blocking=True`: hence `Any`.

from datetime import datetime, timedelta
from typing import Any, final

__all__ = ["AckStatement", "Admin", "Chunk", "Consumer", "Delivery", "GroupAdmin", "Log", "Measurements"]
__all__ += ["Observer", "Producer", "Schedule", "Scheduler", "Statement", "Store", "__version__"]
__all__ += ["check_queue_name", "connect", "encode", "statement", "test_statement"]

__version__: str

def connect(
    url: str,
    *,
    max_connections: int,
    acquire_timeout: timedelta,
    application_name: str,
    payload_limit: int,
    retry_for: timedelta,
    coalesce: bool,
    install: bool,
    pgbouncer: bool,
    listen_url: str | None,
    blocking: bool,
) -> Any:
    """Connects. The store and all objects made from it make their calls in the same mode."""

def check_queue_name(name: str) -> None:
    """Raises if a text isn't a valid queue name."""

def encode(payload: object, index: int = 0, in_batch: bool = False) -> str:
    """A payload as JSON text."""

def statement(
    queue: str,
    producer: Producer | None,
    payloads: list[Any],
    in_batch: bool,
    delay: timedelta | None,
    at: datetime | None,
    priority: str,
    headers: list[tuple[str, str]],
) -> Statement:
    """The statement of an enqueue, to a queue or through a producer."""

def test_statement(name: str) -> str:
    """The text of a test helper's statement."""

@final
class Store:
    """A connected database."""
    def close(self) -> Any:
        """Closes its connections. Later calls are refused."""
    def queue(self, name: str) -> Any:
        """Creates the queue if there is none of that name."""
    def wake(self, queue: str) -> Any:
        """Wakes the consumers of a queue."""
    def wake_soon(self, queue: str) -> None:
        """The same, in the background: callable from any thread, and without an event loop."""
    def observe(self, interval: timedelta) -> Any:
        """Observes the queues."""
    def schedule(self, schedule: Schedule) -> Any:
        """Installs a schedule without an owner."""
    def replace_schedules(self, owner: str, schedules: list[Schedule], version: int) -> Any:
        """Makes these the owner's schedules."""
    def scheduler(self) -> Any:
        """Fires schedules."""
    def producer(
        self, queue: str, hostname: str, port: int, *, heartbeat_interval: timedelta, replace: bool
    ) -> Any:
        """Registers a producer."""
    def consumer(
        self, queue: str, identity: tuple[str, int] | None, *, heartbeat_interval: timedelta, replace: bool
    ) -> Any:
        """Registers a consumer; anonymous without an identity."""

@final
class Producer:
    """A registered producer."""
    @property
    def id(self) -> int:
        """The worker's id."""
    def enqueue(
        self,
        payload: object,
        delay: timedelta | None,
        at: datetime | None,
        priority: str,
        headers: list[tuple[str, str]],
    ) -> Any:
        """Enqueues a message, and returns its id."""
    def enqueue_batch(
        self,
        payloads: list[Any],
        delay: timedelta | None,
        at: datetime | None,
        priority: str,
        headers: list[tuple[str, str]],
    ) -> Any:
        """Enqueues messages, all or none, and returns their ids."""
    def enqueue_messages(
        self,
        messages: list[Any],
        in_batch: bool,
        delay: timedelta | None,
        at: datetime | None,
        priority: str,
        headers: list[tuple[str, str]],
    ) -> Any:
        """Enqueues messages with options of their own, all or none. Returns for each its id, whether it is new, and
        whether the one that has its key has the same payload."""
    def wake_soon(self) -> None:
        """Wakes the consumers of its queue in the background: callable from any thread, and without an
        event loop."""
    def heartbeat(self) -> Any:
        """Sends a heartbeat."""
    def suspend(self) -> Any:
        """Suspends the worker."""
    def resume(self) -> Any:
        """Resumes the worker."""
    def shutdown(self) -> Any:
        """Shuts the worker down."""
    def status(self) -> Any:
        """The worker's state."""
    def is_healthy(self, max_age: timedelta) -> Any:
        """Whether its last heartbeat is within this time."""

@final
class Consumer:
    """A registered consumer."""
    @property
    def id(self) -> int:
        """The worker's id."""
    @property
    def hostname(self) -> str:
        """The host that it was registered with."""
    @property
    def port(self) -> int:
        """The port that it was registered with."""
    def start(
        self,
        *,
        concurrency: int,
        prefetch: int,
        prefetch_bytes: int,
        lease: timedelta,
        poll_interval: timedelta,
        retry: tuple[timedelta, float, timedelta, float],
        undecodable: tuple[timedelta, timedelta],
        handler_timeout: timedelta | None,
        cancel_grace: timedelta,
        listen: bool,
        shutdown_deadline: timedelta,
        chunk: tuple[int, timedelta] | None,
    ) -> None:
        """Starts receiving. Does nothing if it is running already, or has run."""
    def ready(self) -> list[Delivery | Chunk | int]:
        """The events that are there already. Waiting for the next ones takes longer than to handle a few, since it
        needs another thread, which needs the interpreter."""
    def next(self) -> Any:
        """Returns the events since the last call: deliveries or chunks, and tickets of those that were abandoned.
        Empty at the end."""
    def stop(self) -> None:
        """Requests a graceful stop. Returns at once."""
    def abort(self) -> None:
        """Ends the run without waiting for handlers: all messages that it holds are released. Returns at
        once."""
    def report(self) -> Any:
        """Waits for the end, and returns the report."""
    def ended(self, limit: timedelta) -> Any:
        """Waits for the end, at most for this time."""
    def heartbeat(self) -> Any:
        """Sends a heartbeat."""
    def suspend(self) -> Any:
        """Suspends the worker."""
    def resume(self) -> Any:
        """Resumes the worker."""
    def shutdown(self) -> Any:
        """Shuts the worker down."""
    def status(self) -> Any:
        """The worker's state."""
    def is_healthy(self, max_age: timedelta) -> Any:
        """Whether its last heartbeat is within this time."""

@final
class Chunk:
    """Messages that are leased to this process, and handled by one call."""
    @property
    def ticket(self) -> int:
        """The ticket of this chunk in the loop."""
    def messages(self) -> list[tuple[int, str, dict[str, str], str, int, datetime]]:
        """The messages' fields: id, payload as it was sent, headers, priority, attempt, time of the enqueue."""
    def is_cancelled(self, index: int) -> bool:
        """Whether a message was cancelled, by its index; `false` once the handler has ended."""
    def settle(
        self, index: int, outcome: str, delay: timedelta | None = None, reason: str | None = None
    ) -> None:
        """Settles one message when the handler ends, by its index. Does nothing once the handler has ended."""
    def begin(self) -> bool:
        """Starts the handler's time limit; `false` if the handler must not start, since the loop has abandoned the
        chunk."""
    def finish(self, outcome: str, delay: timedelta | None = None, reason: str | None = None) -> None:
        """Reports the handler's outcome to the loop, for all messages that aren't settled one by one."""

@final
class Delivery:
    """A message that is leased to this process. Its lease is extended until it is settled, or dropped."""
    @property
    def ticket(self) -> int:
        """The ticket of this delivery in the loop."""
    @property
    def id(self) -> int:
        """The message's id."""
    @property
    def raw_payload(self) -> str:
        """The payload as it was sent."""
    @property
    def headers(self) -> dict[str, str]:
        """The headers."""
    @property
    def scheduled_for(self) -> datetime | None:
        """The time that a schedule has sent the message for."""
    @property
    def priority(self) -> str:
        """Its priority."""
    @property
    def attempt(self) -> int:
        """The attempt: 1 for the first delivery of the message."""
    @property
    def max_attempts(self) -> int:
        """After how many attempts the message becomes a dead letter."""
    @property
    def group(self) -> str | None:
        """The group that it belongs to."""
    @property
    def snoozes(self) -> int:
        """How often a handler has put it off."""
    @property
    def enqueued_at(self) -> datetime:
        """When the message was enqueued."""
    @property
    def lease_expires_at(self) -> datetime | None:
        """When the lease runs out; `None` if it is settled, or if a statement about it is under way."""
    @property
    def is_settled(self) -> bool:
        """Whether it is settled, or is being settled."""
    def ack(self) -> Any:
        """Acknowledges the message."""
    def ack_statement(self, blocking: bool) -> Any:
        """The acknowledgement as SQL."""
    def archive(self) -> Any:
        """Archives the message."""
    def nack(self, delay: timedelta | None) -> Any:
        """Fails this attempt: the message is retried after this delay, or by the consumer's policy."""
    def later(self, delay: timedelta) -> Any:
        """Puts the message off: it is delivered again after this delay, and no attempt is used."""
    def slow_down(self, delay: timedelta) -> Any:
        """Puts the message off, and slows its queue down."""
    def dead_letter(self, reason: str) -> Any:
        """Makes the message a dead letter."""
    def extend(self, lease: timedelta) -> Any:
        """Extends the lease to this duration from now on."""
    @property
    def is_cancelled(self) -> bool:
        """Whether the message was cancelled."""
    def cancelled(self, limit: timedelta | None) -> Any:
        """Waits until the message was cancelled, at most for this time; whether it was."""
    def begin(self, by_handler: bool = True) -> bool:
        """Starts the handler's time limit; `false` if the handler must not start, since the loop has
        abandoned the delivery. An iteration has no handler."""
    def finish(self, outcome: str, delay: timedelta | None = None, reason: str | None = None) -> None:
        """Reports the handler's outcome to the loop, which settles in batches. Does nothing if the
        delivery is settled already. If it was acknowledged in a transaction, the loop learns whether the
        handler has failed nevertheless."""

@final
class Admin:
    """Administration of the schema, queues, messages and workers."""
    def __new__(cls, store: Store) -> Admin: ...
    def install(self) -> Any:
        """Creates or upgrades the schema."""
    def verify(self) -> Any:
        """Compares the schema's version: returns the status, the version in the database, and the version
        of this build."""
    def set_fillfactor(self, percent: int) -> Any:
        """Sets how far inserts fill pages, in percent."""
    def create_queue(self, queue: str) -> Any:
        """Creates a queue."""
    def queue(self, queue: str) -> Any:
        """Returns a queue."""
    def queues(self) -> Any:
        """Returns all queues."""
    def delete_queue(self, queue: str) -> Any:
        """Deletes an empty queue."""
    def purge_queue(self, queue: str) -> Any:
        """Deletes all messages of a queue."""
    def health(self) -> Any:
        """Returns the database's and the queues' health."""
    def queue_stats(self, queue: str) -> Any:
        """Returns how many messages are ready, delayed, leased and dead, counted up to a limit."""
    def all_queue_stats(self) -> Any:
        """The same of all queues."""
    def exact_queue_stats(self, queue: str) -> Any:
        """The same, counted exactly."""
    def configure_queue(
        self,
        queue: str,
        *,
        max_attempts: int | None,
        lease: tuple[timedelta | None] | None,
        retry_min: tuple[timedelta | None] | None,
        retry_max: tuple[timedelta | None] | None,
        archive_on_ack: bool | None,
        archive_for: tuple[timedelta | None] | None,
        dead_letters_for: tuple[timedelta | None] | None,
        sensitive: bool | None,
        limits: tuple[Any, Any, Any],
    ) -> Any:
        """Changes a queue's settings. A duration is left as it is by `None`, and unset by a tuple with
        `None`."""
    def pause_queue(self, queue: str, until: datetime | None) -> Any:
        """Pauses a queue, until it is resumed or until this time."""
    def resume_queue(self, queue: str) -> Any:
        """Resumes a paused queue."""
    def close_queue(self, queue: str) -> Any:
        """Has a queue refuse sends."""
    def reopen_queue(self, queue: str) -> Any:
        """Has a closed queue accept sends again."""
    def messages(self, queue: str, after: int | None, limit: int, payload: bool) -> Any:
        """Lists messages of a queue."""
    def cancel(self, queue: str, message: int, archive: bool) -> Any:
        """Cancels a message; returns what it was, if there was one."""
    def cancel_by_key(self, queue: str, key: str, archive: bool) -> Any:
        """Cancels the messages with a key; returns the id of each, and what it was."""
    def of_groups(self) -> GroupAdmin:
        """The calls about groups."""
    def reschedule(self, queue: str, message: int, time: datetime) -> Any:
        """Reschedules a message that isn't leased."""
    def dead_letters(self, queue: str, after: int | None, limit: int, payload: bool) -> Any:
        """Lists dead letters of a queue."""
    def dead_letter_count(self, queue: str) -> Any:
        """Returns the number of dead letters."""
    def requeue(self, queue: str, message: int) -> Any:
        """Requeues a dead letter."""
    def requeue_all(self, queue: str, older_than: timedelta) -> Any:
        """Requeues all dead letters of this age."""
    def purge_dead_letters(self, queue: str, older_than: timedelta) -> Any:
        """Deletes dead letters of this age."""
    def archived(self, queue: str, after: int | None, limit: int, payload: bool) -> Any:
        """Lists archived messages of a queue."""
    def purge_archive(self, queue: str, older_than: timedelta) -> Any:
        """Deletes archived messages of this age."""
    def schedules(self) -> Any:
        """Lists schedules, each after its next times."""
    def schedule(self, name: str) -> Any:
        """Returns a schedule, after its next times."""
    def schedule_history(self, name: str) -> Any:
        """Returns a schedule's last firings."""
    def set_schedule(self, schedule: Schedule) -> Any:
        """Installs or overwrites a schedule without an owner."""
    def pause_schedule(self, name: str) -> Any:
        """Pauses a schedule."""
    def resume_schedule(self, name: str) -> Any:
        """Resumes a schedule."""
    def fire_schedule(self, name: str) -> Any:
        """Sends a schedule's message now."""
    def delete_schedule(self, name: str) -> Any:
        """Deletes a schedule."""
    def workers(self, queue: str | None) -> Any:
        """Lists workers, optionally of one queue."""
    def worker(self, worker: int) -> Any:
        """Returns a worker."""
    def suspend_worker(self, worker: int) -> Any:
        """Suspends a worker."""
    def resume_worker(self, worker: int) -> Any:
        """Resumes a worker."""
    def stop_worker(self, worker: int) -> Any:
        """Stops a worker."""
    def remove_worker(self, worker: int) -> Any:
        """Removes a worker that has stopped or crashed."""
    def remove_ended_workers(self, older_than: timedelta) -> Any:
        """Removes workers that stopped or crashed this long ago."""
    def held_messages(self, worker: int) -> Any:
        """Returns the messages that a worker holds."""
    def release(self, worker: int) -> Any:
        """Releases the messages that a worker holds."""

@final
class Log:
    """Events of one process. A child made by `fork` has its own."""
    def limit(self, capacity: int) -> None:
        """Sets how many events can wait to be logged. Further ones are dropped, and counted."""
    def next(self) -> tuple[list[tuple[str, str, dict[str, Any]]], int] | None:
        """Waits for events. Returns them as tuples of level, text and fields, with the number of those that were
        dropped before them; `None` after the last ones."""

@final
class Measurements:
    """The measurements of this process."""
    @staticmethod
    def measure(on: bool) -> None:
        """Begins to measure, or ends it at once, without a lock."""
    @staticmethod
    def next() -> list[tuple[str, str, str, str, list[float], dict[str, str], list[float]]] | None:
        """Waits for measurements. Returns each as a tuple of name, kind, unit, description, bounds, attributes and
        values; `None` after the last ones."""
    @staticmethod
    def wait(seconds: float) -> None:
        """Waits until all of them are recorded, or for this many seconds."""
    @staticmethod
    def close() -> None:
        """No more of them are to come."""

@final
class Observer:
    """Observes the queues until it is stopped, or collected."""
    def latest(self) -> tuple[Any, ...] | None:
        """Returns what was read last."""
    def error(self) -> Any:
        """Returns why the last attempt to read failed."""
    def changed(self) -> Any:
        """Waits for the next attempt, and returns what it read."""
    def stop(self) -> None:
        """Stops it."""

@final
class Schedule:
    """A schedule that is to be installed."""
    def __new__(
        cls,
        name: str,
        queue: str,
        payload: object,
        *,
        cron: str | None,
        every: timedelta | None,
        zone: str,
        version: int,
        missed: tuple[str, timedelta | None, int | None],
        priority: str,
        headers: list[tuple[str, str]],
        unique: str | None,
        skip_if_unfinished: bool,
        max_attempts: int | None,
        expires_in: timedelta | None,
        drop_if_expired: bool,
    ) -> Schedule: ...

@final
class Scheduler:
    """Fires schedules until it is stopped."""
    def stop(self) -> None:
        """Stops it."""

@final
class GroupAdmin:
    """Administration of groups."""
    def groups(self, queue: str, order: str, limit: int) -> Any:
        """Lists groups of a queue."""
    def group(self, queue: str, group: str) -> Any:
        """Returns a group."""
    def promote_groups(self, queue: str) -> Any:
        """Promotes parked messages of all groups of a queue."""
    def stop_group(self, queue: str, group: str) -> Any:
        """Stops a group."""
    def resume_group(self, queue: str, group: str) -> Any:
        """Resumes a group."""
    def set_group_limit(self, queue: str, group: str, at_once: int | None) -> Any:
        """Sets a group's own limit."""
    def set_group_rate(self, queue: str, group: str, rate: tuple[int, timedelta] | None) -> Any:
        """Sets a group's own rate."""
    def purge_group(self, queue: str, group: str) -> Any:
        """Deletes what is parked of a group."""

@final
class AckStatement:
    """An acknowledgement as SQL. Until it is checked or withdrawn, nothing else is done with the delivery."""
    @property
    def sql(self) -> str:
        """The text, with `$1` to `$3`."""
    @property
    def parameters(self) -> tuple[int, int, int]:
        """The values of the parameters."""
    def check(self, rows: list[int]) -> None:
        """Settles the delivery, from the rows that the statement returned. Raises if its lease is lost."""
    def withdraw(self) -> None:
        """Gives the delivery back, unless the statement was checked."""

@final
class Statement:
    """The statement and its parameters."""
    @property
    def sql(self) -> str:
        """The text, with `$1` to `$7`."""
    @property
    def parameters(self) -> tuple[str, int, datetime | None, int, int | None, list[str]]:
        """The values of the parameters."""
    def check(self, rows: list[int]) -> list[int]:
        """Returns the ids of the messages, in their order, from the rows that the statement returned.
        Raises if nothing was stored."""
