"""What handlers return, and how long messages wait after a failure. For consumers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pgqrs import _arguments


@dataclass(frozen=True)
class Outcome:
    """What a handler returns. ``None`` is ``Outcome.done()``."""

    kind: str
    """``done``, ``archive``, ``retry``, ``dead_letter`` or ``release``."""
    delay: timedelta | None = None
    """For ``retry``: how long the message waits; defaults to the ``retry`` of the run."""
    reason: str | None = None
    """For ``dead_letter``: why."""

    @staticmethod
    def done() -> Outcome:
        """It is done: acknowledge it."""
        return Outcome("done")

    @staticmethod
    def archive() -> Outcome:
        """It is done: keep it in the archive."""
        return Outcome("archive")

    @staticmethod
    def retry(delay: float | timedelta | None = None) -> Outcome:
        """This attempt failed: again later.

        Args:
            delay: After this many seconds, or a ``timedelta``; by default, as the ``retry`` of the run says.
        """
        return Outcome("retry", delay=_arguments.optional_duration("delay", delay))

    @staticmethod
    def dead_letter(reason: str) -> Outcome:
        """It can't be handled: to the dead letters, whatever attempts are left.

        Args:
            reason: Why; it is kept with the dead letter.
        """
        return Outcome("dead_letter", reason=_arguments.text("reason", reason))

    @staticmethod
    def release() -> Outcome:
        """The handler didn't begin with it: ready again at once, as if it had not been delivered. No attempt is used,
        so that a message that is always released is delivered for ever."""
        return Outcome("release")


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
    """What each further wait is multiplied by."""
    cap: float | timedelta = 3_600
    """The longest wait."""
    jitter: float = 0.25
    """By how much a wait can be shortened at random, from 0 to 1."""

    def __post_init__(self) -> None:
        self._parts()

    @staticmethod
    def fixed(wait: float | timedelta) -> RetryPolicy:
        """The same wait after each attempt, without jitter."""
        return RetryPolicy(first=wait, factor=1, cap=wait, jitter=0)

    def _parts(self) -> tuple[timedelta, float, timedelta, float]:
        return (
            _arguments.duration("first", self.first),
            _arguments.number("factor", self.factor),
            _arguments.duration("cap", self.cap),
            _arguments.number("jitter", self.jitter),
        )


@dataclass(frozen=True)
class Report:
    """What a consumer has done from its start to its end. Counted in deliveries: a message that was retried
    counts each time.

    Each delivery that a handler was called with is counted under one of these names. ``dead`` also counts payloads
    that don't have the queue's type, and ``released`` messages that no handler was called with."""

    done: int = 0
    """Handled and acknowledged, by the loop or by the handler itself."""
    archived: int = 0
    """Handled and archived."""
    retried: int = 0
    """Failed, and put back for another attempt."""
    dead: int = 0
    """Moved to the dead letters."""
    released: int = 0
    """Given back: at the end, not begun or not finished by the deadline, or by a handler with
    :meth:`Outcome.release`."""
    lost: int = 0
    """Whose lease was lost before they could be settled: they were, or will be, delivered again."""
    unknown: int = 0
    """Whose settlement is uncertain: its answer was lost, or the server could not be reached by the deadline, or
    refused it. They are settled, or will be delivered again."""
