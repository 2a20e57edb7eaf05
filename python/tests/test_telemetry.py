"""OpenTelemetry: spans and measurements of sends and handlers, and the trace of a message."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import pgqrs
import pgqrs.sync

from .conftest import Database, until


class Observed:
    """What the application's tracer and meter have got."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.metrics = InMemoryMetricReader()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.name == name]

    def all(self) -> list[Metric]:
        data = self.metrics.get_metrics_data()
        resources = data.resource_metrics if data is not None else ()
        scopes = [scope for resource in resources for scope in resource.scope_metrics]
        return [metric for scope in scopes for metric in scope.metrics]

    def measured(self, name: str, by: str = "error.type") -> dict[tuple[str, ...], float]:
        """How many, by queue or store, and by another attribute."""
        found: dict[tuple[str, ...], float] = {}
        for metric in self.all():
            for point in metric.data.data_points if metric.name == name else ():
                labels: Any = point.attributes
                pool = labels.get("db.client.connection.pool.name", "")
                key = (labels.get("messaging.destination.name", pool), labels.get(by, ""))
                found[key] = getattr(point, "count", 0) or getattr(point, "value", 0)
        return found


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Observed]:
    """A tracer and a meter of the application's, for one test."""
    observed = Observed()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(observed.spans))
    meters = MeterProvider([observed.metrics])
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", meters)
    yield observed
    provider.shutdown()
    meters.shutdown()


def of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_handlers_span_is_a_child_of_its_messages_sender(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], observed: Observed
) -> None:
    tracer = trace.get_tracer("the application")
    with tracer.start_as_current_span("request"):
        message = await producer.enqueue({"to": "grace"}, headers={"tenant": "acme"})
    consumer = await store.consumer("tasks")

    async def handle(delivery: pgqrs.Delivery[Any]) -> None:
        assert delivery.headers["tenant"] == "acme"
        consumer.stop()
        with tracer.start_as_current_span("within"):
            pass

    await consumer.run(handle)
    ((request,), (send,)) = observed.named("request"), observed.named("send tasks")
    ((process,), (within,)) = observed.named("process tasks"), observed.named("within")
    ids = [span.parent.span_id if span.parent else None for span in (request, send, process, within)]
    assert ids == [
        None,
        request.context.span_id,
        send.context.span_id,
        process.context.span_id,
    ]
    assert {span.context.trace_id for span in (send, process, within)} == {request.context.trace_id}
    assert (send.kind, process.kind) == (trace.SpanKind.PRODUCER, trace.SpanKind.CONSUMER)
    assert of(send) == {
        "messaging.system": "pgqrs",
        "messaging.destination.name": "tasks",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.id": str(message),
    }
    assert of(process) == {
        "messaging.system": "pgqrs",
        "messaging.destination.name": "tasks",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": str(message),
        "pgqrs.message.attempt": 1,
    }
    # Which no id in hexadecimal digits has.
    assert "grace" not in str([span.to_json() for span in observed.spans.get_finished_spans()])


async def test_failures_are_on_spans_and_a_retry_links_its_sender(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], observed: Observed
) -> None:
    await producer.enqueue("fails", max_attempts=3)
    consumer = await store.consumer("tasks")

    async def handle(delivery: pgqrs.Delivery[Any]) -> pgqrs.Outcome:
        if delivery.attempt == 1:
            raise LookupError("no such user")
        consumer.stop()
        return pgqrs.Outcome.dead_letter("why")

    await consumer.run(handle, retry=pgqrs.RetryPolicy.fixed(0))
    (send,) = observed.named("send tasks")
    first, second = observed.named("process tasks")
    assert first.parent is not None and first.parent.span_id == send.context.span_id
    assert [link.context.span_id for link in second.links] == [send.context.span_id]
    assert second.parent is None
    assert (of(first)["error.type"], of(second)["error.type"]) == ("LookupError", "DeadLetter")
    assert [event.name for event in first.events] == ["exception"]
    assert first.status.status_code is trace.StatusCode.ERROR
    with pytest.raises(pgqrs.SerializeError):
        await producer.enqueue(object())
    assert of(observed.named("send tasks")[1])["error.type"] == "SerializeError"
    assert observed.measured("messaging.client.sent.messages") == {
        ("tasks", ""): 1,
        ("tasks", "SerializeError"): 1,
    }
    assert observed.measured("messaging.process.duration") == {
        ("tasks", "LookupError"): 1,
        ("tasks", "DeadLetter"): 1,
    }


def test_blocking_calls_handlers_and_chunks_have_spans_too(
    sync_store: pgqrs.sync.Store, observed: Observed
) -> None:
    producer = sync_store.producer("tasks")
    producer.enqueue(1)
    consumer = sync_store.consumer("tasks")

    def handle(delivery: pgqrs.sync.Delivery[Any]) -> None:
        with trace.get_tracer("the application").start_as_current_span("within"):
            consumer.stop()

    consumer.run(handle)
    ((send,), (process,)) = observed.named("send tasks"), observed.named("process tasks")
    (within,) = observed.named("within")
    assert process.parent is not None and process.parent.span_id == send.context.span_id
    assert within.parent is not None and within.parent.span_id == process.context.span_id

    observed.spans.clear()
    producer.enqueue_batch([1, 2], priority="high")
    chunks = sync_store.consumer("tasks")
    chunks.run_chunks(lambda chunk: chunks.stop(), size=2, wait=20)
    ((send,), (process,)) = observed.named("send tasks"), observed.named("process tasks")
    assert of(send)["messaging.batch.message_count"] == of(process)["messaging.batch.message_count"] == 2
    assert {link.context.span_id for link in process.links} == {send.context.span_id}
    assert observed.measured("messaging.client.consumed.messages") == {("tasks", ""): 3}


