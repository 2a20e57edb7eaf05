"""Spans and measurements through the application's OpenTelemetry, if it has imported and configured that. Their names are
those of the Rust crate, which follow OpenTelemetry's conventions for messaging.

Nothing is imported here: an application that has a tracer has imported `opentelemetry` itself.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from pgqrs._pgqrs import __version__

LONGEST_TRACE = timedelta(hours=1)
"""A handler's span that starts later than this after its message was sent is no child of its sender's: traces are shown
whole, and few tools keep them for longer."""

_ATTRIBUTES = {"messaging.system": "pgqrs"}


def tracer() -> Any:
    """The application's tracer; ``None`` if it has none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    # Until one is configured.
    return None if type(provider).__name__ == "ProxyTracerProvider" else _tracer(provider)


@lru_cache(maxsize=4)
def _tracer(provider: Any) -> Any:
    return provider.get_tracer("pgqrs", __version__)


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Those that the conventions recommend for operations."""


class Instruments:
    """Of a meter. Those that are recorded here are attributes; the extension's are made as it names them."""

    def __init__(self, meter: Any) -> None:
        self._meter = meter
        self._named: dict[str, Any] = {}
        # What the extension, which is the other one to record it, says of it.
        self.operations = self.named(
            "messaging.client.operation.duration",
            "histogram",
            "s",
            "Duration of sends, claims and settlements.",
            _SECONDS,
        )
        self.sent = self.named(
            "messaging.client.sent.messages",
            "counter",
            "{message}",
            "Messages that were sent, or failed to be.",
        )
        self.consumed = self.named(
            "messaging.client.consumed.messages",
            "counter",
            "{message}",
            "Messages that handlers were called with, or that dequeues returned.",
        )
        self.processed = self.named(
            "messaging.process.duration", "histogram", "s", "Duration of handlers.", _SECONDS
        )

    def named(self, name: str, kind: str, unit: str, description: str, bounds: Sequence[float] = ()) -> Any:
        """The instrument of a name, made at its first use; ``None`` if this OpenTelemetry has none of its kind."""
        if name not in self._named:
            create: Any = getattr(self._meter, f"create_{kind}", None)
            options: dict[str, Any] = {"unit": unit, "description": description}
            if kind == "histogram" and "explicit_bucket_boundaries_advisory" in _parameters(create):
                options["explicit_bucket_boundaries_advisory"] = list(bounds)
            self._named[name] = None if create is None else create(name, **options)
        return self._named[name]


def _parameters(function: Any) -> Sequence[str]:
    return list(inspect.signature(function).parameters)


def instruments() -> Instruments | None:
    """Those of the application's meter; ``None`` if it has none."""
    metrics = sys.modules.get("opentelemetry.metrics")
    if metrics is None:
        return None
    provider = metrics.get_meter_provider()
    return None if type(provider).__name__ == "_ProxyMeterProvider" else _instruments(provider)


@lru_cache(maxsize=4)
def _instruments(provider: Any) -> Instruments:
    return Instruments(provider.get_meter("pgqrs", __version__))


