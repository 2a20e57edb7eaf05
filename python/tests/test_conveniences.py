"""What makes the package pleasant at a prompt: short forms, what a forgotten `await` says, URLs of all kinds, errors that
name Python's own parameters."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

import pgqrs
import pgqrs.sync

from .conftest import Database


async def test_calls_that_make_something_can_be_used_with_async_with_directly(
    store: pgqrs.Store, database: Database
) -> None:
    async with pgqrs.connect(database.url) as direct:
        async with direct.producer("tasks") as producer, direct.consumer("tasks") as consumer:
            await producer.enqueue(1)
            await (await anext(consumer)).ack()
        assert await producer.status() == await consumer.status() == "stopped"
    with pytest.raises(pgqrs.ClosedError):
        await direct.queue("tasks")
    first, second = await asyncio.gather(
        store.producer("tasks"), asyncio.create_task(store.producer("tasks"))
    )
    assert first.id != second.id
    assert isinstance(await asyncio.wait_for(store.producer("tasks"), 20), pgqrs.Producer)


def test_a_call_can_be_run_by_asyncio_itself(database: Database) -> None:
    store = asyncio.run(pgqrs.connect(database.url))  # type: ignore[arg-type,unused-ignore]
    assert isinstance(store, pgqrs.Store)


async def test_a_forgotten_await_names_the_call(store: pgqrs.Store) -> None:
    for use, name in (
        (lambda: pgqrs.connect("postgresql://localhost/mydb").queue, "connect"),  # type: ignore[attr-defined]
        (lambda: store.producer("tasks").enqueue, "store.producer"),  # type: ignore[attr-defined]
        (lambda: store.consumer("tasks").run, "store.consumer"),  # type: ignore[attr-defined]
    ):
        with pytest.raises(AttributeError, match=re.escape(f"write `await {name}(..)`")):
            use()
    forgotten = store.producer("tasks")
    assert repr(forgotten) == "<store.producer(..), not awaited>"
    forgotten.close()
    producer = await store.producer("tasks")
    with pytest.warns(RuntimeWarning, match=r"'Producer.enqueue' was never awaited"):
        producer.enqueue(1)  # noqa: RUF100  # pyright: ignore[reportUnusedCoroutine]


async def test_a_store_shows_where_it_is_connected_and_no_password(database: Database) -> None:
    parts = urlsplit(database.url)
    async with pgqrs.connect(database.url) as store:
        assert repr(store) == f"<Store {parts.hostname}:{parts.port}{parts.path}>"
    with pgqrs.sync.connect(database.url) as blocking:
        assert repr(blocking) == repr(store)


def in_other_words(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    database = parts.path.lstrip("/")
    pairs = f"host={parts.hostname} port={parts.port} user={parts.username}"
    return {
        "SQLAlchemy's": url.replace("postgres://", "postgresql+asyncpg://"),
        "psycopg's": url.replace("postgres://", "postgresql+psycopg://"),
        "libpq's": f"{pairs} password={parts.password} dbname={database}",
        "libpq's, quoted": rf"{pairs} password = '{parts.password}' dbname='{database}' connect_timeout=10",
    }


async def test_urls_of_other_libraries_are_understood(store: pgqrs.Store, database: Database) -> None:
    for kind, url in in_other_words(database.url).items():
        async with pgqrs.connect(url) as same:
            assert (await same.queue("tasks")).name == "tasks", kind
            assert repr(same) == repr(store)


async def test_a_url_can_name_several_hosts(store: pgqrs.Store, database: Database) -> None:
    parts = urlsplit(database.url)
    login, database_name = parts.netloc.rpartition("@")[0], parts.path.lstrip("/")
    # Nothing listens at port 1.
    hosts = f"127.0.0.1:1,{parts.hostname}:{parts.port}"
    pairs = f"user={parts.username} password={parts.password} dbname={database_name}"
    for url in (
        f"postgresql://{login}@{hosts}/{database_name}?target_session_attrs=read-write",
        f"host=127.0.0.1,{parts.hostname} port=1,{parts.port} {pairs}",
    ):
        async with pgqrs.connect(url) as same:
            assert (await same.queue("tasks")).name == "tasks"
            assert repr(same) == f"<Store {hosts}/{database_name}>"
    for url, message in {
        f"postgresql://{login}@{hosts}/{database_name}?target_session_attrs=standby": "`read-write` or `primary`",
        f"postgresql://{login}@127.0.0.1:1,127.0.0.1:2/{database_name}": f"127.0.0.1:2/{database_name}: ",
        f"host=a,b,c port=1,2 {pairs}": "3 hosts or ports are listed in one place, and 2 in another",
    }.items():
        with pytest.raises(pgqrs.ConnectError, match=re.escape(message)) as refused:
            await pgqrs.connect(url)
        assert str(parts.password) not in str(refused.value)


async def test_other_databases_urls_are_refused_with_their_scheme() -> None:
    for url, message in {
        "mysql://root@localhost/mydb": "its scheme is `mysql`",
        "sqlite:///file.db": "its scheme is `sqlite`",
        "localhost/mydb": "url: expected a URL, such as postgresql://localhost/mydb",
        "host=localhost password='secret": "url: expected pairs, as in host=localhost dbname=mydb",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)) as refused:
            await pgqrs.connect(url)
        assert "secret" not in str(refused.value)


async def test_errors_name_pythons_parameters_and_their_causes(database: Database) -> None:
    with pytest.raises(pgqrs.AcquireTimeoutError, match=r"within 0\.2 s; .*in `pgqrs.connect\(..\)`"):
        async with pgqrs.connect(database.url, max_connections=1, acquire_timeout=0.2) as store:
            database.change(
                "create function wait() returns trigger language plpgsql as 'begin perform pg_sleep(1); return new; end'"
            )
            database.change(
                "create trigger wait before insert on pgqrs.queues for each row execute function wait()"
            )
            await asyncio.gather(store.queue("a"), store.queue("b"))
    with pytest.raises(pgqrs.NotStoredError, match="raise `retry_for` in `pgqrs.connect") as not_stored:
        async with pgqrs.connect(database.url, retry_for=0) as store:
            database.change("drop trigger wait on pgqrs.queues")
            await store.queue("tasks")
            producer = await store.producer("tasks")
            database.change(
                "create function refuse() returns trigger language plpgsql"
                " as 'begin raise exception using errcode = ''40001'', message = ''try again''; end'"
            )
            database.change(
                "create trigger refuse before insert on pgqrs.messages for each statement execute function refuse()"
            )
            await producer.enqueue(1)
    assert isinstance(not_stored.value.__cause__, pgqrs.Error)
    assert "try again" in str(not_stored.value.__cause__) and " line " not in str(not_stored.value.__cause__)


def test_no_error_names_a_call_of_rust() -> None:
    """Neither in the texts of Python, nor in those of Rust for which Python has none."""
    for name in pgqrs.errors.__all__:
        text = getattr(pgqrs.errors, name)._message
        assert text is None or not re.search(r"::|ConnectOptions|\bcrate\b|\.execute\(", text), name


async def test_the_quick_start_is_a_cell_of_a_notebook(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """A notebook's cell has `await` at its top level, and runs in a loop that runs already."""
    from .test_readme import blocks

    cell = blocks("python/README.md")[0].replace("postgresql://localhost/mydb", database.url)
    code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {}
    assert code.co_flags & inspect.CO_COROUTINE
    await eval(code, names)
    assert "Enqueued message ID" in capsys.readouterr().out


def test_help_begins_with_what_one_needs() -> None:
    first = (pgqrs.__doc__ or "").splitlines()[:30]
    text = "\n".join(first)
    for name in ("pgqrs.connect", "enqueue", "@app.handler", "python -m pgqrs worker"):
        assert name in text, name
