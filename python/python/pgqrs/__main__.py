"""The command ``python -m pgqrs``: runs an application's handlers, and looks after queues, without Rust installed."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from pgqrs import _operate, _reload
from pgqrs._pgqrs import __version__
from pgqrs.app import App
from pgqrs.errors import ConnectError, Error, NotInstalledError, QueueNotFoundError, SchemaOutdatedError

FAILED, WRONG_COMMAND, NOT_FOUND, UNREACHABLE = 1, 2, 3, 4
"""The codes of the Rust command ``pgqrs`` for the same failures."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        "python -m pgqrs",
        description="Runs the handlers of an application, and looks after the queues of a database.",
        epilog="Which database: DATABASE_URL, --database-url, or that of an app. Others on this machine can see a "
        "command's arguments, so prefer the variable.",
    )
    top.add_argument("--version", action="version", version=f"pgqrs {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    worker = commands.add_parser("worker", help="run the handlers of an app until SIGTERM or Ctrl-C")
    worker.add_argument("app", metavar="MODULE:APP", help="where the pgqrs.App is, as in package.module:app")
    worker.add_argument("--queues", metavar="QUEUE,…", help="run the handlers of these queues alone")
    worker.add_argument(
        "--install", action="store_true", help="create the schema and the app's queues before"
    )
    worker.add_argument(
        "--reload", action="store_true", help="restart when a Python file changes; for development"
    )
    worker.add_argument("--log-level", metavar="LEVEL", default="info", help="of the log; defaults to info")
    worker.set_defaults(run=_worker)

    install = commands.add_parser("install", help="create or upgrade the schema, and create an app's queues")
    install.add_argument("app", nargs="?", metavar="MODULE:APP", help="an app whose queues are created too")
    install.add_argument("--queues", metavar="QUEUE,…", help="create these queues too")
    install.set_defaults(run=_install)

    queues = commands.add_parser("queues", help="list the queues, with the numbers of their messages")
    queues.set_defaults(run=_on_database(_operate.queues))

    dead = commands.add_parser("dead", help="list the dead letters of a queue, or put them back into it")
    dead.add_argument("queue", metavar="QUEUE")
    dead.add_argument("--retry", nargs="+", type=int, metavar="ID", help="put these back into the queue")
    dead.add_argument("--retry-all", action="store_true", help="put all of them back")
    dead.add_argument(
        "--limit", type=int, default=100, metavar="N", help="list so many at most; defaults to 100"
    )
    dead.set_defaults(run=_on_database(_operate.dead))

    for name, does in (
        ("pause", "consumers get no messages of it until it is resumed"),
        ("resume", "end a pause"),
    ):
        verb = commands.add_parser(name, help=does)
        verb.add_argument("queue", metavar="QUEUE")
        verb.set_defaults(run=_on_database(getattr(_operate, name)))

    view = commands.add_parser("top", help="show the queues, again and again; Ctrl-C ends it")
    view.add_argument("--interval", type=float, default=2, metavar="SECONDS", help="defaults to 2")
    view.add_argument("--once", action="store_true", help="show them once")
    view.set_defaults(run=_on_database(_operate.top))

    for of_database in (
        install,
        queues,
        dead,
        *(commands.choices[name] for name in ("pause", "resume")),
        view,
    ):
        of_database.add_argument("--database-url", metavar="URL", help="defaults to DATABASE_URL")
    return top


class Mistake(Exception):
    """The command line is wrong."""


def found(name: str) -> App:
    """Imports an app."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise Mistake(f"`{name}`: expected MODULE:APP, as in package.module:app")
    # As with `python -m`, modules of the current folder can be imported, from an installed script too.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # An import within the module that fails is the module's own mistake, and shown as such.
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise Mistake(f"there is no module `{error.name}` in {os.getcwd()} or in Python's path") from None
    app: Any = module
    for part in attribute.split("."):
        app = getattr(app, part, None)
    if app is None:
        raise Mistake(f"module `{module_name}` has no `{attribute}`")
    if not isinstance(app, App):
        raise Mistake(f"`{name}` is not a pgqrs.App, but of type {type(app).__name__}")
    return app


def _names(queues: str | None) -> list[str] | None:
    return None if queues is None else [name.strip() for name in queues.split(",") if name.strip()]


def _worker(arguments: argparse.Namespace, command_line: Sequence[str]) -> int:
    if arguments.reload:
        again = [part for part in command_line if part != "--reload"]
        return _reload.supervise([sys.executable, "-m", "pgqrs", *again])
    level = logging.getLevelName(arguments.log_level.upper())
    if not isinstance(level, int):
        raise Mistake(f"--log-level: `{arguments.log_level}` is not a level, such as info or debug")
    app = found(arguments.app)
    try:
        app.check()
        selected = app._selected(_names(arguments.queues))
    except ValueError as error:
        raise Mistake(str(error)) from None

    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    async def run() -> None:
        if arguments.install:
            await _operate.install_app(app)
        names = [f"{one.queue.name} ({one.concurrency})" for one in selected]
        logging.getLogger("pgqrs").info("worker of %s handles %s", arguments.app, ", ".join(names))
        reports = await app.run([one.queue for one in selected])
        for name, report in reports.items():
            counts = [f"{count} {what}" for what, count in vars(report).items() if count]
            logging.getLogger("pgqrs").info("queue `%s`: %s", name, ", ".join(counts) or "no messages")

    asyncio.run(run())
    return 0


def _install(arguments: argparse.Namespace, command_line: Sequence[str]) -> int:
    app = None if arguments.app is None else found(arguments.app)
    url = arguments.database_url or (None if app is None else app._url) or _operate.url(None)
    queues = [queue.name for queue in app.queues] if app is not None else []
    _operate.install(url, [*queues, *(_names(arguments.queues) or [])])
    return 0


def _on_database(operate: Any) -> Any:
    def run(arguments: argparse.Namespace, command_line: Sequence[str]) -> int:
        code: int = operate(_operate.url(arguments.database_url), arguments) or 0
        return code

    return run


def main(command_line: Sequence[str] | None = None) -> int:
    """Runs the command, and returns its code: 0, or that of the Rust command ``pgqrs`` for the same failure."""
    command_line = sys.argv[1:] if command_line is None else command_line
    arguments = parser().parse_args(command_line)
    try:
        code: int = arguments.run(arguments, command_line)
        return code
    except (Mistake, _operate.NoDatabase) as error:
        return _failed(WRONG_COMMAND, error)
    except QueueNotFoundError as error:
        # The remedies that errors name are those of a program.
        remedy = f"create the queues of its app with `{_installs(arguments)}`"
        if not hasattr(arguments, "app"):
            remedy = "`python -m pgqrs queues` lists those that do"
        return _failed(NOT_FOUND, f"queue `{error.queue}` does not exist; {remedy}")
    except (NotInstalledError, SchemaOutdatedError) as error:
        what, _, _ = str(error).partition(";")
        return _failed(FAILED, f"{what}; run `{_installs(arguments)}`")
    except ConnectError as error:
        return _failed(UNREACHABLE, error)
    except (Error, ValueError) as error:
        return _failed(FAILED, error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Its reader has gone, as in `| head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _installs(arguments: argparse.Namespace) -> str:
    """The command that creates the schema, and the queues of an app."""
    return " ".join(["python -m pgqrs install", *filter(None, [getattr(arguments, "app", None)])])


def _failed(code: int, error: Exception | str) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
