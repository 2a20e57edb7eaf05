"""Producers: registered senders to one queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Generic, TypeVar, overload

from pgqrs import _arguments, _pgqrs, _telemetry, _turns
from pgqrs.listings import WorkerStatus
from pgqrs.message import Message, OnDuplicate, Sent
from pgqrs.queue import Priority, PriorityName, Queue

T = TypeVar("T")


class Producer(Generic[T]):
    """A registered sender to one queue; made by :meth:`pgqrs.Store.producer`.

    Its messages record its id. Others see it in ``store.admin().workers()``, and an operator can suspend or stop it
    from another process, which takes effect at its next enqueue. It sends heartbeats in the background. It ends with
    :meth:`shutdown`, at the end of an ``async with``, or with its store.

    A send is stored exactly once, also if connections break: it is retried until its outcome is known, for the
    store's ``retry_for``. Sends that wait at the same time share a statement and its commit, so that many tasks or
    threads that send one message each are fast. If a send is cancelled before it is part of a statement, nothing is
    stored; after that, it may be.

    If the database is unavailable, each call but ``enqueue`` and its like can raise :class:`pgqrs.ConnectError`,
    :class:`pgqrs.ConnectionLostError`, :class:`pgqrs.AcquireTimeoutError` or :class:`pgqrs.ClosedError`.
    """

    def __init__(self, native: _pgqrs.Producer, queue: Queue[T], hostname: str, port: int) -> None:
        self._native = native
        self._queue = queue
        self._hostname = hostname
        self._port = port

    @property
    def id(self) -> int:
        """The worker's id, recorded on its messages."""
        return self._native.id

    @property
    def queue(self) -> Queue[T]:
        """The queue that it sends to."""
        return self._queue

    @property
    def hostname(self) -> str:
        """The host that it was registered with."""
        return self._hostname

    @property
    def port(self) -> int:
        """The port that it was registered with; 0 is anonymous."""
        return self._port

    async def enqueue(
        self,
        payload: T,
        *,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        priority: Priority | PriorityName = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
        unique: str | None = None,
        unique_until_claimed: str | None = None,
        on_duplicate: OnDuplicate = "keep",
        max_wait: float | timedelta | None = None,
        once_within: tuple[str, float | timedelta] | None = None,
        group: str | None = None,
        max_attempts: int | None = None,
        expires_in: float | timedelta | None = None,
        drop_if_expired: bool = False,
    ) -> Sent:
        """Stores a message, or finds the one that has its key.

        Args:
            payload: A ``dict``, ``list``, ``str``, number, ``bool``, ``None``, dataclass, pydantic model, member of
                an ``Enum``, or anything made of these. Integers of any size and a ``Decimal`` keep their digits.
            delay: How long the message is not delivered, in seconds or as a ``timedelta``.
            at: The time before which the message is not delivered, as an aware ``datetime``. A time in the past means
                now. Pass either this or ``delay``; both are measured by the database's clock.
            priority: :class:`pgqrs.Priority`, or its name: ``urgent``, ``high``, ``normal`` or ``low``.
            headers: Texts by name, which a consumer reads without decoding the payload. A name has 1 to 64 of ``a`` to
                ``z``, ``0`` to ``9``, ``.``, ``_`` and ``-``, and doesn't begin with ``pgqrs-``. All names and values
                together have at most 8 KiB.
            unique: A key: the message isn't stored if another one of the queue has it and exists, that is, waits, runs,
                or is retried.
            unique_until_claimed: The same while the other one waits to be claimed.
            on_duplicate: What the message does to one that waits with its ``unique_until_claimed``: ``keep`` leaves it,
                ``replace`` replaces it, ``postpone`` moves it to the time of this one, ``append`` joins the two lists.
            max_wait: With ``postpone``, how long after it was sent the other one is delivered at the latest.
            once_within: A key and a time, in seconds or as a ``timedelta``: the message isn't stored if another one with
                the key was sent within that time, whatever became of it.
            group: A group, of 1 to 255 bytes: so many of its messages as the queue says are on their way at a time, in the
                order in which they were sent. Not with a key.
            max_attempts: After how many deliveries a message becomes a dead letter; by default the queue's.
            expires_in: A message that isn't claimed within this time, in seconds or as a ``timedelta``, isn't delivered,
                and becomes a dead letter.
            drop_if_expired: Whether it is deleted then.

        Returns:
            The message's id, an ``int``; its ``new`` says whether it is stored, or is the id of the message that has its
            key.

        Raises:
            SerializeError: Something in the payload can't be represented in JSON; its ``path`` says where.
            PayloadTooLargeError, PayloadTooDeepError, DelayTooLongError: Before anything is sent.
            InvalidHeaderError: A header is invalid, or they are too large together. Before anything is sent.
            InvalidKeyError: A key is empty, or contains a NUL character. Before anything is sent.
            KeyHeldError: Another open transaction has stored a message with the same key. It can be retried.
            GroupsNotEnabledError: The message has a group, and the queue takes none.
            QueueNotFoundError: The queue was deleted.
            QueueClosedError: The queue is closed.
            WorkerSuspendedError, WorkerStoppedError: The producer was suspended or stopped.
            NotStoredError: The server was unavailable for longer than the store's ``retry_for``. Nothing is stored.
            OutcomeUnknownError: Time ran out before the outcome was known: the message may have been stored.
            TypeError, ValueError: An argument is of the wrong type, or out of its range.
        """
        await _turns.begin()
        _arguments.not_a_message("payload", payload)
        self._queue._check(payload, "payload")
        wait, time = _arguments.times(delay, at)
        level = _arguments.priority(priority)
        options = (unique, unique_until_claimed, once_within, group, max_attempts, expires_in, max_wait)
        plain = all(option is None for option in options)
        plain = plain and on_duplicate == "keep" and drop_if_expired is False
        if not plain or self._queue._computes_keys():
            single = Message(
                payload,
                unique=unique,
                unique_until_claimed=unique_until_claimed,
                on_duplicate=on_duplicate,
                max_wait=max_wait,
                once_within=once_within,
                group=group,
                max_attempts=max_attempts,
                expires_in=expires_in,
                drop_if_expired=drop_if_expired,
            )
            sent: list[tuple[int, bool, bool | None]] = await _telemetry.sender(
                self._native, self._queue.name
            ).enqueue_messages(
                [_arguments.message(_arguments.with_key(self._queue, single))],
                False,
                wait,
                time,
                level,
                _arguments.headers(headers),
            )
            return Sent(*sent[0])
        message: int = await _telemetry.sender(self._native, self._queue.name).enqueue(
            payload, wait, time, level, _arguments.headers(headers)
        )
        return Sent(message)

    @overload
    async def enqueue_delayed(
        self,
        payload: T,
        delay_seconds: float | timedelta,
        *,
        priority: Priority | PriorityName = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
    ) -> Sent: ...
    @overload
    async def enqueue_delayed(
        self,
        payload: T,
        *,
        seconds: float | timedelta,
        priority: Priority | PriorityName = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
    ) -> Sent: ...
    async def enqueue_delayed(
        self,
        payload: T,
        delay_seconds: float | timedelta | None = None,
        *,
        seconds: float | timedelta | None = None,
        priority: Priority | PriorityName = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
    ) -> Sent:
        """Stores a message that is delivered after a delay; the same as :meth:`enqueue` with ``delay``.

        Args:
            payload: As for :meth:`enqueue`.
            delay_seconds: How long the message is not delivered, in seconds or as a ``timedelta``.
            seconds: The same by another name; pass one of the two.
            priority: As for :meth:`enqueue`.
            headers: As for :meth:`enqueue`.

        Returns:
            The message's id.

        Raises:
            TypeError: None of the two is passed, or both.
            Error: As from :meth:`enqueue`.
        """
        if (delay_seconds is None) == (seconds is None):
            raise TypeError("delay_seconds: for how long? pass it, by this name or as `seconds`")
        name = "delay_seconds" if seconds is None else "seconds"
        wait = _arguments.duration(name, delay_seconds if seconds is None else seconds)
        return await self.enqueue(payload, delay=wait, priority=priority, headers=headers)

    async def enqueue_batch(
        self,
        payloads: Iterable[T | Message[T]],
        *,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        priority: Priority | PriorityName = Priority.NORMAL,
        headers: Mapping[str, str] | None = None,
        max_attempts: int | None = None,
        expires_in: float | timedelta | None = None,
        drop_if_expired: bool = False,
    ) -> list[Sent]:
        """Stores messages in one transaction: all of them, in this order, or none.

        Args:
            payloads: The payloads, each as for :meth:`enqueue`, or each in a :class:`pgqrs.Message` with options of its
                own. If there are none, nothing is sent.
            delay: How long the messages are not delivered, in seconds or as a ``timedelta``.
            at: The time before which the messages are not delivered, as an aware ``datetime``. A time in the past
                means now. Pass either this or ``delay``; both are measured by the database's clock.
            priority: :class:`pgqrs.Priority`, or its name: ``urgent``, ``high``, ``normal`` or ``low``.
            headers: Texts by name, which a consumer reads without decoding the payload. A name has 1 to 64 of ``a`` to
                ``z``, ``0`` to ``9``, ``.``, ``_`` and ``-``, and doesn't begin with ``pgqrs-``. All names and values
                together have at most 8 KiB.
            max_attempts: After how many deliveries a message becomes a dead letter; by default the queue's.
            expires_in: A message that isn't claimed within this time, in seconds or as a ``timedelta``, isn't delivered,
                and becomes a dead letter.
            drop_if_expired: Whether it is deleted then.

        Returns:
            The ids, in the order of the payloads; the ``new`` of each says whether it is stored, or is the id of the
            message that has its key. If several messages have the same key, the others are duplicates of the first.

        Raises:
            SerializeError: Something in a payload can't be represented in JSON; its ``path`` says where, as in
                ``payloads[3].price``.
            PayloadTooLargeError, PayloadTooDeepError, DelayTooLongError: Before anything is sent.
            InvalidHeaderError: A header is invalid, or they are too large together. Before anything is sent.
            InvalidKeyError: A key is empty, or contains a NUL character. Before anything is sent.
            KeyHeldError: Another open transaction has stored a message with the same key. It can be retried.
            QueueNotFoundError: The queue was deleted.
            QueueClosedError: The queue is closed.
            WorkerSuspendedError, WorkerStoppedError: The producer was suspended or stopped.
            NotStoredError: The server was unavailable for longer than the store's ``retry_for``. Nothing is stored.
            OutcomeUnknownError: Time ran out before the outcome was known: the messages may have been stored.
            TypeError, ValueError: An argument is of the wrong type, or out of its range.
        """
        batch = _arguments.payloads(payloads)
        for place, payload in enumerate(batch):
            content = payload.payload if isinstance(payload, Message) else payload
            self._queue._check(content, f"payloads[{place}]")
        wait, time = _arguments.times(delay, at)
        level = _arguments.priority(priority)
        limits = _arguments.message(
            Message(
                None,
                max_attempts=max_attempts,
                expires_in=expires_in,
                drop_if_expired=drop_if_expired,
            )
        )[6:]
        plain = limits == (None, None, False) and not self._queue._computes_keys()
        if plain and not any(isinstance(one, Message) for one in batch):
            messages: list[int] = await _telemetry.sender(self._native, self._queue.name).enqueue_batch(
                batch, wait, time, level, _arguments.headers(headers)
            )
            return [Sent(stored) for stored in messages]
        options: list[_arguments.NativeMessage] = []
        for one in batch:
            message = one if isinstance(one, Message) else Message(one)
            native = _arguments.message(_arguments.with_key(self._queue, message))
            attempts, time_left, drops = native[6:]
            options.append(
                (
                    *native[:6],
                    limits[0] if attempts is None else attempts,
                    limits[1] if time_left is None else time_left,
                    drops or limits[2],
                )
            )
        sent: list[tuple[int, bool, bool | None]] = await _telemetry.sender(
            self._native, self._queue.name
        ).enqueue_messages(options, True, wait, time, level, _arguments.headers(headers))
        return [Sent(*one) for one in sent]

    async def heartbeat(self) -> None:
        """Sends a heartbeat. Heartbeats are also sent automatically.

        Raises:
            WorkerStoppedError: It was stopped, removed, or replaced.
        """
        await self._native.heartbeat()

    async def suspend(self) -> None:
        """Suspends the producer: until it is resumed, its enqueues are refused.

        Raises:
            InvalidTransitionError: It isn't ready.
            WorkerStoppedError: It was stopped, removed, or replaced.
        """
        await self._native.suspend()

    async def resume(self) -> None:
        """Resumes the producer.

        Raises:
            InvalidTransitionError: It isn't suspended.
            WorkerStoppedError: It was stopped, removed, or replaced.
        """
        await self._native.resume()

    async def shutdown(self) -> None:
        """Stops the producer, for good, and frees its identity. If it is stopped already, nothing happens.

        Raises:
            Error: The database is unavailable. The producer then counts as crashed after a while.
        """
        await self._native.shutdown()

    async def status(self) -> WorkerStatus:
        """Reads its current state from the database.

        Returns:
            ``ready``, ``suspended`` or ``stopped``. A producer that was removed is ``stopped``.

        Raises:
            Error: The database is unavailable.
        """
        status: WorkerStatus = await self._native.status()
        return status

    async def is_healthy(self, max_age: float | timedelta) -> bool:
        """Checks that it is not stopped, and that its last heartbeat is recent.

        Args:
            max_age: The age that its last heartbeat may have, in seconds or as a ``timedelta``.

        Returns:
            Whether both are so.

        Raises:
            Error: The database is unavailable.
        """
        healthy: bool = await self._native.is_healthy(_arguments.duration("max_age", max_age))
        return healthy

    async def __aenter__(self) -> Producer[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown()

    def __repr__(self) -> str:
        return f"<Producer {self.id} {self._hostname}:{self._port} for {self._queue!r}>"
