"""A store, and producers, for all requests of a FastAPI or Starlette application.

::

    jobs = pgqrs.App("postgresql://localhost/mydb")
    api = FastAPI(lifespan=pgqrs.fastapi.lifespan(jobs))
    Emails = Annotated[pgqrs.Producer[SendEmail], Depends(pgqrs.fastapi.producer(EMAILS))]

    @api.post("/emails", status_code=202)
    async def send(emails: Emails, to: str) -> dict[str, int]:
        return {"message": await emails.enqueue(SendEmail(to))}
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

# Not only for type checkers: FastAPI evaluates the annotations of dependencies.
from starlette.requests import HTTPConnection

from pgqrs.app import App
from pgqrs.producer import Producer
from pgqrs.queue import Queue
from pgqrs.store import Store

T = TypeVar("T")

__all__ = ["lifespan", "producer", "store"]

_STORE, _PRODUCERS = "pgqrs_store", "pgqrs_producers"


def lifespan(
    app: App, within: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Makes the lifespan of an application: connects when it starts, and closes the store when it ends.

    Args:
        app: What connects.
        within: The application's own lifespan, which may use the store.

    Returns:
        The lifespan, for ``FastAPI(lifespan=..)`` or ``Starlette(lifespan=..)``.

    Raises:
        Error: From the application's start: the server can't be reached.
    """

    @asynccontextmanager
    async def connected(web: Any) -> AsyncIterator[None]:
        async with app.connected() as store:
            setattr(web.state, _STORE, store)
            setattr(web.state, _PRODUCERS, {})
            if within is None:
                yield
                return
            async with within(web):
                yield

    return connected


def store(connection: HTTPConnection) -> Store:
    """Returns the store, as a dependency: ``Annotated[pgqrs.Store, Depends(pgqrs.fastapi.store)]``.

    Args:
        connection: The request, or the WebSocket.

    Returns:
        The store.

    Raises:
        RuntimeError: The application has no lifespan of :func:`lifespan`, or it isn't running.
    """
    found: Store | None = getattr(connection.app.state, _STORE, None)
    if found is None:
        raise RuntimeError(
            "the application has no store: create it with `lifespan=pgqrs.fastapi.lifespan(..)`"
        )
    return found


def producer(
    queue: Queue[T], hostname: str = "web", port: int = 0
) -> Callable[[HTTPConnection], Awaitable[Producer[T]]]:
    """Makes a dependency that returns a producer, the same one for all requests. It is registered at the first request.

    Args:
        queue: The queue.
        hostname: As for :meth:`pgqrs.Store.producer`.
        port: As for :meth:`pgqrs.Store.producer`.

    Returns:
        The dependency, for ``Depends``.

    Raises:
        Error: From the request: as from :meth:`pgqrs.Store.producer`.
    """

    async def registered(connection: HTTPConnection) -> Producer[T]:
        of = store(connection)
        known: dict[Any, asyncio.Future[Producer[T]]] = getattr(connection.app.state, _PRODUCERS)
        key = (queue.name, hostname, port)
        registering = known.get(key)
        if registering is None:
            registering = known[key] = asyncio.ensure_future(of.producer(queue, hostname, port))
        try:
            # A request that is cancelled leaves it to the others.
            return await asyncio.shield(registering)
        except Exception:
            # The next request tries again.
            known.pop(key, None)
            raise

    return registered
