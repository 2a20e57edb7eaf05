//! Spans as an exporter of OpenTelemetry gets them, and contexts of other processes.

use std::sync::{Arc, Mutex};

use opentelemetry::{
    Context, Key, Value,
    trace::{
        SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
    },
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::{Metadata, Span, info_span, subscriber::DefaultGuard};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt, FilterFn, filter_fn},
    layer::{Context as LayerContext, SubscriberExt},
};

/// A context that a test has made up, as a header.
pub(crate) const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The spans of this thread, which is the only one of a test's runtime, as an exporter of OpenTelemetry gets them.
pub(crate) struct Traces {
    exporter: InMemorySpanExporter,
    malformed: Arc<Mutex<usize>>,
    _provider: SdkTracerProvider,
    _guard: DefaultGuard,
}

/// Counts the events that say that a context was malformed.
struct Malformed(Arc<Mutex<usize>>);

impl<S: tracing::Subscriber> Layer<S> for Malformed {
    fn on_event(&self, event: &tracing::Event<'_>, _: LayerContext<'_, S>) {
        let mut text = String::new();
        event.record(
            &mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                text += &format!("{value:?} ");
            },
        );
        assert!(!text.contains("malformed-value"), "{text}");
        *self.0.lock().expect("not poisoned") +=
            usize::from(text.contains("malformed `traceparent`"));
    }
}

impl Traces {
    pub(crate) fn start() -> Self {
        Self::filtered(filter_fn(|_| true))
    }

    pub(crate) fn filtered<F: Fn(&Metadata<'_>) -> bool + Send + Sync + 'static>(
        only: FilterFn<F>,
    ) -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let malformed = Arc::<Mutex<usize>>::default();
        // Its debug events would be in every span.
        let is_ours = filter_fn(|metadata| !metadata.target().starts_with("sqlx"));
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = Registry::default()
            .with(Malformed(Arc::clone(&malformed)))
            .with(layer.with_filter(only.and(is_ours)));
        Self {
            exporter,
            malformed,
            _provider: provider,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The finished spans of this type of operation, in their order.
    pub(crate) fn operations(&self, operation: &str) -> Vec<SpanData> {
        let spans = self.exporter.get_finished_spans().expect("not poisoned");
        let is_one = |span: &SpanData| attribute(span, "messaging.operation.type") == operation;
        spans.into_iter().filter(is_one).collect()
    }

    pub(crate) fn malformed(&self) -> usize {
        *self.malformed.lock().expect("not poisoned")
    }
}

pub(crate) fn attribute(span: &SpanData, name: &'static str) -> String {
    let mut attributes = span.attributes.iter();
    let found = attributes.find(|attribute| attribute.key == Key::from_static_str(name));
    found.map_or(String::new(), |found| match &found.value {
        Value::String(text) => text.to_string(),
        other => other.to_string(),
    })
}

pub(crate) fn parent_of(context: &SpanContext) -> String {
    format!("00-{}-{}-01", context.trace_id(), context.span_id())
}

/// A context that another process has begun.
pub(crate) fn remote(trace: u128, state: &[(&str, &str)]) -> Context {
    let state = TraceState::from_key_value(state.iter().copied()).expect("well-formed");
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(trace),
        SpanId::from(7),
        TraceFlags::SAMPLED,
        true,
        state,
    ))
}

pub(crate) fn span_in(trace: u128) -> Span {
    let span = info_span!("caller");
    span.set_parent(remote(trace, &[])).expect("not started");
    span
}
