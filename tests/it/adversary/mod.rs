//! Hostile conditions, on a real PostgreSQL.

mod edges;
mod pace;
mod reasons;
mod settling;
