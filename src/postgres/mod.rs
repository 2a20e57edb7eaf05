//! Every SQL statement of the crate: a file for each verb or table, a function for each statement. The layers above call these
//! functions and contain no SQL. Each statement is a `query!`, checked against `.sqlx` when the crate is compiled:
//! after a change here, run `cargo xtask prepare`.

pub(crate) mod archive;
pub(crate) mod claim;
pub(crate) mod columns;
pub(crate) mod dead;
pub(crate) mod dead_letters;
pub(crate) mod grants;
pub(crate) mod groups;
pub(crate) mod health;
pub(crate) mod insert;
mod json;
pub(crate) mod keyed;
pub(crate) mod messages;
pub(crate) mod queues;
pub(crate) mod retention;
#[cfg(feature = "schedules")]
pub(crate) mod schedules;
pub(crate) mod schema;
pub(crate) mod search;
pub(crate) mod session;
pub(crate) mod settle;
mod sqlstate;
pub(crate) mod statement;
pub(crate) mod stats;
pub(crate) mod test_statement;
#[cfg(feature = "testing")]
pub(crate) mod testing;
pub(crate) mod visible;
pub(crate) mod workers;
pub(crate) mod writers;
