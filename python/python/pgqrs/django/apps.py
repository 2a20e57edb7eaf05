"""The configuration of the installed app ``pgqrs.django``."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules


class PgqrsConfig(AppConfig):
    """Finds the modules ``jobs`` of installed apps, and creates the queues of their handlers after a migration."""

    name: str = "pgqrs.django"
    label: str = "pgqrs"
    verbose_name: str = "pgqrs"  # pyright: ignore[reportIncompatibleVariableOverride]
    default_auto_field: str = "django.db.models.BigAutoField"  # pyright: ignore[reportIncompatibleVariableOverride]

    def ready(self) -> None:
        """Called by Django when the models are loaded."""
        autodiscover_modules("jobs")
        declare_tasks()
        post_migrate.connect(_create_queues, sender=self)


def declare_tasks() -> None:
    """Declares the handlers of ``TASKS`` whose backend is that of pgqrs."""
    try:
        from pgqrs.django.tasks import declare
    except ImportError:
        # Django has tasks since version 6.
        return
    declare()


def _create_queues(sender: object, using: str, **arguments: Any) -> None:
    from pgqrs.django import _database, app
    from pgqrs.sync import connect

    # `flush`, after each test that commits, sends this signal without a plan.
    if using != _database.alias() or "plan" not in arguments or not app.queues:
        return
    with connect(_database.url(), max_connections=2) as store:
        if store.admin().verify().state != "up_to_date":
            # Migrated back, or only in part.
            return
        known = {queue.name for queue in store.admin().queues()}
        for queue in app.queues:
            if queue.name not in known:
                store.queue(queue)
