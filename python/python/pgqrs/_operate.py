"""What the command does for operators: through the blocking API, in plain text."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta

from pgqrs.app import App
from pgqrs.listings import QueueInfo, QueueStats
from pgqrs.store import connect as connect_async
from pgqrs.sync.store import Store, connect


class NoDatabase(Exception):
    """No URL was passed."""


def url(passed: str | None) -> str:
    """The database's URL: the one that was passed, or the environment's."""
    found = passed or os.environ.get("DATABASE_URL")
    if not found:
        raise NoDatabase("which database? set DATABASE_URL, or pass --database-url")
    return found


async def install_app(app: App) -> None:
    """Creates or upgrades the schema, and creates the app's queues."""
    settings = app._connect_settings().copy()
    settings["install"] = True
    async with await connect_async(app.url, **settings) as store:
        for queue in app.queues:
            await store.queue(queue)


def install(url: str, queues: Iterable[str]) -> None:
    with _connected(url) as store:
        before = store.admin().verify()
        store.admin().install()
        after = store.admin().verify()
        done = "is up to date" if before == after else "is installed"
        print(f"the schema {done}: version {after.installed}")
        known = {queue.name for queue in store.admin().queues()}
        for name in dict.fromkeys(queues):
            store.queue(name)
            print(f"queue `{name}` {'exists already' if name in known else 'is created'}")


def queues(url: str, arguments: argparse.Namespace) -> None:
    with _connected(url) as store:
        print("\n".join(_overview(store)))


def dead(url: str, arguments: argparse.Namespace) -> int:
    queue: str = arguments.queue
    with _connected(url) as store:
        admin = store.admin()
        if arguments.retry_all:
            requeued = admin.requeue_all(queue)
            print(f"put {requeued.back:,} dead letters back into queue `{queue}`")
            return _held(requeued.held)
        if arguments.retry:
            held = 0
            for id in arguments.retry:
                requeued = admin.requeue(queue, id)
                held += requeued.held
                if requeued.back:
                    print(f"put dead letter {id} back into queue `{queue}`")
                elif not requeued.held:
                    print(f"error: queue `{queue}` has no dead letter {id}", file=sys.stderr)
                    return 3
            return _held(held)
        letters = admin.dead_letters(queue, limit=arguments.limit)
        if not letters:
            print("no dead letters")
            return 0
        rows = [
            (
                str(one.id),
                str(one.attempt),
                f"{one.died_at:%Y-%m-%d %H:%M:%S}",
                one.reason,
                one.last_error or "-",
            )
            for one in letters
        ]
        print("\n".join(_table(("ID", "ATTEMPT", "DIED (UTC)", "REASON", "LAST ERROR"), rows)))
        count = admin.dead_letter_count(queue)
        if count > len(letters):
            print(f"{count - len(letters):,} more; list them with --limit", file=sys.stderr)
        return 0


def _held(held: int) -> int:
    if held:
        print(f"{held:,} stay dead letters, since other messages have their keys", file=sys.stderr)
        return 6
    return 0


def pause(url: str, arguments: argparse.Namespace) -> None:
    with _connected(url) as store:
        store.admin().pause_queue(arguments.queue)
        print(f"queue `{arguments.queue}` is paused")


def resume(url: str, arguments: argparse.Namespace) -> None:
    with _connected(url) as store:
        store.admin().resume_queue(arguments.queue)
        print(f"queue `{arguments.queue}` is resumed")


def top(url: str, arguments: argparse.Namespace) -> None:
    clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
    with _connected(url) as store:
        while True:
            workers = store.admin().workers(kind="consumer", status="ready")
            running: dict[str, int] = {}
            for worker in workers:
                running[worker.queue] = running.get(worker.queue, 0) + (not worker.stale)
            print(clear + "\n".join(_overview(store, running)), flush=True)
            if arguments.once:
                return
            time.sleep(max(arguments.interval, 0.1))


def _connected(url: str) -> Store:
    return connect(url, max_connections=2, application_name="pgqrs command", retry_for=0)


def _overview(store: Store, consumers: dict[str, int] | None = None) -> list[str]:
    admin = store.admin()
    infos = admin.queues()
    if not infos:
        return ["no queues"]
    rows: list[tuple[str, ...]] = []
    for info in infos:
        stats = admin.queue_stats(info.name)
        row = (
            info.name,
            _state(info),
            *(str(count) for count in (stats.ready, stats.delayed, stats.leased, stats.dead)),
            _waited(stats),
        )
        rows.append(row if consumers is None else (*row, str(consumers.get(info.name, 0))))
    titles = ("QUEUE", "STATE", "READY", "DELAYED", "LEASED", "DEAD", "OLDEST READY")
    return _table(titles if consumers is None else (*titles, "CONSUMERS"), rows)


def _state(info: QueueInfo) -> str:
    if info.is_paused:
        return "paused"
    return "open" if info.closed_at is None else "closed"


def _waited(stats: QueueStats) -> str:
    if stats.oldest_ready is None:
        return "-"
    return str(timedelta(seconds=int(stats.oldest_ready.total_seconds())))


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [titles, *([cell.replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
