//! The trace of a message: the context of its sender travels in the headers `traceparent` and `tracestate`, in the format
//! of W3C, and the span that handles it follows from it. Without the feature `opentelemetry`, nothing of it is compiled.

#[cfg(not(feature = "opentelemetry"))]
pub(crate) use disabled::{Ambient, follow, follow_all, inject, link};
#[cfg(feature = "opentelemetry")]
pub(crate) use enabled::{Ambient, follow, follow_all, inject, link};

#[cfg(feature = "opentelemetry")]
mod enabled {
    use std::time::Duration;

    use opentelemetry::{
        Context,
        trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId},
    };
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    use crate::{
        headers::Headers,
        message::Message,
        telemetry::{self, Subject},
    };

    const TRACEPARENT: &str = "traceparent";
    const TRACESTATE: &str = "tracestate";
    /// Every participant passes on at least so many bytes of `tracestate`, by the specification.
    const LONGEST_STATE: usize = 512;
    /// The span of a message that starts later than this after its enqueue is no child of its sender's span: traces are
    /// shown whole, and few tools keep them for longer.
    const LONGEST_TRACE: Duration = Duration::from_secs(60 * 60);
    /// The default limit of OpenTelemetry's SDKs.
    const MOST_LINKS: usize = 128;

    /// Adds the context of the send, unless the caller has set one: that of its span; if the span is filtered out, that of
    /// the span around it; if there is none, OpenTelemetry's own current context.
    pub(crate) fn inject(span: &Span, headers: &mut Headers) {
        if headers.get(TRACEPARENT).is_some() {
            return;
        }
        let Some(context) = context_of(&span.context()).or_else(current) else {
            return;
        };
        headers.add(TRACEPARENT, || traceparent(&context));
        let state = context.trace_state().header();
        if (1..=LONGEST_STATE).contains(&state.len()) {
            headers.add(TRACESTATE, || state);
        }
    }

    /// The span in which a loop runs.
    #[derive(Debug, Clone)]
    pub(crate) struct Ambient(Option<SpanContext>);

    impl Ambient {
        pub(crate) fn current() -> Self {
            Self(current())
        }
    }

    /// Makes the span of a handler, which has not begun yet, a child of its message's sender; or, for a retry or a message
    /// that was enqueued long ago, links it.
    pub(crate) fn follow(span: &Span, message: &Message, ambient: &Ambient) {
        if span.is_disabled() {
            return;
        }
        if let Some(ambient) = &ambient.0 {
            span.add_link(ambient.clone());
        }
        let Some(sender) = sender(message) else {
            return;
        };
        if message.attempt == 1 && message.age() <= LONGEST_TRACE {
            let parent = Context::new().with_remote_span_context(sender);
            // It fails if no layer of OpenTelemetry is installed.
            let _ = span.set_parent(parent);
        } else {
            span.add_link(sender);
        }
    }

    /// Links a span that is about several messages to their senders.
    pub(crate) fn link<'a>(span: &Span, messages: impl IntoIterator<Item = &'a Message>) {
        if span.is_disabled() {
            return;
        }
        for message in messages.into_iter().take(MOST_LINKS) {
            if let Some(sender) = sender(message) {
                span.add_link(sender);
            }
        }
    }

    /// Links the span of a handler that takes many messages to their senders.
    pub(crate) fn follow_all<'a>(
        span: &Span,
        messages: impl IntoIterator<Item = &'a Message>,
        ambient: &Ambient,
    ) {
        if let Some(ambient) = &ambient.0 {
            span.add_link(ambient.clone());
        }
        link(span, messages);
    }

    /// The context of the current span.
    fn current() -> Option<SpanContext> {
        context_of(&Span::current().context()).or_else(|| context_of(&Context::current()))
    }

    fn context_of(context: &Context) -> Option<SpanContext> {
        let span = context.span();
        let context = span.span_context();
        context.is_valid().then(|| context.clone())
    }

    fn sender(message: &Message) -> Option<SpanContext> {
        let parent = message.headers.get(TRACEPARENT)?;
        let context = parse(parent, message.headers.get(TRACESTATE));
        if context.is_none() {
            telemetry::malformed_trace_context(&Subject::of(message));
        }
        context
    }

    /// `version-trace-span-flags`, see <https://www.w3.org/TR/trace-context/#traceparent-header>. The propagator of
    /// OpenTelemetry's SDK writes the same, but a library depends on the API alone.
    fn traceparent(context: &SpanContext) -> String {
        let flags = context.trace_flags() & TraceFlags::SAMPLED;
        let (trace, span) = (context.trace_id(), context.span_id());
        format!("00-{trace:032x}-{span:016x}-{:02x}", flags.to_u8())
    }

    /// Returns `None` if the parent is malformed. A malformed state is ignored.
    fn parse(parent: &str, state: Option<&str>) -> Option<SpanContext> {
        let mut fields = parent.trim().splitn(5, '-');
        let mut field = |digits: usize| {
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let field = fields.next()?;
            (field.len() == digits && field.bytes().all(is_digit)).then_some(field)
        };
        let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        // Later versions may have more fields.
        if version == "ff" || version == "00" && fields.next().is_some() {
            return None;
        }
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
        let state = state.and_then(|state| state.parse().ok());
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            flags,
            true,
            state.unwrap_or_default(),
        );
        context.is_valid().then_some(context)
    }

    #[cfg(test)]
    mod tests {
        use opentelemetry::trace::TraceState;

        use super::*;

        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

        #[test]
        fn what_is_written_is_read() {
            let context = parse(PARENT, Some("vendor=1,other=2")).expect("well-formed");
            assert_eq!(traceparent(&context), PARENT);
            assert_eq!(context.trace_state().header(), "vendor=1,other=2");
            assert!(context.is_remote() && context.is_sampled());
            // Only the first flag is defined.
            let context = parse(&PARENT.replace("-01", "-fe"), None).expect("well-formed");
            assert_eq!(traceparent(&context), PARENT.replace("-01", "-00"));
        }

        #[test]
        fn later_versions_may_have_more_fields_and_a_malformed_state_is_ignored() {
            let later = format!("{}-more-fields", PARENT.replacen("00", "01", 1));
            assert!(parse(&later, None).is_some());
            let context = parse(PARENT, Some("no state")).expect("well-formed");
            assert_eq!(context.trace_state(), &TraceState::default());
        }

        #[test]
        fn whatever_is_malformed_is_none() {
            let malformed = [
                "",
                "-",
                "00",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
                "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
                "00-0af7651916cd43dd8448eb211c80319cc-b7ad6b7169203331-01",
                "0\u{ff10}-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ];
            for parent in malformed {
                assert_eq!(parse(parent, None), None, "{parent:?}");
            }
        }
    }
}

#[cfg(not(feature = "opentelemetry"))]
mod disabled {
    use tracing::Span;

    use crate::{headers::Headers, message::Message};

    #[derive(Debug, Clone)]
    pub(crate) struct Ambient(());

    impl Ambient {
        pub(crate) fn current() -> Self {
            Self(())
        }
    }

    pub(crate) fn inject(_: &Span, _: &mut Headers) {}

    pub(crate) fn follow(_: &Span, _: &Message, _: &Ambient) {}

    pub(crate) fn follow_all<'a>(_: &Span, _: impl IntoIterator<Item = &'a Message>, _: &Ambient) {}

    pub(crate) fn link<'a>(_: &Span, _: impl IntoIterator<Item = &'a Message>) {}
}