async def test_what_becomes_of_messages_is_measured_and_what_stores_and_consumers_have(
    database: Database, observed: Observed
) -> None:
    """Under the names that the Rust crate uses, with each of its metrics once."""
    async with await pgqrs.connect(database.url, application_name="the application") as store:
        measured = pgqrs.Queue("measured", str)
        await store.queue(measured)
        await store.admin().configure_queue("measured", max_attempts=2)
        producer = await store.producer(measured)
        await producer.enqueue_batch(["fails", "later", "hopeless"])
        await (await store.producer("measured")).enqueue(7)
        consumer = await store.consumer(measured)
        postponed = False

        async def handle(delivery: pgqrs.Delivery[str]) -> pgqrs.Outcome | None:
            nonlocal postponed
            if delivery.payload == "fails":
                raise LookupError
            if delivery.payload == "later" and not postponed:
                postponed = True
                return pgqrs.Outcome.later(0)
            return pgqrs.Outcome.dead_letter("no use") if delivery.payload == "hopeless" else None

        running = asyncio.create_task(
            consumer.run(handle, retry=pgqrs.RetryPolicy.fixed(0), poll_interval=0.02)
        )
        await until(
            "gauges are read", lambda: ("measured", "") in observed.measured("pgqrs.handlers.running")
        )
        await until("all is handled", lambda: database.count() == 1)
        consumer.stop()
        await running
        counted = {
            "pgqrs.message.retries": 1,
            "pgqrs.message.snoozes": 1,
            "pgqrs.message.undecodable": 1,
            "pgqrs.message.dead_letters": 2,
            "pgqrs.message.redeliveries": 0,
            # One more, which Python could not decode.
            "pgqrs.message.wait.duration": 6,
            "messaging.client.sent.messages": 4,
        }

        def found() -> dict[str, float | None]:
            return {name: observed.measured(name).get(("measured", "")) for name in counted}

        # By the end of the run, unless the machine is slow.
        await until("all is recorded", lambda: found() == counted)
        assert observed.measured("messaging.client.consumed.messages") == {
            ("measured", ""): 2,
            ("measured", "LookupError"): 2,
            ("measured", "DeadLetter"): 1,
        }
        by_operation = observed.measured("messaging.client.operation.duration", "messaging.operation.name")
        assert by_operation[("measured", "send")] == 2
        assert by_operation.keys() >= {("measured", "receive"), ("measured", "send")}
        names = [metric.name for metric in observed.all()]
        assert sorted(set(names)) == sorted(names)
        await until(
            "the pool is read",
            # Stores of other tests may be alive.
            lambda: sum(observed.measured("db.client.connection.max").values()) >= 10,
        )


def test_a_send_in_a_transaction_of_ones_own_carries_the_current_context(
    sync_store: pgqrs.sync.Store, database: Database, observed: Observed
) -> None:
    with (
        trace.get_tracer("the application").start_as_current_span("request") as request,
        psycopg.connect(database.url) as connection,
    ):
        pgqrs.enqueue_in(connection, "tasks", 1)
    delivery = next(sync_store.consumer("tasks"))
    context = request.get_span_context()
    assert delivery.headers["traceparent"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    delivery.ack()


async def test_a_malformed_context_is_no_parent(
    store: pgqrs.Store, producer: pgqrs.Producer[Any], observed: Observed
) -> None:
    await producer.enqueue(1, headers={"traceparent": "00-nonsense"})
    consumer = await store.consumer("tasks")

    async def handle(delivery: pgqrs.Delivery[Any]) -> None:
        consumer.stop()

    assert (await consumer.run(handle)).done == 1
    (process,) = observed.named("process tasks")
    assert process.parent is None and not process.links


def test_without_a_tracer_nothing_of_it_is_imported(database: Database) -> None:
    program = (
        "import pathlib, sys, pgqrs.sync\n"
        "with pgqrs.sync.connect(sys.argv[1]) as store:\n"
        "    store.queue('tasks')\n"
        "    store.producer('tasks').enqueue(1)\n"
        "    delivery = next(store.consumer('tasks'))\n"
        "    assert delivery.headers == {}\n"
        "    delivery.ack()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        # Nor is anything measured. Where there is no such folder, nobody sees threads' names.
        "names = [thread.read_text() for thread in pathlib.Path('/proc/self/task').glob('*/comm')]\n"
        "assert 'pgqrs-metrics\\n' not in names, names"
    )
    subprocess.run([sys.executable, "-c", program, database.url], check=True, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_of_a_measured_process_works_and_measures_its_sends(database: Database) -> None:
    program = """
        import os, sys, threading, time, traceback, warnings
        import pgqrs.sync
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        warnings.simplefilter("ignore", DeprecationWarning)
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))

        def work():
            with pgqrs.sync.connect(sys.argv[1]) as store:
                store.queue("tasks")
                store.producer("tasks").enqueue(1)
                consumer = store.consumer("tasks")
                consumer.run(lambda delivery: consumer.stop())

        def measured(name):
            for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points if metric.name == name else ():
                        return getattr(point, "count", None) or point.value
            return 0

        def until_measured(name, count):
            deadline = time.monotonic() + 20
            while measured(name) != count:
                assert time.monotonic() < deadline, measured(name)
                threading.Event().wait(0.01)

        for number in range(1, 6):
            work()
            until_measured("pgqrs.message.wait.duration", number)
            child = os.fork()
            if child == 0:
                try:
                    work()
                    assert measured("messaging.client.sent.messages") == number + 1
                    assert measured("pgqrs.message.wait.duration") == number
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), database.url],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
