//! The numbers of the overview for Prometheus, under `/metrics`.

use std::fmt::Write;

use axum::http::StatusCode;

use crate::{app::App, respond::Rendered};

const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) async fn rendered(app: &App) -> Rendered {
    match app.sample().await {
        Ok(sample) => Rendered {
            status: 200,
            kind: KIND,
            body: text(&sample.health),
        },
        Err(error) => Rendered {
            status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            kind: KIND,
            body: format!("# {}\n", error.to_string().replace('\n', " ")),
        },
    }
}

fn text(health: &pgqrs::Health) -> String {
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
