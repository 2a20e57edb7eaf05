//! What several statements say alike. `query!` takes one text, so it is repeated, and held equal here.

use crate::files;

/// The statements, as sqlx has checked them.
fn statements() -> Vec<String> {
    files(".sqlx", "json")
        .iter()
        .map(|(path, text)| {
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix("\"query\": \""))
                .unwrap_or_else(|| panic!("{}: no query", path.display()));
            let text = line.trim_end_matches([',', '"']);
            text.replace("\\n", "\n").replace("\\\"", "\"")
        })
        .collect()
}

/// The parts of a statement, without comments, casts of parameters, and their numbers: `$3::bigint` is `$`.
fn tokens(statement: &str) -> Vec<String> {
    let code: String = statement
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let is_word = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '.' | '$');
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first == '\'' {
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else if is_word(first) {
            rest.find(|letter| !is_word(letter)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        rest = after.trim_start();
        // A parameter, or the column of an array of them.
        let is_value = token.starts_with('$') || token.starts_with("e.");
        if is_value {
            tokens.push("$".to_owned());
            if let Some(cast) = rest.strip_prefix("::") {
                let end = cast.find(|letter| !is_word(letter)).unwrap_or(cast.len());
                rest = cast[end..].trim_start();
            }
        } else {
            tokens.push(token.to_owned());
        }
    }
    tokens
}

fn read(text: &str) -> String {
    tokens(text).join(" ")
}

/// Each call of a function, or subquery, that begins so, up to its closing bracket.
fn calls(statement: &str, beginning: &str) -> Vec<String> {
    let (tokens, beginning) = (tokens(statement), tokens(beginning));
    let starts = tokens
        .windows(beginning.len())
        .enumerate()
        .filter(|(_, window)| *window == beginning)
        .map(|(start, _)| start);
    let call = |start: usize| {
        let mut depth = 0;
        let mut end = start;
        while let Some(token) = tokens.get(end) {
            end += 1;
            match token.as_str() {
                "(" => depth += 1,
                ")" if depth == 1 => break,
                ")" => depth -= 1,
                _ => {}
            }
        }
        tokens[start..end].join(" ")
    };
    starts.map(call).collect()
}

#[test]
fn parameters_are_alike_whatever_their_numbers_and_casts() {
    let statement = "select greatest($3::timestamptz, -- why\n  now()) + e.delay, 'a  b' from q";
    assert_eq!(
        read(statement),
        "select greatest ( $ , now ( ) ) + $ , 'a  b' from q"
    );
    assert_eq!(calls(statement, "greatest("), ["greatest ( $ , now ( ) )"]);
}

/// Counted from the statement, since a transaction may have begun long ago; and never in the past, since claims have
/// read on from there.
#[test]
fn a_message_becomes_visible_at_the_same_time_whichever_statement_sends_it() {
    const VISIBLE: &str = "greatest($1, statement_timestamp() + $2 * interval '1 microsecond')";
    let mut found = 0;
    for statement in statements() {
        if !read(&statement).contains("pgqrs.messages") {
            continue;
        }
        let mut times = calls(&statement, "greatest($");
        times.retain(|time| time.contains("timestamp"));
        for time in &times {
            assert_eq!(*time, read(VISIBLE), "in\n{statement}");
        }
        found += times.len();
        let inserts = read(&statement).contains(&read("insert into pgqrs.messages ("));
        let requeues = statement.contains("delete from pgqrs.dead_letters");
        // Schedules send at once.
        let fires = statement.contains("pgqrs.schedules");
        assert!(
            !inserts || requeues || fires || !times.is_empty(),
            "a send without `{VISIBLE}`:\n{statement}"
        );
    }
    assert!(found >= 7, "only {found} statements set the time");
}

#[test]
fn through_a_suspended_worker_no_statement_finds_the_queue() {
    const READY: &str = "exists (
        select from pgqrs.workers w where w.id = $1 and w.queue_id = q.id and w.status = 'ready'
    )";
    let mut found = 0;
    for statement in statements() {
        let conditions = calls(&statement, "exists (select from pgqrs.workers w");
        for condition in &conditions {
            assert_eq!(*condition, read(READY), "in\n{statement}");
        }
        found += conditions.len();
        // The statement for other drivers returns the reason instead.
        let has_reason = statement.contains("as refusal");
        let has_producer = read(&statement).contains("enqueued_at , producer_id")
            && !statement.contains("delete from pgqrs.dead_letters");
        let sends = read(&statement).contains(&read("insert into pgqrs.messages ("));
        assert!(
            !(sends && has_producer) || has_reason || !conditions.is_empty(),
            "a send through a worker of any state:\n{statement}"
        );
    }
    assert!(found >= 4, "only {found} statements read a worker's state");
}

#[test]
fn a_message_that_moves_keeps_the_same_columns_wherever_it_goes() {
    const COLUMNS: &str =
        "queue_id, id, priority, enqueued_at, attempt, producer_id, consumer_id, max_attempts, unique_key, waiting_key,
        headers, payload";
    let values = COLUMNS.replace("consumer_id", "nullif(consumer_id, 0)");
    let mut found = 0;
    for statement in statements() {
        let code = read(&statement);
        for table in ["archive", "dead_letters"] {
            let Some((_, columns)) =
                code.split_once(&read(&format!("insert into pgqrs.{table} (")))
            else {
                continue;
            };
            let columns = columns.trim_start();
            assert!(columns.starts_with(&read(COLUMNS)), "in\n{statement}");
            let (_, selected) = columns.split_once(") select ").expect("it moves rows");
            assert!(selected.starts_with(&read(&values)), "in\n{statement}");
            // And its group, if it may have one.
            let has_group = code.contains("pgqrs.settle_groups");
            let continues = columns[read(COLUMNS).len()..].trim_start();
            assert_eq!(
                continues.starts_with(", group_key"),
                has_group,
                "in\n{statement}"
            );
            found += 1;
        }
    }
    assert!(found >= 3, "only {found} statements move messages");
}
