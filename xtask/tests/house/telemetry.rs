//! docs/guide/telemetry.md lists each span, event and metric of src/telemetry/, and nothing else.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;

use crate::{files, root};

/// A line of a table: an event with its level and fields, and so on.
type Line = Vec<String>;

/// The fields that each event has, as far as they apply.
const COMMON: [&str; 5] = [
    "attempt",
    "max_attempts",
    "message_id",
    "queue",
    "worker_id",
];
/// What is said of spans in other columns.
const OTEL: [&str; 3] = ["otel.kind", "otel.name", "otel.status_code"];

fn page() -> String {
    std::fs::read_to_string(root().join("docs/guide/telemetry.md")).expect("it is there")
}

/// The rows of the table below a heading, as cells.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = page.split_once(heading).expect("the heading is there");
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let lines = lines.take_while(|line| line.starts_with('|')).skip(2);
    lines
        .map(|line| {
            let cells = line.trim_matches('|').split(" |");
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// The names in backticks of a cell, in their order in the alphabet.
fn names(cell: &str) -> String {
    let names: BTreeSet<_> = cell.split('`').skip(1).step_by(2).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// All calls of macros in the code, with their names and arguments.
fn macros(code: TokenStream, found: &mut Vec<(String, TokenStream)>) {
    let tokens: Vec<_> = code.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            match (
                at.checked_sub(2).map(|at| &tokens[at]),
                &tokens[at.saturating_sub(1)],
            ) {
                (Some(TokenTree::Ident(name)), TokenTree::Punct(mark))
                    if mark.as_char() == '!' && group.delimiter() != Delimiter::Bracket =>
                {
                    found.push((name.to_string(), group.stream()));
                }
                _ => {}
            }
            macros(group.stream(), found);
        }
    }
}

/// The text of a string literal.
fn literal(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else {
        return None;
    };
    syn::parse_str::<syn::LitStr>(&literal.to_string())
        .ok()
        .map(|text| text.value())
}

/// The fields of an event or a span, and the message or the name.
fn arguments(tokens: TokenStream) -> (BTreeSet<String>, Option<String>) {
    let (mut fields, mut message) = (BTreeSet::new(), None);
    let tokens: Vec<_> = tokens.into_iter().collect();
    let is = |token: &TokenTree, mark: char| matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark);
    for argument in tokens.split(|token| is(token, ',')) {
        let value = argument.iter().position(|token| is(token, '='));
        let name: String = argument[..value.unwrap_or(argument.len())]
            .iter()
            .filter(|token| !is(token, '?') && !is(token, '%'))
            .map(|token| literal(token).unwrap_or_else(|| token.to_string()))
            .collect();
        match (value, argument) {
            (None, [only]) if message.is_none() && literal(only).is_some() => {
                message = literal(only);
            }
            // Arguments of the message's own.
            (None, _) if message.is_some() && value.is_none() && fields.is_empty() => {}
            (Some(_), _) => {
                fields.insert(name);
            }
            (None, _) if message.is_none() && !name.contains(':') && !name.is_empty() => {
                fields.insert(name);
            }
            _ => {}
        }
    }
    (fields, message)
}

/// A message with `…` for each value in it.
fn template(message: &str) -> String {
    let mut parts = message.split('{');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.split_once('}').map_or("", |(_, rest)| rest);
        format!("{text}…{rest}")
    })
}

fn sources() -> Vec<(String, TokenStream)> {
    let files = files("src/telemetry", "rs").into_iter();
    files
        .map(|(path, text)| {
            let file = syn::parse_file(&text).expect("it is Rust");
            (path.display().to_string(), file.to_token_stream())
        })
        .collect()
}

fn compare(what: &str, code: BTreeSet<Line>, page: BTreeSet<Line>, least: usize) {
    let show = |lines: BTreeSet<&Line>| {
        let lines = lines.into_iter().map(|line| line.join(" | "));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert!(
        code == page,
        "{what} that docs/guide/telemetry.md doesn't list:\n{}\n\nand those that it lists, and that don't exist:\n{}",
        show(code.difference(&page).collect()),
        show(page.difference(&code).collect()),
    );
    assert!(code.len() >= least, "only {} {what}", code.len());
}

#[test]
fn each_event_is_documented_with_its_level_and_its_fields() {
    let mut events = BTreeSet::new();
    for (path, code) in sources() {
        if path.ends_with("fields.rs") {
            continue;
        }
        let mut found = Vec::new();
        macros(code, &mut found);
        for (name, tokens) in found {
            let mut arguments_of: Vec<_> = tokens.clone().into_iter().collect();
            let level = match (name.as_str(), arguments_of.first()) {
                ("of_message" | "of_worker", Some(TokenTree::Ident(level))) => level.to_string(),
                ("error" | "warn" | "info" | "debug", _) => name.clone(),
                _ => continue,
            };
            let mark = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
            let skip = match name.as_str() {
                "of_message" => 2,
                "of_worker" => 3,
                _ => 1,
            };
            for _ in 0..skip {
                let comma = arguments_of.iter().position(mark).expect("there are more");
                arguments_of.drain(..=comma);
            }
            let (fields, message) = arguments(arguments_of.into_iter().collect());
            let fields = fields
                .into_iter()
                .filter(|field| !COMMON.contains(&field.as_str()));
            events.insert(vec![
                level,
                template(&message.expect("it has a message")),
                fields.collect::<Vec<_>>().join(", "),
            ]);
        }
    }
    let documented = table(&page(), "## Events").into_iter();
    let documented = documented.map(|row| {
        vec![
            row[0].clone(),
            row[1].clone(),
            names(row.get(2).map_or("", |cell| cell)),
        ]
    });
    compare("events", events, documented.collect(), 30);
}

#[test]
fn each_span_is_documented_with_its_attributes() {
    let mut spans = BTreeSet::new();
    for (_, code) in sources() {
        let mut found = Vec::new();
        macros(code, &mut found);
        for (_, tokens) in found.into_iter().filter(|(name, _)| name == "info_span") {
            let tokens: Vec<_> = tokens.into_iter().collect();
            let comma = tokens.iter().position(
                |token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','),
            );
            let rest = tokens.into_iter().skip(comma.expect("the target") + 1);
            let (fields, name) = arguments(rest.collect());
            let fields = fields
                .into_iter()
                .filter(|field| !OTEL.contains(&field.as_str()));
            spans.insert(vec![
                name.expect("it has a name"),
                fields.collect::<Vec<_>>().join(", "),
            ]);
        }
    }
    let documented = table(&page(), "## Spans").into_iter();
    let documented = documented.map(|row| vec![names(&row[0]), names(&row[3])]);
    compare("spans", spans, documented.collect(), 4);
}

