"""Creates the table of results of tasks."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """A table of Django's own, beside those of the project."""

    dependencies: ClassVar[Any] = [("pgqrs", "0001_install")]
    operations: ClassVar[Any] = [
        migrations.CreateModel(
            name="Result",
            fields=[
                ("id", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("task", models.TextField()),
                ("backend", models.TextField()),
                ("queue_name", models.TextField()),
                ("priority", models.SmallIntegerField(default=0)),
                ("run_after", models.DateTimeField(null=True)),
                ("status", models.CharField(default="READY", max_length=10)),
                ("enqueued_at", models.DateTimeField()),
                ("started_at", models.DateTimeField(null=True)),
                ("last_attempted_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("args", models.JSONField(default=list)),
                ("kwargs", models.JSONField(default=dict)),
                ("return_value", models.JSONField(null=True)),
                ("errors", models.JSONField(default=list)),
                ("worker_ids", models.JSONField(default=list)),
            ],
            options={
                "verbose_name": "result of a task",
                "verbose_name_plural": "results of tasks",
                "db_table": "pgqrs_result",
            },
        )
    ]
