"""Calls that can be awaited, and used with ``async with`` directly."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Call(Coroutine[Any, Any, R], Generic[R]):
    """A call that is to be awaited: ``store = await pgqrs.connect(..)``, or to be used directly, in
    ``async with pgqrs.connect(..) as store``."""

    __slots__ = ("_coroutine", "_made", "_name")

    def __init__(self, name: str, coroutine: Coroutine[Any, Any, R]) -> None:
        self._name = name
        self._coroutine = coroutine
        self._made: Any = None

    def __await__(self) -> Generator[Any, Any, R]:
        return self._coroutine.__await__()

    # As a coroutine, it can be passed to `asyncio.run`, `create_task` and `gather`.
    def send(self, value: Any) -> Any:
        """As of a coroutine."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """As of a coroutine."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """As of a coroutine."""
        self._coroutine.close()

    async def __aenter__(self) -> R:
        self._made = await self._coroutine
        entered: R = await self._made.__aenter__()
        return entered

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._made.__aexit__(kind, error, traceback)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        # Otherwise its use would be reported of a class that nobody knows.
        self._coroutine.close()
        raise AttributeError(
            f"`{name}` of a call that was not awaited: write `await {self._name}(..)`", name=name
        )

    def __repr__(self) -> str:
        return f"<{self._name}(..), not awaited>"


def calling(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Call[R]]:
    """Makes an ``async`` function return a :class:`Call`."""

    @wraps(function)
    def called(*arguments: P.args, **named: P.kwargs) -> Call[R]:
        return Call(function.__qualname__.replace("Store.", "store."), function(*arguments, **named))

    return called