/// The arguments of each `Metric::new(..)`.
fn declared(code: TokenStream, found: &mut Vec<TokenStream>) {
    let tokens: Vec<_> = code.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            let is_new = at >= 4
                && tokens[at - 1].to_string() == "new"
                && tokens[at - 4].to_string() == "Metric";
            if is_new {
                found.push(group.stream());
            }
            declared(group.stream(), found);
        }
    }
}

/// The metrics as the code declares them: name, kind, unit, attributes, meaning.
pub(crate) fn metrics() -> BTreeSet<Line> {
    let mut metrics = BTreeSet::new();
    let text = std::fs::read_to_string(root().join("src/telemetry/names.rs"));
    let text = text.expect("it is there");
    let constant = |name: &str| {
        let declared = format!("const {name}: &str = \"");
        let (_, rest) = text.split_once(&declared).expect("it is a constant");
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let file = syn::parse_file(&text).expect("it is Rust");
    let mut found = Vec::new();
    declared(file.to_token_stream(), &mut found);
    for tokens in found {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let is_comma =
            |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
        let arguments: Vec<_> = tokens.split(is_comma).collect();
        let last = |at: usize| arguments[at].last().expect("it is there");
        let kind = match last(1).to_string().as_str() {
            "Counter" => "counter",
            "Gauge" => "gauge",
            _ => "histogram",
        };
        let attributes = [4, 5].map(|at| constant(&last(at).to_string()));
        let mut attributes: Vec<_> = attributes
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect();
        attributes.sort();
        metrics.insert(vec![
            literal(last(2)).expect("a name"),
            kind.to_owned(),
            literal(last(3)).expect("a unit"),
            attributes.join(", "),
            literal(last(6)).expect("a description"),
        ]);
    }
    metrics
}

#[test]
fn each_metric_is_documented_with_its_kind_unit_and_attributes() {
    let documented = table(&page(), "## Metrics").into_iter();
    let documented = documented.map(|row| {
        vec![
            names(&row[0]),
            row[1].clone(),
            row[2].clone(),
            names(&row[3]),
            row[4].clone(),
        ]
    });
    compare("metrics", metrics(), documented.collect(), 15);
}

/// The words of a query, or of a whole file of queries, that are names of metrics or labels.
fn words(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    let prefixes = ["pgqrs_", "messaging_", "db_client_", "error_"];
    words
        .filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn alerts_and_dashboard_name_only_metrics_and_labels_that_exist() {
    assert_eq!(
        words("rate(pgqrs_lease_lost{error_type!=\"\"}[5m])"),
        BTreeSet::from(["pgqrs_lease_lost", "error_type"].map(str::to_owned))
    );
    // As exporters for Prometheus write them.
    let plain = |name: &str| name.replace('.', "_");
    let mut known = BTreeSet::from(["error_type".to_owned()]);
    let mut names = BTreeSet::new();
    for metric in metrics() {
        let name = plain(&metric[0]);
        if metric[1] == "histogram" {
            known.extend(["bucket", "count", "sum"].map(|part| format!("{name}_{part}")));
        } else {
            known.insert(name.clone());
        }
        names.insert(name);
        known.extend(metric[3].split(", ").map(plain));
    }
    let mut shown = BTreeSet::new();
    for file in ["docs/alerts.yml", "docs/grafana.json"] {
        let text = std::fs::read_to_string(root().join(file)).expect("it is there");
        for word in words(&text) {
            assert!(known.contains(&word), "{file}: there is no `{word}`");
            shown.insert(word);
        }
    }
    let alerts = std::fs::read_to_string(root().join("docs/alerts.yml")).expect("it is there");
    let operating = std::fs::read_to_string(root().join("docs/guide/operating.md"));
    let operating = operating.expect("it is there");
    for alert in alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(
            operating.contains(&format!("| `{alert}` |")),
            "{alert} is not explained"
        );
    }
    // And the dashboard shows all of them.
    for name in names {
        assert!(
            shown.iter().any(|word| word.starts_with(&name)),
            "docs/grafana.json doesn't show `{name}`"
        );
    }
    let dashboard = std::fs::read_to_string(root().join("docs/grafana.json"));
    let dashboard: serde_json::Value =
        serde_json::from_str(&dashboard.expect("it is there")).expect("it is JSON");
    assert!(
        dashboard["panels"]
            .as_array()
            .is_some_and(|panels| panels.len() >= 8)
    );
}
