"""``manage.py pgqrs_worker``: runs the handlers of the project."""

from __future__ import annotations

import asyncio
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from pgqrs import _reload
from pgqrs.django import app
from pgqrs.errors import Error, NotInstalledError, QueueNotFoundError, SchemaOutdatedError


class Command(BaseCommand):
    """The command."""

    help = "Runs the handlers of the project, and its tasks, until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Adds its options."""
        parser.add_argument("--queues", metavar="QUEUE,…", help="run the handlers of these queues alone")
        parser.add_argument(
            "--reload", action="store_true", help="restart when a Python file changes; for development"
        )

    def handle(self, *arguments: Any, **options: Any) -> None:
        """Runs it."""
        if options["reload"]:
            again = [part for part in sys.argv if part != "--reload"]
            sys.exit(_reload.supervise([sys.executable, *again]))
        names = options["queues"]
        queues = None if names is None else [name.strip() for name in names.split(",") if name.strip()]
        try:
            app.check()
            selected = [one.queue.name for one in app._selected(queues)]
            self.stdout.write(f"handles {', '.join(selected)}; stop it with Ctrl-C")
            self.stdout.flush()
            reports = asyncio.run(app.run(queues))
        except (NotInstalledError, SchemaOutdatedError, QueueNotFoundError) as error:
            what, _, _ = str(error).partition(";")
            raise CommandError(f"{what}; run `manage.py migrate`") from error
        except (Error, ValueError) as error:
            raise CommandError(str(error)) from error
        for name, report in reports.items():
            counts = [f"{count} {what}" for what, count in vars(report).items() if count]
            self.stdout.write(f"queue `{name}`: {', '.join(counts) or 'no messages'}")
