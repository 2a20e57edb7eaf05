"""Creates or upgrades the schema `pgqrs`, in which queues and messages are."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations


def install(apps: Any, schema_editor: Any) -> None:
    """Runs the migrations of pgqrs itself, which it counts by itself: several processes can do so at the same time."""
    from pgqrs.django import _database
    from pgqrs.sync import connect

    if schema_editor.connection.alias == _database.alias():
        with connect(_database.url(), max_connections=2) as store:
            store.admin().install()


class Migration(migrations.Migration):
    """Backwards it does nothing: messages are not deleted by the way."""

    # On connections of its own.
    atomic = False
    dependencies: ClassVar[Any] = []
    operations: ClassVar[Any] = [migrations.RunPython(install, migrations.RunPython.noop)]
