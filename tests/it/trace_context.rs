//! The trace that a message belongs to: its sender's context travels with it.

mod exporters;
mod handlers;

use opentelemetry::{
    context::FutureExt as _,
    trace::{SpanKind, TraceContextExt, TraceId},
};
use pgqrs::{ConnectOptions, Store};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;

use crate::support::{
    TestResult, one, send,
    traces::{PARENT, Traces, parent_of, remote, span_in},
    url, with_queues,
};

/// The headers `traceparent` and `tracestate` of all messages, by payload, which is a number, and by id.
async fn stored(pool: &PgPool) -> sqlx::Result<Vec<(Option<String>, Option<String>)>> {
    sqlx::query_as(
        "select headers ->> 'traceparent', headers ->> 'tracestate' from pgqrs.messages
         order by payload::text::integer, id",
    )
    .fetch_all(pool)
    .await
}

/// Runs one send after another, each in a trace of its own.
async fn sends(store: &Store, pool: &PgPool) -> Result<usize, Box<dyn std::error::Error>> {
    let enqueue = |n: u8| pgqrs::enqueue().message(&n).to("tasks");
    enqueue(1).execute(store).instrument(span_in(1)).await?;
    let batch = pgqrs::enqueue().messages(&[2, 2]).to("tasks");
    batch.execute(store).instrument(span_in(2)).await?;
    enqueue(3).execute(pool).instrument(span_in(3)).await?;
    let mut tx = pool.begin().await?;
    enqueue(4).execute(&mut tx).instrument(span_in(4)).await?;
    tx.commit().await?;
    let mut tx = store.begin().await?;
    enqueue(5).execute(&mut tx).instrument(span_in(5)).await?;
    tx.commit().await?;
    let mut import = pgqrs::enqueue().to("tasks").import([6, 6]);
    import.next(store).instrument(span_in(6)).await?;
    Ok(8)
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn each_message_carries_the_context_of_its_send_whichever_way_it_is_sent(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let traces = Traces::start();
    sends(&store, &pool).await?;
    let spans = traces.operations("send");
    let parents: Vec<_> = spans
        .iter()
        .map(|span| parent_of(&span.span_context))
        .collect();
    let [one, batch, in_pool, in_tx, in_begin, import] = &parents[..] else {
        panic!("{spans:?}")
    };
    let messages = [one, batch, batch, in_pool, in_tx, in_begin, import, import];
    let expected: Vec<_> = messages.map(|parent| (Some(parent.clone()), None)).into();
    assert_eq!(stored(&pool).await?, expected);
    for (span, trace) in spans.iter().zip(1_u128..) {
        assert_eq!(span.span_context.trace_id(), TraceId::from(trace));
        assert_eq!(span.span_kind, SpanKind::Producer);
    }
    Ok(())
}

/// They share statements, which other tasks run.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn messages_that_share_a_statement_each_carry_their_own_senders_context(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let _traces = Traces::start();
    let mut sends = JoinSet::new();
    for trace in 1..=200_u32 {
        let store = store.clone();
        let call = async move {
            let enqueue = pgqrs::enqueue().message(&trace).to("tasks");
            enqueue.execute(&store).await
        };
        sends.spawn(call.instrument(span_in(trace.into())));
    }
    while let Some(sent) = sends.join_next().await {
        sent??;
    }
    let traces: Vec<(String, String)> =
        sqlx::query_as("select payload::text, headers ->> 'traceparent' from pgqrs.messages")
            .fetch_all(&pool)
            .await?;
    assert_eq!(traces.len(), 200);
    for (payload, parent) in traces {
        let trace = TraceId::from(payload.parse::<u128>()?);
        assert!(parent.starts_with(&format!("00-{trace}-")), "{parent}");
    }
    let statements: i64 =
        sqlx::query_scalar("select count(distinct xmin::text) from pgqrs.messages")
            .fetch_one(&pool)
            .await?;
    assert!(statements < 100, "{statements} statements for 200 sends");
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_statement_for_another_driver_carries_its_callers_context(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let _traces = Traces::start();
    let span = span_in(1);
    let expected = parent_of(span.context().span().span_context());
    let statement = span.in_scope(|| {
        let enqueue = pgqrs::enqueue().messages(&[1, 2]).to("tasks");
        enqueue.header("tenant", "acme").statement()
    })?;
    let json = format!(r#"{{"tenant":"acme","traceparent":"{expected}"}}"#);
    assert_eq!(statement.headers(), [Some(json.clone()), Some(json)]);
    Ok(())
}

/// The span of the send is filtered out, or there is no layer at all.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn without_a_span_of_its_own_a_message_carries_the_context_around_it(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let traces = Traces::filtered(filter_fn(|metadata| {
        !metadata.target().starts_with("pgqrs")
    }));
    let span = span_in(1);
    send(&store, &[1]).instrument(span.clone()).await?;
    let in_tracing = parent_of(span.context().span().span_context());
    assert!(traces.operations("send").is_empty());
    drop((span, traces));

    let ambient = remote(2, &[("vendor", "1"), ("other", "2")]);
    let in_ambient = parent_of(ambient.span().span_context());
    let attached = send(&store, &[2]).with_context(ambient);
    attached.await?;
    send(&store, &[3]).await?;
    let expected = [
        (Some(in_tracing), None),
        (Some(in_ambient), Some("vendor=1,other=2".to_owned())),
        (None, None),
    ];
    assert_eq!(stored(&pool).await?, expected);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_context_that_the_caller_sets_wins(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let _traces = Traces::start();
    let span = info_span!("caller");
    span.set_parent(remote(1, &[("vendor", "1")]))
        .expect("not started");
    let enqueue = || pgqrs::enqueue().message(&1).to("tasks");
    let by_caller = enqueue().header("traceparent", PARENT).execute(&store);
    by_caller.instrument(span.clone()).await?;
    let state = enqueue().header("tracestate", "own=1").execute(&store);
    state.instrument(span).await?;
    let stored = stored(&pool).await?;
    // A state belongs to its parent.
    assert_eq!(stored[0], (Some(PARENT.to_owned()), None));
    assert_eq!(stored[1].1.as_deref(), Some("own=1"));
    assert_ne!(stored[1].0.as_deref(), Some(PARENT));
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_state_is_carried_unless_it_is_longer_than_512_bytes(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let value = "v".repeat(200);
    let members = [("a", &*value), ("b", &value), ("c", &value)];
    for state in [&members[..2], &members] {
        let sent = send(&store, &[1]).with_context(remote(1, state));
        sent.await?;
    }
    let states: Vec<_> = stored(&pool)
        .await?
        .into_iter()
        .map(|(_, state)| state)
        .collect();
    assert_eq!(states, [Some(format!("a={value},b={value}")), None]);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_store_that_is_connected_without_it_carries_no_context(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let options = ConnectOptions::builder()
        .url(url(&pool))
        .trace_context(false);
    let store = pgqrs::connect_with(options.build()).await?;
    let _traces = Traces::start();
    let sent = sends(&store, store.pool()).await?;
    let parents: Vec<_> = stored(&pool)
        .await?
        .into_iter()
        .map(|(parent, _)| parent)
        .collect();
    assert_eq!(parents.len(), sent);
    // A pool and a transaction of sqlx have no options.
    let with_context: Vec<_> = parents.iter().map(Option::is_some).collect();
    assert_eq!(
        with_context,
        [false, false, false, true, true, false, false, false]
    );
    let enqueue = pgqrs::enqueue().message(&9).to("tasks");
    let by_hand = enqueue.header("traceparent", PARENT).execute(&store);
    by_hand.instrument(span_in(1)).await?;
    let last = stored(&pool).await?.pop().expect("some");
    assert_eq!(last.0.as_deref(), Some(PARENT));
    Ok(())
}

/// Without a layer of OpenTelemetry, nothing is read from headers.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn without_a_layer_headers_pass_through_unchanged(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let enqueue = pgqrs::enqueue().message(&1).to("tasks");
    let enqueue = enqueue.header("traceparent", "malformed-value");
    enqueue.header("tracestate", "").execute(&store).await?;
    let delivery = one(&store).await?;
    let headers: Vec<_> = delivery.headers().iter().collect();
    assert_eq!(
        headers,
        [("traceparent", "malformed-value"), ("tracestate", "")]
    );
    Ok(())
}
