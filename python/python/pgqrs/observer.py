"""Reading regularly how many messages the queues hold."""

from __future__ import annotations

from types import TracebackType

from pgqrs import _pgqrs
from pgqrs.errors import Error
from pgqrs.health import Observation


class Observer:
    """Observes the queues until it is stopped; made by ``store.observe()``."""

    def __init__(self, native: _pgqrs.Observer) -> None:
        self._native = native

    def latest(self) -> Observation | None:
        """Returns what was read last. While the server is away, that is as old as the outage: its ``at`` says when it
        was read, and :meth:`error` why it is not newer.

        Returns:
            What was read, or ``None`` if nothing was yet.

        Raises:
            ForkedError: The store was connected before this process was forked.
        """
        row = self._native.latest()
        return None if row is None else Observation._of(row)

    def error(self) -> Error | None:
        """Returns why the last attempt to read failed.

        Returns:
            The error, or ``None`` if it didn't fail.

        Raises:
            ForkedError: The store was connected before this process was forked.
        """
        error: Error | None = self._native.error()
        return error

    async def changed(self) -> Observation:
        """Waits for the next attempt after those that this method has returned. The first call returns at once what
        ``store.observe()`` has read.

        Returns:
            What was read.

        Raises:
            ConnectionLostError, AcquireTimeoutError: The attempt failed, for such a reason; the next one may succeed.
            ClosedError: There will be no other: it was stopped, or the store was closed.
        """
        return Observation._of(await self._native.changed())

    def stop(self) -> None:
        """Stops it. What was read last can still be had.

        Raises:
            ForkedError: The store was connected before this process was forked.
        """
        self._native.stop()

    async def __aenter__(self) -> Observer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
