"""Restarts a worker when a Python file changes: for development."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

INTERVAL = 0.4
"""In seconds: how often files are looked at."""

STOPPING = 30
"""In seconds: how long a worker may take until it is killed, which is longer than a worker's own deadline."""


def supervise(command_line: Sequence[str]) -> int:
    """Runs a command in a process of its own, and again whenever a Python file below the current folder has changed, until
    SIGTERM or Ctrl-C. A worker that ended is started again at the next change."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    seen = _files(Path.cwd())
    worker = _start(command_line)
    try:
        while not stopped.wait(INTERVAL):
            now = _files(Path.cwd())
            changed = sorted(path for path, _ in set(now.items()) ^ set(seen.items()))
            if changed:
                print(f"{os.path.relpath(changed[0])} has changed: the worker is restarted", file=sys.stderr)
                seen = now
                _end(worker)
                worker = _start(command_line)
    finally:
        code = _end(worker)
    return code


def _start(command_line: Sequence[str]) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C in the terminal reaches this process, which passes it on once.
    return subprocess.Popen(command_line, start_new_session=True)


def _end(worker: subprocess.Popen[bytes]) -> int:
    if worker.poll() is None:
        worker.terminate()
    try:
        return worker.wait(STOPPING)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()


def _files(folder: Path) -> dict[str, int]:
    """The Python files below a folder, with the times of their last change."""
    return dict(_changes(str(folder)))


def _changes(folder: str) -> Iterator[tuple[str, int]]:
    for parent, folders, files in os.walk(folder):
        # No environments and caches, where nobody edits.
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in ("__pycache__", "node_modules", "site-packages")
            and not os.path.exists(os.path.join(parent, name, "pyvenv.cfg"))
        ]
        for name in files:
            if name.endswith(".py"):
                path = os.path.join(parent, name)
                try:
                    yield path, os.stat(path).st_mtime_ns
                except FileNotFoundError:
                    # An editor replaces a file by another one.
                    continue
