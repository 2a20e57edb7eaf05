//! The span of a handler goes on with the trace of its message's sender, or links to it.

use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId, TraceState};
use opentelemetry_sdk::trace::SpanData;
use pgqrs::{Delivery, Outcome, Store};
use serde_json::Value;
use sqlx::PgPool;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::support::{
    TestResult, claim,
    consumers::{consumer, drained, start},
    send,
    traces::{PARENT, Traces, attribute, parent_of, span_in},
    until, with_queues,
};

/// Handles all that there is with a handler that fails each first attempt.
async fn handle(store: &Store, pool: &PgPool, around: Span) -> TestResult {
    let prepared = consumer().create(store).await?;
    let handle = prepared.handle();
    let run = prepared.run(|delivery: Delivery<Value>| {
        let verdict = if delivery.attempt() == 1 {
            Outcome::RetryIn(Duration::ZERO, "again".to_owned())
        } else {
            Outcome::Done
        };
        std::future::ready(verdict)
    });
    let run = tokio::spawn(run.instrument(around));
    drained(pool).await;
    handle.stop();
    run.await??;
    Ok(())
}

fn links(span: &SpanData) -> Vec<SpanContext> {
    span.links
        .iter()
        .map(|link| link.span_context.clone())
        .collect()
}

/// How a handler's span is related to the send of its message.
#[derive(Debug, PartialEq)]
enum Relation {
    Child,
    Linked,
    None,
}

