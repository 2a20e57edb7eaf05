//! Every SQL statement of the crate: a file a table, a function a statement. For the layers above, which
//! name what they want and never see SQL. Each statement is a `query!`, held against `.sqlx` when the
//! crate is compiled: after a change here, run `cargo xtask prepare`.

pub(crate) mod archive;
pub(crate) mod claim;
pub(crate) mod dead_letters;
pub(crate) mod grants;
pub(crate) mod messages;
pub(crate) mod queues;
pub(crate) mod schema;
pub(crate) mod session;
pub(crate) mod settle;
mod sqlstate;
pub(crate) mod statement;
pub(crate) mod workers;
pub(crate) mod writers;
