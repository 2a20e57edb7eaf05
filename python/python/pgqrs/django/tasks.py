"""A backend for ``django.tasks``, which Django has since version 6."""

from __future__ import annotations

from os import getpid
from socket import gethostname
from traceback import format_exception
from typing import Any, cast

from django.db import transaction
from django.tasks import DEFAULT_TASK_BACKEND_ALIAS, task_backends
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.utils import timezone
from django.utils.crypto import get_random_string
from django.utils.json import normalize_json
from django.utils.module_loading import import_string

from pgqrs import sync
from pgqrs.django import _database
from pgqrs.django._app import app
from pgqrs.outcome import Outcome
from pgqrs.queue import Priority, Queue
from pgqrs.transaction import enqueue_in

__all__ = ["TasksBackend", "declare"]


class TasksBackend(BaseTaskBackend):
    """Tasks are messages of queues with the names of ``QUEUES``, and ``manage.py pgqrs_worker`` runs them::

        TASKS = {"default": {"BACKEND": "pgqrs.django.TasksBackend"}}

    ``enqueue`` is part of the current ``transaction.atomic``. A task that returns is recorded and acknowledged in one
    transaction. One that raises has failed; with ``"OPTIONS": {"max_attempts": 5}`` it is run again, with a growing
    wait, until the last attempt. One whose worker crashes is run again, so a task can run twice.

    A task's priority, from -100 to 100, becomes one of four: from 50 on ``urgent``, from 1 on ``high``, 0 is
    ``normal``, and less is ``low``. ``"OPTIONS": {"concurrency": 8}`` is how many tasks of a queue run at once.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Stores a task, in the current transaction."""
        from pgqrs.django.models import Result

        self.validate_task(task)
        connection = _database.connection()
        with transaction.atomic(using=_database.alias()):
            row = Result.objects.using(_database.alias()).create(
                id=get_random_string(32),
                task=task.module_path,
                backend=self.alias,
                queue_name=task.queue_name,
                priority=task.priority,
                run_after=task.run_after,
                enqueued_at=timezone.now(),
                args=normalize_json(list(args)),
                kwargs=normalize_json(dict(kwargs)),
            )
            enqueue_in(
                connection, _queue(task.queue_name), row.id, at=task.run_after, priority=_level(task.priority)
            )
        result = _result(row, task)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Reads the result of a task."""
        from pgqrs.django.models import Result

        row = Result.objects.using(_database.alias()).filter(id=result_id).first()
        if row is None:
            raise TaskResultDoesNotExist(result_id)
        return _result(row)


def declare() -> None:
    """Declares a handler for each queue of each backend of this class."""
    for alias in task_backends:
        backend: Any = task_backends[alias]
        if not isinstance(backend, TasksBackend):
            continue
        settings: Any = {"concurrency": int(backend.options.get("concurrency", 8))}
        for name in sorted(backend.queues or {"default"}):
            known = app.handlers.get(name)
            # Two backends may share a queue: a task's result says which of them it is of.
            if known is None or known.handler is not _perform:
                app.handler(_queue(name), **settings)(_perform)


def _queue(name: str) -> Queue[str]:
    """Its messages are the ids of results."""
    return Queue(name, str)


def _level(priority: int) -> Priority:
    if priority >= 50:
        return Priority.URGENT
    if priority > 0:
        return Priority.HIGH
    return Priority.LOW if priority < 0 else Priority.NORMAL


def _perform(delivery: sync.Delivery[str]) -> Outcome | None:
    """Runs a task."""
    from pgqrs.django.models import Result

    using = _database.alias()
    row = Result.objects.using(using).filter(id=delivery.payload).first()
    if row is None:
        return Outcome.dead_letter("its result was deleted")
    backend: Any = task_backends[row.backend]
    row.status = TaskResultStatus.RUNNING
    row.last_attempted_at = timezone.now()
    row.started_at = row.started_at or row.last_attempted_at
    row.worker_ids = [*row.worker_ids, f"{gethostname()}:{getpid()}"]
    row.save(using=using)
    result: Any = None
    try:
        result = _result(row)
        task_started.send(type(backend), task_result=result)
        context: list[Any] = [TaskContext(task_result=result)] if result.task.takes_context else []
        row.return_value = normalize_json(result.task.call(*context, *row.args, **row.kwargs))
    except Exception as error:
        return _failed(row, result, backend, delivery, error)
    row.status, row.finished_at = TaskResultStatus.SUCCESSFUL, timezone.now()
    with transaction.atomic(using=using):
        row.save(using=using)
        delivery.ack_in(cast(Any, _database.connection()))
    task_finished.send(type(backend), task_result=_result(row, result.task))
    return None


def _failed(row: Any, result: Any, backend: Any, delivery: sync.Delivery[str], error: Exception) -> Outcome:
    kind = type(error)
    row.errors = [
        *row.errors,
        {"class": f"{kind.__module__}.{kind.__qualname__}", "traceback": "".join(format_exception(error))},
    ]
    is_last = delivery.attempt >= int(backend.options.get("max_attempts", 1))
    row.status = TaskResultStatus.FAILED if is_last else TaskResultStatus.READY
    row.finished_at = timezone.now() if is_last else None
    row.save(using=_database.alias())
    text = f"{kind.__name__}: {error}"
    if not is_last:
        return Outcome.retry(reason=text)
    if result is not None:
        task_finished.send(type(backend), task_result=_result(row, result.task))
    return Outcome.dead_letter(text)


def _result(row: Any, task: Any = None) -> Any:
    if task is None:
        function = import_string(row.task)
        task = function.using(priority=row.priority, queue_name=row.queue_name, backend=row.backend)
        if row.run_after is not None:
            task = task.using(run_after=row.run_after)
    assert isinstance(task, Task)
    result: Any = TaskResult(
        task=task,
        id=row.id,
        status=TaskResultStatus(row.status),
        enqueued_at=row.enqueued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        last_attempted_at=row.last_attempted_at,
        args=row.args,
        kwargs=row.kwargs,
        backend=row.backend or DEFAULT_TASK_BACKEND_ALIAS,
        errors=[
            TaskError(exception_class_path=error["class"], traceback=error["traceback"])
            for error in row.errors
        ],
        worker_ids=list(row.worker_ids),
    )
    object.__setattr__(result, "_return_value", row.return_value)
    return result