def injected(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers with the context of the current span, unless they have one."""
    if "opentelemetry.trace" not in sys.modules or any(name == "traceparent" for name, _ in headers):
        return headers
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    # Of the baggage and others, only what a header of a message can be.
    return [*headers, *((name, carrier[name]) for name in ("traceparent", "tracestate") if name in carrier)]


def sender(native: Any, queue: str) -> Any:
    """What sends: the extension's producer or, if the application has a tracer or a meter, one that uses them."""
    if "opentelemetry" not in sys.modules:
        return native
    tracing, measuring = tracer(), instruments()
    return native if tracing is None and measuring is None else _Sender(native, queue, tracing, measuring)


class _Sender:
    """A producer of the extension, with spans."""

    def __init__(self, native: Any, queue: str, tracing: Any, measuring: Instruments | None) -> None:
        self._native = native
        self._queue = queue
        self._tracer = tracing
        self._measuring = measuring

    def enqueue(self, payload: Any, *arguments: Any) -> Any:
        return self._send(self._native.enqueue, 1, (payload, *arguments))

    def enqueue_batch(self, payloads: Sequence[Any], *arguments: Any) -> Any:
        return self._send(self._native.enqueue_batch, len(payloads), (payloads, *arguments))

    def enqueue_messages(self, messages: Sequence[Any], *arguments: Any) -> Any:
        return self._send(self._native.enqueue_messages, len(messages), (messages, *arguments))

    def _send(self, call: Callable[..., Any], count: int, arguments: tuple[Any, ...]) -> Any:
        *others, headers = arguments
        sending = self._sending(count)
        span = next(sending)

        def end(result: Any, error: BaseException | None) -> None:
            if span is not None and error is None and count == 1:
                first = result[0] if isinstance(result, list) else result
                message = first[0] if isinstance(first, tuple) else first
                span.set_attribute("messaging.message.id", str(message))
            try:
                sending.send(error)
            except StopIteration:
                pass

        try:
            with _current(span):
                called = call(*others, injected(headers))
        except BaseException as error:
            end(None, error)
            raise
        if not inspect.isawaitable(called):
            end(called, None)
            return called

        async def awaited(called: Awaitable[Any]) -> Any:
            try:
                result = await called
            except BaseException as error:
                end(None, error)
                raise
            end(result, None)
            return result

        return awaited(called)

    def _sending(self, count: int) -> Any:
        """Yields the span of a send, and is resumed with its error when it has ended."""
        attributes = _of_operation(self._queue, "send", "send")
        span = None
        if self._tracer is not None:
            kind = sys.modules["opentelemetry.trace"].SpanKind.PRODUCER
            span = self._tracer.start_span(f"send {self._queue}", kind=kind, attributes=attributes)
            if count != 1:
                span.set_attribute("messaging.batch.message_count", count)
        began = time.perf_counter()
        error: BaseException | None = yield span
        took = time.perf_counter() - began
        _end(span, error)
        if self._measuring is not None:
            labels = _labels(self._queue, "send", None if error is None else _type_of(error))
            self._measuring.operations.record(took, labels)
            self._measuring.sent.add(count, labels)


def handling(queue: str, handler: Callable[[Any], Any], *, blocking: bool = False) -> Callable[[Any], Any]:
    """The handler with spans and measurements, if the application has a tracer or a meter when its run begins."""
    if "opentelemetry" not in sys.modules or (tracer() is None and instruments() is None):
        return handler

    if blocking:

        def handle(delivery: Any) -> Any:
            with _processing(queue, delivery) as processed:
                outcome = processed.outcome = handler(delivery)
            return outcome

        return handle

    def handle_async(delivery: Any) -> Any:
        # The first step runs within the span too, and what isn't awaitable is reported by the caller.
        handled = handler(delivery)
        return _awaited(queue, delivery, handled) if inspect.isawaitable(handled) else handled

    return handle_async


async def _awaited(queue: str, delivery: Any, handled: Awaitable[Any]) -> Any:
    with _processing(queue, delivery) as processed:
        outcome = processed.outcome = await handled
    return outcome


class _Processed:
    outcome: Any = None


@contextmanager
def _processing(queue: str, delivery: Any) -> Iterator[_Processed]:
    """Around a handler's call with a delivery, or a chunk of them."""
    tracing, measuring = tracer(), instruments()
    messages = [delivery] if hasattr(delivery, "headers") else list(delivery)
    span = None if tracing is None else _process_span(tracing, queue, messages, delivery is not messages[0])
    processed = _Processed()
    failure: BaseException | str | None = None
    began = time.perf_counter()
    try:
        with _current(span):
            yield processed
        kind = getattr(processed.outcome, "kind", "done")
        failure = {"retry": "Retry", "dead_letter": "DeadLetter"}.get(kind)
    except BaseException as error:
        failure = error
        raise
    finally:
        took = time.perf_counter() - began
        _end(span, failure)
        if measuring is not None:
            labels = _labels(queue, "process", None if failure is None else _type_of(failure))
            measuring.processed.record(took, labels)
            measuring.consumed.add(len(messages), labels)


def _process_span(tracing: Any, queue: str, messages: Sequence[Any], is_chunk: bool) -> Any:
    trace = sys.modules["opentelemetry.trace"]
    attributes = _of_operation(queue, "process", "process")
    links: list[Any] = []
    context = None
    for message in messages:
        extracted = _extracted(message.headers)
        if extracted is None:
            continue
        age = datetime.now(timezone.utc) - message.enqueued_at
        if not is_chunk and message.attempt == 1 and age <= LONGEST_TRACE:
            context = extracted
        else:
            links.append(trace.Link(trace.get_current_span(extracted).get_span_context()))
    if is_chunk:
        attributes["messaging.batch.message_count"] = len(messages)
    else:
        attributes["messaging.message.id"] = str(messages[0].id)
        attributes["pgqrs.message.attempt"] = messages[0].attempt
    return tracing.start_span(
        f"process {queue}",
        context=context,
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
        links=links[:128],
    )


def _extracted(headers: dict[str, str]) -> Any:
    """The context of a message's sender; ``None`` if it has none that is valid."""
    if "traceparent" not in headers:
        return None
    from opentelemetry import propagate, trace

    context = propagate.extract(headers)
    return context if trace.get_current_span(context).get_span_context().is_valid else None


@contextmanager
def _current(span: Any) -> Iterator[None]:
    if span is None:
        yield
        return
    with sys.modules["opentelemetry.trace"].use_span(
        span, record_exception=False, set_status_on_exception=False
    ):
        yield


def _end(span: Any, failure: BaseException | str | None) -> None:
    if span is None:
        return
    if failure is not None:
        trace = sys.modules["opentelemetry.trace"]
        span.set_attribute("error.type", _type_of(failure))
        if isinstance(failure, Exception):
            span.record_exception(failure)
        text = failure if isinstance(failure, str) else str(failure)
        span.set_status(trace.Status(trace.StatusCode.ERROR, text))
    span.end()


def _type_of(failure: BaseException | str) -> str:
    return failure if isinstance(failure, str) else type(failure).__qualname__


def _of_operation(queue: str, name: str, kind: str) -> dict[str, Any]:
    return {
        **_ATTRIBUTES,
        "messaging.destination.name": queue,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
    }


def _labels(queue: str, name: str, error: str | None) -> dict[str, str]:
    labels = {**_ATTRIBUTES, "messaging.destination.name": queue, "messaging.operation.name": name}
    return labels if error is None else {**labels, "error.type": error}
