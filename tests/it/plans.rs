//! The plans of the statements that find messages: by primary key, by ctid or along the order of delivery, and never by
//! reading a queue, whatever the statistics say. A connection keeps a plan, so one that was made while the table was empty
//! must be a good one when it isn't any more.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::support::{TestResult, url, with_queues};

/// Those that are about all messages of a queue or a worker, and read them.
const READ_A_QUEUE: [&str; 8] = [
    // finds no message
    "set (fillfactor",
    // admin's page of messages, which may sort what follows
    "order by m.id limit $3",
    // delete_queue
    "lock table pgqrs.messages",
    "select count(*) from pgqrs.messages m where m.queue_id = q.id) as messages",
    // exact_queue_stats
    "count(m.id) filter",
    // purge
    "purged as",
    // what a worker holds, and its release
    "from pgqrs.workers w left join pgqrs.messages",
    "select id, queue_id from pgqrs.workers where id = $1",
];

/// Helpers of tests, whose queues are small.
const OF_TESTS: [&str; 2] = [
    include_str!("../../src/postgres/testing.rs"),
    include_str!("../../src/postgres/test_statement.rs"),
];

/// The statements of the library on `pgqrs.messages`, with the types of their parameters.
fn statements() -> BTreeMap<String, (String, Vec<String>)> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let mut statements = BTreeMap::new();
    for entry in fs::read_dir(cache).expect("it is checked in") {
        let text = fs::read_to_string(entry.expect("readable").path()).expect("text");
        let described: Value = serde_json::from_str(&text).expect("JSON");
        let query = described["query"].as_str().expect("a query").to_owned();
        let words = query.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_on_messages = words.contains("pgqrs.messages ") || words.contains("pgqrs.messages(");
        let is_of_tests = OF_TESTS.iter().any(|file| file.contains(&query));
        if !is_on_messages || is_of_tests || READ_A_QUEUE.iter().any(|part| words.contains(part)) {
            continue;
        }
        let types = described["describe"]["parameters"]["Left"].as_array();
        let types = types.expect("types").iter();
        let types = types.map(|name| name.as_str().expect("a name").to_owned());
        let hash = described["hash"].as_str().expect("a hash");
        statements.insert(format!("s{}", &hash[..12]), (query, types.collect()));
    }
    statements
}

