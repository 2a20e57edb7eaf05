"""Outcomes of handlers, policies of retries and of payloads that don't decode, and the report of a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pgqrs import _arguments


@dataclass(frozen=True)
class Outcome:
    """What a handler returns: how its message is settled. ``None`` is the same as ``Outcome.done()``."""

    kind: str
    """``done``, ``archive``, ``retry``, ``later``, ``slow_down``, ``dead_letter``, ``release`` or ``undecodable``."""
    delay: timedelta | None = None
    """For ``retry``, ``later`` and ``slow_down``: how long the message waits; for ``retry`` it defaults to the ``retry`` of the run."""
    reason: str | None = None
    """For ``retry``, ``dead_letter`` and ``undecodable``: why."""

    @staticmethod
    def done() -> Outcome:
        """The message was handled: it is acknowledged.

        Returns:
            The outcome.
        """
        return Outcome("done")

    @staticmethod
    def archive() -> Outcome:
        """The message was handled: it is kept in the archive.

        Returns:
            The outcome.
        """
        return Outcome("archive")

    @staticmethod
    def retry(delay: float | timedelta | None = None, *, reason: str | None = None) -> Outcome:
        """The attempt failed: the message is delivered again later.

        Args:
            delay: How long it waits, in seconds or as a ``timedelta``; by default, as the ``retry`` of the run says.
            reason: Why it failed; kept as the message's last error, as an exception is.

        Returns:
            The outcome.

        Raises:
            TypeError, ValueError: The delay isn't a number of seconds or a ``timedelta``, or is negative; or the reason
                isn't text.
        """
        return Outcome(
            "retry",
            delay=_arguments.optional_duration("delay", delay),
            reason=_arguments.optional_text("reason", reason),
        )

    @staticmethod
    def later(delay: float | timedelta) -> Outcome:
        """Not now: the message is delivered again later, and no attempt is used.

        A message that is always put off is delivered for ever: ``delivery.snoozes`` is how often it was.

        Args:
            delay: How long it waits, in seconds or as a ``timedelta``.

        Returns:
            The outcome.

        Raises:
            TypeError, ValueError: The delay isn't a number of seconds or a ``timedelta``, or is negative.
        """
        return Outcome("later", delay=_arguments.duration("delay", delay))

    @staticmethod
    def slow_down(delay: float | timedelta) -> Outcome:
        """What the handler calls asks for a pause, as an HTTP server does that answers 429: the message is delivered again
        after this wait, without using an attempt, and until then no process claims another message of its queue.

        Of several waits the one that ends last counts; ``admin.resume_queue`` ends it early. What handlers have begun goes
        on.

        Args:
            delay: How long all of them wait, in seconds or as a ``timedelta``.

        Returns:
            The outcome.

        Raises:
            TypeError, ValueError: The delay isn't a number of seconds or a ``timedelta``, or is negative.
        """
        return Outcome("slow_down", delay=_arguments.duration("delay", delay))

    @staticmethod
    def dead_letter(reason: str) -> Outcome:
        """The message can't be handled: it becomes a dead letter, even if attempts are left.

        Args:
            reason: Why it can't be handled; kept with the dead letter.

        Returns:
            The outcome.

        Raises:
            TypeError: The reason isn't text.
        """
        return Outcome("dead_letter", reason=_arguments.text("reason", reason))

    @staticmethod
    def release() -> Outcome:
        """The handler didn't begin: the message is ready again at once, and no attempt is used.

        A message that is always released is delivered for ever.

        Returns:
            The outcome.
        """
        return Outcome("release")

    @staticmethod
    def undecodable(reason: str) -> Outcome:
        """This version doesn't know what to do with such a payload: the message waits for a consumer of another version,
        without using an attempt, as one whose payload doesn't have the queue's type; see :class:`UndecodablePolicy`.

        Args:
            reason: Why not; kept as the message's last error.

        Returns:
            The outcome.

        Raises:
            TypeError: The reason isn't text.
        """
        return Outcome("undecodable", reason=_arguments.text("reason", reason))


@dataclass(frozen=True)
class RetryPolicy:
    """How long a message waits after a failed attempt: longer each time, up to a cap, and a little apart from
    others that failed at the same time.

    The wait after attempt ``n`` is ``first * factor ** (n - 1)``, at most ``cap``, and then shortened at random by
    up to the fraction ``jitter`` of itself. Times are in seconds, or a ``timedelta``.
    """

    first: float | timedelta = 1
    """The wait after the first attempt."""
    factor: float = 2
    """The factor by which each further wait is longer."""
    cap: float | timedelta = 3_600
    """The maximum wait."""
    jitter: float = 0.25
    """By how much a wait can be shortened at random, from 0 to 1."""

    def __post_init__(self) -> None:
        self._parts()

    @staticmethod
    def fixed(wait: float | timedelta) -> RetryPolicy:
        """Makes a policy with the same wait after each attempt, without jitter.

        Args:
            wait: How long a message waits, in seconds or as a ``timedelta``.

        Returns:
            The policy.

        Raises:
            TypeError, ValueError: The wait isn't a number of seconds or a ``timedelta``, or is negative.
        """
        return RetryPolicy(first=wait, factor=1, cap=wait, jitter=0)

    def _parts(self) -> tuple[timedelta, float, timedelta, float]:
        return (
            _arguments.duration("first", self.first),
            _arguments.number("factor", self.factor),
            _arguments.duration("cap", self.cap),
            _arguments.number("jitter", self.jitter),
        )


@dataclass(frozen=True)
class UndecodablePolicy:
    """What happens to a message whose payload doesn't have the queue's type: it waits for a consumer of another version,
    without using an attempt, and becomes a dead letter if none has come in time. So a message of a new kind survives a
    rolling deploy. Times are in seconds, or a ``timedelta``.
    """

    wait: float | timedelta = 60
    """How long the message waits until it is delivered again."""
    dead_letter_after: float | timedelta = 3_600
    """How long after it was first found not to have the type it becomes a dead letter; with 0, at once."""

    def __post_init__(self) -> None:
        self._parts()

    def _parts(self) -> tuple[timedelta, timedelta]:
        return (
            _arguments.duration("wait", self.wait),
            _arguments.duration("dead_letter_after", self.dead_letter_after),
        )


@dataclass(frozen=True)
class Report:
    """How a consumer's messages were settled, from its start to its end. Counted in deliveries: a message that was
    retried counts each time.

    Each delivery that a handler was called with is counted under one of these names. ``undecodable`` and ``dead`` also
    count payloads that don't have the queue's type, and ``released`` messages that no handler was called with."""

    done: int = 0
    """Handled and acknowledged, by the loop or by the handler itself."""
    archived: int = 0
    """Handled and archived."""
    retried: int = 0
    """Failed, and put back for another attempt."""
    snoozed: int = 0
    """Put off by their handlers, with :meth:`Outcome.later` or :meth:`Outcome.slow_down`: no attempt was used."""
    undecodable: int = 0
    """Whose payload doesn't have the queue's type, and that were put back for a consumer of another version: no attempt
    was used."""
    dead: int = 0
    """Moved to the dead letters."""
    released: int = 0
    """Made ready again: not begun or not finished by the deadline, or released by a handler with
    :meth:`Outcome.release`."""
    lost: int = 0
    """Not settled, since their lease was lost: they were, or will be, delivered again."""
    cancelled: int = 0
    """Not settled, since their messages were cancelled, or deleted otherwise, while their handlers ran."""
    unknown: int = 0
    """Uncertain: the answer to their settlement was lost, the server could not be reached by the deadline, or it
    refused the settlement. They are settled, or will be delivered again."""
