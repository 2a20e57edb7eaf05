//! The numbers of the overview for Prometheus, under `/metrics`.

use std::fmt::Write;

use axum::http::StatusCode;

use crate::{
    app::App,
    respond::Rendered,
    sample::{History, Rates},
};

const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) async fn rendered(app: &App) -> Rendered {
    match app.sample().await {
        Ok(sample) => Rendered {
            status: 200,
            kind: KIND,
            body: text(&sample.health, &sample.history),
        },
        Err(error) => Rendered {
            status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            kind: KIND,
            body: format!("# {}\n", error.to_string().replace('\n', " ")),
        },
    }
}

fn text(health: &pgqrs::Health, history: &History) -> String {
    let mut text = String::from("# TYPE pgqrs_queue_messages gauge\n");
    for queue in &health.queues {
        let (stats, name) = (&queue.stats, label(queue.stats.queue.as_str()));
        for (state, count) in [
            ("ready", stats.ready),
            ("delayed", stats.delayed),
            ("parked", stats.parked),
            ("leased", stats.leased),
            ("dead", stats.dead),
        ] {
            let value = count.value;
            line(
                &mut text,
                format_args!("pgqrs_queue_messages{{queue=\"{name}\",state=\"{state}\"}} {value}"),
            );
        }
    }
    text.push_str("# TYPE pgqrs_queue_oldest_ready_age_seconds gauge\n");
    for queue in &health.queues {
        let name = label(queue.stats.queue.as_str());
        let age = queue.stats.oldest_ready.unwrap_or_default().as_secs_f64();
        line(
            &mut text,
            format_args!("pgqrs_queue_oldest_ready_age_seconds{{queue=\"{name}\"}} {age}"),
        );
    }
    text.push_str("# TYPE pgqrs_queue_consumers gauge\n");
    for queue in &health.queues {
        let (name, consumers) = (label(queue.stats.queue.as_str()), queue.consumers);
        line(
            &mut text,
            format_args!("pgqrs_queue_consumers{{queue=\"{name}\"}} {consumers}"),
        );
    }
    for (direction, of) in [
        (
            "in",
            (|rates| rates.in_per_minute) as fn(Rates) -> Option<u64>,
        ),
        ("out", |rates| rates.out_per_minute),
    ] {
        let metric = format!("pgqrs_queue_{direction}_per_minute");
        line(&mut text, format_args!("# TYPE {metric} gauge"));
        for queue in &health.queues {
            let name = queue.stats.queue.as_str();
            if let Some(rate) = of(history.rates(name)) {
                let name = label(name);
                line(
                    &mut text,
                    format_args!("{metric}{{queue=\"{name}\"}} {rate}"),
                );
            }
        }
    }
    text.push_str("# TYPE pgqrs_findings gauge\n");
    for severity in [
        pgqrs::Severity::Info,
        pgqrs::Severity::Warning,
        pgqrs::Severity::Critical,
    ] {
        let found = health
            .findings
            .iter()
            .filter(|finding| finding.severity == severity);
        let (severity, found) = (severity.as_str(), found.count());
        line(
            &mut text,
            format_args!("pgqrs_findings{{severity=\"{severity}\"}} {found}"),
        );
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // A string takes any text.
    let _ = writeln!(text, "{line}");
}

fn label(name: &str) -> String {
    name.replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