/// PostgreSQL's name for a type, and a value of it: ids and tokens of a hundred messages.
fn typed(name: &str, queue_id: i32) -> (&'static str, String) {
    let array = |values: &dyn Fn(i32) -> String| {
        let values: Vec<_> = (1..=100).map(values).collect();
        format!("'{{{}}}'", values.join(","))
    };
    match name {
        "Text" => ("text", "'tasks'".to_owned()),
        "Bool" => ("boolean", "false".to_owned()),
        "Int2" => ("smallint", "0".to_owned()),
        "Int4" => ("integer", queue_id.to_string()),
        "Int8" => ("bigint", "100".to_owned()),
        "Timestamptz" => ("timestamptz", "now()".to_owned()),
        "Json" => ("json", "'{}'".to_owned()),
        "Bytea" => ("bytea", r"'\x01'".to_owned()),
        "TextArray" => ("text[]", array(&|_| "tasks".to_owned())),
        "Int2Array" => ("smallint[]", "'{0,1,2,3}'".to_owned()),
        "Int4Array" => ("integer[]", array(&|_| queue_id.to_string())),
        "Int8Array" => ("bigint[]", array(&|n| n.to_string())),
        "TimestamptzArray" => (
            "timestamptz[]",
            "'{1970-01-01,1970-01-01,1970-01-01,1970-01-01}'".to_owned(),
        ),
        "BoolArray" => ("boolean[]", array(&|_| "false".to_owned())),
        "ByteaArray" => ("bytea[]", array(&|_| r#""\\\\x01""#.to_owned())),
        "JsonArray" => ("json[]", array(&|_| "\"{}\"".to_owned())),
        other => panic!("a parameter of type {other}: add it here"),
    }
}

/// What is wrong with a plan, line by line.
fn faults(plan: &[String], counts: bool) -> Vec<&str> {
    let lines = plan.iter().map(|line| line.trim());
    let conditions = lines.clone().skip(1).chain([""]);
    lines
        .zip(conditions)
        .filter(|(line, condition)| {
            let is_on_messages = line.contains("Scan") && line.contains(" on messages")
                || line.contains("Bitmap Index Scan on messages");
            let is_by_id = condition.contains("(id = ") || condition.contains("(id > ");
            let is_good = line.contains("Tid Scan on messages")
                || (line.contains("messages_pkey") || line.contains("Bitmap Heap Scan"))
                    && is_by_id
                || line.contains("using messages_unique_key")
                    && condition.contains("(unique_key = ")
                || line.contains("using messages_waiting_key")
                    && condition.contains("(waiting_key = ")
                || line.contains("using messages_parked") && condition.contains("(group_key = ")
                || line.contains("using messages_ready")
                    && (condition.contains("(ROW(visible_at, id) > ROW(")
                        || condition.contains("(ROW(visible_at, id) < ROW("));
            // Dead letters are only counted.
            let is_on_dead = line.contains("Scan") && line.contains(" on dead_letters");
            let is_counted =
                line.contains("dead_letters_pkey") && condition.contains("(queue_id = ");
            let is_on_keys = line.contains("Seq Scan on seen");
            is_on_messages && !is_good || is_on_keys || counts && is_on_dead && !is_counted
        })
        .map(|(line, _)| line)
        .collect()
}

async fn check(connection: &mut PgConnection, state: &str, queue_id: i32) -> TestResult {
    let mut found = Vec::new();
    for (name, (query, types)) in statements() {
        let typed: Vec<_> = types.iter().map(|name| typed(name, queue_id)).collect();
        let arguments: Vec<_> = typed.iter().map(|(_, value)| &**value).collect();
        let explain = format!(
            "explain (costs off) execute {name}({})",
            arguments.join(", ")
        );
        // As `session::search` does.
        let searches = query.contains("row_number()");
        let set = if searches { "off" } else { "default" };
        let set = format!(
            "set enable_bitmapscan = {set}; set enable_seqscan = {set}; set enable_sort = {set}"
        );
        sqlx::raw_sql(AssertSqlSafe(set))
            .execute(&mut *connection)
            .await?;
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
            .fetch_all(&mut *connection)
            .await?;
        let sorts = plan.iter().any(|line| line.trim().starts_with("->  Sort"));
        assert!(
            !(searches && sorts),
            "{state}: it reads more than it returns\n{}",
            plan.join("\n")
        );
        // Of an empty table, all is read, until it is analysed again.
        let counts = query.contains("count(*) as letters") && !state.ends_with("vacuumed");
        let faults = faults(&plan, counts);
        if !faults.is_empty() {
            let plan = plan.join("\n");
            found.push(format!("{state}: {faults:?}\n{plan}\n{query}"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n\n"));
    Ok(())
}

async fn prepare(connection: &mut PgConnection, mode: &str) -> TestResult {
    let set = format!("set plan_cache_mode = {mode}");
    sqlx::raw_sql(AssertSqlSafe(set))
        .execute(&mut *connection)
        .await?;
    for (name, (query, types)) in statements() {
        let types: Vec<_> = types.iter().map(|name| typed(name, 0).0).collect();
        let prepare = format!("prepare {name}({}) as {query}", types.join(", "));
        sqlx::raw_sql(AssertSqlSafe(prepare))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn grow(pool: &PgPool, messages: i32) -> TestResult {
    sqlx::query(
        "insert into pgqrs.messages (queue_id, priority, visible_at, lease_token, payload)
         select id, n % 4, now() - n * interval '1 second', n, '{}' from pgqrs.queues, generate_series(1, $1) n",
    )
    .bind(messages)
    .execute(pool)
    .await?;
    sqlx::query(
        "insert into pgqrs.dead_letters (queue_id, id, priority, enqueued_at, attempt, payload, reason)
         select m.queue_id, m.id, 0, now(), 1, '{}', '' from pgqrs.messages m on conflict do nothing",
    )
    .execute(pool)
    .await?;
    Ok(())
}

#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn no_statement_that_finds_messages_reads_a_queue(pool: PgPool) -> TestResult {
    assert!(statements().len() > 15, "the hot statements are among them");
    with_queues(&pool, &["tasks"]).await?;
    // Only this test is to say when there are statistics.
    sqlx::raw_sql(
        "alter table pgqrs.messages set (autovacuum_enabled = off);
         alter table pgqrs.dead_letters set (autovacuum_enabled = off)",
    )
    .execute(&pool)
    .await?;
    let queue_id: i32 = sqlx::query_scalar("select id from pgqrs.queues")
        .fetch_one(&pool)
        .await?;
    let url = url(&pool);
    let modes = ["force_generic_plan", "force_custom_plan", "auto"];
    let mut kept = Vec::new();
    for mode in modes {
        let mut connection = PgConnection::connect(&url).await?;
        prepare(&mut connection, mode).await?;
        check(&mut connection, &format!("{mode}, empty"), queue_id).await?;
        kept.push((mode, connection));
    }
    grow(&pool, 20_000).await?;
    for (mode, connection) in &mut kept {
        check(
            connection,
            &format!("{mode}, planned while empty"),
            queue_id,
        )
        .await?;
        let mut new = PgConnection::connect(&url).await?;
        prepare(&mut new, mode).await?;
        check(&mut new, &format!("{mode}, never analysed"), queue_id).await?;
    }
    sqlx::query("analyze").execute(&pool).await?;
    grow(&pool, 100_000).await?;
    for (mode, connection) in &mut kept {
        check(connection, &format!("{mode}, freshly grown"), queue_id).await?;
    }
    sqlx::query("analyze").execute(&pool).await?;
    for (mode, connection) in &mut kept {
        check(connection, &format!("{mode}, large"), queue_id).await?;
    }
    // And what vacuum leaves of an empty table has plans as good.
    sqlx::raw_sql("delete from pgqrs.messages; delete from pgqrs.dead_letters")
        .execute(&pool)
        .await?;
    sqlx::raw_sql("vacuum analyze pgqrs.messages, pgqrs.dead_letters")
        .execute(&pool)
        .await?;
    for mode in modes {
        let mut connection = PgConnection::connect(&url).await?;
        prepare(&mut connection, mode).await?;
        check(&mut connection, &format!("{mode}, vacuumed"), queue_id).await?;
    }
    Ok(())
}
