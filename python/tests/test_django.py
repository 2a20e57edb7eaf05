"""Django: the project under `examples/django`, in processes of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import django
import pytest

from .conftest import Database, line, until

PROJECT = Path(__file__).parents[2] / "examples" / "django"


def run(database: Database, *command: str, code: int = 0, **more: Any) -> str:
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT,
        env={**os.environ, "DATABASE_URL": database.url, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        **more,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture
def migrated(bare: Database) -> Database:
    run(bare, "manage.py", "migrate")
    return bare


PLACE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django
django.setup()
from django.test import Client
for customer in sys.argv[1:]:
    print(Client().post("/orders", {"customer": customer}).status_code)
"""


def test_a_worker_before_migrate_says_so(bare: Database) -> None:
    refused = run(bare, "manage.py", "pgqrs_worker", code=1)
    assert "pgqrs is not installed in this database; run `manage.py migrate`" in refused


def test_the_projects_own_tests_in_djangos_test_cases(bare: Database) -> None:
    assert "Ran 7 tests" in run(bare, "manage.py", "test")


def test_migrate_creates_the_schema_and_the_queues_and_again_changes_nothing(migrated: Database) -> None:
    found = [name for (name,) in migrated.rows("select name from pgqrs.queues order by name")]
    assert [name for name in found if name != "default"] == ["confirmations"]
    again = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n"
        "import django; django.setup()\n"
        "from django.core.management import CommandError, call_command\n"
        "call_command('migrate')\n"
        "call_command('makemigrations', check_changes=True, dry_run=True)\n"
        "call_command('check')\n"
        "try:\n"
        "    call_command('pgqrs_worker', queues='nowhere')\n"
        "except CommandError as error:\n"
        "    print(error)\n"
    )
    printed = run(migrated, "-c", again)
    assert "No migrations to apply" in printed and "No changes detected" in printed
    assert "no handler for `nowhere`; there is one for `confirmations`" in printed


def test_the_worker_handles_what_a_view_has_sent_restarts_on_changes_and_finishes_on_a_signal(
    migrated: Database, tmp_path: Path
) -> None:
    project = shutil.copytree(PROJECT, tmp_path / "project")
    jobs = project / "shop" / "jobs.py"
    with subprocess.Popen(
        [sys.executable, "manage.py", "pgqrs_worker", "--reload"],
        cwd=project,
        env={**os.environ, "DATABASE_URL": migrated.url, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        try:
            line(worker.stdout, "handles confirmations")
            assert run(migrated, "-c", PLACE, "ada") == "201\n"
            line(worker.stdout, "confirmed ada\n")
            jobs.write_text(jobs.read_text().replace('print("confirmed"', 'print("mailed"'))
            line(worker.stdout, "queue `confirmations`: 1 done\n")
            line(worker.stdout, "handles confirmations")
            assert run(migrated, "-c", PLACE, "lin") == "201\n"
            line(worker.stdout, "mailed lin\n")
            worker.send_signal(signal.SIGTERM)
            assert "queue `confirmations`: 1 done\n" in worker.stdout.read()
            assert worker.wait(20) == 0
        finally:
            worker.kill()
    assert migrated.count() == 0
    assert migrated.rows("select is_mailed from shop_order") == [(True,), (True,)]


def test_tasks_of_django_6_and_their_results(bare: Database) -> None:
    if django.VERSION < (6,):
        pytest.skip("Django has tasks since version 6, which needs Python 3.12")
    assert "Ran 5 tests" in run(bare, "manage.py", "test", "shop.task_checks")
    run(bare, "manage.py", "migrate")
    add = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n"
        "import django; django.setup()\n"
        "from shop.sums import add; print(add.enqueue(2, 3).id)"
    )
    id = run(bare, "-c", add).strip()
    with subprocess.Popen(
        [sys.executable, "manage.py", "pgqrs_worker", "--queues", "default"],
        cwd=PROJECT,
        env={**os.environ, "DATABASE_URL": bare.url},
    ) as worker:

        def is_done() -> bool:
            return bare.rows("select status, return_value from pgqrs_result") == [("SUCCESSFUL", 5)]

        try:
            asyncio.run(until("the task is done", is_done))
            worker.terminate()
            assert worker.wait(20) == 0
        finally:
            worker.kill()
    assert bare.rows("select id from pgqrs_result") == [(id,)]
    assert bare.count() == 0
