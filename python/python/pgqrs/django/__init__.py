"""Queues of a Django project, in its own database.

``INSTALLED_APPS`` has ``"pgqrs.django"``, and ``manage.py migrate`` creates the schema. Handlers are in the modules ``jobs``
of the installed apps, which are found by themselves::

    import pgqrs
    from pgqrs.django import app, enqueue

    EMAILS = pgqrs.Queue("emails", SendEmail)

    @app.handler(EMAILS)
    def send_email(delivery: pgqrs.sync.Delivery[SendEmail]) -> None: ...

A view sends by ``enqueue(EMAILS, SendEmail("ada"))``: within ``transaction.atomic`` it is sent if and only if that commits.
``manage.py pgqrs_worker`` runs the handlers.

The setting ``PGQRS = {"DATABASE": "default"}`` names the database of ``DATABASES``, and can have the settings of
:func:`pgqrs.connect` too, in capitals: ``"MAX_CONNECTIONS": 20``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgqrs.django._app import DjangoApp, app
from pgqrs.django._send import aenqueue, enqueue, enqueue_batch

if TYPE_CHECKING:
    from pgqrs.django.tasks import TasksBackend

__all__ = ["DjangoApp", "TasksBackend", "aenqueue", "app", "enqueue", "enqueue_batch"]


def __getattr__(name: str) -> object:
    # Django 6 has the interface of this one; the models that it needs are loaded later than this module.
    if name == "TasksBackend":
        from pgqrs.django.tasks import TasksBackend

        return TasksBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
