//! What an operator should act on, with remedies.

use maud::{Markup, html};
use pgqrs::TableHealth;

use super::Problem;
use crate::{
    app::App,
    format::{duration, none, number},
    layout::View,
};

pub(super) async fn view(app: &App) -> Result<View, Problem> {
    let health = app.sample().await?.health;
    let main = html! {
        h1 { "Health" }
        p.facts {
            "PostgreSQL " (health.server_version) ", database " b { (health.database) } ", as the role "
            b { (health.role) } "."
            @if let Some(connections) = &health.connections { " " (connections) "." }
        }
        @if health.findings.is_empty() { p.note.good { "Nothing to act on." } }
        @for finding in &health.findings {
            section.note.(finding.severity.as_str()) {
                h2 { span.badge.(finding.severity.as_str()) { (finding.severity) } " " (finding) }
                pre tabindex="0" { (finding.remedy) }
            }
        }
        h2 { "Tables" }
        div.wide tabindex="0" role="region" aria-label="Tables" {
            table {
                thead { tr {
                    th scope="col" { "Table" }
                    th.number scope="col" { "Rows" }
                    th.number scope="col" { "Dead rows" }
                    th.number scope="col" { "Vacuum from" }
                    th scope="col" { "Last vacuum" }
                } }
                tbody { @for table in health.tables.iter().filter(|table| !table.toast) { (row(table)) } }
            }
        }
    };
    Ok(View {
        title: "Health".to_owned(),
        place: "Health",
        main,
    })
}

fn row(table: &TableHealth) -> Markup {
    html! {
        tr {
            th scope="row" { (table.name) }
            td.number data-label="rows" { (number(table.live_rows)) }
            td.number data-label="dead rows" { (number(table.dead_rows)) }
            td.number data-label="vacuum from" { (number(table.vacuum_at)) }
            td data-label="last vacuum" {
                @match table.last_vacuum {
                    Some(ago) => { (duration(ago)) " ago" }
                    None => (none()),
                }
            }
        }
    }
}
