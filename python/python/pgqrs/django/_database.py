"""The project's database, as its settings have it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from pgqrs import _arguments


def options() -> dict[str, Any]:
    """The setting ``PGQRS``."""
    found: dict[str, Any] = getattr(settings, "PGQRS", {})
    return found


def alias() -> str:
    """Which database of ``DATABASES`` has the queues."""
    name: str = options().get("DATABASE", "default")
    return name


def connection(using: str | None = None) -> Any:
    """Django's connection to it, of this thread."""
    found: Any = connections[using or alias()]
    if found.vendor != "postgresql":
        raise ImproperlyConfigured(
            f"pgqrs needs PostgreSQL, and the database `{using or alias()}` is of {found.vendor}; name another with "
            'PGQRS = {"DATABASE": ..}'
        )
    return found


def url(using: str | None = None) -> str:
    """Its URL: of the test database, while tests run."""
    of: dict[str, Any] = connection(using).settings_dict
    known = ("sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs")
    parameters = {name: str(of["OPTIONS"][name]) for name in known if name in of.get("OPTIONS", {})}
    host, port = of.get("HOST") or "localhost", str(of.get("PORT") or "")
    user, password = of.get("USER") or "", of.get("PASSWORD") or ""
    return _arguments.url_of(host, port, user, password, of["NAME"], parameters)
