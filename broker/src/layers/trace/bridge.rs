//! Where `tracing`'s spans meet OpenTelemetry's: with the feature `opentelemetry`, spans that a
//! subscriber exports continue what messages continue. Without it, or without such a
//! subscriber, nothing here does anything.

use tracing::Span;

use super::Context;

/// Makes a span continue the one trace that all contexts belong to, or links it to them, and
/// returns what continues the span. Below a span of the caller's own it stays there.
#[cfg(feature = "opentelemetry")]
pub(super) fn join(span: &Span, contexts: &[Context]) -> Option<Context> {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    if span.is_disabled() {
        return None;
    }
    let is_one_trace = contexts.iter().all(|context| context.trace == contexts[0].trace);
    let mut links = contexts;
    if let [first, rest @ ..] = contexts
        && is_one_trace
        && Span::current().is_none()
        && span.set_parent(remote(first)).is_ok()
    {
        links = rest;
    }
    for link in links {
        span.add_link(remote(link).span().span_context().clone());
    }
    let own = span.context();
    let own = own.span().span_context().clone();
    own.is_valid().then(|| Context {
        trace: own.trace_id().to_bytes(),
        span: own.span_id().to_bytes(),
        flags: own.trace_flags().to_u8(),
    })
}

#[cfg(feature = "opentelemetry")]
fn remote(context: &Context) -> opentelemetry::Context {
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
    };

    let (trace, span) = (TraceId::from_bytes(context.trace), SpanId::from_bytes(context.span));
    let flags = TraceFlags::new(context.flags);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    opentelemetry::Context::new().with_remote_span_context(context)
}

/// Nothing exports spans.
#[cfg(not(feature = "opentelemetry"))]
pub(super) fn join(_span: &Span, _contexts: &[Context]) -> Option<Context> {
    None
}
