"""The app of a Django project: its database is that of the project, and its blocking handlers may use the ORM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgqrs.app import App, ConnectSettings
from pgqrs.declaration import Declared


class DjangoApp(App):
    """A :class:`pgqrs.App` on a database of the project's ``DATABASES``."""

    @property
    def url(self) -> str:
        """The URL that it connects to."""
        from pgqrs.django import _database

        return self._url or _database.url()

    def _connect_settings(self) -> ConnectSettings:
        from pgqrs.django import _database

        known = ConnectSettings.__annotations__
        passed = {name.lower(): value for name, value in _database.options().items()}
        settings: Any = {name: value for name, value in passed.items() if name in known}
        settings.update(self._settings)
        found: ConnectSettings = settings
        return found

    def _called(self, declared: Declared) -> Callable[[Any], Any]:
        handler = declared.handler
        if declared.is_async:
            return handler
        from django.db import close_old_connections

        def handle(delivery: Any) -> Any:
            # As Django does it around a request: a connection that the server has closed is not used again.
            close_old_connections()
            try:
                return handler(delivery)
            finally:
                close_old_connections()

        return handle


app: DjangoApp = DjangoApp()
"""The app of the project: handlers are declared by ``@app.handler``."""
