"""Writes the blocking twins under ``python/pgqrs/sync`` from the modules that they are twins of.

    python generate_sync.py           writes them
    python generate_sync.py --check   fails if they aren't what it would write

Written twice by hand, they would drift apart. A consumer's twin is written by hand all the same, since it works
with threads instead of tasks.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "python" / "pgqrs"

TWINS = (
    "admin",
    "queue_admin",
    "group_admin",
    "worker_admin",
    "schedule_admin",
    "delivery",
    "observer",
    "producer",
    "store",
)

REPLACEMENTS = (
    # Blocking, they return what the others return a call for.
    (r" *@calling\n|from pgqrs\._calling import .*\n", ""),
    # Without an event loop, there are no turns of one.
    (r" *await _turns\..*\n", ""),
    (r", _turns\b", ""),
    (r"\bCall\[(\w+\[\w+\])\]", r"\1"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\bblocking=False\b", "blocking=True"),
    (
        r"\bfrom pgqrs\.(queue_admin|group_admin|schedule_admin|worker_admin|admin|consumer|delivery|observer|producer|store)\b",
        r"from pgqrs.sync.\1",
    ),
    (r":(meth|func|class):`pgqrs\.(connect|Store|Producer|Consumer)\b", r":\1:`pgqrs.sync.\2"),
)

HEADER = "# Made by generate_sync.py of pgqrs/{name}.py.\n"


def twin(name: str) -> str:
    text = (PACKAGE / f"{name}.py").read_text()
    for pattern, replacement in REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    return HEADER.format(name=name) + text


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    for name in TWINS:
        path = PACKAGE / "sync" / f"{name}.py"
        text = twin(name)
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path))
        else:
            path.write_text(text)
    for path in stale:
        print(f"{path} is not what generate_sync.py makes of its twin", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
