"""The command `python -m pgqrs`, as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import pgqrs.sync
from pgqrs.__main__ import main

from .conftest import Database


class Command:
    """Runs the command in a folder of the test's own, in which its app is."""

    def __init__(self, folder: Path, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.environment = {**os.environ, "DATABASE_URL": database.url, "PYTHONUNBUFFERED": "1"}
        self.started: list[subprocess.Popen[str]] = []
        self._capsys = capsys

    def write(self, name: str, text: str) -> None:
        # Replaced at once, as an editor does it.
        path = self.folder / name
        path.with_suffix(".new").write_text(textwrap.dedent(text))
        path.with_suffix(".new").rename(path)

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Runs it in this process. Returns what it has printed: to its output, and as errors."""
        self._capsys.readouterr()
        try:
            returned: object = main(arguments)
        except SystemExit as exit:
            returned = exit.code
        output, errors = self._capsys.readouterr()
        assert returned == code, errors
        return output, errors

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgqrs", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.started.append(process)
        return process


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current one, whose modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("jobs", "idle", "broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def command(
    folder: Path,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Command]:
    monkeypatch.setenv("DATABASE_URL", database.url)
    command = Command(folder, database, capsys)
    yield command
    for process in command.started:
        process.kill()
        process.communicate()


APP = """
    import threading
    from dataclasses import dataclass

    import pgqrs
    import pgqrs.sync

    app = pgqrs.App()

    @dataclass
    class SendEmail:
        to: str

    EMAILS = pgqrs.Queue("emails", SendEmail)
    TASKS = pgqrs.Queue("tasks", str)

    @app.handler(EMAILS, concurrency=2)
    async def send_email(delivery: pgqrs.Delivery[SendEmail]) -> None:
        print("VERSION", delivery.payload.to, flush=True)

    @app.handler(TASKS)
    def work(delivery: pgqrs.sync.Delivery[str]) -> None:
        print("working", flush=True)
        threading.Event().wait(0.2)
        print("worked", flush=True)

    not_an_app = 3
"""


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip()


def test_a_worker_handles_all_queues_and_finishes_on_sigterm(command: Command, database: Database) -> None:
    command.write("jobs.py", APP)
    worker = command.start("worker", "jobs:app", "--install")
    printed = lines(worker)
    with pgqrs.sync.connect(database.url) as store:
        store.queue("emails")
        store.queue("tasks")
        store.producer("emails").enqueue({"to": "ada"})
        assert next(printed) == "VERSION ada"
        store.producer("tasks").enqueue("now")
    assert next(printed) == "working"
    worker.send_signal(signal.SIGTERM)
    assert list(printed) == ["worked"]
    assert worker.wait(20) == 0
    assert database.count() == 0


def test_a_worker_handles_the_chosen_queues_and_finishes_on_ctrl_c(
    command: Command, database: Database
) -> None:
    command.write("jobs.py", APP)
    command.run("install", "jobs:app")
    with pgqrs.sync.connect(database.url) as store:
        store.producer("emails").enqueue({"to": "ada"})
        store.producer("tasks").enqueue("now")
        worker = command.start("worker", "jobs:app", "--queues", "tasks,")
        printed = lines(worker)
        assert next(printed) == "working"
        worker.send_signal(signal.SIGINT)
        assert list(printed) == ["worked"]
        assert worker.wait(20) == 0
        assert store.admin().queue_stats("emails").ready == 1


def test_a_worker_is_restarted_when_a_file_changes(command: Command, database: Database) -> None:
    command.write("jobs.py", APP)
    command.run("install", "jobs:app")
    worker = command.start("worker", "jobs:app", "--reload")
    printed = lines(worker)
    with pgqrs.sync.connect(database.url) as store:
        producer = store.producer("emails")
        producer.enqueue({"to": "ada"})
        assert next(printed) == "VERSION ada"
        # A file that doesn't compile ends the worker, and the next change starts it again.
        command.write("jobs.py", "this is not Python")
        producer.enqueue({"to": "grace"})
        command.write("jobs.py", APP.replace("VERSION", "version 2"))
        for line in printed:
            if line == "version 2 grace":
                break
            assert line == "VERSION grace"
            producer.enqueue({"to": "grace"})
    worker.send_signal(signal.SIGTERM)
    assert list(printed) == []
    assert worker.wait(20) == 0


def test_a_wrong_command_line_says_what_is_wrong(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command.write("jobs.py", APP)
    command.write("broken.py", "import nowhere_to_be_found")
    command.write("idle.py", "import pgqrs\napp = pgqrs.App(queues=[pgqrs.Queue('tasks')])")
    for arguments, text in {
        ("worker", "jobs"): "expected MODULE:APP",
        ("worker", "nowhere:app"): "there is no module `nowhere`",
        ("worker", "jobs:apps"): "module `jobs` has no `apps`",
        ("worker", "jobs:not_an_app"): "is not a pgqrs.App, but of type int",
        ("worker", "idle:app"): "no handler for `tasks`",
        ("worker", "jobs:app", "--queues", "taks"): "there is one for `emails`, `tasks`",
        ("worker", "jobs:app", "--log-level", "loud"): "`loud` is not a level",
        ("top", "--interval", "soon"): "invalid float value",
    }.items():
        assert text in command.run(*arguments, code=2)[1], arguments
    # What is wrong in a module of the application has its traceback.
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        main(["worker", "broken:app"])
    monkeypatch.delenv("DATABASE_URL")
    assert "set DATABASE_URL" in command.run("queues", code=2)[1]
    _, unreachable = command.run("queues", "--database-url", "postgresql://127.0.0.1:1/none", code=4)
    assert unreachable.startswith("error: ")


def test_what_is_missing_in_the_database_is_installed_by_a_command(
    bare: Database, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error names a command, and not a call."""
    monkeypatch.setenv("DATABASE_URL", bare.url)
    command = Command(folder, bare, capsys)
    command.write("jobs.py", APP)
    missing = "error: pgqrs is not installed in this database; run `python -m pgqrs install"
    assert missing + " jobs:app`\n" in command.run("worker", "jobs:app", code=1)[1]
    assert command.run("queues", code=1)[1] == missing + "`\n"
    command.run("install")
    _, without_queues = command.run("worker", "jobs:app", "--queues", "tasks", code=3)
    assert "queue `tasks` does not exist; create the queues of its app with" in without_queues
    _, unknown = command.run("pause", "nowhere", code=3)
    assert unknown == "error: queue `nowhere` does not exist; `python -m pgqrs queues` lists those that do\n"
    assert "queue `tasks` is created" in command.run("install", "jobs:app")[0]


def test_a_schema_is_installed_and_queues_are_looked_after(
    bare: Database, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", bare.url)
    command = Command(folder, bare, capsys)
    command.write("jobs.py", APP)
    installed = command.run("install", "jobs:app", "--queues", "more")[0]
    assert "the schema is installed: version " in installed
    assert "queue `emails` is created\nqueue `tasks` is created\nqueue `more` is created\n" in installed
    again = command.run("install", "--queues", "more")[0]
    assert "is up to date" in again and "queue `more` exists already" in again

    with pgqrs.sync.connect(bare.url) as store:
        tasks = store.producer("tasks")
        tasks.enqueue_batch(["a", "b"])
        dead = [tasks.enqueue("c"), tasks.enqueue("d")]
        consumer = store.consumer("tasks")
        for delivery in consumer:
            if delivery.id in dead:
                delivery.dead_letter("no\naddress")
            else:
                delivery.ack()
            if delivery.id == dead[-1]:
                break
        consumer.shutdown()
        tasks.enqueue("e")
    assert command.run("pause", "tasks")[0] == "queue `tasks` is paused\n"
    listed = [line.split() for line in command.run("queues")[0].splitlines()]
    assert listed[0] == ["QUEUE", "STATE", "READY", "DELAYED", "LEASED", "DEAD", "OLDEST", "READY"]
    assert listed[3][:-1] == ["tasks", "paused", "1", "0", "0", "2"]
    assert command.run("resume", "tasks")[0] == "queue `tasks` is resumed\n"
    view = [line.split() for line in command.run("top", "--once")[0].splitlines()]
    assert view[3][:2] == ["tasks", "open"] and view[3][-1] == "0"

    letters = command.run("dead", "tasks", "--limit", "1")
    assert f"{dead[0]}" in letters[0] and "no address" in letters[0]
    assert letters[1] == "1 more; list them with --limit\n"
    assert command.run("dead", "tasks", "--retry", str(dead[0]))[0] == (
        f"put dead letter {dead[0]} back into queue `tasks`\n"
    )
    assert "has no dead letter 1" in command.run("dead", "tasks", "--retry", "1", code=3)[1]
    assert command.run("dead", "tasks", "--retry-all")[0] == "put 1 dead letters back into queue `tasks`\n"
    assert command.run("dead", "tasks")[0] == "no dead letters\n"
    missing = command.run("pause", "nowhere", code=3)[1]
    assert missing.startswith("error: queue `nowhere` does not exist")
