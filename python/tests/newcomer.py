"""What a newcomer does first: the README's steps in an empty folder, on an empty database, with the wheel alone. Run in an
empty virtual environment, by `cargo xtask python` and `cargo xtask wheels`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import psycopg
import pytest

import pgqrs

from .conftest import Database, line
from .test_readme import CHECKOUT, blocks, named

README = "python/README.md"
PROGRAMS = Path(sys.executable).parent


class Newcomer:
    """Somebody in an empty folder, whose database is not the README's."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", "DATABASE_URL": database.url}

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("postgresql://localhost/mydb", self.database.url))

    def run(self, program: str, *arguments: str, code: int = 0) -> str:
        """Runs a program of the virtual environment, and returns what it has printed."""
        ran = subprocess.run(
            [PROGRAMS / program, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    @contextmanager
    def running(self, program: str, *arguments: str) -> Iterator[Any]:
        """Runs a program until the block ends, when SIGTERM ends it. It has no error to report."""
        with subprocess.Popen(
            [PROGRAMS / program, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                yield process.stdout
                process.terminate()
                rest, _ = process.communicate(timeout=30)
                # uvicorn ends by the signal itself when it has shut down.
                assert process.returncode in ((0, -signal.SIGTERM) if program == "uvicorn" else (0,)), rest
                assert "Error" not in rest, rest
            finally:
                process.kill()


@pytest.fixture
def newcomer(tmp_path: Path, bare: Database) -> Newcomer:
    return Newcomer(tmp_path, bare)


def test_the_package_is_the_wheels() -> None:
    assert pgqrs.__file__.startswith(sys.prefix)
    assert not str(pgqrs.__file__).startswith(str(CHECKOUT / "python"))


def test_the_quick_start_is_a_first_message_on_an_empty_database(newcomer: Newcomer) -> None:
    body = textwrap.indent(blocks(README)[0], "    ")
    newcomer.write("quick.py", f"import asyncio\n\n\nasync def main():\n{body}\n\nasyncio.run(main())\n")
    printed = newcomer.run("python", "quick.py").splitlines()
    assert printed == ["Enqueued message ID: 1", "{'task': 'send_email', 'to': 'user@example.com'}"]


def test_a_web_service_sends_to_the_worker(newcomer: Newcomer) -> None:
    for name in ("jobs.py", "web.py"):
        newcomer.write(name, named(README)[name])
    installed = newcomer.run("pgqrs", "install", "jobs:app")
    assert "queue `emails` is created\nqueue `reports` is created\n" in installed
    with (
        newcomer.running("pgqrs", "worker", "jobs:app") as worker,
        newcomer.running("uvicorn", "web:api", "--port", "0") as web,
    ):
        address = line(web, "running on").split("running on ")[1].split()[0]
        sent = httpx.post(f"{address}/emails", params={"to": "ada@example.com"})
        assert sent.status_code == 202, sent.text
        line(worker, "to ada@example.com")
    listed = newcomer.run("pgqrs", "queues").splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [["emails", "open", "0"], ["reports", "open", "0"]]


def test_a_django_project_from_its_first_command_to_a_worker(newcomer: Newcomer) -> None:
    newcomer.run("django-admin", "startproject", "mysite", ".")
    manage = (str(newcomer.folder / "manage.py"),)
    newcomer.run("python", *manage, "startapp", "shop")
    files = named(README)
    settings = newcomer.folder / "mysite" / "settings.py"
    url = urlsplit(newcomer.database.url)
    of_this = {
        "NAME": url.path.lstrip("/"),
        "HOST": url.hostname or "",
        "PORT": str(url.port or ""),
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
    }
    newcomer.write(
        "mysite/settings.py",
        settings.read_text() + files["mysite/settings.py"] + f"DATABASES['default'].update({of_this})\n",
    )
    example = CHECKOUT / "examples" / "django" / "shop"
    for name in ("models.py", "views.py"):
        newcomer.write(f"shop/{name}", (example / name).read_text())
    newcomer.write(
        "shop/jobs.py", files["shop/jobs.py"] + '    print("confirmed", order.customer, flush=True)\n'
    )
    newcomer.write("shop/tests.py", files["shop/tests.py"])
    newcomer.write("mysite/urls.py", (example / "urls.py").read_text())

    newcomer.run("python", *manage, "makemigrations", "shop")
    assert "Applying pgqrs" in newcomer.run("python", *manage, "migrate")
    assert "no issues" in newcomer.run("python", *manage, "check")
    assert "Ran 1 test" in newcomer.run("python", *manage, "test")
    place = (
        "import django; django.setup()\n"
        "from django.test import Client\n"
        "print(Client(SERVER_NAME='localhost').post('/orders', {'customer': 'ada'}).status_code)"
    )
    newcomer.environment["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    with newcomer.running("python", *manage, "pgqrs_worker") as worker:
        line(worker, "handles confirmations")
        assert newcomer.run("python", "-c", place) == "201\n"
        line(worker, "confirmed ada")
    with psycopg.connect(newcomer.database.url) as connection:
        assert connection.execute("select is_mailed from shop_order").fetchall() == [(True,)]
