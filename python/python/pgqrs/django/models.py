"""Results of tasks, as the interface of ``django.tasks`` asks for them."""

from __future__ import annotations

from typing import Any

from django.db import models


class Result(models.Model):
    """A task that was enqueued, and what became of it."""

    id: models.CharField[str, str] = models.CharField(primary_key=True, max_length=32)
    task: models.TextField[str, str] = models.TextField()
    backend: models.TextField[str, str] = models.TextField()
    queue_name: models.TextField[str, str] = models.TextField()
    priority: models.SmallIntegerField[int, int] = models.SmallIntegerField(default=0)
    run_after: models.DateTimeField[Any, Any] = models.DateTimeField(null=True)
    status: models.CharField[str, str] = models.CharField(max_length=10, default="READY")
    enqueued_at: models.DateTimeField[Any, Any] = models.DateTimeField()
    started_at: models.DateTimeField[Any, Any] = models.DateTimeField(null=True)
    last_attempted_at: models.DateTimeField[Any, Any] = models.DateTimeField(null=True)
    finished_at: models.DateTimeField[Any, Any] = models.DateTimeField(null=True)
    args: models.JSONField[Any, Any] = models.JSONField(default=list)
    kwargs: models.JSONField[Any, Any] = models.JSONField(default=dict)
    return_value: models.JSONField[Any, Any] = models.JSONField(null=True)
    errors: models.JSONField[Any, Any] = models.JSONField(default=list)
    worker_ids: models.JSONField[Any, Any] = models.JSONField(default=list)

    class Meta:
        """How Django sees it."""

        app_label = "pgqrs"
        db_table = "pgqrs_result"
        verbose_name = "result of a task"
        verbose_name_plural = "results of tasks"

    def __str__(self) -> str:
        return f"{self.task} {self.status}"
