"""A task of Django 6, which `manage.py pgqrs_worker` runs."""

from typing import Any

from django.tasks import task


@task
def add(left: int, right: int) -> int:
    return left + right


@task(takes_context=True, priority=50)
def fail(context: Any, reason: str) -> None:
    raise ValueError(f"{reason}, attempt {context.attempt}")


@task
async def add_async(left: int, right: int) -> int:
    return left + right
