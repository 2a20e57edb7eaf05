"""What a consumer's threads do with its handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from pgqrs import _pgqrs
from pgqrs._receiving import Native, exited, failed, finished, give_back
from pgqrs.outcome import Outcome

D = TypeVar("D")


def layered(
    around: Callable[[D, Callable[[D], Outcome | None]], Outcome | None],
    handler: Callable[[D], Outcome | None],
) -> Callable[[D], Outcome | None]:
    return lambda delivery: around(delivery, handler)


class Work:
    """The handlers of a consumer that run, in threads."""

    def __init__(
        self,
        native: _pgqrs.Consumer,
        handler: Callable[[Any], Outcome | None],
        decode: Callable[[Any], object | None],
    ) -> None:
        self._native = native
        self._handler = handler
        self._decode = decode
        self.error: BaseException | None = None
        """What ends the run."""

    def handle(self, native: Native) -> None:
        if self.error is not None:
            give_back(native)
            return
        try:
            delivery = self._decode(native)
            # The clock of `handler_timeout` starts here, and not while it waited for a thread.
            if delivery is not None and native.begin():
                finished(native, self._handler(delivery))
        except (Exception, asyncio.CancelledError) as error:
            failed(native, error)
        except BaseException as error:
            # In a thread, `SystemExit` and its like would end nothing.
            exited(native)
            if self.error is None:
                self.error = error
                self._native.abort()