fn relation(process: &SpanData, sender: &SpanContext) -> Relation {
    let is_child = process.parent_span_id == sender.span_id();
    let is_linked = links(process)
        .iter()
        .any(|link| link.span_id() == sender.span_id());
    let is_in_its_trace = process.span_context.trace_id() == sender.trace_id();
    assert_eq!(is_child, is_in_its_trace, "{process:?}");
    match (is_child, is_linked) {
        (true, false) => Relation::Child,
        (false, true) => Relation::Linked,
        (false, false) => Relation::None,
        (true, true) => panic!("both: {process:?}"),
    }
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_first_attempt_is_a_child_of_its_send_and_retries_link_to_it(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let traces = Traces::start();
    send(&store, &[1]).instrument(span_in(1)).await?;
    handle(&store, &pool, Span::none()).await?;
    let sends = traces.operations("send");
    let sender = &sends[0].span_context;
    let processes = traces.operations("process");
    let relations: Vec<_> = processes
        .iter()
        .map(|span| relation(span, sender))
        .collect();
    assert_eq!(relations, [Relation::Child, Relation::Linked]);
    assert!(processes[0].parent_span_is_remote);
    assert_eq!(processes[1].parent_span_id, SpanId::INVALID);
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_attempt_that_starts_later_than_an_hour_after_the_enqueue_links_to_its_send(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let traces = Traces::start();
    let ids = send(&store, &[1, 2, 3]).instrument(span_in(1)).await?;
    // By the database's clock, which may also have been set back.
    for (id, minutes) in ids.iter().zip([58, 62, -62]) {
        sqlx::query(
            "update pgqrs.messages set enqueued_at = now() - $2 * interval '1 minute' where id = $1",
        )
        .bind(id.get())
        .bind(f64::from(minutes))
        .execute(&pool)
        .await?;
    }
    let running = start(
        consumer().concurrency(1).create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    drained(&pool).await;
    running.stop().await?;
    let sender = traces.operations("send")[0].span_context.clone();
    let mut relations = Vec::new();
    for id in &*ids {
        let processes = traces.operations("process");
        let id = id.get().to_string();
        let of_message = processes
            .iter()
            .find(|span| attribute(span, "messaging.message.id") == id);
        relations.push(relation(of_message.expect("handled"), &sender));
    }
    assert_eq!(
        relations,
        [Relation::Child, Relation::Linked, Relation::Child]
    );
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn the_span_that_a_consumer_runs_in_is_linked_and_is_no_parent(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let traces = Traces::start();
    send(&store, &[1]).instrument(span_in(1)).await?;
    let around = span_in(9);
    let ambient = around.context().span().span_context().clone();
    handle(&store, &pool, around).await?;
    let sender = traces.operations("send")[0].span_context.clone();
    let processes = traces.operations("process");
    let relations: Vec<_> = processes
        .iter()
        .map(|span| relation(span, &sender))
        .collect();
    assert_eq!(relations, [Relation::Child, Relation::Linked]);
    for span in &processes {
        assert_eq!(relation(span, &ambient), Relation::Linked);
    }
    Ok(())
}

/// What a handler sends continues the trace.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_trace_goes_on_through_what_a_handler_sends(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let traces = Traces::start();
    send(&store, &[3]).instrument(span_in(1)).await?;
    let sender = store.clone();
    let running = start(
        consumer().create(&store).await?,
        move |delivery: Delivery<Value>| {
            let store = sender.clone();
            async move {
                match delivery.payload().as_u64() {
                    Some(0) | None => {}
                    Some(left) => drop(send(&store, &[left - 1]).await?),
                }
                pgqrs::Ok(Outcome::Done)
            }
        },
    );
    until("the last one is handled", async || {
        traces.operations("process").len() == 4
    })
    .await;
    running.stop().await?;
    let spans = [traces.operations("send"), traces.operations("process")].concat();
    assert_eq!(spans.len(), 8);
    for span in &spans {
        assert_eq!(
            span.span_context.trace_id(),
            TraceId::from(1_u128),
            "{span:?}"
        );
    }
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_dequeue_of_several_messages_links_to_each_of_their_sends(pool: PgPool) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let traces = Traces::start();
    for trace in [1, 2, 3] {
        send(&store, &[trace]).instrument(span_in(trace)).await?;
    }
    assert_eq!(claim(&store, 10).await?.len(), 3);
    let senders: Vec<_> = traces
        .operations("send")
        .iter()
        .map(|span| span.span_context.span_id())
        .collect();
    let receives = traces.operations("receive");
    let [receive] = &receives[..] else {
        panic!("{receives:?}")
    };
    let links: Vec<_> = links(receive).iter().map(SpanContext::span_id).collect();
    assert_eq!(links, senders);
    assert_eq!(receive.parent_span_id, SpanId::INVALID);
    Ok(())
}

/// Any program may have written it.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_malformed_context_is_dropped_and_counted_and_the_message_is_handled(
    pool: PgPool,
) -> TestResult {
    let store = with_queues(&pool, &["tasks"]).await?;
    let long = "0".repeat(8_000);
    let malformed = [
        "",
        "malformed-value",
        "00-00000000000000000000000000000000-0000000000000000-00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        &long,
    ];
    let traces = Traces::start();
    for parent in malformed {
        let enqueue = pgqrs::enqueue().message(&1).to("tasks");
        enqueue
            .header("traceparent", parent)
            .execute(&store)
            .await?;
    }
    let running = start(
        consumer().create(&store).await?,
        async |_: Delivery<Value>| Outcome::Done,
    );
    drained(&pool).await;
    let report = running.stop().await?;
    assert_eq!(report.done, malformed.len() as u64);
    let processes = traces.operations("process");
    assert_eq!(processes.len(), malformed.len());
    for span in processes {
        assert_eq!(span.parent_span_id, SpanId::INVALID);
        assert!(links(&span).is_empty());
    }
    assert_eq!(traces.malformed(), malformed.len());

    // In a dequeue too, and a state that is malformed costs nothing but itself.
    let enqueue = || pgqrs::enqueue().message(&1).to("tasks");
    enqueue()
        .header("traceparent", "malformed-value")
        .execute(&store)
        .await?;
    let with_state = enqueue().header("tracestate", "no state");
    with_state
        .header("traceparent", PARENT)
        .execute(&store)
        .await?;
    for delivery in claim(&store, 2).await? {
        delivery.ack(&store).await?;
    }
    assert_eq!(traces.malformed(), malformed.len() + 1);
    let receives = traces.operations("receive");
    let last = links(receives.last().expect("one"));
    assert_eq!(last.len(), 1);
    assert_eq!(parent_of(&last[0]), PARENT);
    assert_eq!(last[0].trace_state(), &TraceState::default());
    Ok(())
}
