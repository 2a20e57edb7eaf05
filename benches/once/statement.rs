//! The library's statements that store messages, read from its source, so that none of them is a copy. A test in
//! `xtask/tests/house.rs` checks that they are found.

const SOURCE: &str = include_str!("../../src/postgres/writers.rs");

/// The statement in this function of `src/postgres/writers.rs`.
pub(crate) fn of(function: &str) -> Option<&'static str> {
    let (_, body) = SOURCE.split_once(&format!("async fn {function}("))?;
    let (_, statement) = body.split_once("sqlx::query!(\n        \"")?;
    let (statement, _) = statement.split_once("\",\n")?;
    Some(statement)
}

/// The same statement without the writer's row: the update that advances it becomes a select. The parameters keep their
/// numbers.
pub(crate) fn without_row(statement: &str) -> Option<String> {
    let (before, rest) = statement.split_once("update pgqrs.writers w set sequence = $2")?;
    let (from, rest) = rest.split_once("returning")?;
    let (from_queue, conditions) = from.split_once("w.token = $1 and w.sequence < $2 and ")?;
    let (columns, after) = rest.split_at(end_of_parentheses(rest)?);
    Some(format!(
        "{before}select {columns} {from_queue}{conditions}{after}"
    ))
}

/// The position of the first parenthesis that closes more than was opened.
fn end_of_parentheses(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(place, character)| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        (depth < 0).then_some(place)
    })
}
