//! What the command does and prints: each test runs it against a real PostgreSQL, in a database of its own.
//!
//! `cargo xtask test` starts the server. To use another one, set `DATABASE_URL` to a superuser's.

mod dead;
mod errors;
mod groups;
mod interactive;
mod manual;
mod messages;
mod page;
mod queues;
mod quickstart;
mod schedules;
mod schema;
mod send;
mod support;
mod tail;
mod terminal;
mod top;
mod web;
mod workers;
