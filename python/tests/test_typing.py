"""What mypy and pyright report: each marked mistake, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "typing"
PACKAGE = Path(__file__).parents[1]


def expected() -> set[tuple[str, int]]:
    marked: set[tuple[str, int]] = set()
    for path in FOLDER.glob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.endswith("# expect-error"):
                marked.add((path.name, number))
    assert len(marked) > 20
    return marked


def by_mypy() -> set[tuple[str, int]]:
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", str(FOLDER)],
        capture_output=True,
        text=True,
        cwd=PACKAGE,
    )
    assert ran.stderr == ""
    found = re.findall(r"^(?:.*/)?(\w+\.py):(\d+): error:", ran.stdout, re.MULTILINE)
    return {(name, int(number)) for name, number in found}


def by_pyright() -> set[tuple[str, int]]:
    ran = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", str(FOLDER)],
        capture_output=True,
        text=True,
        cwd=PACKAGE,
    )
    assert ran.returncode in (0, 1), ran.stderr
    found = json.loads(ran.stdout)["generalDiagnostics"]
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1)
        for one in found
        if one["severity"] == "error"
    }


@pytest.mark.parametrize("checker", [by_mypy, by_pyright])
def test_a_wrong_payload_is_reported_before_the_program_runs(checker: object) -> None:
    assert callable(checker)
    found, marked = checker(), expected()
    assert not marked - found, "mistakes that it accepts"
    assert not found - marked, "mistakes that are none"
