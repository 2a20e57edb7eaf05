//! What the crate promises, against a real PostgreSQL. A file for each public verb or role; each test has
//! a database of its own.
//!
//! `cargo xtask test` starts the server. To use another one, set `DATABASE_URL` to a superuser's.

mod admin;
mod adversary;
mod cancel;
mod citus;
mod clock;
mod consumer;
mod delivery;
mod dequeue;
mod enqueue;
mod errors;
mod examples;
mod faults;
mod flow;
mod grants;
mod groups;
mod headers;
mod health;
mod histories;
mod import;
mod install;
mod limits;
mod max_running;
mod model;
mod observe;
mod payload;
mod pgbouncer;
mod plans;
mod queues;
mod rates;
mod schedules;
mod sends;
mod specification;
mod stats;
mod store;
mod support;
mod telemetry;
mod testing;
mod tls;
mod torture;
mod trace_context;
mod unique;
mod wire;
mod worker;
