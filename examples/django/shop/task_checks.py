"""Tests of tasks; run by `manage.py test shop.task_checks` with Django 6."""

from datetime import timedelta
from typing import Any, cast

from django.db import connection, transaction
from django.tasks import TaskResultStatus, default_task_backend
from django.tasks.exceptions import TaskResultDoesNotExist
from django.test import TestCase, TransactionTestCase
from django.utils import timezone

import pgqrs
from pgqrs import testing
from pgqrs.django import app
from pgqrs.django.testing import PurgedQueues
from shop.sums import add, add_async, fail

django = cast(Any, connection)
DEFAULT = pgqrs.Queue("default", str)


class Tasks(TestCase):
    def test_a_task_is_run_and_its_result_is_kept(self) -> None:
        for task in (add, add_async):
            result = task.enqueue(2, right=3)
            self.assertEqual((result.status, result.attempts), (TaskResultStatus.READY, 0))
            self.assertEqual(testing.drain(django, DEFAULT, app).done, 1)
            with self.assertRaises(ValueError):
                _ = result.return_value
            result.refresh()
            self.assertEqual((result.status, result.return_value, result.attempts), ("SUCCESSFUL", 5, 1))
            self.assertIsNotNone(result.finished_at)
            self.assertEqual(task.get_result(result.id).args, [2])

    def test_a_task_that_raises_is_run_again_and_then_has_failed(self) -> None:
        result = fail.enqueue("no such user")
        (sent,) = testing.enqueued(django, DEFAULT)
        self.assertEqual(sent.priority, "urgent")
        self.assertEqual(testing.drain(django, DEFAULT, app).retried, 1)
        result.refresh()
        self.assertEqual(result.status, TaskResultStatus.READY)
        self.assertEqual(testing.drain(django, DEFAULT, app, with_delayed=True).dead, 1)
        result.refresh()
        self.assertEqual((result.status, result.attempts), (TaskResultStatus.FAILED, 2))
        self.assertIs(result.errors[1].exception_class, ValueError)
        self.assertIn("no such user, attempt 2", result.errors[1].traceback)

    def test_a_task_that_is_put_off_waits(self) -> None:
        add.using(run_after=timezone.now() + timedelta(hours=1), priority=-3).enqueue(1, 2)
        (sent,) = testing.enqueued(django, DEFAULT)
        self.assertEqual((sent.is_ready, sent.priority), (False, "low"))
        self.assertEqual(testing.drain(django, DEFAULT, app).done, 0)

    def test_an_unknown_result_is_reported(self) -> None:
        with self.assertRaises(TaskResultDoesNotExist):
            default_task_backend.get_result("nowhere")


class CommittedTasks(PurgedQueues, TransactionTestCase):
    def test_a_task_is_part_of_the_transaction(self) -> None:
        with self.assertRaises(LookupError), transaction.atomic():
            result = add.enqueue(1, 2)
            raise LookupError
        self.assertEqual(testing.enqueued(django, DEFAULT), [])
        with self.assertRaises(TaskResultDoesNotExist):
            result.refresh()
